"""What one attempt has generated so far, and the stream that carries it to the coordinator while it grows.

The stream is a convenience of the requester's: the result carries everything, so a stream that breaks for good loses
nothing but immediacy.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable

import msgspec

from parallelix.node.link import AttemptClosed, Link, OffsetDiffers, Refused
from parallelix.node.session import Session
from parallelix.protocol import envelope, messages, work

GROUP_SECONDS = 0.02
"""Faster than any eye; at 100 tokens a second it halves the frames, and a whole short answer goes in one."""
FRAME_PLAIN_BYTES_MAX = messages.FRAME_BYTES_MAX - envelope.NONCE_BYTES - envelope.TAG_BYTES - 2
OUTPUT_BYTES_MAX = messages.RESULT_BYTES_MAX // 2 - 64 * 1024
"""Entries travel twice in base64url (16/9 of their size), beside the text itself."""
CONSECUTIVE_REFUSALS_MAX = 8
"""A coordinator that names a new offset eight times in a row, and never takes a byte, will not take one."""


class OutputFull(Exception):
    """More was generated than a result can carry."""


class Output:
    """Grows by entries. Offsets are UTF-8 bytes of the text."""

    def __init__(self) -> None:
        self.complete = False
        self.notify: Callable[[], None] = lambda: None
        self._texts: list[str] = []
        self._encoded: list[bytes] = []
        self._ends: list[int] = []
        self._encoded_bytes = 0

    def add(self, entry: work.Entry) -> None:
        """Raises `OutputFull`, and `ValueError` for text that is not Unicode."""
        encoded = msgspec.json.encode(entry)
        if len(encoded) > FRAME_PLAIN_BYTES_MAX or self._encoded_bytes + len(encoded) > OUTPUT_BYTES_MAX:
            raise OutputFull
        self._ends.append(self.text_bytes + len(entry.text.encode()))
        self._texts.append(entry.text)
        self._encoded.append(encoded)
        self._encoded_bytes += len(encoded) + 1
        self.notify()

    def finish(self) -> None:
        self.complete = True
        self.notify()

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def text_bytes(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def count(self) -> int:
        return len(self._encoded)

    def encoded_entries(self) -> bytes:
        """As `work.encode_entries` would give them."""
        return b"[" + b",".join(self._encoded) + b"]"

    def index_at(self, offset_bytes: int) -> int | None:
        """The first entry that begins at this offset; None where none begins or ended yet."""
        if offset_bytes == 0:
            return 0
        index = bisect_left(self._ends, offset_bytes)
        return index + 1 if index < len(self._ends) and self._ends[index] == offset_bytes else None

    def offset_of(self, index: int) -> int:
        return self._ends[index - 1] if index else 0

    def batch(self, index: int) -> tuple[bytes, int]:
        """As many entries from `index` on as one frame holds, and the index after them."""
        size, end = 0, index
        while end < len(self._encoded) and size + len(self._encoded[end]) + 1 <= FRAME_PLAIN_BYTES_MAX:
            size += len(self._encoded[end]) + 1
            end += 1
        return b"[" + b",".join(self._encoded[index:end]) + b"]", end


class DeltaStream:
    """Sends an `Output` as it grows, over as many connections as it takes. `began` is whether any of it was sent."""

    def __init__(self, output: Output, *, attempt_id: str, channel_secret: bytes, link: Link, session: Session) -> None:
        self._output = output
        self._attempt_id = attempt_id
        self._channel_secret = channel_secret
        self._link = link
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._grown = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.began = False
        self._sent_at = 0.0
        self._sent_index = 0
        self._connection = 0
        output.notify = self._notify

    async def run(self) -> None:
        """Returns when all of it has arrived, or it cannot be sent. Raises `AttemptClosed` when nobody wants it."""
        refusals, reached_bytes = 0, -1
        while refusals < CONSECUTIVE_REFUSALS_MAX:
            try:
                await self._session.until_answered(self._connect)
            except OffsetDiffers as differs:
                index = self._output.index_at(differs.offset_bytes)
                if index is None:
                    return
                refusals = 0 if differs.offset_bytes > reached_bytes else refusals + 1
                reached_bytes = max(reached_bytes, differs.offset_bytes)
                self._sent_index = index
            except AttemptClosed:
                raise
            except Refused:
                return
            else:
                return

    async def _connect(self) -> messages.StreamEnd:
        connection, self._connection = self._connection, self._connection + 1
        index = self._sent_index
        return await self._link.stream(
            self._frames(connection, index),
            attempt_id=self._attempt_id,
            connection=connection,
            offset_bytes=self._output.offset_of(index),
        )

    async def _frames(self, connection: int, index: int) -> AsyncGenerator[bytes]:
        sealer = envelope.Sealer(
            self._channel_secret, label="delta", attempt_id=self._attempt_id, connection=connection
        )
        while True:
            if index < self._output.count:
                plain, index = self._output.batch(index)
                sealed = sealer.seal(plain)
                self._sent_at = self._loop.time()
                self._sent_index = index
                self.began = True
                yield len(sealed).to_bytes(4, "big") + sealed
            elif self._output.complete:
                return
            else:
                self._grown.clear()
                await self._grown.wait()

    def _notify(self) -> None:
        """Wakes the sender: at once when the last frame is long ago or the output is complete, else when it is."""
        if self._grown.is_set():
            return
        due = self._sent_at + GROUP_SECONDS
        if self._output.complete or due <= self._loop.time():
            self._wake()
        elif self._timer is None:
            self._timer = self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._grown.set()
