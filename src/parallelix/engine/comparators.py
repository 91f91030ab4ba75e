"""How two results of one unit are compared, by what kind of work it is. Pure.

exact       the same canonical bytes. On inference it may acquit and never convict
logprob     inference: a spot check of log-probabilities (`protocol.spot_check`)
tolerance   numbers: embeddings, and later frames, within a stated bound
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from parallelix.protocol.calibration import Card
from parallelix.protocol.spot_check import Answer, Claim, Finding, RandomBytes
from parallelix.protocol.work import Probes

ComparatorName: TypeAlias = Literal["exact", "logprob", "tolerance"]


class Comparator(Protocol):
    name: ComparatorName

    def probes(self, claim: Claim, random_bytes: RandomBytes) -> Probes | None:
        """What to ask an auditor; None to have the unit run again whole."""
        ...

    def judge(self, claim: Claim, probes: Probes, answer: Answer, card: Card) -> Finding:
        """An auditor's answer to `probes` against the executor's claim."""
        ...

    def judge_rerun(self, claim: Claim, rerun: Claim, card: Card) -> Finding:
        """A second whole run against the first: `agree`, `disagree`, or `unusable` where it can only acquit."""
        ...


def comparator_for(claim: Claim) -> Comparator:
    raise NotImplementedError
