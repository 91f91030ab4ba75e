"""The node's calls to its coordinator: signed, bounded, one try each.

LinkError
├── Unavailable         no answer, 429, 5xx, or an answer that is not a coordinator's: worth another try
└── Refused             the coordinator said no; `code` and `message` are its own
    ├── StaleTime       401: our stamp was off; the clock has been corrected, sign again
    ├── SessionUnknown  401: attach again
    ├── NotBacked       403: no stake behind this node, or the wrong key
    ├── OffsetDiffers   409: the stream goes on at another byte
    └── AttemptClosed   410: nobody waits for this attempt any more

Every call but the result carries a signature over its purpose and time. Redirects are not followed: what was signed for
one host is sent to no other.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec

from parallelix.node.clock import CoordinatorClock
from parallelix.protocol import canonical, messages, signing
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.errors import Malformed

T = TypeVar("T")

CONNECT_SECONDS = 10.0
CALL_SECONDS = 8.0
"""Shorter than the ten seconds between heartbeats, so that a lost one is tried again inside its slot."""
RESULT_SECONDS = 120.0
"""32 MiB over an uplink of three megabits a second."""
POLL_MARGIN_SECONDS = 10.0
BODY_BYTES_MAX = 256 * 1024
"""Attached, receipts and refusals are below 2 KiB; the margin is for later versions."""
WORK_BYTES_MAX = messages.PAYLOAD_BYTES_MAX * 4 // 3 + 64 * 1024
"""One unit of work in base64url, with its envelope."""
CONNECTIONS_MAX = 2 * messages.SLOTS_MAX + 16
"""A stream and a result for every slot, two polls, a heartbeat, an attach."""
STALE_TRIES_MAX = 3
MESSAGE_CHARACTERS_MAX = 300


class LinkError(Exception):
    """A call that did not succeed."""


class Unavailable(LinkError):
    def __init__(self, reason: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class Refused(LinkError):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class StaleTime(Refused):
    pass


class SessionUnknown(Refused):
    pass


class NotBacked(Refused):
    pass


class OffsetDiffers(Refused):
    offset_bytes = 0


class AttemptClosed(Refused):
    pass


class Link:
    """One node's calls. `session` is the session that they are signed in; attaching sets it.

    Every method raises `Unavailable` or `Refused`.
    """

    def __init__(
        self, base_url: str, *, chain_id: int, node_id: int, key: signing.NodeKey, clock: CoordinatorClock, version: str
    ) -> None:
        self.clock = clock
        self.session = ""
        self._base = base_url.rstrip("/") + "/operator"
        self._chain_id = chain_id
        self._node_id = node_id
        self._key = key
        self._user_agent = f"parallelix-node/{version}"
        self._proxy = _proxy_of(base_url)

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._user_agent},
            skip_auto_headers=("Accept-Encoding",),
            auto_decompress=False,
            proxy=self._proxy,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def attach(self, manifest: bytes) -> messages.Attached:
        """Opens a session. The caller takes it over by setting `session`."""
        text = signing.attach_text(self._chain_id, self._node_id, to_hex(hashlib.sha256(manifest).digest()))
        body = messages.Attach(
            manifest=manifest.decode(), public_key=to_hex(self._key.public_key), signature=to_hex(self._key.sign(text))
        )
        started = time.monotonic()
        answer = await self._send("POST", "/attach", {}, body=msgspec.json.encode(body))
        attached = _decode(answer, messages.Attached)
        self._learn(attached.server_time, started)
        return attached

    async def inbox(self, slots: int, *, poll_seconds: float) -> messages.Inbox:
        answer = await self._signed(
            "GET",
            f"/inbox?nodeId={self._node_id}&slots={slots}",
            "inbox",
            seconds=poll_seconds + POLL_MARGIN_SECONDS,
            answer_bytes_max=BODY_BYTES_MAX + max(1, slots) * WORK_BYTES_MAX,
        )
        return _decode(answer, messages.Inbox)

    async def acknowledge(self, acknowledge: messages.Acknowledge) -> messages.Acknowledged:
        body = msgspec.json.encode(acknowledge)
        answer = await self._signed("POST", "/ack", "ack", body=body, attempt_id=acknowledge.attempt_id)
        return _decode(answer, messages.Acknowledged)

    async def heartbeat(self, heartbeat: messages.Heartbeat) -> messages.UptimeReceipt:
        started = time.monotonic()
        answer = await self._signed("POST", "/heartbeat", "heartbeat", body=msgspec.json.encode(heartbeat))
        receipt = _decode(answer, messages.UptimeReceipt)
        self._learn(receipt.server_time, started)
        return receipt

    async def restore_uptime(self, proofs: tuple[messages.UptimeProof, ...]) -> messages.UptimeRestored:
        body = msgspec.json.encode(messages.RestoreUptime(proofs=proofs))
        return _decode(await self._signed("POST", "/uptime", "uptime", body=body), messages.UptimeRestored)

    async def result(self, body: bytes, *, attempt_id: str, proven: bool) -> messages.ResultAnswer:
        """Returns an attempt. A body without a proof of its own is vouched for by the headers."""
        if proven:
            headers = {messages.HEADER_NODE: str(self._node_id), messages.HEADER_SESSION: self.session}
            answer = await self._send("POST", "/result", headers, body=body, seconds=RESULT_SECONDS)
        else:
            answer = await self._signed(
                "POST", "/result", "ack", body=body, attempt_id=attempt_id, seconds=RESULT_SECONDS
            )
        return _decode(answer, messages.ResultAnswer)

    async def stream(
        self, frames: AsyncIterable[bytes], *, attempt_id: str, connection: int, offset_bytes: int
    ) -> messages.StreamEnd:
        """Sends frames as they come until they end; a refusal is raised as soon as it arrives, in mid-body too."""
        headers = self._signature("stream", attempt_id)
        headers[messages.HEADER_CONNECTION] = str(connection)
        headers[messages.HEADER_OFFSET] = str(offset_bytes)
        headers["Content-Type"] = "application/octet-stream"
        answer = await self._send("POST", f"/stream/{attempt_id}", headers, body=frames, seconds=None)
        return _decode(answer, messages.StreamEnd)

    async def _signed(
        self,
        method: str,
        path: str,
        purpose: signing.TimedPurpose,
        *,
        body: bytes | None = None,
        attempt_id: str | None = None,
        seconds: float = CALL_SECONDS,
        answer_bytes_max: int = BODY_BYTES_MAX,
    ) -> bytes:
        for _ in range(STALE_TRIES_MAX - 1):
            try:
                return await self._send(
                    method,
                    path,
                    self._signature(purpose, attempt_id),
                    body=body,
                    seconds=seconds,
                    answer_bytes_max=answer_bytes_max,
                )
            except StaleTime:
                continue
        headers = self._signature(purpose, attempt_id)
        return await self._send(method, path, headers, body=body, seconds=seconds, answer_bytes_max=answer_bytes_max)

    def _signature(self, purpose: signing.TimedPurpose, attempt_id: str | None) -> dict[str, str]:
        stamp_ms = self.clock.stamp_ms(purpose)
        text = signing.timed_text(purpose, self._chain_id, self._node_id, self.session, stamp_ms, attempt_id)
        return {
            messages.HEADER_NODE: str(self._node_id),
            messages.HEADER_SESSION: self.session,
            messages.HEADER_TIME: str(stamp_ms),
            messages.HEADER_SIGNATURE: to_hex(self._key.sign(text)),
        }

    async def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        *,
        body: bytes | AsyncIterable[bytes] | None = None,
        seconds: float | None = CALL_SECONDS,
        answer_bytes_max: int = BODY_BYTES_MAX,
    ) -> bytes:
        headers.setdefault("Content-Type", "application/json")
        try:
            async with (
                asyncio.timeout(seconds),
                self._http.request(
                    method, self._base + path, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                answer = await _read(response, answer_bytes_max)
                if response.status != 200 and not isinstance(body, bytes | None):
                    # A refused stream may be in mid-body: its connection is of no further use.
                    response.close()
        except TimeoutError as error:
            raise Unavailable(f"{path}: no answer within {seconds} s") from error
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error).replace(" ssl:default", "")[:MESSAGE_CHARACTERS_MAX] or type(error).__name__
            raise Unavailable(f"{path}: {reason}") from error
        if response.status != 200:
            raise self._refusal(path, response.status, response.headers, answer)
        return answer

    def _refusal(self, path: str, status: int, headers: Mapping[str, str], answer: bytes) -> LinkError:
        try:
            said = msgspec.json.decode(answer, type=messages.ErrorBody)
        except (msgspec.DecodeError, UnicodeDecodeError):
            said = None
        # What is not in our words came from something in between, and says nothing about this node.
        if said is None or status < 400 or status == 429 or status >= 500:
            reason = f"status {status}" if said is None else f"{said.error}: {said.message[:MESSAGE_CHARACTERS_MAX]}"
            return Unavailable(f"{path}: {reason}", retry_after_seconds=_retry_after_seconds(headers))
        if status == 401 and said.error == "stale_time":
            self._correct_clock(headers)
        return _refused(status, said, headers)

    def _correct_clock(self, headers: Mapping[str, str]) -> None:
        said = headers.get(messages.HEADER_TIME, "")
        if _is_number(said):
            self.clock.correct(int(said))

    def _learn(self, server_time_ms: int, started: float) -> None:
        self.clock.learn(server_time_ms, round_trip_ms=(time.monotonic() - started) * 1000)


def _refused(status: int, said: messages.ErrorBody, headers: Mapping[str, str]) -> Refused:
    code, message = said.error[:128], said.message[:MESSAGE_CHARACTERS_MAX]
    match status, code:
        case 401, "stale_time":
            return StaleTime(status, code, message)
        case 401, "unknown_session":
            return SessionUnknown(status, code, message)
        case 403, _:
            return NotBacked(status, code, message)
        case 409, "stream_offset":
            differs = OffsetDiffers(status, code, message)
            said_offset = headers.get(messages.HEADER_OFFSET, "")
            differs.offset_bytes = int(said_offset) if _is_number(said_offset) else -1
            return differs
        case 410, _:
            return AttemptClosed(status, code, message)
        case _:
            return Refused(status, code, message)


async def _read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """The whole body. Raises `Unavailable` when it is longer than any answer to this call can be."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > bytes_max:
            response.close()
            raise Unavailable(f"{response.url.path}: an answer of more than {bytes_max} bytes was not read")
        parts.append(part)
    return b"".join(parts)


def _decode(answer: bytes, kind: type[T]) -> T:
    try:
        return canonical.decode_json(answer, kind)
    except Malformed as error:
        raise Unavailable(f"an answer was not understood: {error.message}") from error


def _is_number(text: str) -> bool:
    """Whether it is a decimal number that every reader of JSON could hold."""
    return text.isascii() and text.isdecimal() and len(text) < 16


def _retry_after_seconds(headers: Mapping[str, str]) -> float:
    """RFC 9110, section 10.2.3: seconds, or a date."""
    said = headers.get("Retry-After", "").strip()
    if _is_number(said):
        return float(said)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _proxy_of(base_url: str) -> str | None:
    """The operator's proxy by the usual environment variables, looked up once instead of at every call."""
    parts = urllib.parse.urlsplit(base_url)
    if parts.hostname is None or urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)
