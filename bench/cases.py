"""Single audits of each behaviour, through the real comparator: what the long runs of `bench.verdict_runs` draw from.

Each case is one answer of an executor, the positions that were drawn for it, and what a first auditor, and where it is
asked a third node, make of it. Cases of real models are read from a file (`bench.real_cheats` writes it); what that has
not are made with a model of words.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.behaviours import Actor, Models
from bench.token_model import NOISE_HONEST, Prompt, any_prompt
from parallelix.engine.comparators import Comparator, comparator_for
from parallelix.engine.verdicts import AskSecond, AskThird, Ends, RunWhole, ruling
from parallelix.protocol.calibration import DEFAULT_CARD, Card
from parallelix.protocol.spot_check import Claim, Finding, Outcome, compare_answers

REAL_CASES = Path(__file__).resolve().parent.parent / "docs" / "data" / "audit-cases.json"
EXECUTOR, AUDITOR, THIRD = 1, 2, 3


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One audit. Outcomes that were not needed are None."""

    completion_tokens: int
    prompt_tokens: int
    positions: int
    usable: int
    distance: float
    reason: str
    first: Outcome
    unprobed: bool = False
    """The executor's own numbers left nothing to ask for."""
    second: Outcome | None = None
    """Of another auditor, where the first found nothing to compare."""
    whole: Outcome | None = None
    """Of the unit run again, where neither did."""
    third: Outcome | None = None
    between: Outcome | None = None
    """The third node's answer against the first auditor's."""

    def end(self) -> Ends:
        """What the engine makes of it, with every node at hand."""
        step = RunWhole() if self.unprobed else ruling("first", self.first)
        if isinstance(step, AskSecond):
            assert self.second is not None, self
            step = ruling("second", self.second)
        if isinstance(step, RunWhole):
            assert self.whole is not None, self
            step = ruling("whole", self.whole)
        if isinstance(step, AskThird):
            assert self.third is not None, self
            step = ruling("third", self.third, self.between)
        assert isinstance(step, Ends), step
        return step


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """Who plays which part in an audit; behaviours by their names."""

    executor: str = "honest"
    auditor: str = "honest"
    third: str = "honest"
    in_league: tuple[int, ...] = ()
    """Those of auditor (2) and third node (3) that repeat whatever the executor claims."""
    noise: float = NOISE_HONEST


# The behaviours of one node, with everybody else honest; and those that need a partner.
CASTS: dict[str, Cast] = {
    "honest": Cast(),
    "smaller_model": Cast(executor="smaller_model"),
    "other_model": Cast(executor="other_model"),
    "replayed": Cast(executor="replayed"),
    "canned": Cast(executor="canned"),
    "truncated": Cast(executor="truncated"),
    "noise": Cast(executor="noise"),
    "written_by_smaller": Cast(executor="written_by_smaller"),
    "miscounted": Cast(executor="miscounted"),
    "silent": Cast(executor="silent"),
    "quantised": Cast(executor="quantised"),
    "lazy_auditor": Cast(auditor="lazy_auditor"),
    "lazy_small_auditor": Cast(auditor="lazy_small_auditor"),
    "colluding_auditor": Cast(executor="colluding", in_league=(AUDITOR,)),
    "colluding_third": Cast(executor="colluding", in_league=(THIRD,)),
    "colluding_both": Cast(executor="colluding", in_league=(AUDITOR, THIRD)),
}


@dataclass(slots=True)
class Trio:
    """The three nodes of one cast, with models of their own noise."""

    executor: Actor
    auditor: Actor
    third: Actor
    cast: Cast


def actors_of(cast_: Cast, seed: int) -> Trio:
    def actor(name: str, number: int) -> Actor:
        chance = random.Random(f"{seed}/{number}")
        partners = frozenset({EXECUTOR}) if number in cast_.in_league else frozenset[int]()
        return Actor(name=name, models=Models(chance, cast_.noise), chance=chance, partners=partners)

    return Trio(actor(cast_.executor, EXECUTOR), actor(cast_.auditor, AUDITOR), actor(cast_.third, THIRD), cast_)


def make(
    name: str,
    count: int,
    seed: int,
    *,
    card: Card = DEFAULT_CARD,
    said: Callable[[int], None] = lambda _: None,
) -> list[Case]:
    """So many audits of the cast of that name."""
    stage, chance = actors_of(CASTS[name], seed), random.Random(f"{name}/{seed}")
    cases: list[Case] = []
    for number in range(count):
        cases.append(_case(stage, any_prompt(chance), chance, card))
        said(number)
    return cases


def _case(stage: Trio, prompt: Prompt, chance: random.Random, card: Card) -> Case:
    claim, _ = stage.executor.execute(prompt)
    comparator = comparator_for(claim)
    probes = comparator.probes(claim, chance.randbytes)
    if probes is None:
        return _whole(stage, prompt, claim, comparator, card, None)
    answer = stage.auditor.audit(prompt, probes, EXECUTOR, claim)
    found = comparator.judge(claim, probes, answer, card)
    second: Outcome | None = None
    if found.outcome == "unusable":
        answer = stage.third.audit(prompt, probes, EXECUTOR, claim)
        second = comparator.judge(claim, probes, answer, card).outcome
        if second == "unusable":
            return _whole(stage, prompt, claim, comparator, card, found)
    if "agree" in (found.outcome, second):
        return _found(prompt, claim, found, second=second)
    other = stage.third.audit(prompt, probes, EXECUTOR, claim)
    return _found(
        prompt,
        claim,
        found,
        second=second,
        third=comparator.judge(claim, probes, other, card).outcome,
        between=compare_answers(answer, other, probes, card).outcome,
    )


def _whole(
    stage: Trio, prompt: Prompt, claim: Claim, comparator: Comparator, card: Card, found: Finding | None
) -> Case:
    """The unit run again by the auditor, and where that differs in what can be told, by the third."""
    rerun, _ = stage.auditor.execute(prompt)
    whole = comparator.judge_rerun(claim, rerun, card)
    first, second = found or Finding(outcome="unusable", reason="no_position"), found and found.outcome
    if whole.outcome != "disagree":
        return _found(prompt, claim, first, unprobed=found is None, second=second, whole=whole.outcome)
    other, _ = stage.third.execute(prompt)
    return _found(
        prompt,
        claim,
        first,
        unprobed=found is None,
        second=second,
        whole="disagree",
        third=comparator.judge_rerun(claim, other, card).outcome,
        between=comparator.judge_rerun(rerun, other, card).outcome,
    )


def _found(
    prompt: Prompt,
    claim: Claim,
    found: Finding,
    *,
    unprobed: bool = False,
    second: Outcome | None = None,
    whole: Outcome | None = None,
    third: Outcome | None = None,
    between: Outcome | None = None,
) -> Case:
    return Case(
        completion_tokens=claim.completion_tokens,
        prompt_tokens=prompt.tokens,
        positions=found.usable + found.unusable,
        usable=found.usable,
        distance=found.distance,
        reason=found.reason,
        first=found.outcome,
        unprobed=unprobed,
        second=second,
        whole=whole,
        third=third,
        between=between,
    )
