"""How two results of one unit are compared, by what kind of work it is. Pure.

exact       the same canonical bytes. On inference it may acquit and never convict
logprob     inference: a spot check of log-probabilities (`protocol.spot_check`)
tolerance   numbers: embeddings, and later frames, within a stated bound
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from parallelix.protocol import spot_check
from parallelix.protocol.calibration import Card
from parallelix.protocol.errors import Malformed
from parallelix.protocol.spot_check import BASE_TOKENS, RERUN_UNAUDITABLE, Answer, Claim, Finding, RandomBytes
from parallelix.protocol.work import Probes, unpack_vector

ComparatorName: TypeAlias = Literal["exact", "logprob", "tolerance"]

EMBEDDING_ERROR_MAX = 0.02
"""Length of the difference of two vectors by the length of the longer. Other hardware moves a vector by a tenth of it,
four bits instead of eight by several times it."""


class Comparator(Protocol):
    @property
    def name(self) -> ComparatorName: ...

    def probes(self, claim: Claim, random_bytes: RandomBytes) -> Probes | None:
        """What to ask an auditor; None to have the unit run again whole."""
        ...

    def judge(self, claim: Claim, probes: Probes, answer: Answer, card: Card) -> Finding:
        """An auditor's answer to `probes` against the executor's claim."""
        ...

    def judge_rerun(self, claim: Claim, rerun: Claim, card: Card) -> Finding:
        """A second whole run against the first: `agree`, `disagree`, or `unusable` where it can only acquit."""
        ...


class Exact:
    """Equal bytes acquit. Unequal ones say nothing where sampling or hardware may differ."""

    name: ComparatorName = "exact"

    def probes(self, claim: Claim, random_bytes: RandomBytes) -> Probes | None:
        return None

    def judge(self, claim: Claim, probes: Probes, answer: Answer, card: Card) -> Finding:
        return Finding(outcome="unusable", reason="not_probed", detail="it compares whole runs only")

    def judge_rerun(self, claim: Claim, rerun: Claim, card: Card) -> Finding:
        if claim.content and claim.content == rerun.content:
            return Finding(outcome="agree", reason="equal")
        return Finding(outcome="unusable", reason="rerun_differs", detail="the second run gave other bytes")


class LogProb(Exact):
    """The spot check; a whole run where nothing of an answer can be probed."""

    name: ComparatorName = "logprob"

    def probes(self, claim: Claim, random_bytes: RandomBytes) -> Probes | None:
        return spot_check.choose_probes(claim, random_bytes)

    def judge(self, claim: Claim, probes: Probes, answer: Answer, card: Card) -> Finding:
        return spot_check.compare(claim, probes, answer, card)

    def judge_rerun(self, claim: Claim, rerun: Claim, card: Card) -> Finding:
        """How long a prompt is does not hang on chance, so that a wrong count convicts here too. Where the second run
        cannot be probed either, or might as well not, that is the request's doing and not its executor's."""
        found = spot_check.compare_base(claim, rerun.prompt_tokens) or super().judge_rerun(claim, rerun, card)
        if found.outcome == "unusable" and (spot_check.is_chancy(claim, rerun) or not spot_check.is_auditable(rerun)):
            return msgspec.structs.replace(found, reason=RERUN_UNAUDITABLE)
        return found


class Tolerance:
    """The same numbers within a bound: vectors of the second run beside those of the first."""

    name: ComparatorName = "tolerance"

    def probes(self, claim: Claim, random_bytes: RandomBytes) -> Probes | None:
        return None

    def judge(self, claim: Claim, probes: Probes, answer: Answer, card: Card) -> Finding:
        return Finding(outcome="unusable", reason="not_probed", detail="it compares whole runs only")

    def judge_rerun(self, claim: Claim, rerun: Claim, card: Card) -> Finding:
        if claim.prompt_tokens != rerun.prompt_tokens:
            detail = f"{claim.prompt_tokens} prompt tokens were stated, and the auditor counts {rerun.prompt_tokens}"
            return Finding(outcome="disagree", reason=BASE_TOKENS, detail=detail)
        if len(claim.embeddings) != len(rerun.embeddings):
            detail = f"{len(claim.embeddings)} vectors, and the auditor has {len(rerun.embeddings)}"
            return Finding(outcome="disagree", reason="vector_shape", detail=detail)
        if not claim.embeddings:
            return Finding(outcome="unusable", reason="no_position", detail="neither run has a vector")
        errors = [_error(one, other) for one, other in zip(claim.embeddings, rerun.embeddings, strict=True)]
        worst = max(errors)
        if worst > EMBEDDING_ERROR_MAX:
            detail = f"a vector is off by {worst:.3f} of its length, at most {EMBEDDING_ERROR_MAX}"
            return Finding(
                outcome="disagree", reason="distance", detail=detail, distance=min(1.0, worst), usable=len(errors)
            )
        return Finding(outcome="agree", reason="", distance=worst, usable=len(errors))


def comparator_for(claim: Claim) -> Comparator:
    return Tolerance() if claim.kind == "embedding" else LogProb()


def _error(one: str, other: str) -> float:
    """Length of the difference by the length of the longer, 0 to 2; infinite for what is no vector of numbers."""
    try:
        first, second = unpack_vector(one), unpack_vector(other)
    except Malformed:
        return math.inf
    if len(first) != len(second) or not all(map(math.isfinite, (*first, *second))):
        return math.inf
    longest = max(_length(first), _length(second))
    return _length([x - y for x, y in zip(first, second, strict=True)]) / longest if longest else 0.0


def _length(vector: Sequence[float]) -> float:
    return math.hypot(*vector)
