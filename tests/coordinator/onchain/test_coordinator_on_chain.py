"""A coordinator on a chain anchors each batch once, settles what was spent, and clears what may leave."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from chained import DEPOSIT_WEI, Chained, chained
from hand_driven import HandNode

from bench.chain_world import TOKEN, ChainWorld
from parallelix.chain.abi import Call, Function
from parallelix.chain.bindings.credit_vault import CreditVaultViews
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls, ExecutionAnchorViews
from parallelix.coordinator import errors, local
from parallelix.coordinator.onchain import reporting, settling
from parallelix.engine.ledger import available, cleared, spent
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.records import Batch

pytestmark = pytest.mark.service


def anchor_views(scene: Chained) -> ExecutionAnchorViews:
    assert scene.coordinator.rpc is not None
    return ExecutionAnchorViews(scene.coordinator.rpc, scene.world.deployed.address("ExecutionAnchor"))


def vault_views(scene: Chained) -> CreditVaultViews:
    assert scene.coordinator.rpc is not None
    return CreditVaultViews(scene.coordinator.rpc, scene.world.vault.address)


async def batches(scene: Chained, count: int) -> list[Batch]:
    await scene.coordinator.journal.flushed()
    return [await scene.coordinator.batch(number) for number in range(1, count + 1)]


def balance(scene: Chained, name: Callable[[str], str]) -> int:
    return scene.coordinator.engine.ledger.balance_wei(name(scene.account))


async def test_each_batch_is_anchored_in_its_order_and_a_receipt_names_where(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node) as scene:
        works = [await scene.executed() for _ in range(3)]
        recorder = scene.coordinator.engine.recorder
        await scene.until(lambda: recorder.confirmed_through == 2)

        closed = await batches(scene, 3)
        views = anchor_views(scene)
        assert [to_hex(await views.root_of(each.number)) for each in closed] == [each.merkle_root for each in closed]
        assert (await views.batch_count(), to_hex(await views.head())) == (4, recorder.head_hash)
        receipt = await scene.coordinator.receipt(scene.key, works[0].unit.unit_id)
        assert (receipt.chain_id, receipt.anchor) == (31337, staked_world.deployed.address("ExecutionAnchor"))
        assert receipt.batch is not None and receipt.batch.number == 1
        network = await scene.coordinator.network()
        assert network.anchor == network.contracts["ExecutionAnchor"] == receipt.anchor
        assert network.block == scene.block
        # The commitment to the first sampling secret came before them.
        assert scene.transactions("validator") == 4


async def test_a_batch_that_was_closed_when_the_process_died_is_anchored_by_the_next_one(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node) as scene:
        await scene.executed()
        # No block comes, so nothing is confirmed; the commitment to the secret may be on its way.
        assert scene.coordinator.engine.recorder.unconfirmed
    async with chained(staked_world, folder, node) as scene:
        await scene.until(lambda: not scene.coordinator.engine.recorder.unconfirmed)

        assert scene.transactions("validator") == 2
        assert (await anchor_views(scene).batch_count()) == 2


def stored(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "coordinator.db")) as store:
        return store.execute(query).fetchall()


def forget_intents(folder: Path) -> None:
    """As an older backup does, whose intents are not these."""
    with closing(sqlite3.connect(folder / "coordinator.db")) as store:
        store.execute("DELETE FROM intents")
        store.commit()


async def test_what_the_contract_holds_already_is_not_sent_again_by_a_store_that_knows_nothing_of_it(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node) as scene:
        await scene.executed()
        await scene.until(lambda: scene.transactions("validator") == 1 and scene.all_told("intent.final"))
        await scene.until(lambda: int(staked_world.anvil.ask("txpool_status")["pending"], 16), mining=False)
    forget_intents(folder)
    staked_world.mine()

    async with chained(staked_world, folder, node) as scene:
        await scene.until(lambda: not scene.coordinator.engine.recorder.unconfirmed)
        assert (scene.transactions("validator"), scene.all_told("anchor.refused")) == (2, [])


async def test_another_batch_in_our_place_stops_anchoring_and_nothing_else(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    calls = ExecutionAnchorCalls(staked_world.deployed.address("ExecutionAnchor"))
    foreign = calls.anchor_batch(b"\0" * 32, b"\1" * 32, 0, 0, b"\2" * 32, 1, 0)
    async with chained(staked_world, folder, node) as scene:
        await scene.until_told("intent.final")
        staked_world.do(staked_world.roles["validator"], foreign)
        await scene.executed()
        await scene.until(lambda: scene.coordinator.engine.mirror.halted("anchor"))

        assert "batch 1" in scene.coordinator.engine.mirror.halted("anchor")
        # Its work goes on.
        await scene.executed()
        assert scene.coordinator.engine.recorder.sequence == 2
        assert scene.transactions("validator") == 2


async def test_what_was_spent_is_settled_when_it_is_time(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node, settle_seconds=0.2) as scene:
        await scene.executed()
        await scene.until(lambda: scene.all_told("intent.final") and not scene.coordinator.engine.recorder.unconfirmed)
        await scene.until(lambda: scene.transactions("settler") == 1 and not balance(scene, spent))

        settled_wei = await vault_views(scene).settled(scene.account)
        assert settled_wei == DEPOSIT_WEI - balance(scene, available) > 0
        assert await vault_views(scene).total_deposits() == balance(scene, available)
        # There is nothing left to say.
        block = scene.block
        await scene.until(lambda: scene.block > block + 20)
        assert scene.transactions("settler") == 1


async def test_a_settlement_that_a_dead_process_had_begun_comes_to_its_end(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node, settle_seconds=0.2) as scene:
        await scene.executed()
        await scene.until(lambda: balance(scene, spent))
        await scene.until(lambda: pending_of(scene, "settler"), mining=False)
    staked_world.anvil.ask("anvil_dropAllTransactions")

    async with chained(staked_world, folder, node) as scene:
        await scene.until(lambda: not balance(scene, spent))
        assert scene.transactions("settler") == 1


def pending_of(scene: Chained, role: str) -> bool:
    address = scene.world.roles[role].address
    return int(scene.world.anvil.ask("eth_getTransactionCount", address, "pending"), 16) > scene.transactions(role)


async def test_an_account_that_asks_to_withdraw_is_settled_at_once(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node) as scene:
        await scene.executed()
        await scene.until(lambda: balance(scene, spent))
        assert scene.transactions("settler") == 0

        scene.do("ann", staked_world.vault.request_withdrawal(DEPOSIT_WEI))
        await scene.until(lambda: scene.transactions("settler") == 1 and not balance(scene, spent))

        assert await vault_views(scene).settled(scene.account) == DEPOSIT_WEI - balance(scene, available) > 0


async def test_what_the_vault_cuts_short_is_said_and_not_sent_over_and_over(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node, settle_seconds=0.1) as scene:
        await scene.executed()
        staked_world.do(staked_world.roles["owner"], _pause(staked_world))
        await scene.until_told("settle.refused")
        assert "settlement is paused" in scene.all_told("settle.refused")[0]["error"]
        assert scene.transactions("settler") == 0
        block = scene.block
        await scene.until(lambda: scene.block > block + 20)
        assert len(scene.all_told("settle.refused")) == 1


async def test_what_was_refused_while_the_vault_was_paused_is_settled_soon_after(
    staked_world: ChainWorld, node: HandNode, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "REFUSED_SECONDS", 0.2)
    async with chained(staked_world, folder, node, settle_seconds=0.1) as scene:
        await scene.executed()
        staked_world.do(staked_world.roles["owner"], _pause(staked_world))
        await scene.until_told("settle.refused")
        staked_world.do(staked_world.roles["owner"], _pause(staked_world, "unpause"))
        await scene.until(lambda: scene.transactions("settler") == 1 and not balance(scene, spent))


async def test_who_owes_next_to_nothing_has_nobody_pay_for_gas_again_and_again(
    staked_world: ChainWorld, node: HandNode, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "SMALL_PER_DELAY", 1e-6)
    async with chained(staked_world, folder, node, settle_seconds=0.1, settle_prlx_min=1) as scene:

        async def blocks_pass() -> None:
            block = scene.block
            await scene.until(lambda: scene.block > block + 20)

        await scene.executed()
        await blocks_pass()
        once = scene.transactions("settler")
        assert once <= 1
        scene.do("ann", staked_world.vault.request_withdrawal(1))
        await scene.executed()
        await scene.until(lambda: balance(scene, spent))
        await blocks_pass()
        assert scene.transactions("settler") == once


def test_what_the_vault_cut_short_is_asked_again_when_its_day_begins() -> None:
    said = settling.Said(cumulative_wei=5, again_at=100.0, day=7)
    assert said.covers(5, now=99.0, day=7)
    assert not said.covers(6, now=99.0, day=7)
    assert not said.covers(5, now=100.0, day=7)
    assert not said.covers(5, now=99.0, day=8)


def _pause(world: ChainWorld, name: str = "pause") -> Call:
    return Call(to=world.vault.address, function=Function(name, ()), arguments=())


async def test_a_clearance_freezes_its_amount_and_pays_it_out_on_the_chain(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    amount_wei = 300 * TOKEN
    async with chained(staked_world, folder, node) as scene:
        await scene.executed()
        await scene.until(lambda: balance(scene, spent))
        granted = await scene.coordinator.grant_clearance(scene.account, amount_wei)
        assert await scene.coordinator.grant_clearance(scene.account, amount_wei) == granted
        assert balance(scene, cleared) == amount_wei
        with pytest.raises(errors.ApiError, match="has a clearance of"):
            await scene.coordinator.grant_clearance(scene.account, 1)

        scene.do(
            "ann",
            staked_world.vault.withdraw_with_clearance(
                int(granted.amount_wei),
                int(granted.cumulative_spent_wei),
                granted.nonce,
                granted.expiry,
                granted.v,
                bytes.fromhex(granted.r[2:]),
                bytes.fromhex(granted.s[2:]),
            ),
        )
        await scene.until(lambda: not balance(scene, cleared))

        assert balance(scene, spent) == 0
        deposit_wei = await vault_views(scene).deposits(scene.account)
        assert deposit_wei == balance(scene, available) == DEPOSIT_WEI - amount_wei - int(granted.cumulative_spent_wei)


async def test_the_clearance_survives_the_process_that_granted_it(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node) as scene:
        granted = await scene.coordinator.grant_clearance(scene.account, TOKEN)
        # Who has the signature can use it whatever becomes of us, so it is durable by then.
        assert stored(folder, "SELECT nonce, expiry, state FROM clearances") == [(0, granted.expiry, "open")]
    async with chained(staked_world, folder, node) as scene:
        assert balance(scene, cleared) == TOKEN
        assert await scene.coordinator.grant_clearance(scene.account, TOKEN) == granted


async def test_a_grant_to_an_address_is_refused_where_deposits_are_the_way(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node) as scene:
        settings, before = scene.coordinator.settings, scene.coordinator.engine.ledger.accounts()

        with pytest.raises(
            local.LocalRefused, match=r"account 0x\w+ lives from its deposit in the vault; deposit there"
        ):
            await asyncio.to_thread(local.grant, settings, account=scene.account, amount_wei=5)
        assert scene.coordinator.engine.ledger.accounts() == before

        assert await asyncio.to_thread(local.grant, settings, account="acme", amount_wei=5)
        assert scene.coordinator.engine.ledger.balance_wei(available("acme")) == 5


def test_no_node_can_tell_when_it_will_be_looked_for() -> None:
    pauses = [reporting.pause_seconds(600.0, at / 20_000) for at in range(20_000)]
    assert max(pauses) == 1200.0 and 500 < sum(pauses) / len(pauses) < 600

    def seen(beginning: float, end: float) -> float:
        return sum(beginning <= each < end for each in pauses) / sum(each >= beginning for each in pauses)

    # There for a tenth of the time, whenever that is, it is looked for in a tenth of the looks.
    for beginning in range(0, 1140, 60):
        assert 0.07 < seen(beginning, beginning + 60) < 0.12, beginning


async def test_nodes_that_are_online_are_reported_and_keep_being(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node, liveness_seconds=0.2) as scene:
        liveness, now = scene.coordinator.engine.liveness, scene.coordinator.clock() // 10_000
        for slot in range(now - 3, now + 1):
            liveness.credit(node.node_id, slot)
        await scene.until(lambda: liveness.is_earning(node.node_id))
        # Again before its three seconds are over, though nothing changed.
        reported_at = liveness.reported_at
        await scene.until(lambda: liveness.reported_at > reported_at)

        liveness.void(node.node_id, 2)
        await scene.until(lambda: not liveness.voids_pending(node.node_id))
