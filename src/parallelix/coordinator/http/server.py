"""uvicorn with bounds that it lacks: a deadline and a size for a request's head, a cap on connections, and an end for
readers that stopped reading.

Deadlines for bodies are `limits.py`'s. What is left alone: a request that is being answered may take as long as its own
deadline, and an idle connection is closed by uvicorn's keep-alive.

Not supported: requests that are sent before the answer to the one before (pipelining; the connection ends after that
answer, and its client asks again), and fields after a chunked body (they are dropped, never taken for headers).
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import msgspec
import uvicorn
from litestar.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from parallelix.protocol.messages import ErrorBody

HEAD_SECONDS_MAX = 10.0
"""A head is a few hundred bytes: ten seconds are a slow satellite line, and more is somebody holding connections."""
HEAD_BYTES_MAX = 32 * 1024
"""Sixteen times the head of a signed operator call."""
FRAMING_BYTES_MAX = HEAD_BYTES_MAX + 256 * 1024
"""What may come in a body without being of it, such as fields after its last chunk: a head's worth, and one read."""
REST_SECONDS_MAX = 15.0
"""How long the rest of a body that nobody waits for may still come in, so that the caller can read the refusal."""
REST_BYTES_MAX = 8 * 1024 * 1024
"""And how much of it: closing at once would take the refusal from a caller that has not read it yet."""
WRITE_STALL_SECONDS_MAX = 60.0
"""A reader that takes not one byte of a full buffer for a minute is gone, or holds the answer's memory on purpose."""
KEEP_ALIVE_SECONDS = 75
"""Longer than a poll and a heartbeat interval, so that a node keeps its connections and pays no new handshakes."""
BACKLOG = 2048
"""Connections that wait to be accepted while the loop is busy: a second of a thousand nodes reconnecting."""
CONNECTIONS_MAX = 65_536
"""10,000 nodes with a poll and four streams each, and as many requesters; the file limit may lower it."""
RESERVED_FILES = 64
"""File descriptors kept for the store, the log and the listening socket."""
STOP_SECONDS = 5
"""How long a stop waits for answers under way before it drops them; open requests stay in the store."""

_LATE = b"the request's head was not complete in time"
_TOO_LARGE = b"the request's head is too large"
_INVALID = b"this is not an HTTP/1.1 request"
_UPGRADE = b"upgrade: HTTP/1.1 is all that is served; send the body without an upgrade"


class BoundedConfig(Config):
    """uvicorn's settings for this server, and how many connections each address has open."""

    def __init__(self, app: ASGIApp, *, connections_per_address_max: int) -> None:
        super().__init__(
            app,  # type: ignore[arg-type]
            loop="uvloop",
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        self.addresses: Counter[str] = Counter()
        self.connections_max = connections_max()
        self.connections_per_address_max = connections_per_address_max


class _Refused(Exception):
    """Ends the parsing of a request that came whole."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Refuses too many connections, a late head, a large head, and bytes that are no HTTP."""

    config: BoundedConfig

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._rest_bytes = 0
        self._framing_bytes = 0
        self._in_head = False
        self._in_body = False
        self._hears = True
        self._address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self.config.addresses[self._address] += 1
        if len(self.connections) > self.config.connections_max or self._too_many_from_address():
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_timer()
        self.resume_writing()
        self._unset_keepalive_if_required()
        self.config.addresses[self._address] -= 1
        if not self.config.addresses[self._address]:
            del self.config.addresses[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._hears:
            return
        # Where a body ends and a head begins in one read, that head's first part goes uncounted.
        if not self._in_body:
            self._head_bytes += len(data)
        elif self._answering() is None and self._outstayed(len(data)):
            return
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._in_body and self._framing_bytes > FRAMING_BYTES_MAX:
            self._refuse(431, "head_too_large", _TOO_LARGE)
            return
        if self._in_body or not (self._in_head or self._head_bytes) or self.transport.is_closing():
            return
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, "head_too_large", _TOO_LARGE)
        elif self._head_timer is None:
            self._expect_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What stands after a chunked body would join the headers of a request that is already being answered.
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._answering() is not None:
            raise _Refused
        if self._head_bytes > HEAD_BYTES_MAX and _head_size_bytes(self.url, self.headers) > HEAD_BYTES_MAX:
            raise _Refused
        parser = self.parser
        assert parser is not None
        if parser.should_upgrade() and _has_body(self.headers):
            # The parser would take the body for the other protocol's first bytes.
            self._refuse(400, "malformed", _UPGRADE)
            raise _Refused
        self._in_head, self._in_body = False, True
        self._drop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._head_bytes = self._rest_bytes = 0
        self._drop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(REST_SECONDS_MAX, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_for_stall(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, "head_too_large", _TOO_LARGE)
        else:
            self._refuse(400, "malformed", _INVALID)

    def _too_many_from_address(self) -> bool:
        is_loopback = self._address.startswith("127.") or self._address in ("", "::1")
        return not is_loopback and self.config.addresses[self._address] > self.config.connections_per_address_max

    def _expect_head(self) -> None:
        self._drop_timer()
        self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self._head_is_late)

    def _drop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._refuse(408, "request_timeout", _LATE)

    def _outstayed(self, count: int) -> bool:
        """Whether more came of a body that nobody waits for than is worth reading."""
        self._rest_bytes += count
        if self._rest_bytes > REST_BYTES_MAX:
            self.transport.close()
        return self.transport.is_closing()

    def _watch_for_stall(self, unread_bytes: int) -> None:
        self._stall_timer = self.loop.call_later(WRITE_STALL_SECONDS_MAX, self._has_stalled, unread_bytes)

    def _has_stalled(self, before_bytes: int) -> None:
        unread_bytes = self.transport.get_write_buffer_size()
        if unread_bytes >= before_bytes:
            self.transport.abort()
        else:
            self._watch_for_stall(unread_bytes)

    def _answering(self) -> RequestResponseCycle | None:
        """The request that is being answered, if one is."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return None if cycle is None or cycle.response_complete else cycle

    def _refuse(self, status: int, code: str, message: bytes) -> None:
        answering = self._answering()
        if answering is None:
            self._say(status, code, message)
        elif not self._in_body:
            # What came too early, good or bad, does not harm the answer under way.
            answering.keep_alive = False
            self._hears = False
        else:
            if not answering.response_started:
                self._say(status, code, message)
            answering.disconnected = True
            answering.message_event.set()
            self.transport.close()

    def _say(self, status: int, code: str, message: bytes) -> None:
        if self.transport.is_closing():
            return
        body = msgspec.json.encode(ErrorBody(error=code, message=message.decode()))
        reason = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}[status]
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, reason, len(body)) + body)
        self.transport.close()


def _head_size_bytes(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def connections_max() -> int:
    """The bound on connections: ours, or what the process may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if files == resource.RLIM_INFINITY else max(1, min(CONNECTIONS_MAX, files - RESERVED_FILES))


class Server:
    """Listens from the start, so that `port` is the real one where 0 was asked for. Raises OSError if it is taken.

    Addresses but those of the loopback, where a proxy or a bench brings everybody, open no more connections than
    `connections_per_address_max`.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, port: int, connections_per_address_max: int = CONNECTIONS_MAX
    ) -> None:
        self._config = BoundedConfig(app, connections_per_address_max=connections_per_address_max)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[str]:
        """Serves inside the block and gives the URL of the root. Leaving it lets answers under way finish for
        `STOP_SECONDS`."""
        server = _Uvicorn(self._config)
        with self._listener:
            serving = asyncio.create_task(server.serve(sockets=[self._listener]))
            try:
                yield self.url
            finally:
                server.should_exit = True
                await serving


class _Uvicorn(uvicorn.Server):
    """Signals are left to whoever runs the process."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
