"""The reorgs of `make chain-faults` replace what they say, and one that replaces nothing does not count."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from bench import reorgs
from bench.chain_world import TOKEN, ChainWorld, Sent, chain_world
from bench.reorgs import Fate, Placing
from parallelix.chain.abi import Function

RANDOM_REORGS = 25
TOTAL_DEPOSITS = Function("totalDeposits", (), ("uint256",))


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainWorld]:
    with chain_world(tmp_path_factory.mktemp("world")) as world:
        world.person("ann")
        world.person("bob")
        yield world


@pytest.fixture
def world(shared_world: ChainWorld) -> Iterator[ChainWorld]:
    before = shared_world.anvil.ask("evm_snapshot")
    # anvil forgets a snapshot when a reorg reaches below it.
    shared_world.mine(reorgs.DEPTH_MAX)
    yield shared_world
    shared_world.anvil.ask("evm_revert", before)


def deposit(world: ChainWorld, name: str, amount: int) -> Sent:
    """In a block of its own."""
    sent = world.send(world.person(name), world.vault.deposit(amount), instead=world.vault.deposit(amount + 1))
    world.mine()
    return sent


def total_deposits(world: ChainWorld) -> int:
    return world.ask(world.vault.address, TOTAL_DEPOSITS)


def meant(world: ChainWorld, depth: int, fates: dict[str, Fate], *, offset: int = 0) -> list[Placing]:
    """Everything in the last `depth` blocks, each with the fate that is given for its hash."""
    placings: list[Placing] = []
    for mined in reorgs.mined_in(world, world.head - depth + 1, world.head):
        fate, instead = fates[mined.hash], world.sent[mined.hash].instead
        hash_, raw = (mined.hash, mined.raw) if fate != "changed" or instead is None else instead
        if fate == "dropped":
            placings.append(Placing(mined=mined, fate=fate))
        else:
            place = offset if fate == "moved" else mined.offset
            placings.append(Placing(mined=mined, fate=fate, hash=hash_, raw=raw, offset=place))
    return placings


@pytest.mark.service
def test_a_deposit_comes_back_in_another_block_with_another_amount_or_not_at_all(world: ChainWorld) -> None:
    moved = deposit(world, "ann", 5 * TOKEN)
    world.mine(3)
    deposit(world, "bob", 7 * TOKEN)
    before = world.place(moved.hash)
    assert before is not None and total_deposits(world) == 12 * TOKEN

    both: dict[str, Fate] = {each: "kept" for each in world.sent if world.place(each) is not None}
    ann, bob = (each.hash for each in reorgs.mined_in(world, before, world.head))
    moving = reorgs.reorganise(world, meant(world, 5, {**both, ann: "moved"}, offset=4), 5)
    assert moving.counts and moving.fates == {"moved": 1, "kept": 1}
    assert world.place(moved.hash) == before + 4 and total_deposits(world) == 12 * TOKEN

    changing = reorgs.reorganise(world, meant(world, 5, {ann: "kept", bob: "changed"}), 5)
    assert changing.counts and changing.fates == {"kept": 1, "changed": 1}
    assert world.place(bob) is None and total_deposits(world) == 12 * TOKEN + 1

    dropping = reorgs.reorganise(world, [], 5)
    assert dropping.head_changed and total_deposits(world) == 0


@pytest.mark.service
def test_a_reorg_that_moves_nothing_does_not_count(world: ChainWorld) -> None:
    sent = deposit(world, "ann", 5 * TOKEN)
    world.mine(3)

    idle = reorgs.reorganise(world, meant(world, 4, {sent.hash: "kept"}), 4)

    assert not idle.counts and idle.replaced == 0
    assert reorgs.random_reorg(world, random.Random(1), depth_max=3) is None, "there is no transaction to replace"


@pytest.mark.service
def test_what_did_not_happen_as_meant_is_not_counted(world: ChainWorld) -> None:
    sent = deposit(world, "ann", 5 * TOKEN)
    (mined,) = reorgs.mined_in(world, world.head, world.head)
    untrue = Placing(mined=mined, fate="dropped", hash=mined.hash, raw=mined.raw)

    reorg = reorgs.reorganise(world, [untrue], 1)

    assert world.place(sent.hash) is not None
    assert not reorg.counts and reorg.astray == [f"{sent.hash}: not dropped"]


@pytest.mark.service
def test_random_reorgs_replace_transactions_every_time_and_in_every_way(world: ChainWorld) -> None:
    chance, fates, depths = random.Random(1), Counter[Fate](), set[int]()
    for number in range(RANDOM_REORGS):
        for name in ("ann", "bob"):
            deposit(world, name, number + 1)
            world.mine(chance.randint(0, 3))
        before = world.head
        reorg = reorgs.random_reorg(world, chance)
        assert reorg is not None and reorg.counts and not reorg.astray, reorg
        assert world.head == before
        fates += reorg.fates
        depths.add(reorg.depth)

    assert set(fates) == set(reorgs.FATES)
    assert max(depths) == reorgs.DEPTH_MAX
