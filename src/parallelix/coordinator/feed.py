"""What a requester sees of a request while it is open: progress and text as they come, and the end.

A follower keeps its own place and reads from the attempt's entries, so a slow reader costs nothing and one that comes
back continues where it was. Text is provisional until `Ended`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal, TypeAlias

import msgspec

from parallelix.coordinator.errors import Unavailable
from parallelix.protocol.requests import AuditState
from parallelix.protocol.work import Entry, ResultContent, Usage

NOTES_MAX = 64
"""Notes on progress for one request: ten attempts with three each, and some to spare."""


RETRY_AFTER_SECONDS = 5.0
"""How long a stop and the start after it take."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a stream: after `offset_bytes` of the text of an attempt. It is what Last-Event-ID holds."""

    attempt_number: int
    offset_bytes: int


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """New text. `offset_bytes` is the length of the attempt's text before it, in UTF-8."""

    attempt_number: int
    offset_bytes: int
    entries: tuple[Entry, ...]
    text: str


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """All text so far is void: another attempt begins."""

    attempt_number: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    kind: Literal["held", "dispatched", "running"]
    attempt_number: int
    reason: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a request ended. `content` is there for a completed one, and for a cancelled one with a partial result,
    unless it was sealed to the requester's key: then `sealed_result` is."""

    request_id: str
    state: Literal["completed", "failed", "expired", "cancelled"]
    reason: str = ""
    content: ResultContent | None = None
    sealed_result: str | None = None
    entries: tuple[Entry, ...] = ()
    top_logprobs: int = 0
    """How many alternatives the requester asked for, where the outcome was read from the store."""
    usage: Usage | None = None
    charge_wei: int = 0
    record_hash: str | None = None
    audit: AuditState = "off"


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    outcome: Outcome


StreamItem: TypeAlias = Delta | Restarted | Progress | Ended


class Feed:
    """The text of the attempt that is under way, and who waits for more of it."""

    def __init__(self) -> None:
        self.attempt_number = 0
        self.entries: list[Entry] = []
        self.ends: list[int] = []
        """Where each entry ends, in UTF-8 bytes."""
        self.outcome: Outcome | None = None
        self.followers = 0
        self._notes: list[Progress] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._stopped = False

    @property
    def length_bytes(self) -> int:
        return self.ends[-1] if self.ends else 0

    def text(self) -> str:
        return "".join(entry.text for entry in self.entries)

    def note(self, progress: Progress) -> None:
        if len(self._notes) < NOTES_MAX:
            self._notes.append(progress)
        self._wake()

    def begin(self, attempt_number: int) -> None:
        """A new attempt: what was shown of the one before is void."""
        if attempt_number > self.attempt_number:
            self.attempt_number = attempt_number
            self.entries, self.ends = [], []
            self._wake()

    def add(self, entries: tuple[Entry, ...]) -> None:
        end = self.length_bytes
        for entry in entries:
            end += len(entry.text) if entry.text.isascii() else len(entry.text.encode())
            self.entries.append(entry)
            self.ends.append(end)
        self._wake()

    def end(self, outcome: Outcome) -> None:
        assert self.outcome is None, outcome.request_id
        self.outcome = outcome
        self._wake()

    def stop(self) -> None:
        """Ends every follower: the coordinator stops before the request does."""
        self._stopped = True
        self._wake()

    async def follow(self, after: Position | None = None) -> AsyncGenerator[StreamItem, None]:
        """Everything from `after` on, then exactly one `Ended`. An entry that `after` lies in comes whole.

        Raises `Unavailable` when the coordinator stops.
        """
        at_note, at_entry, attempt_number, known_bytes = 0, 0, self.attempt_number, 0
        if after is not None:
            at_note = len(self._notes)
            attempt_number, known_bytes = after.attempt_number, after.offset_bytes
        shown = known_bytes > 0
        self.followers += 1
        try:
            while True:
                while at_note < len(self._notes):
                    yield self._notes[at_note]
                    at_note += 1
                if attempt_number != self.attempt_number:
                    if shown:
                        yield Restarted(attempt_number=self.attempt_number)
                    attempt_number, at_entry, known_bytes, shown = self.attempt_number, 0, 0, False
                # After a restart of ours the text comes once more from its beginning.
                while known_bytes and at_entry < len(self.entries) and self.ends[at_entry] <= known_bytes:
                    at_entry += 1
                if at_entry < len(self.entries):
                    entries = tuple(self.entries[at_entry:])
                    start = self.ends[at_entry - 1] if at_entry else 0
                    at_entry, shown = at_entry + len(entries), True
                    yield Delta(
                        attempt_number=attempt_number,
                        offset_bytes=start,
                        entries=entries,
                        text="".join(entry.text for entry in entries),
                    )
                elif self.outcome is not None:
                    yield Ended(outcome=self.outcome)
                    return
                elif at_note == len(self._notes) and attempt_number == self.attempt_number:
                    await self._more()
        finally:
            self.followers -= 1

    async def wait_end(self) -> Outcome:
        """Raises `Unavailable` when the coordinator stops."""
        self.followers += 1
        try:
            while self.outcome is None:
                await self._more()
            return self.outcome
        finally:
            self.followers -= 1

    async def _more(self) -> None:
        if self._stopped:
            raise Unavailable(
                "the coordinator is stopping; follow the request again, or send it again with its Idempotency-Key",
                code="stopping",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
