"""The parts of an audit report, each a job of seconds or minutes with a seed of its own: two cores share them, and a
run that was cut off goes on.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench import cases, communities, verdict_runs, visible
from bench.audit_controls import CONTROLS, FALSE_ALARMS
from bench.cases import CASTS, Case
from bench.communities import COMMUNITIES, HonestPlayed, Played
from bench.verdict_runs import Deeds, Life, Outcome
from bench.visible import Indistinct
from parallelix.engine.settings import EngineSettings

SETTINGS = EngineSettings(chain_id=31337)
UNUSABLE_ALARMS = 0.01
"""Of honest answers, how many are taken to be such that nothing in them can be compared, twice over."""
FULL_TIME_WITHIN, NOW_AND_THEN_WITHIN = 90, 459
PROMISED = ("smaller_model", "other_model", "replayed", "canned", "truncated", "noise")
OTHERS = ("written_by_smaller", "miscounted", "silent", "quantised")
REAL_MODELS = Path(__file__).resolve().parent.parent / "docs" / "data" / "real-models.json"
"""What audits of real models find, by `python -m bench.real_cheats`."""
REAL_PROMISED = ("other model", "cut short", "replayed", "noise")
REAL_OTHERS = ("shortened prompt", "four bits", "rescored text")
RARE = ("smaller_model", "other_model", "truncated", "quantised")
LEAGUES = {"colluding 10 %": 0.1, "colluding 30 %": 0.3}
HONEST_PARTS = 6
REAL = "real: "
MIXTURE = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything."""

    honest_cases: int
    cheat_cases: int
    honest_lives: int
    honest_requests: int
    cheat_lives: int
    units_max: int
    communities: int
    honest_communities: int
    community_requests: int
    honest_community_requests: int
    executor_sights: int
    auditor_sights: int
    control_sights: int


WHOLE = Sizes(
    honest_cases=4_000,
    cheat_cases=500,
    honest_lives=3_000,
    honest_requests=10_000,
    cheat_lives=1_000,
    units_max=10_000,
    communities=3,
    honest_communities=20,
    community_requests=900,
    honest_community_requests=3_000,
    executor_sights=10_000,
    auditor_sights=4_000,
    control_sights=800,
)


class Variation(msgspec.Struct, frozen=True, kw_only=True):
    """One way to cheat: how, on what share of its units, and whether only once it has come to the floor."""

    cheat: str
    share: float = 1.0
    settled: bool = False
    promised: bool = False

    @property
    def name(self) -> str:
        often = {1.0: "", 0.2: ", one in five", 0.05: ", one in twenty"}[self.share]
        return f"{self.cheat}{often}{', settled' if self.settled and not self.real else ''}"

    @property
    def real(self) -> bool:
        """Found out as audits of real models are; always settled."""
        return self.cheat.startswith(REAL)

    @property
    def within(self) -> int:
        return FULL_TIME_WITHIN if self.share == 1.0 else NOW_AND_THEN_WITHIN


def variations() -> Iterator[Variation]:
    for cheat in (*PROMISED, *OTHERS, *LEAGUES):
        for settled in (False, True):
            yield Variation(cheat=cheat, settled=settled, promised=cheat in PROMISED)
    for cheat in (*PROMISED, *OTHERS):
        # In the model of words an end is seldom out of place: audits see four in five cut answers there, and of real
        # models nine in ten, which is what the promise is held to.
        promised = cheat in PROMISED and cheat != "truncated"
        yield Variation(cheat=cheat, share=0.2, settled=True, promised=promised)
    for cheat in RARE:
        yield Variation(cheat=cheat, share=0.05, settled=True)
    for share in (1.0, 0.2):
        for arm in (*REAL_PROMISED, *REAL_OTHERS):
            yield Variation(cheat=REAL + arm, share=share, settled=True, promised=arm in REAL_PROMISED)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`run` is a function of this module, so that another process finds it."""

    name: str
    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    result: Any
    """The type that `run` gives."""


# Single audits ------------------------------------------------------------------------------------------------------


def case_jobs(sizes: Sizes, seed: int) -> list[Job]:
    honest = [_case_job("honest", sizes.honest_cases // 4, seed, part) for part in range(4)]
    return [*honest, *(_case_job(name, sizes.cheat_cases, seed, 0) for name in CASTS if name != "honest")]


def _case_job(name: str, count: int, seed: int, part: int) -> Job:
    return Job(
        name=f"audits of {name}" + (f" {part + 1}" if part else ""),
        run=make_cases,
        arguments=(name, count, 1_000 * seed + part),
        result=list[Case],
    )


def make_cases(name: str, count: int, seed: int) -> list[Case]:
    return cases.make(name, count, seed)


class Pools(msgspec.Struct, frozen=True, kw_only=True):
    """What single audits say of an executor and of an auditor, by the name of the cast."""

    executors: dict[str, list[Outcome]]
    auditors: dict[str, list[Outcome]]

    @property
    def honest(self) -> list[Outcome]:
        """With more false alarms than were ever measured."""
        alarmed = verdict_runs.with_false_alarms(self.executors["honest"], FALSE_ALARMS)
        return verdict_runs.with_false_alarms(alarmed, UNUSABLE_ALARMS, role="unusable")

    @property
    def honest_auditors(self) -> list[Outcome]:
        return verdict_runs.with_false_alarms(self.auditors["honest"], FALSE_ALARMS, role="auditor")


def pools_of(made: Mapping[str, Sequence[Case]], seed: int) -> Pools:
    executors = {name: verdict_runs.outcomes_of(each) for name, each in made.items()}
    auditors = {name: verdict_runs.outcomes_of(each, auditor=True) for name, each in made.items()}
    for name, league in LEAGUES.items():
        executors[name] = _covered(executors, league, random.Random(f"{name} {seed}"))
    return Pools(executors=executors | real_pools(), auditors=auditors)


class _Arm(msgspec.Struct):
    """What audits found of one cheat. Where nothing could be compared, the rate goes back to 100 %, and the evidence is
    left out: one account can give it against one node once a day only."""

    arm: str
    audits: int
    disagreed: int
    unusable: int


class _RealModels(msgspec.Struct):
    arms: list[_Arm]


def real_pools() -> dict[str, list[Outcome]]:
    arms = msgspec.json.decode(REAL_MODELS.read_bytes(), type=_RealModels).arms
    return {REAL + each.arm: _pool(each) for each in arms}


def _pool(arm: _Arm) -> list[Outcome]:
    passed = arm.audits - arm.disagreed - arm.unusable
    found = Outcome((("executor", True), ("unusable", False)), passed=False, disagreed=True)
    left_open = Outcome((), passed=False, disagreed=False)
    agreed = Outcome((("executor", False), ("unusable", False)), passed=True, disagreed=False)
    return [*[found] * arm.disagreed, *[left_open] * arm.unusable, *[agreed] * passed]


def _covered(executors: Mapping[str, Sequence[Outcome]], league: float, chance: random.Random) -> list[Outcome]:
    """Of a node whose friends are that share of those that may audit it, or decide about it."""
    covered: list[Outcome] = []
    for _ in range(MIXTURE):
        if chance.random() < league:
            by = "colluding_auditor"
        else:
            by = "colluding_third" if chance.random() < league else "other_model"
        covered.append(chance.choice(executors[by]))
    return covered


# Lives --------------------------------------------------------------------------------------------------------------


def life_jobs(sizes: Sizes, pools: Pools, seed: int) -> list[Job]:
    part = sizes.honest_lives // HONEST_PARTS
    honest = [
        Job(
            name=f"honest lives {number + 1}",
            run=live_honestly,
            arguments=(pools.honest, pools.honest_auditors, part, sizes.honest_requests, seed, number * part),
            result=list[Life],
        )
        for number in range(HONEST_PARTS)
    ]
    cheats = [
        Job(
            name=f"lives of {each.name}",
            run=live_as_a_cheat,
            arguments=(each, pools.executors[each.cheat], pools.honest, sizes.cheat_lives, sizes.units_max, seed),
            result=list[Life],
        )
        for each in variations()
    ]
    auditors = [
        Job(
            name=f"lives of {name}",
            run=live_as_an_auditor,
            arguments=(name, pools.auditors[name], sizes.cheat_lives, sizes.units_max, seed),
            result=list[Life],
        )
        for name in ("lazy_auditor", "lazy_small_auditor")
    ]
    return [*honest, *cheats, *auditors]


def live_honestly(
    executed: list[Outcome], audited: list[Outcome], runs: int, requests: int, seed: int, first: int
) -> list[Life]:
    return verdict_runs.honest_lives(SETTINGS, executed, audited, runs=runs, requests=requests, seed=seed, first=first)


def live_as_a_cheat(
    variation: Variation, cheats: list[Outcome], honest: list[Outcome], runs: int, units_max: int, seed: int
) -> list[Life]:
    deeds = Deeds(cheats=cheats, honest=honest, share=variation.share)
    return [
        verdict_runs.executor_life(
            SETTINGS,
            deeds,
            random.Random(f"{variation.name} {seed} {number}"),
            settled=variation.settled,
            units_max=units_max,
        )
        for number in range(runs)
    ]


def live_as_an_auditor(name: str, audits: list[Outcome], runs: int, units_max: int, seed: int) -> list[Life]:
    deeds = Deeds(cheats=audits, honest=())
    chances = (random.Random(f"{name} {seed} {number}") for number in range(runs))
    return [verdict_runs.auditor_life(SETTINGS, deeds, chance, units_max=units_max) for chance in chances]


# Whole populations, what nodes see, controls ------------------------------------------------------------------------


def engine_jobs(sizes: Sizes, seed: int) -> list[Job]:
    honest = [
        Job(
            name=f"honest population {number + 1}",
            run=communities.play_honest,
            arguments=(1_000 * seed + number, sizes.honest_community_requests),
            result=HonestPlayed,
        )
        for number in range(sizes.honest_communities)
    ]
    cheats = [
        Job(
            name=f"population with {name} {number + 1}",
            run=communities.play,
            arguments=(name, 1_000 * seed + number, sizes.community_requests),
            result=Played,
        )
        for name in COMMUNITIES
        for number in range(sizes.communities)
    ]
    seen = [
        Job(
            name="what executors see", run=see, arguments=("executors", sizes.executor_sights, seed), result=Indistinct
        ),
        Job(name="what auditors see", run=see, arguments=("auditors", sizes.auditor_sights, seed), result=Indistinct),
    ]
    controls = [
        Job(name=f"control: {name}", run=control, arguments=(name, seed, sizes.control_sights), result=bool)
        for name in CONTROLS
    ]
    return [*seen, *controls, *honest, *cheats]


def see(who: str, sights: int, seed: int) -> Indistinct:
    return (visible.executors if who == "executors" else visible.auditors)(sights, seed=seed)


def control(name: str, seed: int, sights: int) -> bool:
    return CONTROLS[name](seed, sights)


# Running them -------------------------------------------------------------------------------------------------------


def run_all(
    jobs: Sequence[Job], *, workers: int, parts: Path | None, said: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """By name. What lies in `parts` of a run with the same arguments is not run again."""
    done: dict[str, Any] = {}
    missing: list[Job] = []
    for job in jobs:
        found = _stored(job, parts)
        if found is None:
            missing.append(job)
        else:
            done[job.name] = found
    with ProcessPoolExecutor(workers) as pool:
        futures = {pool.submit(job.run, *job.arguments): job for job in missing}
        for future in as_completed(futures):
            job = futures[future]
            done[job.name] = future.result()
            _store(job, done[job.name], parts)
            said(job.name, len(done), len(jobs))
    return done


def _place(job: Job, parts: Path) -> Path:
    told = msgspec.json.encode((job.name, [msgspec.to_builtins(each) for each in job.arguments]))
    return parts / f"{hashlib.sha256(told).hexdigest()[:24]}.json"


def _stored(job: Job, parts: Path | None) -> Any:
    if parts is None or not _place(job, parts).exists():
        return None
    return msgspec.json.decode(_place(job, parts).read_bytes(), type=job.result)


def _store(job: Job, result: Any, parts: Path | None) -> None:
    if parts is not None:
        parts.mkdir(parents=True, exist_ok=True)
        _place(job, parts).write_bytes(msgspec.json.encode(result))
