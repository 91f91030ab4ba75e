"""Sends what the coordinator has to say to contracts: each intent has its effect once, whatever dies in between.

    submit ──► signed and noted, durably ──► sent ──► in a block ──► in a block that the engine has read: final
                     ▲                         │          │
                     └── dearer, same number ──┘          └── the block went away: sent again

A transaction is durable before anybody else sees it, and every one that was signed for an intent has the same nonce.
So after a crash at any point what is found is sent again, and the chain itself takes at most one. An account has one
intent on the way at a time, and the next begins only when the engine has read the block of the last: whoever makes the
next one from what the engine knows never says anything twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
from eth_account.signers.local import LocalAccount

from parallelix.chain.abi import Call
from parallelix.chain.errors import ChainError, Reverted
from parallelix.chain.ports import Receipt
from parallelix.chain.rpc import Fees, Rpc
from parallelix.chain.wallet import ATTEMPTS_MAX, dearer, send_again, sign, with_margin
from parallelix.coordinator.onchain.intents import Attempt, Intent, Role, intent_of, new_intent
from parallelix.coordinator.store.rows import IntentRow
from parallelix.points import reached

LogEvent: TypeAlias = Callable[[str, dict[str, Any]], None]

GAS_MAX = 2**24
"""What one transaction may allow (EIP-7825)."""
GWEI = 10**9
TIP_MOST_WEI = 5 * GWEI
"""Before any raise; two are plenty on Ethereum. The base fee is the chain's own, the tip is what the endpoint asks for:
one that lies would have us give away all that a transaction may cost."""
FAILING_LOG_SECONDS = 60.0
"""An endpoint that is down says the same at each look."""
LOOKS_WITHOUT_RECEIPT = 3
"""An endpoint of several machines may know that a nonce is used before it knows the receipt."""


class IntentRefused(ChainError):
    """The contract refuses the call, so it had no effect and will not have any. `refusal` has the contract's reason."""

    code = "chain.intent_refused"

    def __init__(self, intent_id: str, refusal: Reverted) -> None:
        super().__init__(f"{intent_id}: {refusal.message}")
        self.intent_id = intent_id
        self.refusal = refusal


class Noted(Protocol):
    """Where intents are kept."""

    async def save(self, row: IntentRow) -> None:
        """Returns once the row is durable."""
        ...

    async def find(self, intent_id: str) -> IntentRow | None: ...

    async def left_open(self) -> Sequence[IntentRow]:
        """Every intent that is neither final nor dead."""
        ...


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How often to look at what is on its way, when to raise its fee, and the most that a unit of gas may cost."""

    look_seconds: float = 4.0
    fee_bump_seconds: float = 90.0
    fee_most_wei: int = 200 * GWEI


class Outbox:
    """`confirmed_block` gives the last block that the engine has read. Belongs to one event loop."""

    def __init__(
        self,
        *,
        rpc: Rpc,
        chain_id: int,
        accounts: Mapping[Role, LocalAccount],
        noted: Noted,
        confirmed_block: Callable[[], int],
        log: LogEvent,
        clock: Callable[[], int],
        pace: Pace | None = None,
    ) -> None:
        self._rpc = rpc
        self._chain_id = chain_id
        self._accounts = accounts
        self._noted = noted
        self._confirmed_block = confirmed_block
        self._log = log
        self._clock = clock
        self._pace = pace or Pace()
        # Two roles may have one key, whose numbers they share.
        self._turns = {account.address: asyncio.Lock() for account in accounts.values()}
        self._left: dict[str, Intent] | None = None
        self._reading_left = asyncio.Lock()

    async def submit(self, intent_id: str, role: Role, call: Call) -> Receipt:
        """Returns once the intent is final, be it since long ago. Raises `IntentRefused`; whatever else goes wrong is
        logged and tried again."""
        await self._read_left()
        async with self._turns[self._accounts[role].address]:
            await self._finish_others(intent_id, role)
            intent = await self._taken_up(intent_id, role, call)
            if intent.state == "final":
                return Receipt(transaction_hash=intent.transaction_hash, block_number=intent.mined_block, gas_used=0)
            return await self._carried(intent)

    async def finish_left(self, role: Role) -> None:
        """Brings to its end what an earlier process had begun for `role`. Refusals are logged."""
        await self._read_left()
        async with self._turns[self._accounts[role].address]:
            await self._finish_others("", role)

    async def _read_left(self) -> None:
        async with self._reading_left:
            if self._left is None:
                found = map(intent_of, await self._noted.left_open())
                self._left = {intent.intent_id: intent for intent in found}

    async def _finish_others(self, intent_id: str, role: Role) -> None:
        assert self._left is not None
        address = self._accounts[role].address
        for other in [each for each in self._left.values() if self._accounts[each.role].address == address]:
            if other.intent_id == intent_id:
                continue
            try:
                await self._carried(other)
            except IntentRefused as error:
                self._log("intent.refused", {"intent": other.intent_id, "error": error.message})

    async def _taken_up(self, intent_id: str, role: Role, call: Call) -> Intent:
        assert self._left is not None
        if intent_id in self._left:
            return self._left[intent_id]
        row = await self._noted.find(intent_id)
        if row is not None and row.state == "final":
            return intent_of(row)
        return new_intent(intent_id, role, call, now=self._clock())

    async def _carried(self, intent: Intent) -> Receipt:
        """Carries an intent to its end, however long that takes."""
        assert self._left is not None
        carrier = _Carrier(
            intent=intent,
            rpc=self._rpc,
            chain_id=self._chain_id,
            account=self._accounts[intent.role],
            save=self._noted.save,
            confirmed_block=self._confirmed_block,
            log=self._log,
            pace=self._pace,
        )
        try:
            return await carrier.run()
        finally:
            # A cancelled one goes on where it stands, should the process live on.
            if carrier.intent.is_open:
                self._left[intent.intent_id] = carrier.intent
            else:
                self._left.pop(intent.intent_id, None)


class _Carrier:
    """One intent on its way. `intent` is as the store has it."""

    def __init__(
        self,
        *,
        intent: Intent,
        rpc: Rpc,
        chain_id: int,
        account: LocalAccount,
        save: Callable[[IntentRow], Awaitable[None]],
        confirmed_block: Callable[[], int],
        log: LogEvent,
        pace: Pace,
    ) -> None:
        self.intent = intent
        self._rpc = rpc
        self._chain_id = chain_id
        self._account = account
        self._save = save
        self._confirmed_block = confirmed_block
        self._log = log
        self._pace = pace
        self._time = asyncio.get_running_loop().time
        self._sent_at: float | None = None
        self._looks_without_receipt = 0
        self._failure = ("", 0.0)

    async def run(self) -> Receipt:
        if self.intent.attempts:
            # Whoever carried it before may have been cancelled while this was written.
            await self._save(self.intent.row())
        while True:
            try:
                receipt = await self._turn()
                if receipt is not None:
                    return receipt
            except IntentRefused:
                raise
            except ChainError as error:
                self._failing(error)
            await asyncio.sleep(self._pace.look_seconds)

    async def _turn(self) -> Receipt | None:
        """One look, and one thing done about it. The receipt once the intent is final."""
        confirmed_block = self._confirmed_block()
        found = await self._found()
        if found is not None:
            return await self._seen_mined(*found, confirmed_block)
        if self.intent.state == "mined":
            self._tell("intent.reorged", block=self.intent.mined_block)
            await self._note(self.intent.unmined())
            self._sent_at = None
        if not self.intent.attempts:
            await self._sign_first()
        elif await self._nonce_is_taken(confirmed_block):
            return None
        elif self._sent_at is None:
            await self._send()
        elif self._time() - self._sent_at >= self._pace.fee_bump_seconds:
            await self._raise_fee()
            await self._send()
        return None

    async def _found(self) -> tuple[str, int] | None:
        """The attempt that is in a block now, and the block."""
        for attempt in reversed(self.intent.attempts):
            block = await self._rpc.mined_block(attempt.transaction_hash)
            if block is not None:
                return attempt.transaction_hash, block
        return None

    async def _seen_mined(self, transaction_hash: str, block: int, confirmed_block: int) -> Receipt | None:
        self._looks_without_receipt = 0
        if (self.intent.state, self.intent.mined_block) != ("mined", block):
            await self._note(self.intent.mined(block))
            reached("outbox.mined")
        if block > confirmed_block:
            return None
        try:
            receipt = await self._rpc.receipt(transaction_hash)
        except Reverted as error:
            await self._note(self.intent.over("dead", transaction_hash=transaction_hash))
            raise IntentRefused(self.intent.intent_id, error) from error
        if receipt is None:
            return None
        await self._note(self.intent.over("final", transaction_hash=transaction_hash))
        self._tell("intent.final", block=block, transaction=transaction_hash, gas=receipt.gas_used)
        return receipt

    async def _nonce_is_taken(self, confirmed_block: int) -> bool:
        """Whether somebody else's transaction has the number. One in a block that the engine has read keeps it for
        good: ours can then never be mined, and the intent gets a new one."""
        address, nonce = self._account.address, self.intent.nonce
        if await self._rpc.nonce(address) <= nonce:
            self._looks_without_receipt = 0
            return False
        if confirmed_block < 0 or await self._rpc.nonce(address, block=confirmed_block) <= nonce:
            return True
        self._looks_without_receipt += 1
        if self._looks_without_receipt >= LOOKS_WITHOUT_RECEIPT:
            self._tell("intent.nonce_taken", nonce=nonce, account=address)
            self._looks_without_receipt = 0
            await self._note(self.intent.anew())
        return True

    async def _sign_first(self) -> None:
        """Signs, notes and sends. What would revert is refused here, without a fee."""
        fees = await self._affordable()
        if fees is None:
            return
        address = self._account.address
        try:
            estimated = await self._rpc.estimate_gas(self.intent.to, self.intent.data, sender=address)
        except Reverted as error:
            await self._note(self.intent.over("dead"))
            raise IntentRefused(self.intent.intent_id, error) from error
        # Not what is pending beside it: that may be a lost process's attempt at the same thing, and of two transactions
        # with one number at most one is mined.
        nonce = await self._rpc.nonce(address)
        await self._note_attempt(nonce, fees, gas=min(with_margin(estimated), max(estimated, GAS_MAX)))
        reached("outbox.noted")
        await self._send()
        reached("outbox.sent")

    async def _raise_fee(self) -> None:
        """Another attempt at the same number, an eighth dearer; none where that costs too much or there are many."""
        last, fees = self.intent.attempts[-1], await self._affordable()
        if fees is None:
            return
        raised = dearer(last, fees)
        # No block takes an attempt that offers less than the block costs, so then one more is no mere insistence. It
        # offers twice that, so there are few of these however long a price goes on rising.
        is_priced_out = _base_wei(fees) > int(last.fee_most_wei)
        is_enough = len(self.intent.attempts) >= ATTEMPTS_MAX and not is_priced_out
        if is_enough or raised.most_wei > self._pace.fee_most_wei:
            self._tell("intent.stuck", attempts=len(self.intent.attempts), fee_wei=last.fee_most_wei)
            return
        await self._note_attempt(self.intent.nonce, raised, gas=last.gas)
        self._tell("intent.fee_raised", attempts=len(self.intent.attempts), fee_wei=str(raised.most_wei))

    async def _affordable(self) -> Fees | None:
        """What to offer for the next block; none while that alone costs more than we may pay."""
        fees, most_wei = await self._rpc.fees(), self._pace.fee_most_wei
        base_wei, tip_wei = _base_wei(fees), min(fees.tip_wei, TIP_MOST_WEI)
        if base_wei + tip_wei > most_wei:
            self._tell("intent.too_dear", gas_wei=str(base_wei + tip_wei), most_wei=str(most_wei))
            return None
        return Fees(most_wei=min(2 * base_wei + tip_wei, most_wei), tip_wei=tip_wei)

    async def _note_attempt(self, nonce: int, fees: Fees, *, gas: int) -> None:
        signed = sign(
            self._account,
            chain_id=self._chain_id,
            nonce=nonce,
            to=self.intent.to,
            data=self.intent.data,
            gas=gas,
            fees=fees,
        )
        await self._note(self.intent.signed(nonce, Attempt(**msgspec.structs.asdict(signed), gas=gas)))

    async def _send(self) -> None:
        # Noted first: an endpoint that refuses now is asked again only after a while.
        self._sent_at = self._time()
        await send_again(self._rpc, self.intent.attempts[-1])

    async def _note(self, intent: Intent) -> None:
        self.intent = intent
        await self._save(intent.row())

    def _tell(self, name: str, **fields: Any) -> None:
        self._log(name, {"intent": self.intent.intent_id, **fields})

    def _failing(self, error: ChainError) -> None:
        message, told_at = self._failure
        if message == error.message and self._time() - told_at < FAILING_LOG_SECONDS:
            return
        self._failure = (error.message, self._time())
        self._tell("intent.failing", error=error.message)


def _base_wei(fees: Fees) -> int:
    """What a unit of gas costs in the newest block: fees allow for twice that."""
    return (fees.most_wei - fees.tip_wei) // 2
