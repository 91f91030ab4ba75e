"""Many lives of one node under the engine's trust and verdicts alone, with single audits drawn from `bench.cases`.

What the engine does around them (queues, other nodes, timers) is left out, which makes a life of 10,000 requests a few
milliseconds; `bench.population` plays fewer with all of it. A verdict counts from the node's next but one result on.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from bench import intervals
from bench.cases import Case
from parallelix.engine.settings import EngineSettings
from parallelix.engine.trust import Role, Trust
from parallelix.engine.verdicts import Ends

NODE = 1
LAG_UNITS = 2
CURVE_POINTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100, 120, 150, 200, 250, 300, 350, 400, 459, 500)
CURVE_TAIL = (600, 700, 800, 900, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 7_000, 10_000)


class Outcome(msgspec.Struct, frozen=True):
    """Of one audit, for its executor or for its auditor."""

    marks: tuple[tuple[Role, bool], ...]
    passed: bool
    disagreed: bool


def outcomes_of(cases: Sequence[Case], *, auditor: bool = False) -> list[Outcome]:
    """What the verdict on each case says of the executor, or of the auditor."""
    return [_outcome(case.end(), auditor=auditor) for case in cases]


def _outcome(end: Ends, *, auditor: bool) -> Outcome:
    said: list[tuple[Role, str]] = (
        [("auditor", end.auditor)] if auditor else [("executor", end.executor), ("unusable", end.comparable)]
    )
    marks: list[tuple[Role, bool]] = [(role, word == "bad") for role, word in said if word]
    return Outcome(tuple(marks), end.verdict == "agree", end.verdict == "disagree")


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """How many units a node had done when it was removed, None for never, and how many of them were audited."""

    removed_after: int | None
    audited: int


class Deeds(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is found out by: its cheats' outcomes, those of its honest units, and how often it cheats."""

    cheats: Sequence[Outcome]
    honest: Sequence[Outcome]
    share: float = 1.0

    def pick(self, chance: random.Random) -> Outcome:
        return chance.choice(self.cheats if chance.random() < self.share else self.honest)


def executor_life(
    settings: EngineSettings, deeds: Deeds, chance: random.Random, *, settled: bool, units_max: int
) -> Life:
    """One that is new, or `settled`: it passed all audits until it came to the floor, and begins to cheat now."""
    trust = Trust(settings)
    node, audited = trust.of(NODE), 0
    if settled:
        node.passes = 4 * settings.passes_per_rate
    pending: deque[tuple[int, Outcome]] = deque()
    for unit in range(1, units_max + 1):
        while pending and pending[0][0] <= unit:
            if _apply(trust, pending.popleft()[1]):
                return Life(removed_after=unit - 1, audited=audited)
        if chance.random() * 100 < trust.rate_percent(NODE):
            audited += 1
            pending.append((unit + 1 + LAG_UNITS, deeds.pick(chance)))
    return Life(removed_after=None, audited=audited)


def auditor_life(settings: EngineSettings, deeds: Deeds, chance: random.Random, *, units_max: int) -> Life:
    """Units are audits that it answers."""
    trust = Trust(settings)
    for unit in range(1, units_max + 1):
        if _apply(trust, deeds.pick(chance)):
            return Life(removed_after=unit, audited=unit)
    return Life(removed_after=None, audited=units_max)


def honest_life(
    settings: EngineSettings,
    executed: Sequence[Outcome],
    audited: Sequence[Outcome],
    chance: random.Random,
    *,
    requests: int,
) -> Life:
    """A whole life: it executes, and for each of its own results that is audited it audits one of somebody else's.
    Requests that are not drawn are skipped in one stride."""
    trust = Trust(settings)
    unit = audits = 0
    log = math.log
    while True:
        rate = trust.rate_percent(NODE)
        unit += 1 if rate >= 100 else 1 + int(log(1.0 - chance.random()) / log(1.0 - rate / 100))
        if unit > requests:
            return Life(removed_after=None, audited=audits)
        audits += 1
        if _apply(trust, chance.choice(executed)) or _apply(trust, chance.choice(audited), counts=False):
            return Life(removed_after=unit, audited=audits)


def _apply(trust: Trust, outcome: Outcome, *, counts: bool = True) -> bool:
    """As the engine does with a verdict: the rate first, then the evidence. Whether it convicts."""
    rate_percent = trust.rate_percent(NODE)
    if counts:
        node = trust.of(NODE)
        node.passes = node.passes + 1 if outcome.passed else 0
    convicted = False
    for role, bad in outcome.marks:
        convicted |= trust.observe(NODE, role, against=bad, rate_percent=rate_percent)
    return convicted


# Many lives ---------------------------------------------------------------------------------------------------------


class Caught(msgspec.Struct, frozen=True, kw_only=True):
    """What a cheat's lives came to. `share` of them were removed within `within` units; quantiles and the curve are in
    units, a quantile null where it lies beyond `units_max`."""

    runs: int
    units: str
    removed_within: dict[str, float | None]
    within: int
    share: float
    ci95: tuple[float, float]
    units_max: int
    curve: list[tuple[int, float]]
    promised: bool = False

    @property
    def reached(self) -> bool:
        return not self.promised or self.share >= PROMISED_SHARE


PROMISED_SHARE = 0.99
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def caught(
    lives: Sequence[Life], *, within: int, units: str = "requests", units_max: int, promised: bool = False
) -> Caught:
    removed = [math.inf if life.removed_after is None else life.removed_after for life in lives]
    hits = sum(each <= within for each in removed)
    points = [point for point in (*CURVE_POINTS, *CURVE_TAIL) if point <= units_max]
    return Caught(
        runs=len(lives),
        units=units,
        removed_within={name: finite(intervals.quantile(removed, share)) for name, share in QUANTILES.items()},
        within=within,
        share=hits / len(lives),
        ci95=intervals.clopper_pearson(hits, len(lives)),
        units_max=units_max,
        curve=[(point, sum(each <= point for each in removed) / len(lives)) for point in points],
        promised=promised,
    )


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Acquitted(msgspec.Struct, frozen=True, kw_only=True):
    """What honest lives came to. `ci95` ends at the one-sided bound where nobody was convicted."""

    runs: int
    requests: int
    convicted: int
    ci95: tuple[float, float]
    audits: int
    bad_marks_in_audits: float
    """Of the single audits that were drawn from, how many speak against the honest executor or auditor."""


def honest_lives(
    settings: EngineSettings,
    executed: Sequence[Outcome],
    audited: Sequence[Outcome],
    *,
    runs: int,
    requests: int,
    seed: int,
    first: int = 0,
    said: Callable[[int], None] = lambda _: None,
) -> list[Life]:
    lives: list[Life] = []
    for number in range(first, first + runs):
        chance = random.Random(f"honest {seed} {number}")
        lives.append(honest_life(settings, executed, audited, chance, requests=requests))
        said(number)
    return lives


def acquitted(lives: Sequence[Life], executed: Sequence[Outcome], *, requests: int) -> Acquitted:
    convicted = sum(life.removed_after is not None for life in lives)
    low, _ = intervals.clopper_pearson(convicted, len(lives))
    against = sum(any(bad for _, bad in each.marks) for each in executed)
    return Acquitted(
        runs=len(lives),
        requests=requests,
        convicted=convicted,
        ci95=(low, intervals.at_most(convicted, len(lives))),
        audits=sum(life.audited for life in lives),
        bad_marks_in_audits=against / len(executed),
    )


def with_false_alarms(outcomes: Sequence[Outcome], share: float, *, role: Role = "executor") -> list[Outcome]:
    """The same, with `share` of them turned against the node: for what may be true although it was not measured."""
    alarm = Outcome(((role, True),), passed=False, disagreed=role == "executor")
    count = math.ceil(share * len(outcomes) / (1 - share)) if share else 0
    return [*outcomes, *(alarm for _ in range(count))]
