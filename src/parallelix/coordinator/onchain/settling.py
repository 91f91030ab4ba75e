"""Settles in the vault what accounts have spent: now and then, and at once where an account asks to withdraw.

What is sent is cumulative, so said twice it takes once. What came of it the engine hears from the vault's events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from parallelix.chain.abi import Log, events_of
from parallelix.chain.bindings.credit_vault import CreditVaultCalls, SettlementShort, Spend
from parallelix.coordinator.onchain.outbox import IntentRefused, Outbox
from parallelix.coordinator.service import Coordinator
from parallelix.points import reached

ENTRIES_MAX = 400
"""The vault takes 500, of which 480 new accounts fit into a transaction's gas; this leaves a margin."""
STUCK_SECONDS = 3600.0
"""An entry that the vault cut short (a limit, a small deposit) costs gas each time, so it is tried again this late."""
SHORT_REASONS = {1: "settled already", 2: "the deposit is too small", 3: "the daily limit is reached"}

Entry: TypeAlias = tuple[str, int]


class Settling:
    def __init__(self, coordinator: Coordinator, outbox: Outbox, *, address: str) -> None:
        self._coordinator = coordinator
        self._outbox = outbox
        self._address = address
        self._calls = CreditVaultCalls(address)
        self._sent: dict[str, tuple[int, float]] = {}
        """By account: what was said of it last, and when. Only of accounts that have something to settle."""
        self._time = asyncio.get_running_loop().time

    async def run(self) -> None:
        await self._outbox.finish_left("settler")
        settings = self._coordinator.settings
        due_at = self._time() + settings.settle_seconds
        while True:
            entries = self._entries()
            is_due = self._time() >= due_at
            if entries and (is_due or self._asked(entries)):
                await self._settle(entries)
            if is_due:
                due_at = self._time() + settings.settle_seconds
            await asyncio.sleep(min(settings.chain_poll_seconds, settings.settle_seconds))

    def _entries(self) -> list[Entry]:
        """What to settle now: all that was spent, without what the vault would not take a moment ago."""
        engine = self._coordinator.engine
        if engine.mirror.halted("vault"):
            return []
        found = engine.settlement_entries(ENTRIES_MAX + len(self._sent))
        self._sent = {account: self._sent[account] for account, _ in found if account in self._sent}
        return [entry for entry in found if not self._is_stuck(entry)][:ENTRIES_MAX]

    def _is_stuck(self, entry: Entry) -> bool:
        cumulative_wei, sent_at = self._sent.get(entry[0], (-1, 0.0))
        return entry[1] <= cumulative_wei and self._time() - sent_at < STUCK_SECONDS

    def _asked(self, entries: Sequence[Entry]) -> bool:
        """Whether an account waits for its withdrawal."""
        mirror = self._coordinator.engine.mirror
        return any(mirror.frozen_wei(account) for account, _ in entries)

    async def _settle(self, entries: Sequence[Entry]) -> None:
        reached("settle.begun")
        for account, cumulative_wei in entries:
            self._sent[account] = (cumulative_wei, self._time())
        call = self._calls.settle([Spend(account=each, cumulative_spent=wei) for each, wei in entries])
        intent_id = f"settle:{self._coordinator.clock()}"
        try:
            receipt = await self._outbox.submit(intent_id, "settler", call)
        except IntentRefused as error:
            self._coordinator.log("settle.refused", {"error": error.message, "accounts": len(entries)})
            return
        self._tell_short(receipt.logs)
        reached("settle.final")

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
