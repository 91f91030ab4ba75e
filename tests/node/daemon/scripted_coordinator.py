"""The other end of the wire: a small coordinator over real HTTP that hands out sealed work, checks every signature and
proof, and misbehaves as it is told.

It shares with the node only `parallelix.protocol`. Its clock can be off by hours; it can answer 503, cut connections
before or after it has done its part, answer anything else at all, and restart: then sessions and clients are gone, and
attempts are kept.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc.jwk import RSAKey

from parallelix.protocol import canonical, envelope, ids, messages, poe, signing, work
from parallelix.protocol.encoding import from_base64url, from_hex, to_base64url, to_hex

CHAIN_ID = 31337
CLOCK_SKEW_MS_MAX = 30_000
REDELIVERY_SECONDS = 1.0
MODEL_DIGEST = "ab" * 32

Answer = web.StreamResponse
Handler = Callable[[web.Request], Awaitable[Answer]]


@dataclass(kw_only=True)
class Handed:
    """One attempt as this side knows it, and what came back."""

    work: messages.Work
    payload: bytes
    salt: bytes
    channel_secret: bytes
    text: str = ""
    connection: int = -1
    connections: list[int] = field(default_factory=list[int])
    entries_streamed: int = 0
    frames: int = 0
    stream_ended: bool = False
    acknowledged: bool = False
    closed: bool = False
    answered: bool = False
    result: messages.Result | None = None
    bodies: list[bytes] = field(default_factory=list[bytes])
    content: work.ResultContent | None = None
    entries: tuple[work.Entry, ...] = ()
    usage: work.Usage | None = None

    @property
    def attempt_id(self) -> str:
        return self.work.attempt_id


@dataclass(kw_only=True)
class Fault:
    """`kind`: 503, 429 (with Retry-After), `cut` before the call is looked at, or `cut_after` it was carried out."""

    kind: str
    times: int


@dataclass(frozen=True, kw_only=True)
class Lie:
    """An answer that no coordinator gives."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])


class ScriptedCoordinator:
    def __init__(self, *, node_id: int, skew_ms: int = 0, heartbeat_seconds: float = 0.2, poll_seconds: float = 1.0):
        self.node_id = node_id
        self.skew_ms = skew_ms
        self.heartbeat_seconds = heartbeat_seconds
        self.poll_seconds = poll_seconds
        self.key = signing.NodeKey.generate()
        self.session = ""
        self.manifest: messages.Manifest | None = None
        self.node_public_key = b""
        self.calls: list[str] = []
        self.polls: list[int] = []
        self.heartbeats: list[messages.Heartbeat] = []
        self.started_at = 1
        self.notice: messages.Notice | None = None
        """What heartbeats are answered with."""
        self.restored: list[tuple[messages.UptimeProof, ...]] = []
        """The receipts that the node sent again, call by call."""
        self.refusals: list[str] = []
        self.broken: list[str] = []
        """What a node must never do; a test ends by asserting that it is empty."""
        self.refuse: tuple[int, str] | None = None
        """Makes attach, inbox and heartbeat answer with this status and code."""
        self.stream_bytes_max: int | None = None
        """Cuts a stream after so many bytes of text, once."""
        self.attempts: dict[str, Handed] = {}
        self._queue: deque[messages.Work] = deque()
        self._cancellations: deque[messages.Cancellation] = deque()
        self._rejections: deque[messages.Rejection] = deque()
        self.lies: dict[str, deque[Lie]] = defaultdict(deque)
        """What the next calls are answered with instead, by name."""
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._last_times: dict[str, int] = {}
        self._last_issued = 0
        self._delivered: dict[str, tuple[float, messages.Work]] = {}
        self._news = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.skew_ms

    # Up and down

    async def start(self) -> None:
        app = web.Application(client_max_size=messages.RESULT_BYTES_MAX * 2)
        app.router.add_post("/api/operator/attach", self._wrapped("attach", self._attach))
        app.router.add_get("/api/operator/inbox", self._wrapped("inbox", self._inbox))
        app.router.add_post("/api/operator/ack", self._wrapped("ack", self._acknowledge))
        app.router.add_post("/api/operator/stream/{attempt}", self._wrapped("stream", self._stream))
        app.router.add_post("/api/operator/result", self._wrapped("result", self._result))
        app.router.add_post("/api/operator/heartbeat", self._wrapped("heartbeat", self._heartbeat))
        app.router.add_post("/api/operator/uptime", self._wrapped("uptime", self._restore_uptime))
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        server = self._runner.server
        assert server is not None
        for connection in list(server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()
        self._runner = None

    async def restart(self, *, down_seconds: float = 0.3) -> None:
        """What a kill -9 and a start do: every connection and every session is gone."""
        await self.stop()
        self.session = ""
        self.started_at += 1
        self._last_times.clear()
        await asyncio.sleep(down_seconds)
        await self.start()

    def fail(self, call: str, kind: str, times: int = 1) -> None:
        self._faults[call].append(Fault(kind=kind, times=times))

    def forget_faults(self) -> None:
        self._faults.clear()

    # What a test does

    async def hand_out(
        self,
        payload: work.Payload,
        *,
        deadline_seconds: float = 60.0,
        model_digest: str = MODEL_DIGEST,
        tamper: Callable[[messages.Work], messages.Work] = lambda work: work,
        node_id: int | None = None,
    ) -> Handed:
        assert self.manifest is not None, "wait for the node to attach first"
        unit_id = ids.request_id(secrets.token_bytes(32))
        attempt_id = ids.attempt_id(secrets.token_bytes(16))
        plain = canonical.encode(payload)
        keys = envelope.Secrets(
            content_key=secrets.token_bytes(32),
            request_salt=secrets.token_bytes(32),
            channel_secret=secrets.token_bytes(32),
        )
        sealed = envelope.seal_payload(
            plain, unit_id=unit_id, content_key=keys.content_key, nonce=secrets.token_bytes(12)
        )
        header = envelope.EnvelopeHeader(
            kid="1",
            attempt=attempt_id,
            unit=unit_id,
            node=str(self.node_id if node_id is None else node_id),
            payload_sha256=envelope.payload_digest(sealed),
        )
        recipient = envelope.load_rsa_public_key(self.manifest.envelope_key)
        unit = messages.Work(
            attempt_id=attempt_id,
            attempt_number=1,
            unit_id=unit_id,
            workload_class="ai.inference",
            model=payload.model,
            model_digest=model_digest,
            deadline_seconds=deadline_seconds,
            payload=to_base64url(sealed),
            envelope=envelope.seal_envelope(keys, header=header, recipient=recipient),
        )
        handed = Handed(work=unit, payload=plain, salt=keys.request_salt, channel_secret=keys.channel_secret)
        self.attempts[attempt_id] = handed
        await self.deliver(tamper(unit))
        return handed

    async def deliver(self, unit: messages.Work) -> None:
        self._queue.append(unit)
        await self._notify()

    async def cancel(self, handed: Handed, *, partial: bool) -> None:
        if not partial:
            handed.closed = True
        self._cancellations.append(
            messages.Cancellation(attempt_id=handed.attempt_id, reason="requester_cancelled", partial=partial)
        )
        await self._notify()

    async def reject(self, handed: Handed, reason: str) -> None:
        self._rejections.append(
            messages.Rejection(
                attempt_id=handed.attempt_id, unit_id=handed.work.unit_id, reason=reason, at=self.now_ms()
            )
        )
        await self._notify()

    async def until(self, condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
        """Waits for something that must come about. The bound only ends a test that has failed."""
        async with asyncio.timeout(seconds):
            while not condition():
                async with self._news:
                    try:
                        async with asyncio.timeout(0.05):
                            await self._news.wait()
                    except TimeoutError:
                        continue

    async def returned(self, handed: Handed) -> messages.Result:
        await self.until(lambda: handed.answered)
        assert handed.result is not None
        return handed.result

    async def attached(self) -> messages.Manifest:
        await self.until(lambda: self.session != "")
        assert self.manifest is not None
        return self.manifest

    # The calls

    def _wrapped(self, call: str, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> Answer:
            self.calls.append(call)
            if self.lies[call]:
                lie = self.lies[call].popleft()
                return web.Response(status=lie.status, body=lie.body, headers=lie.headers)
            fault = self._next_fault(call)
            if fault == "cut":
                return self._cut(request)
            if fault in ("503", "429"):
                return _refusal(int(fault), "busy", "later", {"Retry-After": "0"})
            try:
                answer = await handler(request)
            except _Refused as refused:
                self.refusals.append(f"{call}:{refused.code}")
                answer = _refusal(refused.status, refused.code, refused.code, refused.headers)
            await self._notify()
            return self._cut(request) if fault == "cut_after" else answer

        return handle

    def _next_fault(self, call: str) -> str:
        faults = self._faults[call]
        if not faults:
            return ""
        faults[0].times -= 1
        return faults.popleft().kind if faults[0].times == 0 else faults[0].kind

    def _cut(self, request: web.Request) -> Answer:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _attach(self, request: web.Request) -> Answer:
        self._refuse_if_told()
        body = msgspec.json.decode(await request.read(), type=messages.Attach)
        manifest_bytes = body.manifest.encode()
        manifest = msgspec.json.decode(manifest_bytes, type=messages.Manifest)
        public_key = from_hex(body.public_key, name="public_key", length_bytes=64)
        text = signing.attach_text(CHAIN_ID, self.node_id, to_hex(canonical_sha256(manifest_bytes)))
        signing.require_signer(text, from_hex(body.signature, name="signature", length_bytes=65), public_key)
        if abs(manifest.issued_at - self.now_ms()) > 2 * CLOCK_SKEW_MS_MAX or manifest.issued_at <= self._last_issued:
            raise self._stale()
        self._last_issued = manifest.issued_at
        self.manifest, self.node_public_key = manifest, public_key
        self.session = canonical_sha256(manifest_bytes).hex()[:32]
        self._last_times.clear()
        return _json(
            messages.Attached(
                session=self.session,
                chain_id=CHAIN_ID,
                coordinator=self.key.address,
                server_time=self.now_ms(),
                heartbeat_seconds=self.heartbeat_seconds,
                poll_seconds=self.poll_seconds,
                acknowledge_seconds=10.0,
                offline_seconds=30.0,
            )
        )

    async def _inbox(self, request: web.Request) -> Answer:
        self._refuse_if_told()
        self._require_signed(request, "inbox")
        slots = int(request.query["slots"])
        assert request.query["nodeId"] == str(self.node_id)
        self.polls.append(slots)
        session = self.session
        deadline = time.monotonic() + self.poll_seconds
        while (inbox := self._take(slots)) is None:
            wait = deadline - time.monotonic()
            if self.refuse is not None or wait <= 0 or self.session != session:
                self._refuse_if_told()
                return _json(messages.Inbox(server_time=self.now_ms()))
            async with self._news:
                try:
                    async with asyncio.timeout(min(wait, 0.2)):
                        await self._news.wait()
                except TimeoutError:
                    continue
        return _json(inbox)

    def _take(self, slots: int) -> messages.Inbox | None:
        self._deliver_again()
        units = tuple(self._queue.popleft() for _ in range(min(slots, len(self._queue))))
        self._delivered.update({unit.attempt_id: (time.monotonic(), unit) for unit in units})
        cancellations, rejections = tuple(self._cancellations), tuple(self._rejections)
        self._cancellations.clear()
        self._rejections.clear()
        if not (units or cancellations or rejections):
            return None
        return messages.Inbox(work=units, cancellations=cancellations, rejections=rejections, server_time=self.now_ms())

    def _deliver_again(self) -> None:
        """What nobody acknowledged may have been lost on the way."""
        for attempt_id, (at, unit) in list(self._delivered.items()):
            handed = self.attempts.get(attempt_id)
            if handed is None or handed.acknowledged or handed.answered or handed.closed:
                del self._delivered[attempt_id]
            elif time.monotonic() - at > REDELIVERY_SECONDS:
                del self._delivered[attempt_id]
                self._queue.append(unit)

    async def _acknowledge(self, request: web.Request) -> Answer:
        body = msgspec.json.decode(await request.read(), type=messages.Acknowledge)
        handed = self._open_attempt(body.attempt_id)
        self._require_signed(request, "ack", handed)
        opener = envelope.Opener(handed.channel_secret, label="acknowledgement", attempt_id=handed.attempt_id)
        assert opener.open(from_base64url(body.sealed, name="sealed")) == messages.ACKNOWLEDGEMENT
        handed.acknowledged = True
        deadline_at = self.now_ms() + int(handed.work.deadline_seconds * 1000)
        return _json(messages.Acknowledged(attempt_id=handed.attempt_id, deadline_at=deadline_at))

    async def _stream(self, request: web.Request) -> Answer:
        handed = self._open_attempt(request.match_info["attempt"])
        self._require_signed(request, "stream", handed)
        connection = int(request.headers[messages.HEADER_CONNECTION])
        if connection <= handed.connection:
            self.broken.append(f"connection {connection} after {handed.connection}")
        handed.connection = connection
        handed.connections.append(connection)
        offset = int(request.headers[messages.HEADER_OFFSET])
        arrived = len(handed.text.encode())
        if offset != arrived:
            raise _Refused(409, "stream_offset", {messages.HEADER_OFFSET: str(arrived)})
        opener = envelope.Opener(
            handed.channel_secret, label="delta", attempt_id=handed.attempt_id, connection=connection
        )
        buffered = b""
        async for chunk in request.content.iter_any():
            buffered += chunk
            while len(buffered) >= 4 and len(buffered) >= 4 + (size := int.from_bytes(buffered[:4], "big")):
                entries = work.decode_entries(opener.open(buffered[4 : 4 + size]))
                buffered = buffered[4 + size :]
                handed.text += "".join(entry.text for entry in entries)
                handed.entries_streamed += len(entries)
                handed.frames += 1
                handed.acknowledged = True
                await self._notify()
                if self.stream_bytes_max is not None and len(handed.text.encode()) >= self.stream_bytes_max:
                    self.stream_bytes_max = None
                    return self._cut(request)
            if handed.closed:
                raise _Refused(410, "attempt_closed")
        handed.stream_ended = True
        return _json(messages.StreamEnd(attempt_id=handed.attempt_id, received_bytes=len(handed.text.encode())))

    async def _result(self, request: web.Request) -> Answer:
        data = await request.read()
        result = msgspec.json.decode(data, type=messages.Result)
        handed = self._open_attempt(result.attempt_id)
        handed.bodies.append(data)
        if len(set(handed.bodies)) != 1:
            self.broken.append(f"{result.attempt_id}: a result was sent in two forms")
        if request.headers[messages.HEADER_NODE] != str(self.node_id):
            self.broken.append("result without the node's id")
        if result.outcome in ("failed", "declined"):
            self._require_signed(request, "ack", handed)
        else:
            if request.headers[messages.HEADER_SESSION] != self.session:
                raise _Refused(401, "unknown_session")
            self._verify(handed, result)
        handed.result, handed.answered = result, True
        return _json(messages.ResultAnswer(attempt_id=result.attempt_id, accepted=True))

    def _verify(self, handed: Handed, result: messages.Result) -> None:
        """Every proof that a result carries. Raises where one does not hold."""
        assert self.manifest is not None
        opener = envelope.Opener(handed.channel_secret, label="result", attempt_id=handed.attempt_id)
        detail = msgspec.json.decode(
            opener.open(from_base64url(result.result, name="result")), type=messages.ResultDetail
        )
        content_bytes = from_base64url(detail.content, name="content")
        entries_bytes = from_base64url(detail.entries, name="entries")
        unit_id = handed.work.unit_id
        proof = poe.proof_of_execution(unit_id, content_bytes, self.node_id)
        assert result.poe == to_hex(proof)
        signature = from_hex(result.signature, name="signature", length_bytes=65)
        signing.require_signer(signing.result_text(unit_id), signature, self.node_public_key)
        facts = poe.AttemptFacts(
            chain_id=CHAIN_ID,
            attempt_id=handed.attempt_id,
            attempt_number=handed.work.attempt_number,
            outcome="cancelled" if result.outcome == "cancelled" else "completed",
            input_hash=to_hex(work.input_hash(handed.salt, handed.payload)),
            model_digest=handed.work.model_digest,
            usage=detail.usage,
            entries_root=to_hex(work.entries_root(entries_bytes)),
            salt_hash=to_hex(poe.salt_hash(from_base64url(detail.salt, name="salt"))),
        )
        proof_key = RSAKey.import_key(self.manifest.poe_key).raw_value
        assert isinstance(proof_key, RSAPublicKey)
        poe_signature = from_base64url(result.poe_signature, name="poe_signature")
        poe.require_signature(proof_key, poe_signature, content_bytes, proof, facts)
        content = canonical.decode(content_bytes, work.ResultContent)
        entries = work.decode_entries(entries_bytes)
        if content.probe_prompt_tokens:
            assert len(entries) == len(content.probe_prompt_tokens)
        else:
            assert "".join(entry.text for entry in entries) == content.text
        assert content.text.startswith(handed.text), "what was streamed is not the beginning of the result"
        handed.content, handed.entries, handed.usage = content, entries, detail.usage

    async def _heartbeat(self, request: web.Request) -> Answer:
        self._refuse_if_told()
        stamp = self._require_signed(request, "heartbeat")
        self.heartbeats.append(msgspec.json.decode(await request.read(), type=messages.Heartbeat))
        text = signing.receipt_text(CHAIN_ID, self.node_id, self.session, stamp)
        return _json(
            messages.UptimeReceipt(
                node_id=str(self.node_id),
                session=self.session,
                unix_ms=stamp,
                slot=stamp // 10_000,
                credited=True,
                server_time=self.now_ms(),
                started_at=self.started_at,
                signature=to_hex(self.key.sign(text)),
                notice=self.notice,
            )
        )

    async def _restore_uptime(self, request: web.Request) -> Answer:
        self._refuse_if_told()
        self._require_signed(request, "uptime")
        proofs = msgspec.json.decode(await request.read(), type=messages.RestoreUptime).proofs
        for proof in proofs:
            text = signing.receipt_text(CHAIN_ID, self.node_id, proof.session, proof.unix_ms)
            signature = from_hex(proof.signature, name="signature", length_bytes=65)
            signing.require_signer(text, signature, self.key.public_key)
        self.restored.append(proofs)
        return _json(messages.UptimeRestored(credited=len(proofs), server_time=self.now_ms()))

    # Checks

    def _require_signed(self, request: web.Request, purpose: signing.TimedPurpose, handed: Handed | None = None) -> int:
        headers = request.headers
        session = headers[messages.HEADER_SESSION]
        if not self.session or session != self.session:
            raise _Refused(401, "unknown_session")
        stamp = int(headers[messages.HEADER_TIME])
        attempt_id = None if handed is None else handed.attempt_id
        text = signing.timed_text(purpose, CHAIN_ID, self.node_id, session, stamp, attempt_id)
        signature = from_hex(headers[messages.HEADER_SIGNATURE], name="signature", length_bytes=65)
        signing.require_signer(text, signature, self.node_public_key)
        last = self._last_times.get(f"{purpose}:{attempt_id}", 0)
        if abs(stamp - self.now_ms()) > CLOCK_SKEW_MS_MAX or stamp <= last:
            raise self._stale()
        self._last_times[f"{purpose}:{attempt_id}"] = stamp
        return stamp

    def _open_attempt(self, attempt_id: str) -> Handed:
        handed = self.attempts.get(attempt_id)
        if handed is None or handed.closed:
            raise _Refused(410, "attempt_closed")
        return handed

    def _refuse_if_told(self) -> None:
        if self.refuse is not None:
            raise _Refused(*self.refuse)

    def _stale(self) -> _Refused:
        return _Refused(401, "stale_time", {messages.HEADER_TIME: str(self.now_ms())})

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()


class _Refused(Exception):
    def __init__(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.headers = status, code, headers or {}


def canonical_sha256(data: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(data).digest()


def _json(body: msgspec.Struct) -> Answer:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _refusal(status: int, code: str, message: str, headers: dict[str, str]) -> Answer:
    body = msgspec.json.encode(messages.ErrorBody(error=code, message=message))
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
