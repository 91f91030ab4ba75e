"""Settles in the vault what accounts have spent: now and then, and at once where an account asks to withdraw.

What is sent is cumulative, so said twice it takes once. What came of it the engine hears from the vault's events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from parallelix.chain.abi import Log, events_of
from parallelix.chain.bindings.credit_vault import CreditVaultCalls, SettlementShort, Spend
from parallelix.coordinator.onchain.outbox import IntentRefused, Outbox
from parallelix.coordinator.service import Coordinator
from parallelix.engine.ledger import spent
from parallelix.points import reached

ENTRIES_MAX = 400
"""The vault takes 500, of which 480 new accounts fit into a transaction's gas; this leaves a margin."""
STUCK_SECONDS = 3600.0
"""An entry that the vault cut short (a limit, a small deposit) costs gas each time, so it is tried again this late, or
when the vault's day begins: whoever leaves after midnight must be settled before."""
REFUSED_SECONDS = 60.0
"""A settlement that is refused whole, as while the vault is paused, costs a question."""
SMALL_PER_DELAY = 2
"""So often small sums are settled within the vault's withdrawal delay: once at least before anybody can be gone."""
SECONDS_PER_DAY = 86_400
WEI_PER_PRLX = 10**18
SHORT_REASONS = {1: "settled already", 2: "the deposit is too small", 3: "the daily limit is reached"}

Entry: TypeAlias = tuple[str, int]


class Said(NamedTuple):
    """What the vault was told of an account, in which day of the chain, and when it may be told the same again."""

    cumulative_wei: int
    again_at: float
    day: int

    def covers(self, cumulative_wei: int, *, now: float, day: int) -> bool:
        return cumulative_wei <= self.cumulative_wei and now < self.again_at and day == self.day


class Settling:
    def __init__(
        self, coordinator: Coordinator, outbox: Outbox, *, address: str, withdrawal_delay_seconds: int
    ) -> None:
        self._coordinator = coordinator
        self._outbox = outbox
        self._address = address
        self._calls = CreditVaultCalls(address)
        self._said: dict[str, Said] = {}
        """By account, only of those that have something to settle."""
        self._time = asyncio.get_running_loop().time
        self._small_seconds = withdrawal_delay_seconds / SMALL_PER_DELAY
        self._small_due_at = self._time()

    async def run(self) -> None:
        await self._outbox.finish_left("settler")
        settings = self._coordinator.settings
        due_at = self._time() + settings.settle_seconds
        while True:
            now = self._time()
            is_due, is_small_due = now >= due_at, now >= self._small_due_at
            entries = self._entries(1 if is_small_due else round(settings.settle_prlx_min * WEI_PER_PRLX))
            if entries and (is_due or self._asked(entries)):
                await self._settle(entries)
            if is_due and len(entries) < ENTRIES_MAX:
                # Else there may be more, which must not wait behind what is spent meanwhile.
                due_at = self._time() + settings.settle_seconds
                self._small_due_at = now + self._small_seconds if is_small_due else self._small_due_at
            await asyncio.sleep(min(settings.chain_poll_seconds, settings.settle_seconds))

    def _entries(self, least_wei: int) -> list[Entry]:
        """What to settle now: all that was spent, without what the vault would not take a moment ago."""
        engine = self._coordinator.engine
        if engine.mirror.halted("vault"):
            return []
        self._said = {each: said for each, said in self._said.items() if engine.ledger.balance_wei(spent(each))}
        found = engine.settlement_entries(ENTRIES_MAX + len(self._said), least_wei=max(1, least_wei))
        return [entry for entry in found if not self._is_stuck(entry)][:ENTRIES_MAX]

    def _is_stuck(self, entry: Entry) -> bool:
        said = self._said.get(entry[0])
        return said is not None and said.covers(entry[1], now=self._time(), day=self._day)

    @property
    def _day(self) -> int:
        """The UTC day of the last confirmed block: what the vault takes a day begins anew with it."""
        cursor = self._coordinator.engine.mirror.cursor
        return 0 if cursor is None else cursor.time // SECONDS_PER_DAY

    def _asked(self, entries: Sequence[Entry]) -> bool:
        """Whether an account waits for its withdrawal."""
        mirror = self._coordinator.engine.mirror
        return any(mirror.frozen_wei(account) for account, _ in entries)

    async def _settle(self, entries: Sequence[Entry]) -> None:
        reached("settle.begun")
        self._note(entries, STUCK_SECONDS)
        call = self._calls.settle([Spend(account=each, cumulative_spent=wei) for each, wei in entries])
        intent_id = f"settle:{self._coordinator.clock()}"
        try:
            receipt = await self._outbox.submit(intent_id, "settler", call)
        except IntentRefused as error:
            self._note(entries, REFUSED_SECONDS)
            self._coordinator.log("settle.refused", {"error": error.message, "accounts": len(entries)})
            return
        self._tell_short(receipt.logs)
        reached("settle.final")

    def _note(self, entries: Sequence[Entry], again_seconds: float) -> None:
        again_at = self._time() + again_seconds
        self._said.update({account: Said(cumulative_wei, again_at, self._day) for account, cumulative_wei in entries})

    def _tell_short(self, logs: Sequence[Log]) -> None:
        for short in events_of(logs, SettlementShort, address=self._address):
            self._coordinator.log(
                "settle.short",
                {
                    "account": short.account,
                    "cumulative_wei": str(short.cumulative_spent),
                    "settled_wei": str(short.settled),
                    "reason": SHORT_REASONS.get(short.reason, str(short.reason)),
                },
            )
