"""Server-sent events: their framing, the positions that resume them, and the comments that keep a line open.

Event ids are `<attempt>.<offset>`: the attempt's number and how many bytes of its text the reader has with this event.
"""

from __future__ import annotations

import re

import msgspec

from parallelix.coordinator.errors import BadRequest

KEEP_ALIVE_SECONDS = 15.0
"""Half of the shortest idle timeout that is usual in proxies (30 s)."""
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
HEADERS = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"),
           (b"x-accel-buffering", b"no"))  # fmt: skip

_POSITION = re.compile(r"([0-9]{1,4})\.([0-9]{1,10})")


def data(value: msgspec.Struct) -> bytes:
    """An event without a name. JSON never holds a raw line break, so one line is enough."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def event(name: str, value: msgspec.Struct, *, position: tuple[int, int] | None = None) -> bytes:
    identity = b"" if position is None else b"id: %d.%d\n" % position
    return b"%sevent: %s\ndata: %s\n\n" % (identity, name.encode(), msgspec.json.encode(value))


def parse_position(text: str) -> tuple[int, int]:
    """(attempt number, offset in bytes) of a Last-Event-ID. Raises `BadRequest`."""
    found = _POSITION.fullmatch(text)
    if found is None:
        raise BadRequest(
            f"Last-Event-ID: {text[:64]!r} is not <attempt>.<offset>; send an id of this stream, or none",
            code="invalid_request",
            param="Last-Event-ID",
        )
    return int(found[1]), int(found[2])
