"""Anchors closed batches in their order, after the commitment to the first sampling secret.

What is sent is decided by looking at the contract: a batch that it holds is done, whoever sent it. That a batch is
confirmed the engine hears from the contract's events and from nothing here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls, ExecutionAnchorViews
from parallelix.chain.errors import ChainError
from parallelix.chain.rpc import Rpc
from parallelix.coordinator.onchain.outbox import IntentRefused, Outbox
from parallelix.coordinator.service import Coordinator
from parallelix.engine import events
from parallelix.points import reached
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.records import Batch

EPOCH = 0
"""Nothing is sampled yet, so the first epoch does not end."""
HASH_BYTES = 32
RETRY_SECONDS = 10.0
"""After an endpoint or a contract said no: a block of Ethereum, nearly."""

Standing: TypeAlias = Literal["next", "held", "foreign", "early"]


class Anchoring:
    """Its `put` takes each closed batch, at a restart those that are not confirmed yet, all in order."""

    def __init__(
        self, coordinator: Coordinator, outbox: Outbox, rpc: Rpc, *, address: str, sampling_key: bytes
    ) -> None:
        self._coordinator = coordinator
        self._outbox = outbox
        self._rpc = rpc
        self._calls = ExecutionAnchorCalls(address)
        self._address = address
        self._sampling_key = sampling_key
        # As many as the engine leaves unconfirmed, which it bounds by their records.
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()
        self._told = ""

    def put(self, batch: Batch) -> None:
        self._batches.put_nowait(batch)

    async def run(self) -> None:
        await self._outbox.finish_left("validator")
        await self._until(self._commit_sampling)
        while True:
            batch = await self._batches.get()
            await self._until(lambda batch=batch: self._anchor(batch))

    async def _until(self, step: Callable[[], Awaitable[bool]]) -> None:
        """Repeats a step until it is done. Whatever stands against it is said once."""
        while True:
            try:
                if await step():
                    self._told = ""
                    return
            except ChainError as error:
                self._tell("anchor.failed", error=error.message)
            await asyncio.sleep(self._pause_seconds)

    @property
    def _pause_seconds(self) -> float:
        return min(RETRY_SECONDS, self._coordinator.settings.chain_poll_seconds)

    async def _commit_sampling(self) -> bool:
        """Whether the first sampling secret is committed to; else does it."""
        views = self._views()
        if await views.committed_epochs() > EPOCH:
            if await views.commitment_of(EPOCH) != self._commitment:
                self._tell(
                    "sampling.foreign",
                    error=f"epoch {EPOCH} is committed to another secret than the one in sampling.key; anchoring goes"
                    " on, but that one can never be revealed: restore the file from a backup",
                )
            return True
        call = self._calls.commit_sampling(EPOCH, self._commitment)
        try:
            await self._outbox.submit(f"sampling:{EPOCH}", "validator", call)
        except IntentRefused as error:
            self._tell("anchor.refused", error=error.message)
        return False

    async def _anchor(self, batch: Batch) -> bool:
        """Whether the contract has the batch; else does one thing about it."""
        engine = self._coordinator.engine
        if batch.number not in engine.recorder.unconfirmed:
            return True
        if reason := engine.mirror.halted("anchor"):
            self._tell("anchor.halted", error=reason)
            return False
        standing = await self._standing(batch)
        if standing == "held":
            return True
        if standing == "foreign":
            await self._halt_if_final(batch)
        elif standing == "early":
            self._tell("anchor.failed", error=f"batch {batch.number}: the contract has no batch {batch.number - 1} yet")
        else:
            reached("anchor.begun")
            await self._send(batch)
            reached("anchor.final")
        return False

    async def _send(self, batch: Batch) -> None:
        call = self._calls.anchor_batch(
            _bytes(batch.previous_hash),
            _bytes(batch.head_hash),
            batch.first,
            batch.last,
            _bytes(batch.merkle_root),
            batch.count,
            EPOCH,
        )
        try:
            await self._outbox.submit(f"anchor:{batch.number}", "validator", call)
        except IntentRefused as error:
            # The next look at the contract tells what it means.
            self._tell("anchor.refused", error=error.message)

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

    @property
    def _commitment(self) -> bytes:
        return hashlib.sha256(self._sampling_key).digest()

    def _tell(self, name: str, *, error: str) -> None:
        if self._told != error:
            self._told = error
            self._coordinator.log(name, {"error": error})


def _bytes(text: str) -> bytes:
    return from_hex(text, name="hash", length_bytes=HASH_BYTES)
