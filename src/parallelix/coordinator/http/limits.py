"""What a body may be: of one type, never compressed, bounded in bytes, depth and time, and JSON without surprises.

Everything that a body can get wrong ends here as a refusal that names the place; nothing gets past as a crash later.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec
from litestar.types import HTTPScope, Receive

from parallelix.coordinator.errors import BadRequest, BodyTooLarge, ReceiveTimeout, UnsupportedMedia
from parallelix.coordinator.room import Room
from parallelix.protocol.requests import REQUEST_BODY_BYTES_MAX

T = TypeVar("T")

BODY_SECONDS_MAX = 15.0
"""4 MiB over the slowest home uplink worth serving (2.5 Mbit/s)."""
ARRIVING_BYTES_MAX = 256 * 1024 * 1024
"""64 of the largest bodies at once, or thousands of usual ones."""
REASON_CHARACTERS_MAX = 200
"""A parser quotes what it refused; an answer must not echo a megabyte."""
IDEMPOTENCY_KEY_CHARACTERS_MAX = 255

_PLACE = re.compile(r" - at `\$\.?(.*?)`$")
_IDEMPOTENCY_KEY = re.compile(rf"[\x21-\x7e]{{1,{IDEMPOTENCY_KEY_CHARACTERS_MAX}}}")
_ONLY_ONCE = {b"authorization", b"content-type", b"content-encoding", b"idempotency-key", b"last-event-id"}


class Disconnected(Exception):
    """The caller went away before its body was here; there is nobody to answer."""


def headers_of(scope: HTTPScope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def refuse_repeated_headers(scope: HTTPScope, headers: Mapping[bytes, bytes]) -> None:
    """What stands before us may read the first of two and we the last. Raises `BadRequest`."""
    given = cast("list[tuple[bytes, bytes]]", scope["headers"])
    if len(given) == len(headers):
        return
    names = [name for name, _ in given if name in _ONLY_ONCE]
    repeated = next((name.decode() for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise BadRequest(f"{repeated}: is given twice; send it once", code="invalid_request", param=repeated)


async def read_json_body(headers: Mapping[bytes, bytes], receive: Receive, room: Room) -> bytes:
    """The body's bytes. Raises `UnsupportedMedia`, `BodyTooLarge`, `ReceiveTimeout`, `Unavailable` or
    `Disconnected`."""
    _require_plain_json(headers)
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > REQUEST_BODY_BYTES_MAX:
        raise _too_large(announced[:20].decode())
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            return await _receive_all(receive, room)
    except TimeoutError as error:
        raise ReceiveTimeout(
            f"body: not complete after {BODY_SECONDS_MAX:.0f} seconds; send it faster or make it smaller"
        ) from error


async def _receive_all(receive: Receive, room: Room) -> bytes:
    message = await _receive_part(receive)
    if not message.get("more_body", False) and len(message.get("body", b"")) <= REQUEST_BODY_BYTES_MAX:
        return bytes(message.get("body", b""))
    body = bytearray()
    with room.part() as part:
        while True:
            arrived = message.get("body", b"")
            part.take(len(arrived))
            body += arrived
            if len(body) > REQUEST_BODY_BYTES_MAX:
                raise _too_large(f"more than {REQUEST_BODY_BYTES_MAX}")
            if not message.get("more_body", False):
                return bytes(body)
            message = await _receive_part(receive)


async def _receive_part(receive: Receive) -> Any:
    message: Any = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message


def _too_large(found: str) -> BodyTooLarge:
    return BodyTooLarge(f"body: {found} bytes; the most is {REQUEST_BODY_BYTES_MAX}; shorten the prompt")


def _require_plain_json(headers: Mapping[bytes, bytes]) -> None:
    kind = headers.get(b"content-type", b"")
    if kind != b"application/json" and kind.split(b";")[0].strip().lower() != b"application/json":
        shown = kind[:64].decode("ascii", "replace") or "nothing"
        raise UnsupportedMedia(f"content-type: is {shown}; send application/json")
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        shown = encoding[:64].decode("ascii", "replace")
        raise UnsupportedMedia(
            f"content-encoding: is {shown}; compressed bodies are refused, send it plain", code="unsupported_encoding"
        )


def idempotency_key_of(headers: Mapping[bytes, bytes]) -> str:
    """The Idempotency-Key, or nothing. Raises `BadRequest` unless it is short and printable."""
    given = headers.get(b"idempotency-key")
    if given is None:
        return ""
    key = given.decode("latin-1")
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise BadRequest(
            f"Idempotency-Key: must be 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable ASCII characters, no spaces; "
            f"this one has {len(key)}",
            code="invalid_request",
            param="Idempotency-Key",
        )
    return key


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Raises `BadRequest` that names the place of the fault."""
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise mistyped(error) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadRequest(f"body: is not valid JSON: {str(error)[:REASON_CHARACTERS_MAX]}") from error
    except RecursionError as error:
        raise BadRequest("body: is nested deeper than any call needs") from error
    refuse_repeated_keys(body)
    return value


def mistyped(error: msgspec.ValidationError) -> BadRequest:
    text = str(error)
    place = place_of(error)
    reason = text.partition(" - at `")[0][:REASON_CHARACTERS_MAX]
    return BadRequest(f"{place or 'body'}: {reason}", param=place or None)


def place_of(error: msgspec.ValidationError) -> str:
    found = _PLACE.search(str(error))
    return found[1][:REASON_CHARACTERS_MAX] if found else ""


class _RepeatedKey(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKey(next(name for name in names if names.count(name) > 1))


_PAIRS = json.JSONDecoder(object_pairs_hook=_unique)


def refuse_repeated_keys(body: bytes) -> None:
    """Two readers of an object with the same key twice may each take another one. Raises `BadRequest`."""
    try:
        _PAIRS.decode(body.decode())
    except _RepeatedKey as error:
        name = str(error)[:64]
        raise BadRequest(f"{name}: is given twice in one object; give it once", param=name) from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"body: is not valid JSON: {str(error)[:REASON_CHARACTERS_MAX]}") from error
