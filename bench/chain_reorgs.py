"""Reorgs below a living coordinator, and what the contracts and its store say once they are deep in the chain."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import reorgs
from bench.chain_books import Agreement
from bench.chain_stage import CONFIRMATIONS, ChainStage
from bench.chain_traffic import Crowd, Deeds
from bench.chain_world import ChainWorld
from bench.reorgs import DEPTH_MAX, Fate
from parallelix.chain.errors import ReorgTooDeep

BLOCKS_MAX = DEPTH_MAX + 2
"""Between two reorgs: some replace only what is new, some also what the last one brought."""
SETTLED_ONE_IN = 2
"""After so many reorgs all is let sink below what can still be replaced, and is compared."""
TRIES_MAX = 4
"""For each reorg that counts; nearly every one does."""
BLOCK_SECONDS = 0.02
"""For the coordinator to see some of the blocks that will go."""


@dataclass(kw_only=True)
class ReorgRun:
    """Of `made` reorgs, `counted` replaced a transaction and changed the head."""

    made: int = 0
    counted: int = 0
    head_changed: int = 0
    compared: int = 0
    seconds: float = 0.0
    depths: Counter[int] = field(default_factory=Counter[int])
    fates: Counter[Fate] = field(default_factory=Counter[Fate])
    replaced: Counter[str] = field(default_factory=Counter[str])
    """By the function that the transaction called."""
    agreement: Agreement = field(default_factory=Agreement)


async def replace_blocks(
    stage: ChainStage, crowd: Crowd, run: ReorgRun, count: int, chance: random.Random, *, say: Callable[[str], None]
) -> None:
    """`count` reorgs that count, with people acting in between. Blocks come from here alone."""
    started_at, deeds = time.monotonic(), crowd.people.deeds
    crowd.start(acting=False)
    while run.counted < count and run.made < TRIES_MAX * count:
        await fill_blocks(stage.world, deeds, chance)
        reorg = reorgs.random_reorg(stage.world, chance)
        if reorg is None:
            continue
        note(run, reorg)
        send_again(stage.world, reorg, chance)
        if chance.randrange(SETTLED_ONE_IN) == 0 or run.counted == count:
            await sink(stage)
            found = stage.agreement()
            run.agreement.add(found)
            run.compared += 1
            say(f"reorg {run.counted} of {count}, {reorg.depth} deep: {'agrees' if found else found.findings[:3]}")
    run.agreement.other += doubts(stage)
    run.seconds += time.monotonic() - started_at


def note(run: ReorgRun, reorg: reorgs.Reorg) -> None:
    run.made += 1
    run.agreement.other += reorg.astray
    if not reorg.counts:
        return
    run.counted += 1
    run.head_changed += reorg.head_changed
    run.depths[reorg.depth] += 1
    run.fates += reorg.fates
    run.replaced.update(reorg.replaced_calls)


async def fill_blocks(world: ChainWorld, deeds: Deeds, chance: random.Random) -> None:
    """Some blocks, some of them with something in them. The coordinator's own transactions come in between."""
    for _ in range(chance.randint(1, BLOCKS_MAX)):
        for _ in range(chance.choice((0, 1, 1, 2))):
            deeds.act()
        world.mine()
        await asyncio.sleep(BLOCK_SECONDS)


def send_again(world: ChainWorld, reorg: reorgs.Reorg, chance: random.Random) -> None:
    """As pools do with what a reorg dropped, now and then; what cannot be any more is refused."""
    if chance.randrange(2):
        for raw in reorg.dropped:
            world.offer(raw)


async def sink(stage: ChainStage) -> None:
    """Until no reorg reaches what is there now, and the store has read it."""
    block = stage.world.head
    stage.world.mine(CONFIRMATIONS)
    await stage.caught_up(block)


def doubts(stage: ChainStage) -> list[str]:
    """What a coordinator took for a reorg deeper than it bears, which none was."""
    return [line for line in stage.log.read_text(errors="replace").splitlines() if f'"{ReorgTooDeep.code}"' in line]
