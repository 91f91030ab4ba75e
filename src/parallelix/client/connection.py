"""HTTP to one coordinator: tries again where that is safe, bounds what it reads, and turns what goes wrong into ours.

A refusal with 408, 429, 502, 503 or 504 changed nothing and is repeated, after `Retry-After` where there is one. A
connection that breaks is repeated only for a call that the coordinator does once however often it comes.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from parallelix.client.errors import BadAnswer, ConfigRefused, Refused, Unreachable, refusal
from parallelix.client.retry import Retry, Series
from parallelix.client.sse import RawEvent, read_events
from parallelix.protocol.canonical import decode_json
from parallelix.protocol.errors import Malformed

T = TypeVar("T")

ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""A result is at most 40 MiB, and JSON of it a little more."""
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""An answer comes once it is durable; half a minute of that is a store in trouble."""
SILENCE_SECONDS = 45.0
"""An event stream sends at least a comment every 15 s; three of them missing is a dead line."""
REPEATED_STATUSES = (408, 429, 502, 503, 504)
SHOWN_CHARACTERS_MAX = 500


class Connection:
    """`sleep` is how it waits between tries, `transport` what carries the bytes; a test gives its own.

    `told` hears why a call is made again, before each wait.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        retry: Retry,
        transport: httpx.AsyncBaseTransport | None,
        sleep: Callable[[float], Awaitable[None]],
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.base_url = base_url_of(base_url)
        self.retry = retry
        self.sleep = sleep
        self._told = told
        headers = {"accept-encoding": "identity", "user-agent": "parallelix"}
        if api_key:
            headers["authorization"] = f"Bearer {printable_key(api_key)}"
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            transport=transport,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> T:
        """The answer as a `kind`. Raises `Refused`, `Unreachable` or `BadAnswer`."""
        data = await self.read(method, path, body=body, query=query, headers=headers, repeatable=repeatable)
        try:
            return decode_json(data, kind)
        except Malformed as error:
            raise BadAnswer(f"{self.base_url}{path}: {error.message}; is this a coordinator's address?") from error

    async def read(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> bytes:
        """The bytes of the answer. Raises as `call` does."""
        sent = dict(headers or {}) | ({"content-type": "application/json"} if body is not None else {})
        series = self.retry.series()
        while True:
            try:
                async with self._http.stream(
                    method, self.base_url + path, content=body, params=query, headers=sent
                ) as response:
                    return await self._answer(response)
            except Refused as error:
                await self.wait_after_refusal(series, error)
            except httpx.TransportError as error:
                await self.wait_after_break(series, error, may_repeat=repeatable)

    @asynccontextmanager
    async def events(self, path: str, *, last_event_id: str, detached: bool) -> AsyncGenerator[AsyncIterator[RawEvent]]:
        """One connection to an event stream; nothing is repeated here. Raises `Refused` or `httpx.TransportError`."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last_event_id} if last_event_id else {})
        async with self._http.stream(
            "GET",
            self.base_url + path,
            params={"detached": "true"} if detached else None,
            headers=headers,
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
        ) as response:
            if response.status_code != 200:
                await self._answer(response)
            yield read_events(response.aiter_bytes())

    async def wait_after_refusal(self, series: Series, error: Refused) -> None:
        """Waits for the next try, or raises the refusal."""
        if error.status not in REPEATED_STATUSES:
            raise error
        seconds = series.next_seconds(error.retry_after_seconds or 0.0)
        if seconds is None:
            raise error
        await self._wait(seconds, f"{error.code}: {error.message}")

    async def wait_after_break(self, series: Series, error: httpx.TransportError, *, may_repeat: bool = True) -> None:
        """Waits for the next try, or raises `Unreachable`."""
        never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        seconds = series.next_seconds() if may_repeat or never_sent else None
        if seconds is None or _is_about_trust(error):
            tries = f" in {series.failures} tries" if series.failures > 1 else ""
            raise Unreachable(
                f"{self.base_url}: {_reason(error)}{tries}; see that it runs and that the URL is right"
            ) from error
        await self._wait(seconds, f"{self.base_url} does not answer yet")

    async def _wait(self, seconds: float, reason: str) -> None:
        if self._told is not None:
            self._told(reason)
        await self.sleep(seconds)

    async def _answer(self, response: httpx.Response) -> bytes:
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > ANSWER_BYTES_MAX:
                raise BadAnswer(f"{response.url}: more than {ANSWER_BYTES_MAX} bytes; no answer is that long")
        if not response.is_success:
            raise _refusal(response, bytes(data))
        return bytes(data)


def base_url_of(text: str) -> str:
    """The base URL without its last slash or `/v1`, which OpenAI's clients want. Raises `ConfigRefused`."""
    try:
        url = urlsplit(text)
        host, _port = url.hostname, url.port
    except ValueError as error:
        raise ConfigRefused(f"url {text[:80]!r}: is no URL; give one such as https://parallelix.io/api") from error
    if url.scheme not in ("http", "https") or not host:
        raise ConfigRefused(f"url {text[:80]!r}: expected http or https, such as https://parallelix.io/api")
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise ConfigRefused("url: a user name, query or fragment has no place in it; give scheme, host and path")
    if url.scheme == "http" and not _is_loopback(host):
        raise ConfigRefused(
            f"url {text[:80]!r}: plain http would show the API key and every prompt to all on the way; use https, "
            "or a tunnel to this machine"
        )
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def printable_key(api_key: str) -> str:
    """Raises `ConfigRefused` for what cannot travel in a header, without showing it."""
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ConfigRefused("API key: holds spaces or unprintable characters; copy it again, prlx_ and what follows")
    return api_key


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_about_trust(error: BaseException | None) -> bool:
    """Whether a certificate was refused: the next try would be told the same."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.RemoteProtocolError):
        return "the connection was closed"
    if isinstance(error, httpx.ConnectError):
        return f"no connection ({error})"
    return str(error) or type(error).__name__


def _refusal(response: httpx.Response, data: bytes) -> Refused:
    """The coordinator's refusal, in either of its shapes; or that of something on the way."""
    code, message, param = f"http_{response.status_code}", "", None
    try:
        body: Any = msgspec.json.decode(data)
        inner = body["error"]
        if isinstance(inner, str):
            code, message = inner, str(body["message"])
        else:
            code, message, param = str(inner["code"]), str(inner["message"]), inner.get("param")
    except (msgspec.DecodeError, UnicodeError, KeyError, TypeError, RecursionError):
        message = f"{response.url} answered {response.status_code} and no reason; is this a coordinator's address?"
    return refusal(
        message[:SHOWN_CHARACTERS_MAX],
        code=code[:64],
        status=response.status_code,
        retry_after_seconds=_retry_after(response),
        param=param,
    )


def _retry_after(response: httpx.Response) -> float | None:
    # The coordinator gives seconds; a date, which a proxy may give, is treated as none.
    given = response.headers.get("retry-after", "")
    return float(given) if given.isdecimal() and len(given) <= 9 else None
