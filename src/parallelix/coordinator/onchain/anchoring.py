"""Anchors closed batches in their order, each once the contract knows what it must of the epochs of sampling.

What is sent is decided by looking at the contract: a batch that it holds is done, whoever sent it. That a batch is
confirmed the engine hears from the contract's events and from nothing here.
"""

from __future__ import annotations

import asyncio
from typing import Literal, TypeAlias

from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls, ExecutionAnchorViews
from parallelix.chain.rpc import Rpc
from parallelix.coordinator.onchain.insisting import Insisting
from parallelix.coordinator.onchain.outbox import IntentRefused, Outbox
from parallelix.coordinator.service import Coordinator
from parallelix.engine import events
from parallelix.points import reached
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.records import Batch

HASH_BYTES = 32
EPOCHS_UNREVEALED_MAX = 2
"""The contract takes a batch of an epoch once those before the one before it are revealed."""

Standing: TypeAlias = Literal["next", "held", "foreign", "early"]


class Anchoring(Insisting):
    """Its `put` takes each closed batch, at a restart those that are not confirmed yet, all in order."""

    def __init__(self, coordinator: Coordinator, outbox: Outbox, rpc: Rpc, *, address: str) -> None:
        super().__init__(coordinator, failing="anchor.failed")
        self._coordinator = coordinator
        self._outbox = outbox
        self._rpc = rpc
        self._calls = ExecutionAnchorCalls(address)
        self._address = address
        # As many as the engine leaves unconfirmed, which it bounds by their records.
        self._batches: asyncio.Queue[tuple[Batch, int]] = asyncio.Queue()

    def put(self, batch: Batch, epoch: int) -> None:
        self._batches.put_nowait((batch, epoch))

    async def run(self) -> None:
        await self._outbox.finish_left("validator")
        while True:
            batch, epoch = await self._batches.get()
            await self.until(lambda batch=batch, epoch=epoch: self._anchor(batch, epoch))

    async def _anchor(self, batch: Batch, epoch: int) -> bool:
        """Whether the contract has the batch; else does one thing about it."""
        engine = self._coordinator.engine
        if batch.number not in engine.recorder.unconfirmed:
            return True
        if reason := engine.mirror.halted("anchor"):
            self.tell("anchor.halted", error=reason)
            return False
        standing = await self._standing(batch)
        if standing == "held":
            return True
        if standing == "foreign":
            await self._halt_if_final(batch)
        elif standing == "early":
            self.tell("anchor.failed", error=f"batch {batch.number}: the contract has no batch {batch.number - 1} yet")
        elif lacking := await self._lacking(epoch):
            self.tell("anchor.waits", error=f"batch {batch.number}: {lacking}")
        else:
            reached("anchor.begun")
            await self._send(batch, epoch)
            reached("anchor.final")
        return False

    async def _lacking(self, epoch: int) -> str:
        """What the contract must be told of the epochs before it takes a batch of this one; `Sampling` does so."""
        views = self._views()
        committed, revealed = await views.committed_epochs(), await views.revealed_epochs()
        if epoch >= committed:
            return f"epoch {epoch} is not committed to yet; {committed} are"
        if epoch - EPOCHS_UNREVEALED_MAX >= revealed:
            return f"epoch {epoch - EPOCHS_UNREVEALED_MAX} is not revealed yet; {revealed} are"
        return ""

    async def _send(self, batch: Batch, epoch: int) -> None:
        call = self._calls.anchor_batch(
            _bytes(batch.previous_hash),
            _bytes(batch.head_hash),
            batch.first,
            batch.last,
            _bytes(batch.merkle_root),
            batch.count,
            epoch,
        )
        try:
            await self._outbox.submit(f"anchor:{batch.number}", "validator", call)
        except IntentRefused as error:
            # The next look at the contract tells what it means.
            self.tell("anchor.refused", error=error.message)

    async def _standing(self, batch: Batch, *, block: int | None = None) -> Standing:
        """What the contract has in the batch's place. "early": it lacks an earlier one, as a lagging endpoint does."""
        views = self._views(block)
        count = await views.batch_count()
        if batch.number < count:
            return "held" if await views.root_of(batch.number) == _bytes(batch.merkle_root) else "foreign"
        if batch.number > count:
            return "early"
        return "next" if await views.head() == _bytes(batch.previous_hash) else "foreign"

    async def _halt_if_final(self, batch: Batch) -> None:
        """A foreign batch that a reorganisation may still take away is waited for; a final one stops anchoring."""
        cursor = self._coordinator.engine.mirror.cursor
        if cursor is None or await self._standing(batch, block=cursor.block) != "foreign":
            return
        head = to_hex(await self._views(cursor.block).head())
        reason = (
            f"batch {batch.number} continues head {batch.previous_hash}, but in block {cursor.block} the contract"
            f" {self._address} stands at head {head}: somebody else anchors with the validator's key, or this store is"
            " older than what was anchored; restore the newest store, or deploy a network of its own for this one"
        )
        await self._coordinator.settle(events.ChainHalted(part="anchor", reason=reason))

    def _views(self, block: int | None = None) -> ExecutionAnchorViews:
        return ExecutionAnchorViews(self._rpc, self._address, block=block)


def _bytes(text: str) -> bytes:
    return from_hex(text, name="hash", length_bytes=HASH_BYTES)
