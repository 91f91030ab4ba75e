"""The event loop's way to the store: whatever was appended while one transaction is written becomes the next one.

    append ──► gathering group ──► writer thread: one transaction ──► callbacks in order, then waiters

A quiet coordinator commits each step at once and alone. A busy one, whose last commit several steps shared, lets
`GATHERING_SECONDS` pass between the beginnings of two commits, because a commit's pages and its sync cost far more
than a further row in it. A commit that fails ends the process through `on_fatal`; its waiters are never answered,
because memory is ahead of the store by then.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from time import perf_counter

from parallelix.coordinator.errors import Unavailable
from parallelix.coordinator.store.errors import StoreFailed
from parallelix.coordinator.store.rows import PayloadRow, ResultRow
from parallelix.coordinator.store.statements import Change, Delete
from parallelix.coordinator.store.store import Store
from parallelix.engine.rows import Row

PENDING_CHANGES_MAX = 20_000
"""Near a quarter of a second of writing: new requests are refused above it."""
PENDING_BYTES_MAX = 64 * 1024 * 1024
"""Of sealed payloads and results, which alone are large."""
PENDING_HARD_FACTOR = 10
"""What nodes and timers do cannot be refused. Ten times the bound without a commit in between is a store that hangs."""
RETRY_AFTER_SECONDS = 1.0
GATHERING_SECONDS = 0.004
"""Little beside a token's time. At 400 requests a second it halves the commits (`docs/benchmarks.md`)."""


class _Group:
    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        self.changes: list[Change] = []
        self.bytes = 0
        self.steps = 0
        self.after: list[Callable[[], None]] = []
        self.durable: asyncio.Future[None] | None = None


class Journal:
    """Belongs to one event loop. `store` leads, and from `start` on only the journal's thread uses it.

    `on_fatal` is called once, on the loop, with what went wrong. `on_commit` gets the number of changes and the
    seconds of every transaction.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_fatal: Callable[[BaseException], None],
        on_commit: Callable[[int, float], None] = lambda changes, seconds: None,
        pending_changes_max: int = PENDING_CHANGES_MAX,
        pending_bytes_max: int = PENDING_BYTES_MAX,
    ) -> None:
        self._store = store
        self._on_fatal, self._on_commit = on_fatal, on_commit
        self._pending_changes_max, self._pending_bytes_max = pending_changes_max, pending_bytes_max
        self._gathering = _Group(ticket=1)
        self._flying: _Group | None = None
        self._scheduled = False
        self._not_before = 0.0
        self._failed = False
        self.durable = 0
        """Everything up to this ticket survives a loss of power."""
        self._groups: SimpleQueue[_Group | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def ticket(self) -> int:
        """The last append's. Whoever tells what memory holds waits for this one first."""
        return self._gathering.ticket if self._gathering.changes else self._gathering.ticket - 1

    @property
    def pending(self) -> int:
        """Changes not handed to the writer yet."""
        return len(self._gathering.changes)

    def require_room(self) -> None:
        """To be called before anything new is let in. Raises `Unavailable` (`overloaded`)."""
        changes, sealed_bytes = len(self._gathering.changes), self._gathering.bytes
        if changes >= self._pending_changes_max or sealed_bytes >= self._pending_bytes_max:
            raise Unavailable(
                f"the store is behind: {changes} changes of {sealed_bytes} sealed bytes wait to be written, at most"
                f" {self._pending_changes_max} of {self._pending_bytes_max} bytes may; try again in a moment",
                code="overloaded",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )

    def append(
        self, rows: Sequence[Row], deletes: Iterable[Delete] = (), *, after: Callable[[], None] | None = None
    ) -> int:
        """Takes what one step must make durable, and gives the ticket to wait for. Never blocks, never refuses.

        `after` runs on the loop once this, and everything appended before it, is durable; in order of the appends.
        """
        group = self._gathering
        before = len(group.changes)
        group.changes.extend(rows)
        group.changes.extend(deletes)
        if len(group.changes) == before:
            self._run_after_earlier(after)
            return self.ticket
        group.steps += 1
        group.bytes += sum(len(row.sealed) for row in rows if isinstance(row, PayloadRow | ResultRow))
        if after is not None:
            group.after.append(after)
        if len(group.changes) > PENDING_HARD_FACTOR * self._pending_changes_max:
            self._fail(StoreFailed(f"{len(group.changes)} changes wait, and no commit comes back: the store hangs"))
        elif self._flying is None:
            self._schedule()
        return group.ticket

    async def wait(self, ticket: int) -> None:
        """Returns once the ticket's changes are durable. Never returns if they cannot be."""
        assert ticket <= self.ticket, (ticket, self.ticket)
        if ticket <= self.durable:
            return
        group = self._flying if self._flying is not None and self._flying.ticket == ticket else self._gathering
        if group.durable is None:
            group.durable = self._loop.create_future()
        # The future is everybody's: one waiter that is cancelled must not cancel it.
        await asyncio.shield(group.durable)

    async def flushed(self) -> None:
        """Returns once everything appended so far is durable."""
        await self.wait(self.ticket)

    async def close(self) -> None:
        """Writes what is left and ends the thread; the store stays open."""
        if not self._failed:
            await self.flushed()
        self._groups.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run_after_earlier(self, after: Callable[[], None] | None) -> None:
        if after is None:
            return
        latest = self._gathering if self._gathering.changes else self._flying
        if latest is None:
            self._loop.call_soon(self._call, [after])
        else:
            latest.after.append(after)

    def _schedule(self) -> None:
        if self._scheduled:
            return
        self._scheduled = True
        if (delay_seconds := self._not_before - self._loop.time()) > 0:
            self._loop.call_later(delay_seconds, self._launch)
        else:
            # Steps of the same turn of the loop go into one transaction.
            self._loop.call_soon(self._launch)

    def _launch(self) -> None:
        self._scheduled = False
        if self._failed:
            return
        assert self._flying is None
        if self._gathering.steps > 1:
            self._not_before = self._loop.time() + GATHERING_SECONDS
        self._flying, self._gathering = self._gathering, _Group(self._gathering.ticket + 1)
        self._groups.put(self._flying)

    def _write(self) -> None:
        """The writer's thread."""
        while (group := self._groups.get()) is not None:
            started = perf_counter()
            try:
                self._store.commit(group.changes)
            except BaseException as error:
                self._to_loop(self._fail, error)
                return
            self._to_loop(self._committed, group, perf_counter() - started)

    def _to_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        # A loop that is closed has nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _committed(self, group: _Group, seconds: float) -> None:
        if self._failed:
            return
        self.durable = group.ticket
        self._flying = None
        if self._gathering.changes:
            # First of all, so that the writer works while the loop tells of the last group.
            self._schedule()
        self._on_commit(len(group.changes), seconds)
        self._call(group.after)
        if group.durable is not None and not self._failed:
            group.durable.set_result(None)

    def _call(self, callbacks: list[Callable[[], None]]) -> None:
        try:
            for callback in callbacks:
                callback()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._failed:
            self._failed = True
            self._on_fatal(error)
