from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chained import DEPOSIT_WEI, make_folder, stake
from hand_driven import HandNode

from bench.chain_world import GWEI, ChainWorld, chain_world


@dataclass(frozen=True, kw_only=True)
class Staked:
    """Everything deployed; one node is staked, ann has a deposit, and whoever sends has some PRLX."""

    world: ChainWorld
    node: HandNode


@pytest.fixture(scope="session")
def shared_staked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staked]:
    with chain_world(tmp_path_factory.mktemp("world")) as world:
        node = stake(world)
        world.do(world.person("ann"), world.vault.deposit(DEPOSIT_WEI))
        world.do(world.roles["owner"], world.token.transfer(world.roles["settler"].address, 1_000))
        yield Staked(world=world, node=node)


@pytest.fixture
def staked_world(shared_staked: Staked) -> Iterator[ChainWorld]:
    """What happens on it has not happened afterwards."""
    world = shared_staked.world
    world.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    before = world.anvil.ask("evm_snapshot")
    # anvil forgets a snapshot when a reorg reaches below it.
    world.mine(4)
    yield world
    world.anvil.ask("evm_revert", before)
    world.anvil.ask("anvil_dropAllTransactions")


@pytest.fixture
def node(shared_staked: Staked) -> HandNode:
    return shared_staked.node


@pytest.fixture
def folder(staked_world: ChainWorld, tmp_path: Path) -> Path:
    """What a coordinator on this chain starts with."""
    return make_folder(staked_world, tmp_path / "coordinator")
