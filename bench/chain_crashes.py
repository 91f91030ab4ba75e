"""kill -9 at named points of a coordinator on a chain, and what the contracts and its store say afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import reorgs
from bench.books import Findings, audit, read_books
from bench.chain_books import Agreement
from bench.chain_stage import KILLED, ChainStage, Miner, chain_stage, restless, steady_clients
from bench.chain_traffic import Restless
from bench.chain_world import ChainWorld
from bench.crash import at_rest as requests_at_rest
from bench.crash import copied
from bench.crash_clients import Clients

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
}
"""Each point, and after how many passes at most a process dies there: a span is read many times a second."""
CYCLE_SECONDS = 20.0
"""A process that has not reached its point by then is not going to."""
TRIES = 3
"""Of a cycle whose point was not reached."""
REORG_ONE_IN = 4
"""Of so many deaths one sees the newest blocks replaced before anybody looks at them again."""


@dataclass(kw_only=True)
class PointResult:
    """Cycles in which a process died at one point, and what was wrong after them."""

    cycles: int = 0
    agreement: Agreement = field(default_factory=Agreement)


@dataclass(kw_only=True)
class CrashRun:
    """`findings` is the audit of requests and records at the end; `rests` how often all came to rest in between."""

    points: dict[str, PointResult] = field(default_factory=lambda: {point: PointResult() for point in POINTS})
    unreached: Counter[str] = field(default_factory=Counter[str])
    rests: int = 0
    reorgs_while_dead: int = 0
    seconds: float = 0.0
    acknowledged: int = 0
    answers: Counter[str] = field(default_factory=Counter[str])
    deeds: Counter[str] = field(default_factory=Counter[str])
    findings: Findings = field(default_factory=Findings)
    restless: list[str] = field(default_factory=list[str])
    """What was still on its way when all should have been at rest."""
    store: Path = Path()
    """A copy of the store at rest."""

    @property
    def cycles(self) -> int:
        return sum(result.cycles for result in self.points.values())

    @property
    def sound(self) -> bool:
        agreed = all(bool(result.agreement) for result in self.points.values())
        return agreed and not self.findings and not self.restless


async def crashes(
    folder: Path,
    world: ChainWorld,
    cycles: int,
    seed: int,
    *,
    say: Callable[[str], None],
    rest_every: int,
    look: Callable[[ChainStage, CrashRun], None] = lambda stage, run: None,
) -> CrashRun:
    """`rest_every`: after so many cycles all comes to rest and is compared; after each one what is dead is. `look` is
    called with the stage at rest, at the end."""
    run, chance, started_at = CrashRun(), random.Random(seed), time.monotonic()
    async with chain_stage(folder, world) as stage:
        miner = asyncio.create_task(Miner(world=world).run())
        clients, people = steady_clients(stage, chance), Restless(stage, chance)
        clients.start()
        people.start()
        try:
            assert stage.coordinator is not None
            stage.coordinator.kill()
            for cycle in range(cycles):
                point = list(POINTS)[cycle % len(POINTS)]
                died = await died_at(stage, run, point, chance)
                result = run.points[point]
                after = stage.agreement()
                result.cycles += died
                result.agreement.add(after)
                say(f"cycle {run.cycles} of {cycles}, {point}: {'agrees' if after else after.findings[:3]}")
                if chance.randrange(REORG_ONE_IN) == 0:
                    reorg = reorgs.random_reorg(world, chance)
                    run.reorgs_while_dead += reorg is not None and reorg.counts
                if run.cycles % rest_every == 0 or cycle == cycles - 1:
                    await rested(stage, run, result, people, clients)
            run.seconds = time.monotonic() - started_at
            close(stage, run, clients.acknowledged() | dict(people.acknowledged))
            run.findings.broken += people.problems
            run.findings.broken += [problem for intent in clients.intents for problem in intent.problems]
            run.answers, run.deeds = people.answers, people.deeds.done
            look(stage, run)
        finally:
            miner.cancel()
            await people.aclose()
            await clients.aclose()
    return run


async def died_at(stage: ChainStage, run: CrashRun, point: str, chance: random.Random) -> bool:
    """Lets a coordinator live until it dies at the point. False when none reached it in time."""
    for _ in range(TRIES):
        born = stage.bear(kill_at=f"{point}:{chance.randint(1, POINTS.get(point, 1))}")
        deadline = time.monotonic() + CYCLE_SECONDS
        while born.running and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if born.exit_code == KILLED:
            return True
        if born.exit_code is not None:
            run.findings.broken.append(f"{point}: the coordinator ended with {born.exit_code}: {born.tail()[-500:]}")
            return False
        born.kill()
        run.unreached[point] += 1
    return False


async def rested(stage: ChainStage, run: CrashRun, result: PointResult, people: Restless, clients: Clients) -> None:
    """Starts a coordinator that lives. With nobody acting, all comes to rest and agrees; then it is killed too."""
    await stage.start()
    await people.stop()
    await clients.stop()
    await requests_at_rest(clients)
    await stage.at_rest()
    assert stage.coordinator is not None
    stage.coordinator.kill()
    result.agreement.add(stage.agreement())
    run.restless += restless(stage.ledger())
    run.rests += 1
    clients.start()
    people.start()


def close(stage: ChainStage, run: CrashRun, acknowledged: dict[str, list[str]]) -> None:
    """Audits what the last coordinator has left behind."""
    run.store = copied(stage.store, stage.folder / "rest")
    run.acknowledged = sum(len(ids) for ids in acknowledged.values())
    books = read_books(f"sqlite:///{run.store}")
    run.findings.add(audit(books, acknowledged))
