"""One HTTP exchange as an endpoint sees it: who calls, what came, and ways to answer in bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar.types import HTTPScope, Receive, Send

from parallelix.coordinator.errors import ApiError, BadRequest, SignInRefused, Unauthorised
from parallelix.coordinator.http import limits, sse
from parallelix.coordinator.http.limits import Disconnected
from parallelix.coordinator.room import Room

QUERY_FIELDS_MAX = 16
READ_AT_ONCE_BYTES_MAX = 64 * 1024
"""Ten milliseconds at the worst, which is JSON made of nothing but objects; 4 MiB of that take the better part of a
second."""

JSON = b"application/json"
_BEARER = re.compile(rb"[Bb]earer +([\x21-\x7e]{1,512})")
_CHALLENGE = {"www-authenticate": 'Bearer realm="parallelix"'}
_MISSING_KEY = "authorization: is missing; send 'Authorization: Bearer prlx_…' with an API key"

T = TypeVar("T")
Headers = Iterable[tuple[bytes, bytes]]


class Call:
    """One exchange. `parameters` are the path's variable parts."""

    __slots__ = ("_receive", "_room", "_send", "headers", "parameters", "scope", "started")

    def __init__(
        self, scope: HTTPScope, receive: Receive, send: Send, parameters: Mapping[str, str], room: Room
    ) -> None:
        self.scope = scope
        self.headers = limits.headers_of(scope)
        self.parameters = parameters
        self.started = False
        self._receive = receive
        self._send = send
        self._room = room

    def bearer(self) -> str:
        """The API key as it was sent. Raises `Unauthorised` when there is none of that form."""
        given = self.headers.get(b"authorization")
        if given is None:
            raise Unauthorised(_MISSING_KEY, code="missing_api_key", headers=_CHALLENGE)
        found = _BEARER.fullmatch(given)
        if found is None:
            raise Unauthorised("authorization: is not 'Bearer prlx_…'; send an API key", headers=_CHALLENGE)
        return found[1].decode()

    def query(self, *names: str) -> dict[str, str]:
        """The query's fields. Raises `BadRequest` for a field that the call does not have, or one given twice."""
        try:
            pairs = parse_qsl(
                self.scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX
            )
        except ValueError as error:
            raise BadRequest(f"query: has more than {QUERY_FIELDS_MAX} fields", code="invalid_request") from error
        found: dict[str, str] = {}
        for name, value in pairs:
            if name not in names or name in found:
                known = ", ".join(names) or "none"
                raise BadRequest(
                    f"query: {name[:64]!r} is unknown or given twice; this call takes {known}",
                    code="invalid_request",
                    param=name[:64],
                )
            found[name] = value
        return found

    async def read(self, reader: Callable[[bytes], T]) -> tuple[bytes, T]:
        """The body, and what `reader` makes of it. A large one is read beside the event loop, which serves others."""
        body = await limits.read_json_body(self.headers, self._receive, self._room)
        if len(body) <= READ_AT_ONCE_BYTES_MAX:
            return body, reader(body)
        with self._room.part() as part:
            part.take(len(body))
            return body, await asyncio.to_thread(reader, body)

    async def answer(self, status: int, body: bytes, *, headers: Headers = (), kind: bytes = JSON) -> None:
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *headers],
            }
        )
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def answer_struct(self, status: int, value: msgspec.Struct, *, headers: Headers = ()) -> None:
        await self.answer(status, msgspec.json.encode(value), headers=headers)

    async def start_events(self, *, headers: Headers = ()) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": [*sse.HEADERS, *headers]})

    async def write(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, chunk: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})

    def watched(self, *, keep_alive: bool) -> Watched:
        return Watched(self, self._receive, keep_alive=keep_alive)


class Watched:
    """A block that ends with `Disconnected` as soon as the caller closes its connection; like `asyncio.timeout`.

    With `keep_alive` it also sends a comment of an event stream whenever the line might look dead.
    """

    def __init__(self, call: Call, receive: Receive, *, keep_alive: bool) -> None:
        self._call: Final = call
        self._receive: Final = receive
        self._keep_alive: Final = keep_alive
        self._closed = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watch = asyncio.create_task(self._watching())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.cancel()
        if kind is asyncio.CancelledError and self._closed and self._task.uncancel() == 0:
            raise Disconnected from error

    async def _watching(self) -> None:
        while True:
            try:
                async with asyncio.timeout(sse.KEEP_ALIVE_SECONDS if self._keep_alive else None):
                    message: Any = await self._receive()
            except TimeoutError:
                await self._call.write(sse.KEEP_ALIVE)
                continue
            if message["type"] == "http.disconnect":
                self._closed = True
                self._task.cancel()
                return


def error_headers(error: ApiError) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    if error.retry_after_seconds is not None:
        seconds = max(1, -int(-error.retry_after_seconds // 1))
        headers.append((b"retry-after", b"%d" % seconds))
    if isinstance(error, Unauthorised | SignInRefused) and b"www-authenticate" not in dict(headers):
        headers.append((b"www-authenticate", _CHALLENGE["www-authenticate"].encode()))
    return headers
