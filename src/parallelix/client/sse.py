"""Server-sent events off a byte stream, with a bound on what one may hold."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from parallelix.client.errors import BadAnswer

EVENT_BYTES_MAX = 64 * 1024 * 1024
"""A reader that comes late gets all text so far in one event; the longest result is bounded at 40 MiB."""


class RawEvent(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    identity: str
    data: bytes


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[RawEvent]:
    """Each whole event; one that was cut off is dropped. Raises `BadAnswer` for one beyond the bound."""
    rest = bytearray()
    searched = 0
    name = identity = ""
    data: list[bytes] = []
    size = 0
    async for chunk in chunks:
        rest += chunk
        begin = 0
        while (end := rest.find(b"\n", max(begin, searched))) >= 0:
            line = bytes(rest[begin:end]).removesuffix(b"\r")
            begin = searched = end + 1
            if not line:
                if data:
                    yield RawEvent(name=name, identity=identity, data=b"\n".join(data))
                name, data, size = "", [], 0
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
                size += len(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"id":
                identity = value.decode("utf-8", "replace")
        del rest[:begin]
        searched = len(rest)
        if size + len(rest) > EVENT_BYTES_MAX:
            raise BadAnswer(f"event: more than {EVENT_BYTES_MAX} bytes; no answer of the network is that long")
