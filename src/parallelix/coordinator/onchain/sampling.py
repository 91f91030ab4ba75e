"""Commits to the secrets of sampling epochs ahead of them, and shows those of epochs that are over.

The contract is looked at as of the block that the engine has read, and each turn does the one thing that it lacks:

    commit     the present epoch's secret, then its successor's, so that the present one may be revealed when it is over
    reveal     the oldest epoch, when nothing of it is under way any more
    begin      the next epoch, when the present one has lasted and those before it are revealed

So a process may die anywhere: its successor finds the contract and the engine as they stand and goes on. No epoch
begins here before its commitment is in a block that counts, and none that the contract would not take a batch of.
"""

from __future__ import annotations

import asyncio

from parallelix.chain.abi import Call
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls, ExecutionAnchorViews
from parallelix.chain.rpc import Rpc
from parallelix.coordinator.epochs import Epochs
from parallelix.coordinator.onchain.insisting import Insisting
from parallelix.coordinator.onchain.outbox import IntentRefused, Outbox
from parallelix.coordinator.service import Coordinator
from parallelix.points import reached


class Sampling(Insisting):
    def __init__(self, coordinator: Coordinator, outbox: Outbox, rpc: Rpc, *, address: str) -> None:
        super().__init__(coordinator, failing="sampling.failed")
        self._coordinator = coordinator
        self._outbox = outbox
        self._rpc = rpc
        self._address = address
        self._calls = ExecutionAnchorCalls(address)
        self._epochs = Epochs(coordinator)

    async def run(self) -> None:
        await self._outbox.finish_left("validator")
        if not self._coordinator.settings.audits:
            # The anchor takes no batch while it has no commitment at all.
            await self.until(self._commit_first)
            return
        while True:
            await self.once(self.turn)
            await asyncio.sleep(min(self.pause_seconds, self._epochs.look_seconds))

    async def _commit_first(self) -> bool:
        views = self._views()
        if views is None or await views.committed_epochs() == 0:
            await self._commit(0)
            return False
        return True

    async def turn(self) -> bool:
        """Does at most one thing."""
        views, epochs = self._views(), self._epochs
        if views is None or self._coordinator.engine.mirror.halted("anchor"):
            return False
        committed, revealed = await views.committed_epochs(), await views.revealed_epochs()
        present = epochs.present
        # What is revealed already, as where this store is older than the chain, can draw nothing any more.
        following = max(0 if present is None else present + 1, revealed)
        if committed <= following:
            await self._commit(committed)
        elif await self._is_foreign(views, following):
            return False
        elif epochs.unrevealed and revealed > epochs.unrevealed[0]:
            await epochs.reveal(epochs.unrevealed[0])
        elif epochs.unrevealed and epochs.is_over(revealed):
            await self._send(f"reveal:{revealed}", self._calls.reveal_sampling(revealed, epochs.secret(revealed)))
        elif (epochs.is_due or following == revealed) and not epochs.unrevealed:
            await epochs.begin(following)
        else:
            return False
        return True

    async def _is_foreign(self, views: ExecutionAnchorViews, epoch: int) -> bool:
        if await views.commitment_of(epoch) == self._epochs.commitment(epoch):
            return False
        self.tell(
            "sampling.foreign",
            error=f"epoch {epoch} is committed to another secret than that of sampling.key, so what is drawn in it"
            " could never be verified, and it does not begin: restore the file from a backup, or set audits = false",
        )
        return True

    async def _commit(self, epoch: int) -> None:
        await self._send(f"sampling:{epoch}", self._calls.commit_sampling(epoch, self._epochs.commitment(epoch)))

    async def _send(self, intent_id: str, call: Call) -> None:
        reached("sampling.begun")
        try:
            await self._outbox.submit(intent_id, "validator", call)
        except IntentRefused as error:
            # The next look at the contract tells what it means.
            self.tell("sampling.refused", error=error.message)
            return
        reached("sampling.final")

    def _views(self) -> ExecutionAnchorViews | None:
        """As of the last block that the engine has read; None before the first."""
        cursor = self._coordinator.engine.mirror.cursor
        return None if cursor is None else ExecutionAnchorViews(self._rpc, self._address, block=cursor.block)
