"""kill -9 at named points of a coordinator on a chain, and what the contracts and its store say afterwards."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import reorgs
from bench.books import Findings, audit, read_books
from bench.chain_books import Agreement
from bench.chain_stage import KILLED, PATIENT, RESTLESS, ChainStage, mining, restless
from bench.chain_traffic import Crowd
from bench.crash import copied

POINTS: Mapping[str, int] = {
    "follower.span_read": 25,
    "follower.span_applied": 25,
    "outbox.noted": 3,
    "outbox.sent": 3,
    "outbox.mined": 3,
    "anchor.begun": 2,
    "anchor.final": 2,
    "settle.begun": 2,
    "settle.final": 2,
    "liveness.begun": 2,
    "liveness.final": 2,
    "clearance.granted": 2,
    "sampling.begun": 1,
    "sampling.final": 1,
    "epoch.began": 1,
    "epoch.revealed": 1,
}
"""Each point, and after how many passes at most a process dies there: a span is read many times a second."""
CLEARANCE_POINT = "clearance.granted"
CYCLE_SECONDS = 30.0
"""A process that has not reached its point by then is not going to."""
TRIES_MAX = 3
"""For each cycle that counts."""
SHOWN_MAX = 3
REORG_ONE_IN = 4
"""Of so many deaths one sees the newest blocks replaced before anybody looks at them again."""


@dataclass(kw_only=True)
class PointResult:
    """Cycles in which a process died at one point, and what was wrong after them."""

    cycles: int = 0
    agreement: Agreement = field(default_factory=Agreement)


@dataclass(kw_only=True)
class CrashRun:
    """`findings` is the audit of requests and records at the end; `rests` how often all came to rest."""

    points: dict[str, PointResult] = field(default_factory=lambda: {point: PointResult() for point in POINTS})
    agreement: Agreement = field(default_factory=Agreement)
    """At the end."""
    unreached: Counter[str] = field(default_factory=Counter[str])
    rests: int = 0
    reorgs_while_dead: int = 0
    seconds: float = 0.0
    acknowledged: int = 0
    findings: Findings = field(default_factory=Findings)
    restless: list[str] = field(default_factory=list[str])
    """What was still on its way when all should have been at rest."""
    store: Path = Path()
    """A copy of the store at the end."""

    @property
    def cycles(self) -> int:
        return sum(result.cycles for result in self.points.values())

    @property
    def sound(self) -> bool:
        agreed = bool(self.agreement) and all(bool(result.agreement) for result in self.points.values())
        return agreed and not self.findings and not self.restless


async def crashes(
    stage: ChainStage,
    crowd: Crowd,
    run: CrashRun,
    cycles: int,
    chance: random.Random,
    *,
    say: Callable[[str], None],
    rest_every: int,
    seconds: float = math.inf,
) -> None:
    """Expects a stage whose coordinator runs, and leaves one where all is at rest and it is dead. After each cycle the
    dead store is compared, after `rest_every` of them all comes to rest first. No cycle begins after `seconds`."""
    started_at = time.monotonic()
    assert stage.coordinator is not None
    stage.coordinator.kill()
    async with mining(stage):
        crowd.start(acting=True)
        number = 0
        while run.cycles < cycles and number < TRIES_MAX * cycles and time.monotonic() - started_at < seconds:
            point = list(POINTS)[number % len(POINTS)]
            crowd.people.leaving = leaving(point, number // len(POINTS))
            number += 1
            await cycle(stage, run, point, chance, say=lambda line: say(f"cycle {run.cycles} of {cycles}, {line}"))
            if number % rest_every == 0 and run.cycles < cycles:
                await rested(stage, crowd, run, run.points[point].agreement)
                crowd.start(acting=True)
        await rested(stage, crowd, run, run.agreement)
    run.seconds += time.monotonic() - started_at


def leaving(point: str, turn: int) -> Sequence[str]:
    """Who asks for clearances in a cycle. At the point behind one there are as many who can have one as it takes."""
    if point != CLEARANCE_POINT:
        return RESTLESS
    count = POINTS[CLEARANCE_POINT]
    first = turn * count % len(PATIENT)
    return PATIENT[first : first + count]


async def cycle(
    stage: ChainStage, run: CrashRun, point: str, chance: random.Random, *, say: Callable[[str], None]
) -> None:
    """One death at the point, and what the store says then; now and then blocks are replaced before the next life."""
    result = run.points[point]
    result.cycles += await died_at(stage, run, point, chance)
    after = stage.agreement()
    result.agreement.add(after)
    say(f"{point}: {'agrees' if after else after.findings[:SHOWN_MAX]}")
    if chance.randrange(REORG_ONE_IN) == 0:
        reorg = reorgs.random_reorg(stage.world, chance)
        run.reorgs_while_dead += reorg is not None and reorg.counts


async def died_at(
    stage: ChainStage, run: CrashRun, point: str, chance: random.Random, *, seconds: float = CYCLE_SECONDS
) -> bool:
    """Lets a coordinator live until it dies at the point. False when it did not reach it in time."""
    born = stage.bear(kill_at=f"{point}:{chance.randint(1, POINTS.get(point, 1))}")
    deadline = time.monotonic() + seconds
    while born.running and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    if born.exit_code is None:
        born.kill()
        run.unreached[point] += 1
    elif born.exit_code != KILLED:
        run.findings.broken.append(f"{point}: the coordinator ended with {born.exit_code}: {born.tail()[-500:]}")
    else:
        return True
    return False


async def rested(stage: ChainStage, crowd: Crowd, run: CrashRun, agreement: Agreement) -> None:
    """Starts a coordinator that lives. With nobody acting, all comes to rest and agrees; then it is killed too."""
    await stage.start()
    await crowd.stop()
    await stage.at_rest()
    assert stage.coordinator is not None
    stage.coordinator.kill()
    agreement.add(stage.agreement())
    run.restless += restless(stage.ledger())
    run.rests += 1


def closed(stage: ChainStage, crowd: Crowd, run: CrashRun) -> None:
    """Audits what the last coordinator has left behind, and keeps a copy of it."""
    run.store = copied(stage.store, stage.folder / "rest")
    run.acknowledged = sum(map(len, crowd.acknowledged.values()))
    run.findings.add(audit(read_books(f"sqlite:///{run.store}"), crowd.acknowledged))
    run.findings.broken += crowd.problems
