"""The life of the network on a real Ethereum node, over JSON-RPC, with a real Sablier stream."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from chain_scenario import Life
from chain_scene import Ethereum, funded, key
from eth_account.signers.local import LocalAccount

from parallelix.chain.abi import Call, events_of, read_log, table_of
from parallelix.chain.bindings import execution_anchor
from parallelix.chain.bindings.execution_anchor import BatchAnchored
from parallelix.chain.bindings.prlx import ExemptionAdded, PRLXCalls
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import AlreadyExempt
from parallelix.chain.inspection import inspect
from parallelix.chain.ports import Receipt
from parallelix.chain.rpc import Rpc
from parallelix.chain.wallet import GAS_MARGIN, Wallet

CHAIN_ID = 31337
SOURCES = "contracts/src/parallelix_contracts/sources"


class Anvil:
    def __init__(self, ethereum: Ethereum, rpc: Rpc) -> None:
        self._ethereum = ethereum
        self.chain = rpc
        self.chain_id = CHAIN_ID

    async def send(self, account: LocalAccount, call: Call) -> Receipt:
        return await Wallet(self.chain, funded(self._ethereum.anvil, account)).send(call)

    async def time_of(self, receipt: Receipt) -> int:
        return await self.chain.block_time(receipt.block_number)

    async def pass_time(self, seconds: int) -> None:
        self._ethereum.anvil.pass_time(seconds)


@pytest.fixture
def world(ethereum: Ethereum, rpc: Rpc) -> Anvil:
    return Anvil(ethereum, rpc)


async def test_a_node_and_a_requester_live_from_stake_and_deposit_to_their_last_withdrawal(
    world: Anvil, deployed: Deployment
) -> None:
    await Life(world, deployed).live()


async def test_an_indexer_finds_what_was_anchored_in_the_chains_own_logs(world: Anvil, deployed: Deployment) -> None:
    life = Life(world, deployed)
    await life.three_batches_are_anchored()

    logs = await world.chain.logs(
        addresses=[deployed.address("ExecutionAnchor")],
        topics=[BatchAnchored.LAYOUT.topic],
        first_block=deployed.first_block,
        last_block=await world.chain.block_number(),
    )

    found = [read_log(log, table_of(execution_anchor.EVENTS)) for log in logs]
    assert [(each.number, each.count) for each in found if isinstance(each, BatchAnchored)] == [(1, 4), (2, 1), (3, 7)]
    assert [log for log in life.logs if log.topics[0] == BatchAnchored.LAYOUT.topic] == logs


async def test_views_can_be_read_as_of_an_earlier_block(world: Anvil, deployed: Deployment) -> None:
    life = Life(world, deployed)
    before = await world.chain.block_number()
    await life.three_batches_are_anchored()

    life.anchors.block = before

    assert (await life.anchors.batch_count(), await life.anchors.next_sequence()) == (1, 0)


async def test_a_fresh_deployment_holds_in_every_check(rpc: Rpc, deployed: Deployment) -> None:
    checks = await inspect(rpc, deployed)

    assert [check for check in checks if not check.holds and not check.may_change] == []
    # Ownership is handed over, and not accepted yet.
    assert {check.name for check in checks if not check.holds} == {
        f"owner of {name}" for name in ("PRLX", "ExecutionAnchor", "OperatorStakeRewardsV2", "CreditVault")
    }
    assert len(checks) > 25


async def test_a_transaction_that_reverts_in_its_block_is_told_with_its_reason(
    world: Anvil, ethereum: Ethereum, deployed: Deployment
) -> None:
    """When it was sent nothing spoke against it."""
    deployer = funded(ethereum.anvil, key("deployer"))
    call = PRLXCalls(deployed.address("PRLX")).add_exemption(key("anybody").address)
    ethereum.anvil.ask("evm_setAutomine", False)
    try:
        first = asyncio.create_task(Wallet(world.chain, deployer).send(call))
        before = await world.chain.nonce(deployer.address)
        while await world.chain.nonce(deployer.address, pending=True) == before:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(Wallet(world.chain, deployer).send(call))
        while await world.chain.nonce(deployer.address, pending=True) == before + 1:
            await asyncio.sleep(0.01)
        ethereum.anvil.ask("evm_mine")
        assert events_of((await first).logs, ExemptionAdded)
        with pytest.raises(AlreadyExempt, match=r"^transaction 0x[0-9a-f]{64}: prlx: already exempt; "):
            await second
    finally:
        ethereum.anvil.ask("evm_setAutomine", True)


def test_the_margin_of_gas_covers_what_a_draw_on_the_stream_may_take() -> None:
    """An estimate may fall into a second in which there is nothing to draw."""
    source = (Path(__file__).resolve().parents[2] / SOURCES / "OperatorStakeRewardsV2.vy").read_text()
    bounds = re.findall(r"^(?:WITHDRAW|READ)_GAS: constant\(uint256\) = ([\d_]+)$", source, re.MULTILINE)

    assert len(bounds) == 2
    assert sum(int(each.replace("_", "")) for each in bounds) <= GAS_MARGIN
