"""Each intent has its effect once: whatever dies, hangs, is reorganised away, or is sent by somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount

from bench.chain_world import GWEI, ChainWorld, account_of
from lying_endpoint import Endpoint, Gone, endpoint_of
from parallelix.chain.abi import Call
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls
from parallelix.chain.bindings.prlx import PRLXViews
from parallelix.chain.errors import NotValidator
from parallelix.chain.ports import Receipt
from parallelix.chain.rpc import Rpc, connected
from parallelix.coordinator.onchain import outbox as outbox_module
from parallelix.coordinator.onchain.intents import Intent, Role, intent_of
from parallelix.coordinator.onchain.outbox import IntentRefused, Outbox, Pace
from parallelix.coordinator.onchain.running import JournalledIntents
from parallelix.coordinator.store.journal import Journal
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.store import Store

pytestmark = pytest.mark.service

SEND = "eth_sendRawTransaction"
RECEIPT = "eth_getTransactionReceipt"
SINK = account_of("sink").address
"""Gets one wei from each transfer that happens."""
PATIENT = Pace(look_seconds=0.01, fee_bump_seconds=3600)
SECONDS_MAX = 20.0
"""Before a test gives up."""


@pytest.fixture
async def endpoint(staked_world: ChainWorld) -> AsyncIterator[Endpoint]:
    async with endpoint_of(staked_world.anvil.url) as found:
        yield found


class Life:
    """One process's life: an outbox over a store that it opened."""

    def __init__(self, scene: Scene, outbox: Outbox, readers: Readers) -> None:
        self._scene = scene
        self._outbox = outbox
        self._readers = readers

    def begin(
        self, intent_id: str = "settle:1", *, call: Call | None = None, role: Role = "settler"
    ) -> asyncio.Task[Receipt]:
        task = asyncio.create_task(
            asyncio.wait_for(self._outbox.submit(intent_id, role, call or self._scene.transfer), SECONDS_MAX)
        )
        self._scene.tasks.append(task)
        return task

    async def intent(self, intent_id: str = "settle:1") -> Intent | None:
        row = await self._readers.intent(intent_id)
        return None if row is None else intent_of(row)

    async def until_state(self, state: str, intent_id: str = "settle:1") -> Intent:
        return await self.until_noted(lambda intent: intent.state == state, intent_id)

    async def until_noted(self, holds: Callable[[Intent], bool], intent_id: str = "settle:1") -> Intent:
        async with asyncio.timeout(SECONDS_MAX):
            while (found := await self.intent(intent_id)) is None or not holds(found):
                await asyncio.sleep(0.01)
        return found


class Scene:
    """A chain whose blocks come when told, the way to it, and a store that outlives its processes. The engine has read
    the blocks up to `confirmed_block`."""

    def __init__(self, world: ChainWorld, endpoint: Endpoint, rpc: Rpc, path: Path) -> None:
        self.world = world
        self.endpoint = endpoint
        self.rpc = rpc
        self.url = f"sqlite:///{path / 'store.db'}"
        self.confirmed_block = world.head
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.tasks: list[asyncio.Task[Receipt]] = []

    @property
    def transfer(self) -> Call:
        """An effect that can be had twice, and is seen to have been."""
        return self.world.token.transfer(SINK, 1)

    @asynccontextmanager
    async def living(self, pace: Pace = PATIENT) -> AsyncGenerator[Life]:
        """A process, until it dies: nothing is finished, and only what is durable is left."""

        def fatal(error: BaseException) -> None:
            raise error

        store = Store.open(self.url)
        store.acquire("test")
        journal = Journal(store, on_fatal=fatal)
        journal.start()
        readers = Readers.open(self.url)
        outbox = Outbox(
            rpc=self.rpc,
            chain_id=self.world.deployed.chain_id,
            accounts={role: self.world.roles[role] for role in ("validator", "liveness", "settler")},
            noted=JournalledIntents(journal, readers),
            confirmed_block=lambda: self.confirmed_block,
            log=lambda name, fields: self.told.append((name, fields)),
            clock=lambda: 1_000,
            pace=pace,
        )
        try:
            yield Life(self, outbox, readers)
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await journal.close()
            await readers.close()
            store.close()

    async def until_sent(self, times: int = 1) -> None:
        await self.until(lambda: self.endpoint.asked[SEND] >= times)
        # The chain counts it as pending a moment after.
        await self.until(lambda: self.pending > 0)

    async def looked(self) -> None:
        """The outbox has looked at its transaction some times more."""
        before = self.endpoint.asked[RECEIPT]
        await self.until(lambda: self.endpoint.asked[RECEIPT] > before + 6)

    async def until_told(self, name: str) -> dict[str, Any]:
        await self.until(lambda: any(each == name for each, _ in self.told))
        return next(fields for each, fields in self.told if each == name)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while not holds():
                await asyncio.sleep(0.01)

    @property
    def pending(self) -> int:
        return int(self.world.anvil.ask("txpool_status")["pending"], 16)

    def transactions(self, account: LocalAccount | None = None) -> int:
        sender = account or self.world.roles["settler"]
        return int(self.world.anvil.ask("eth_getTransactionCount", sender.address, "latest"), 16)

    async def effects(self) -> int:
        return await PRLXViews(self.rpc, self.world.token.address).balance_of(SINK)

    def confirm(self) -> None:
        """The engine reads all there is."""
        self.confirmed_block = self.world.head

    def mine_and_confirm(self) -> None:
        self.world.mine()
        self.confirm()


@pytest.fixture
async def scene(staked_world: ChainWorld, endpoint: Endpoint, tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        rpc = await stack.enter_async_context(connected(endpoint.url, tries=1))
        yield Scene(staked_world, endpoint, rpc, tmp_path)


def gone_before(method: str) -> Callable[[str, list[Any], Any], Any]:
    """The connection breaks at this method. The chain has heard it by then, so a test that means it never did takes the
    transaction away from the chain again."""

    def twist(asked: str, _parameters: list[Any], result: Any) -> Any:
        if asked == method:
            raise Gone
        return result

    return twist


async def test_it_is_final_only_when_the_engine_has_read_its_block(scene: Scene) -> None:
    async with scene.living() as life:
        submitted = life.begin()
        await scene.until_sent()
        scene.world.mine()
        mined = await life.until_state("mined")
        await scene.looked()
        assert (await life.intent(), mined.mined_block, submitted.done()) == (mined, scene.world.head, False)

        scene.confirm()
        receipt = await submitted

        assert (receipt.transaction_hash, receipt.block_number) == (
            mined.attempts[0].transaction_hash,
            scene.world.head,
        )
        assert await scene.effects() == 1
        final = await life.until_state("final")
        assert (final.transaction_hash, final.data, final.attempts) == (receipt.transaction_hash, b"", ())


async def test_asked_again_for_what_is_final_it_sends_nothing(scene: Scene) -> None:
    for life_number in range(2):
        async with scene.living() as life:
            submitted = life.begin()
            if not life_number:
                await scene.until_sent()
                scene.mine_and_confirm()
            assert (await submitted).block_number == scene.world.head

    assert (await scene.effects(), scene.transactions(), scene.pending) == (1, 1, 0)


async def test_killed_between_the_note_and_the_sending_the_next_process_sends_the_very_same(scene: Scene) -> None:
    scene.endpoint.twist = gone_before(SEND)
    async with scene.living() as life:
        life.begin()
        noted = await life.until_state("signed")
        await scene.until_told("intent.failing")
    scene.world.anvil.ask("anvil_dropAllTransactions")
    assert scene.pending == 0
    scene.endpoint.be_honest()

    async with scene.living() as life:
        submitted = life.begin()
        await scene.until_sent(2)
        scene.mine_and_confirm()
        receipt = await submitted

    assert receipt.transaction_hash == noted.attempts[0].transaction_hash
    assert (await scene.effects(), scene.transactions()) == (1, 1)


async def test_killed_between_sending_and_receipt_the_next_process_finds_it_done(scene: Scene) -> None:
    async with scene.living() as life:
        life.begin()
        await scene.until_sent()
    scene.mine_and_confirm()
    sent = scene.endpoint.asked[SEND]

    async with scene.living() as life:
        await life.begin()

    assert (await scene.effects(), scene.transactions(), scene.endpoint.asked[SEND]) == (1, 1, sent)


async def test_what_a_dead_process_left_comes_to_its_end_before_anything_new_of_its_account(scene: Scene) -> None:
    async with scene.living() as life:
        life.begin("settle:1")
        left = await life.until_state("signed")
    scene.world.anvil.ask("anvil_dropAllTransactions")

    async with scene.living() as life:
        submitted = life.begin("settle:2")
        await scene.until(lambda: scene.pending == 1)
        scene.mine_and_confirm()
        await life.until_state("final", "settle:1")
        await scene.until(lambda: scene.pending == 1)
        assert await scene.effects() == 1
        scene.mine_and_confirm()
        await submitted

        after = await life.intent("settle:2")
        assert after is not None and after.nonce == left.nonce + 1
    assert await scene.effects() == 2


async def test_a_dearer_attempt_takes_the_place_of_the_last_and_never_adds_to_it(scene: Scene) -> None:
    async with scene.living(Pace(look_seconds=0.01, fee_bump_seconds=0.05)) as life:
        submitted = life.begin()
        raised = await life.until_noted(lambda intent: len(intent.attempts) >= 3)
        assert scene.pending == 1
        scene.world.mine()
        scene.world.mine()
        scene.confirm()
        receipt = await submitted

    for last, dearer in zip(raised.attempts, raised.attempts[1:], strict=False):
        assert int(dearer.fee_most_wei) * 8 >= int(last.fee_most_wei) * 9
        assert int(dearer.fee_tip_wei) * 8 >= int(last.fee_tip_wei) * 9
    assert receipt.transaction_hash != raised.attempts[0].transaction_hash
    assert (await scene.effects(), scene.transactions(), scene.pending) == (1, 1, 0)


async def test_the_first_attempt_may_still_be_the_one_that_is_mined(scene: Scene) -> None:
    """A miner that never heard of the dearer ones."""
    async with scene.living(Pace(look_seconds=0.01, fee_bump_seconds=0.05)) as life:
        submitted = life.begin()
        raised = await life.until_noted(lambda intent: len(intent.attempts) >= 2)
        scene.endpoint.twist = gone_before(SEND)
        scene.world.anvil.ask("anvil_dropAllTransactions")
        scene.world.anvil.ask(SEND, raised.attempts[0].raw)
        scene.mine_and_confirm()

        assert (await submitted).transaction_hash == raised.attempts[0].transaction_hash
    assert (await scene.effects(), scene.transactions()) == (1, 1)


async def test_fees_are_raised_so_often_and_so_high_and_no_more(scene: Scene) -> None:
    pace = Pace(look_seconds=0.01, fee_bump_seconds=0.02, fee_most_wei=4 * GWEI)
    async with scene.living(pace) as life:
        life.begin()
        await scene.until_told("intent.stuck")
        found = await life.intent()
        assert found is not None
        dearest = max(int(each.fee_most_wei) for each in found.attempts)
        assert 1 < len(found.attempts) < 10 and dearest <= 4 * GWEI


async def test_after_the_last_raise_a_price_that_goes_on_rising_is_still_followed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "ATTEMPTS_MAX", 1)
    async with scene.living(Pace(look_seconds=0.01, fee_bump_seconds=0.02)) as life:
        submitted = life.begin()
        await scene.until_told("intent.stuck")
        scene.world.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(50 * GWEI))
        scene.world.mine()
        raised = await life.until_noted(lambda intent: len(intent.attempts) == 2)
        assert int(raised.attempts[1].fee_most_wei) > 50 * GWEI
        await scene.looked()
        scene.mine_and_confirm()
        await submitted
        assert len(raised.attempts) == 2
    assert await scene.effects() == 1


async def test_an_endpoint_that_asks_for_a_high_tip_is_given_a_usual_one(scene: Scene) -> None:
    scene.endpoint.twist = lambda method, _parameters, result: (
        hex(150 * GWEI) if method == "eth_maxPriorityFeePerGas" else result
    )
    async with scene.living() as life:
        submitted = life.begin()
        signed = await life.until_noted(lambda intent: bool(intent.attempts))
        assert int(signed.attempts[0].fee_tip_wei) == outbox_module.TIP_MOST_WEI
        assert int(signed.attempts[0].fee_most_wei) < 150 * GWEI
        await scene.until_sent()
        scene.mine_and_confirm()
        await submitted


async def test_a_block_that_costs_too_much_is_waited_out(scene: Scene) -> None:
    scene.world.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(500 * GWEI))
    scene.world.mine()
    async with scene.living() as life:
        submitted = life.begin()
        await scene.until_told("intent.too_dear")
        assert (await life.intent(), scene.pending) == (None, 0)

        scene.world.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
        scene.world.mine()
        await scene.until_sent()
        scene.mine_and_confirm()
        await submitted
    assert await scene.effects() == 1


async def test_mined_and_reorganised_away_it_is_sent_again_unchanged(scene: Scene) -> None:
    async with scene.living() as life:
        submitted = life.begin()
        await scene.until_sent()
        scene.world.mine()
        mined = await life.until_state("mined")
        scene.world.anvil.ask("anvil_reorg", 2, [])
        await scene.until_told("intent.reorged")
        await life.until_state("signed")
        await scene.until_sent(2)
        assert await scene.effects() == 0

        scene.mine_and_confirm()
        assert (await submitted).transaction_hash == mined.attempts[0].transaction_hash
    assert (await scene.effects(), scene.transactions()) == (1, 1)


async def test_a_stranger_with_the_key_takes_the_number_for_good_and_it_is_signed_anew(scene: Scene) -> None:
    async with scene.living() as life:
        submitted = life.begin()
        await scene.until_sent()
        first = await life.until_state("signed")
        scene.world.anvil.ask("anvil_dropAllTransactions")
        scene.world.do(scene.world.roles["settler"], scene.world.token.approve(SINK, 7))
        await scene.looked()
        waiting = await life.intent()
        assert waiting is not None and waiting.attempts == first.attempts

        scene.confirm()
        anew = await life.until_noted(lambda intent: intent.nonce == first.nonce + 1)
        await scene.until(lambda: scene.pending == 1)
        scene.mine_and_confirm()

        assert (await submitted).transaction_hash == anew.attempts[0].transaction_hash
        # Its old transaction can never have an effect any more.
        with pytest.raises(RuntimeError, match="nonce too low"):
            scene.world.anvil.ask(SEND, first.attempts[0].raw)
    assert await scene.effects() == 1


async def test_a_strangers_transaction_that_is_reorganised_away_leaves_the_number_to_the_intent(scene: Scene) -> None:
    async with scene.living() as life:
        submitted = life.begin()
        await scene.until_sent()
        first = await life.until_state("signed")
        scene.world.anvil.ask("anvil_dropAllTransactions")
        scene.world.do(scene.world.roles["settler"], scene.world.token.approve(SINK, 7))
        await scene.looked()
        scene.world.anvil.ask("anvil_reorg", 1, [[first.attempts[0].raw, 0]])
        scene.confirm()

        assert (await submitted).transaction_hash == first.attempts[0].transaction_hash
    assert (await scene.effects(), scene.transactions()) == (1, 1)


def commit_sampling(scene: Scene) -> Call:
    return ExecutionAnchorCalls(scene.world.deployed.address("ExecutionAnchor")).commit_sampling(0, b"\x01" * 32)


async def test_what_the_contract_would_refuse_is_never_sent_and_says_the_contracts_reason(scene: Scene) -> None:
    async with scene.living() as life:
        with pytest.raises(IntentRefused, match=r"^settle:1: anchor: caller is not the validator; ") as caught:
            await life.begin(call=commit_sampling(scene))

        assert isinstance(caught.value.refusal, NotValidator)
        assert (await life.until_state("dead")).attempts == ()
        # Refused once is not refused for ever.
        life.begin(call=scene.transfer)
        await scene.until_sent()
        scene.mine_and_confirm()
        await life.until_state("final")
    assert (await scene.effects(), scene.transactions()) == (1, 1)


async def test_what_reverts_in_its_block_is_refused_once_that_block_is_read(scene: Scene) -> None:
    world, owner = scene.world, scene.world.roles["owner"]
    anchor = ExecutionAnchorCalls(world.deployed.address("ExecutionAnchor"))
    async with scene.living() as life:
        submitted = life.begin("sampling:0", call=commit_sampling(scene), role="validator")
        await scene.until_sent()
        # Dearer, so it comes first in the block.
        world.send(owner, anchor.set_validator(owner.address))
        world.mine()
        await life.until_state("mined", "sampling:0")
        await scene.looked()
        assert not submitted.done()

        scene.confirm()
        with pytest.raises(IntentRefused, match="caller is not the validator"):
            await submitted
        assert (await life.until_state("dead", "sampling:0")).transaction_hash


async def test_an_endpoint_that_comes_and_goes_costs_nothing_but_time(scene: Scene) -> None:
    asked = 0

    def twist(_method: str, _parameters: list[Any], result: Any) -> Any:
        nonlocal asked
        asked += 1
        if not asked % 6:
            raise Gone
        return result

    scene.endpoint.twist = twist
    async with scene.living() as life:
        submitted = life.begin()
        await scene.until(lambda: scene.pending == 1)
        scene.mine_and_confirm()
        await submitted
    assert (await scene.effects(), scene.transactions()) == (1, 1)
