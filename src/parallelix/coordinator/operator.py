"""The eight calls of a node, as plain ASGI: they are most of what a coordinator does, so nothing stands between them
and the socket.

Each is authenticated before anything is decided, costs at most one engine step, and is answered after the commit that
holds what it says.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import parse_qs

import msgspec

from parallelix.coordinator import errors, unexpected
from parallelix.coordinator.live import LiveAttempt, LiveSession
from parallelix.coordinator.room import Room
from parallelix.coordinator.service import Coordinator, api_error
from parallelix.engine import effects, events
from parallelix.engine.uptime import SLOT_MS, oldest_slot
from parallelix.protocol import envelope, messages, signing, work
from parallelix.protocol.canonical import decode_json
from parallelix.protocol.encoding import from_base64url, from_hex, to_hex
from parallelix.protocol.errors import BadEnvelope, BadSignature, Malformed, ProtocolError
from parallelix.protocol.signing import TimedPurpose

Scope: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]

CLOCK_BEHIND_MS = 30_000
"""How old a signed time may be; nodes go by our clock, so only transit and drift remain."""
CLOCK_AHEAD_MS = 1_000
"""A successor waits this long before it serves, and so need not know which times its predecessor accepted: all of them
lie before its own."""
ATTACH_SKEW_MS = 60_000
BODY_SECONDS = 30.0
"""How long a whole body may take to arrive; a stream of deltas is bounded by its attempt's deadline instead."""
STREAM_CHECK_SECONDS = 5.0
"""How often a stream that brings nothing is asked whether it still counts: a model may think for minutes."""
STREAM_BYTES_MAX = messages.RESULT_BYTES_MAX
"""Of one attempt's deltas, over all its streams; they carry no more than the result will."""
SMALL_BYTES_MAX = 64 * 1024 * 1024
RESULTS_BYTES_MAX = 1024 * 1024 * 1024
"""Bodies on their way, over all nodes: 25 of the largest results, thousands of usual ones."""
CONNECTION_MAX = 2**32 - 1
"""It has four bytes of each nonce."""
FRAME_LENGTH_BYTES = 4

_JSON = [(b"content-type", b"application/json")]


class OperatorApp:
    """`/operator/*` below whatever path it is mounted at."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._small_room = Room(SMALL_BYTES_MAX)
        self._results_room = Room(RESULTS_BYTES_MAX)
        self._routes: dict[tuple[str, str], Callable[[Call], Awaitable[None]]] = {
            ("POST", "attach"): self._attach,
            ("GET", "inbox"): self._inbox,
            ("POST", "ack"): self._acknowledge,
            ("POST", "result"): self._result,
            ("POST", "heartbeat"): self._heartbeat,
            ("POST", "uptime"): self._restore_uptime,
            ("GET", "standing"): self._standing,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        name = scope["path"].rpartition("/operator/")[2]
        try:
            handler = self._routes.get((scope["method"], name))
            if handler is not None:
                await handler(call)
            elif name.startswith("stream/") and scope["method"] == "POST":
                await self._stream_until_stop(call, name.removeprefix("stream/"))
            elif any(name == known for _, known in self._routes):
                raise errors.MethodNotAllowed(f"{scope['method']} /operator/{name}: not this method")
            else:
                raise errors.NotFound(f"/operator/{name[:80]}: there is no such call")
        except errors.ApiError as error:
            await self._refuse(call, error)
        except ProtocolError as error:
            await self._refuse(call, _api_error_of(error))
        except Exception as error:
            self._coordinator.log("http.unexpected", unexpected.facts(name[:80], error))
            if not call.started:
                await self._refuse(call, errors.Internal("the coordinator failed on this call; its log says why"))

    async def _refuse(self, call: Call, error: errors.ApiError) -> None:
        self._coordinator.metrics.refusals.labels(error.code).inc()
        headers = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
        if error.retry_after_seconds:
            headers.append((b"retry-after", str(max(1, round(error.retry_after_seconds))).encode()))
        if error.code == "stale_time":
            headers.append((messages.HEADER_TIME.encode(), str(self._coordinator.clock()).encode()))
        body = msgspec.json.encode(messages.ErrorBody(error=error.code, message=error.message))
        await call.answer_bytes(error.status, body, headers)

    # Attach -----------------------------------------------------------------------------------------------------------

    async def _attach(self, call: Call) -> None:
        coordinator, now = self._coordinator, self._coordinator.clock()
        attach = decode_json(await call.body(2 * messages.OPERATOR_BODY_BYTES_MAX, self._small_room), messages.Attach)
        manifest = decode_json(attach.manifest, messages.Manifest)
        node_id = int(manifest.node_id)
        standing = coordinator.engine.standing(node_id)
        if standing is not None:
            raise api_error(standing)
        if manifest.chain_id != coordinator.settings.chain_id:
            raise errors.BadRequest(
                f"manifest: chain {manifest.chain_id}, but this network is on chain {coordinator.settings.chain_id}; "
                "set chain_id in config.toml"
            )
        digest = hashlib.sha256(attach.manifest.encode()).hexdigest()
        public_key = from_hex(attach.public_key, name="public_key", length_bytes=64)
        signature = from_hex(attach.signature, name="signature", length_bytes=signing.SIGNATURE_BYTES)
        signing.require_signer(signing.attach_text(manifest.chain_id, node_id, "0x" + digest), signature, public_key)
        registered = coordinator.engine.registrations[node_id].node_key_hash
        if to_hex(signing.public_key_hash(public_key)) != registered:
            raise errors.NodeForbidden(
                f"node {node_id} is registered for nodeKeyHash {registered}, this key's is "
                f"{to_hex(signing.public_key_hash(public_key))}; use the registered key's folder (PARALLELIX_HOME), or "
                "unstake and register this key",
                code="key_mismatch",
            )
        if abs(now - manifest.issued_at) > ATTACH_SKEW_MS:
            raise errors.NodeUnauthorised(
                f"manifest issued at {manifest.issued_at}, {abs(now - manifest.issued_at)} ms from our clock, at most "
                f"{ATTACH_SKEW_MS}; set the machine's clock",
                code="stale_time",
            )
        if manifest.envelope_key == manifest.poe_key:
            raise Malformed("manifest: envelope_key and poe_key are one key; each key does one job")
        envelope.load_rsa_public_key(manifest.envelope_key)
        envelope.load_rsa_public_key(manifest.poe_key)
        answer = await coordinator.settle(
            events.Attached(
                node_id=node_id,
                session=digest[:32],
                manifest=manifest,
                manifest_json=attach.manifest,
                public_key=attach.public_key,
            )
        )
        if isinstance(answer, effects.Refused):
            raise api_error(answer)
        settings = coordinator.settings
        await call.answer(
            messages.Attached(
                session=digest[:32],
                chain_id=settings.chain_id,
                coordinator=coordinator.secrets.signer.address,
                server_time=coordinator.clock(),
                heartbeat_seconds=settings.heartbeat_seconds,
                poll_seconds=settings.poll_seconds,
                acknowledge_seconds=settings.acknowledge_seconds,
                offline_seconds=settings.offline_seconds,
            )
        )

    # Inbox ------------------------------------------------------------------------------------------------------------

    async def _inbox(self, call: Call) -> None:
        coordinator = self._coordinator
        session = self._session(call)
        self._check_time(call, session, "inbox", session.last_time)
        query = parse_qs(call.scope["query_string"].decode("latin-1"))
        slots = _slots(query.get("slots", ["0"])[0])
        mailbox = coordinator.mailbox(session.node_id)
        inbox = mailbox.take(slots, coordinator.clock())
        if inbox is None:
            if coordinator.stopping:
                # A poll that began to wait now would only be cut off.
                raise errors.Unavailable("the coordinator is stopping", code="stopping", retry_after_seconds=1)
            await mailbox.wait(coordinator.settings.poll_seconds, slots=slots)
            # A node that has come back asks in its new session; nobody reads this answer any more.
            self._session(call)
            inbox = mailbox.take(slots, coordinator.clock())
        for unit in inbox.work if inbox is not None else ():
            coordinator.steps.mark(5, unit.unit_id, unit.attempt_number)
        await call.answer(inbox or messages.Inbox(server_time=coordinator.clock()))

    # Acknowledge ------------------------------------------------------------------------------------------------------

    async def _acknowledge(self, call: Call) -> None:
        body = decode_json(await call.body(messages.OPERATOR_BODY_BYTES_MAX, self._small_room), messages.Acknowledge)
        session = self._session(call, leaving=True)
        attempt = self._attempt(body.attempt_id, session)
        self._check_time(call, session, "ack", attempt.last_time, attempt.attempt_id)
        opened = attempt.opener("acknowledgement").open(from_base64url(body.sealed, name="sealed"))
        if opened != messages.ACKNOWLEDGEMENT:
            raise BadEnvelope("sealed: opens, but is not an acknowledgement")
        started = await self._start(attempt)
        await call.answer(messages.Acknowledged(attempt_id=attempt.attempt_id, deadline_at=started.deadline_at))

    async def _start(self, attempt: LiveAttempt) -> effects.Started:
        answer = await self._coordinator.settle(
            events.Acknowledged(attempt_id=attempt.attempt_id, node_id=attempt.node_id)
        )
        if isinstance(answer, effects.Refused):
            raise api_error(answer)
        assert isinstance(answer, effects.Started), answer
        self._coordinator.tidy_audit(attempt)
        return answer

    # Stream -----------------------------------------------------------------------------------------------------------

    async def _stream_until_stop(self, call: Call, attempt_id: str) -> None:
        """A stop does not wait for a model to finish; the node goes on with the stream at the next coordinator."""
        coordinator, task = self._coordinator, asyncio.current_task()
        assert task is not None
        coordinator.streams.add(task)
        try:
            await self._stream(call, attempt_id)
        except asyncio.CancelledError:
            if not coordinator.stopping or task.uncancel():
                raise
            raise errors.Unavailable("the coordinator is stopping", code="stopping", retry_after_seconds=1) from None
        finally:
            coordinator.streams.discard(task)

    async def _stream(self, call: Call, attempt_id: str) -> None:
        session = self._session(call, leaving=True)
        attempt = self._attempt(attempt_id, session)
        self._check_time(call, session, "stream", attempt.last_time, attempt.attempt_id)
        connection = _whole(call.header(messages.HEADER_CONNECTION), messages.HEADER_CONNECTION)
        if connection > CONNECTION_MAX:
            raise Malformed(f"header {messages.HEADER_CONNECTION}: {connection}, at most {CONNECTION_MAX}")
        offset = _whole(call.header(messages.HEADER_OFFSET), messages.HEADER_OFFSET)
        if connection <= attempt.connection or offset != attempt.received_bytes:
            raise errors.NodeConflict(
                f"stream {connection} from byte {offset}: connection must be above {attempt.connection} and start at "
                f"byte {attempt.received_bytes}",
                code="stream_offset",
                headers={messages.HEADER_OFFSET: str(attempt.received_bytes)},
            )
        attempt.connection = connection
        opener = attempt.opener("delta", connection)
        started = False
        frames = Frames()
        async for chunk in call.chunks():
            self._require_current(attempt, connection)
            for frame in frames.feed(chunk):
                entries = work.decode_entries(opener.open(frame))
                if not started:
                    await self._start(attempt)
                    started = True
                self._require_current(attempt, connection)
                self._require_room(attempt, len(frame), len(entries))
                self._coordinator.take_delta(attempt, entries)
        await call.answer(messages.StreamEnd(attempt_id=attempt_id, received_bytes=attempt.received_bytes))

    def _require_current(self, attempt: LiveAttempt, connection: int) -> None:
        if self._coordinator.live_attempt(attempt.attempt_id) is not attempt:
            raise errors.AttemptClosed(f"attempt {attempt.attempt_id} is over; stop generating")
        if connection != attempt.connection:
            raise errors.NodeConflict("another stream of this attempt took over", code="stream_offset")

    def _require_room(self, attempt: LiveAttempt, frame_bytes: int, entry_count: int) -> None:
        """Raises `BodyTooLarge` for more text than the requester asked for."""
        attempt.arrived_bytes += frame_bytes
        attempt.received_entries += entry_count
        request = self._coordinator.engine.requests.get(attempt.request_id)
        tokens_max = request.completion_tokens_max if request is not None else 0
        entries_max = work.entries_max(tokens_max)
        if attempt.arrived_bytes > STREAM_BYTES_MAX or attempt.received_entries > entries_max:
            raise errors.BodyTooLarge(
                f"stream: {attempt.received_entries} entries in {attempt.arrived_bytes} bytes, at most {entries_max} "
                f"in {STREAM_BYTES_MAX}; stop at the tokens that were asked for"
            )

    # Result -----------------------------------------------------------------------------------------------------------

    async def _result(self, call: Call) -> None:
        coordinator = self._coordinator
        # Nobody but a node in its session may make us hold as much as a result.
        self._session(call, leaving=True)
        result = decode_json(await call.body(messages.RESULT_BYTES_MAX, self._results_room), messages.Result)
        session = self._session(call, leaving=True)
        attempt = coordinator.live_attempt(result.attempt_id)
        if attempt is None:
            answer = await coordinator.settle(
                events.ResultReturned(attempt_id=result.attempt_id, node_id=session.node_id, outcome="failed")
            )
        elif attempt.node_id != session.node_id:
            raise errors.NodeForbidden(
                f"attempt {result.attempt_id} was not given to node {session.node_id}", code="not_your_attempt"
            )
        elif result.outcome in ("completed", "cancelled"):
            opened = attempt.opener("result").open(from_base64url(result.result, name="result"))
            answer = await coordinator.take_result(attempt, result, decode_json(opened, messages.ResultDetail))
        else:
            self._check_time(call, session, "ack", attempt.last_time, attempt.attempt_id)
            answer = await coordinator.take_refusal(attempt, result)
        if isinstance(answer, effects.Refused):
            raise api_error(answer)
        assert isinstance(answer, effects.ResultTaken), answer
        await call.answer(
            messages.ResultAnswer(attempt_id=result.attempt_id, accepted=answer.accepted, reason=answer.reason)
        )

    # Heartbeat --------------------------------------------------------------------------------------------------------

    async def _heartbeat(self, call: Call) -> None:
        coordinator = self._coordinator
        body = await call.body(messages.OPERATOR_BODY_BYTES_MAX, self._small_room)
        beat = decode_json(body, messages.Heartbeat) if body else messages.Heartbeat()
        session = self._session(call)
        unix_ms = self._check_time(call, session, "heartbeat", session.last_time)
        # Slots are written each minute, so this answer waits for no commit; the receipt is what proves the slot.
        answer, _ = coordinator.step(events.Heartbeat(node_id=session.node_id, unix_ms=unix_ms, paused=beat.paused))
        if isinstance(answer, effects.Refused):
            raise api_error(answer)
        assert isinstance(answer, effects.SlotCredited), answer
        text = signing.receipt_text(coordinator.settings.chain_id, session.node_id, session.session, unix_ms)
        await call.answer(
            messages.UptimeReceipt(
                node_id=str(session.node_id),
                session=session.session,
                unix_ms=unix_ms,
                slot=answer.slot,
                credited=answer.credited,
                server_time=coordinator.clock(),
                started_at=coordinator.started_at,
                signature=to_hex(coordinator.secrets.signer.sign(text)),
                notice=coordinator.engine.notice(session.node_id),
            )
        )
        coordinator.metrics.heartbeats.inc()

    async def _restore_uptime(self, call: Call) -> None:
        coordinator = self._coordinator
        body = await call.body(messages.OPERATOR_BODY_BYTES_MAX, self._small_room)
        proofs = decode_json(body, messages.RestoreUptime).proofs
        session = self._session(call)
        self._check_time(call, session, "uptime", session.last_time)
        # The whole fleet comes with its receipts after a restart, and most prove what was never lost.
        uptime = coordinator.engine.uptime
        lost = [proof for proof in proofs if uptime.is_open(session.node_id, proof.unix_ms // SLOT_MS)]
        for proof in lost:
            self._check_proof(session.node_id, proof)
        # As with a heartbeat: the receipts are what makes it durable.
        answer, _ = coordinator.step(
            events.UptimeRestored(node_id=session.node_id, slots=tuple(proof.unix_ms // SLOT_MS for proof in lost))
        )
        if isinstance(answer, effects.Refused):
            raise api_error(answer)
        assert isinstance(answer, effects.SlotsRestored), answer
        await call.answer(messages.UptimeRestored(credited=answer.credited, server_time=coordinator.clock()))

    def _check_proof(self, node_id: int, proof: messages.UptimeProof) -> None:
        """Raises `NodeConflict` unless we signed it for this node, in the hours that we keep."""
        coordinator = self._coordinator
        now = coordinator.clock()
        if not oldest_slot(now) <= proof.unix_ms // SLOT_MS <= now // SLOT_MS:
            raise errors.NodeConflict(
                f"receipt of {proof.unix_ms}: must lie between {oldest_slot(now) * SLOT_MS} and {now}; send those of "
                "the last ten minutes",
                code="receipt_refused",
            )
        text = signing.receipt_text(coordinator.settings.chain_id, node_id, proof.session, proof.unix_ms)
        signature = from_hex(proof.signature, name="signature", length_bytes=signing.SIGNATURE_BYTES)
        try:
            signing.require_signer(text, signature, coordinator.secrets.signer.public_key)
        except BadSignature:
            raise errors.NodeConflict(
                f"receipt of {proof.unix_ms}: not signed by this coordinator for node {node_id} in session "
                f"{proof.session}; send only this node's own receipts",
                code="receipt_refused",
            ) from None

    # Standing ---------------------------------------------------------------------------------------------------------

    async def _standing(self, call: Call) -> None:
        """Unsigned: a registry is public, and an operator asks when its daemon is gone."""
        coordinator = self._coordinator
        query = parse_qs(call.scope["query_string"].decode("latin-1"))
        node_id = _node_id(query.get("nodeId", [""])[0], "nodeId")
        engine = coordinator.engine
        registration = engine.registrations.get(node_id)
        await call.answer(
            messages.Standing(
                node_id=str(node_id),
                state=registration.state if registration is not None else "unknown",
                cooldown_ends_at=registration.cooldown_ends_at if registration is not None else 0,
                hardware_tier=registration.hardware_tier if registration is not None else 0,
                node_key_hash=registration.node_key_hash if registration is not None else "",
                chain_id=coordinator.settings.chain_id,
                contracts=coordinator.contracts,
                block=engine.mirror.cursor.block if engine.mirror.cursor is not None else None,
                server_time=coordinator.clock(),
            )
        )

    # Who calls --------------------------------------------------------------------------------------------------------

    def _session(self, call: Call, *, leaving: bool = False) -> LiveSession:
        """The session that the headers name. A node that is `leaving` may still return what it was given before."""
        node_id = _node_id(call.header(messages.HEADER_NODE))
        if not leaving:
            self._check_standing(node_id)
        node = self._coordinator.engine.pool.find(node_id)
        if node is None or node.session != call.header(messages.HEADER_SESSION):
            raise errors.NodeUnauthorised(f"node {node_id}: no such session here; attach again", code="unknown_session")
        return self._coordinator.session(node_id)

    def _check_standing(self, node_id: int) -> None:
        standing = self._coordinator.engine.standing(node_id)
        if standing is not None:
            raise api_error(standing)

    def _check_time(
        self,
        call: Call,
        session: LiveSession,
        purpose: TimedPurpose,
        last_time: dict[str, int],
        attempt_id: str | None = None,
    ) -> int:
        """The signed time of a call. Raises unless it is signed by the node's key, fresh, and above the last one."""
        coordinator = self._coordinator
        unix_ms = _whole(call.header(messages.HEADER_TIME), messages.HEADER_TIME)
        now = coordinator.clock()
        last = max(last_time.get(purpose, 0), coordinator.signed_after)
        if not max(last + 1, now - CLOCK_BEHIND_MS) <= unix_ms <= now + CLOCK_AHEAD_MS:
            raise errors.NodeUnauthorised(
                f"time {unix_ms}: must lie between {CLOCK_BEHIND_MS} ms before {now} and {CLOCK_AHEAD_MS} ms after it, "
                f"and above {last}; sign again",
                code="stale_time",
            )
        signature = from_hex(
            call.header(messages.HEADER_SIGNATURE), name="signature", length_bytes=signing.SIGNATURE_BYTES
        )
        text = signing.timed_text(
            purpose, coordinator.settings.chain_id, session.node_id, session.session, unix_ms, attempt_id
        )
        signing.require_signer(text, signature, session.public_key)
        last_time[purpose] = unix_ms
        return unix_ms

    def _attempt(self, attempt_id: str, session: LiveSession) -> LiveAttempt:
        attempt = self._coordinator.live_attempt(attempt_id)
        if attempt is None:
            raise errors.AttemptClosed(f"attempt {attempt_id[:80]} is over; drop the work")
        if attempt.node_id != session.node_id:
            raise errors.NodeForbidden(
                f"attempt {attempt_id} was not given to node {session.node_id}", code="not_your_attempt"
            )
        return attempt


class Frames:
    """Cuts a chunked body into frames: four bytes of length, big-endian, then that many bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The frames that are complete now. Raises `Malformed` for one that is too long."""
        buffer = self._buffer
        buffer += chunk
        frames: list[bytes] = []
        at = 0
        while len(buffer) - at >= FRAME_LENGTH_BYTES:
            length = int.from_bytes(buffer[at : at + FRAME_LENGTH_BYTES], "big")
            if length > messages.FRAME_BYTES_MAX:
                raise Malformed(f"frame: {length} bytes, at most {messages.FRAME_BYTES_MAX}; send smaller deltas")
            end = at + FRAME_LENGTH_BYTES + length
            if end > len(buffer):
                break
            frames.append(bytes(buffer[at + FRAME_LENGTH_BYTES : end]))
            at = end
        del buffer[:at]
        return frames


class Call:
    """One HTTP call over ASGI: its headers, its bounded body, its one answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.started = False
        self._headers: dict[bytes, bytes] = dict(scope["headers"])

    def header(self, name: str) -> str:
        """Raises `Malformed` when it is missing."""
        value = self._headers.get(name.encode())
        if value is None:
            raise Malformed(f"header {name}: is missing")
        return value.decode("latin-1")

    async def body(self, bytes_max: int, room: Room) -> bytes:
        """The whole body. Raises `BodyTooLarge`, `Unavailable`, or `ReceiveTimeout` when it does not arrive in time."""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._body(bytes_max, room)
        except TimeoutError as error:
            raise errors.ReceiveTimeout(f"body: not complete after {BODY_SECONDS:g} s") from error

    async def _body(self, bytes_max: int, room: Room) -> bytes:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body") and len(message["body"]) <= bytes_max:
            return message["body"]
        parts: list[bytes] = []
        size = 0
        with room.part() as part:
            while message["type"] == "http.request":
                parts.append(message.get("body", b""))
                part.take(len(parts[-1]))
                size += len(parts[-1])
                if size > bytes_max:
                    raise errors.BodyTooLarge(f"body: more than {bytes_max} bytes")
                if not message.get("more_body"):
                    return b"".join(parts)
                message = await self._receive()
        raise errors.BadRequest("body: the connection closed before it was complete")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; ends with the body, and raises when the connection breaks. What is empty says that
        nothing came for `STREAM_CHECK_SECONDS`."""
        while True:
            try:
                async with asyncio.timeout(STREAM_CHECK_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                yield b""
                continue
            if message["type"] != "http.request":
                raise errors.BadRequest("stream: the connection closed before its end")
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def answer(self, body: msgspec.Struct) -> None:
        await self.answer_bytes(200, msgspec.json.encode(body), [])

    async def answer_bytes(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        length = (b"content-length", str(len(body)).encode())
        await self._send({"type": "http.response.start", "status": status, "headers": [*_JSON, length, *headers]})
        await self._send({"type": "http.response.body", "body": body})


def _api_error_of(error: ProtocolError) -> errors.ApiError:
    if isinstance(error, BadSignature):
        return errors.NodeUnauthorised(error.message, code="bad_signature")
    if isinstance(error, BadEnvelope):
        return errors.BadRequest(error.message, code="bad_envelope")
    return errors.BadRequest(error.message)


def _whole(text: str, name: str) -> int:
    """A whole number as a header writes it. Raises `Malformed`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise Malformed(f"header {name}: {text[:40]!r} is not a whole number")
    return int(text)


def _node_id(text: str, name: str = f"header {messages.HEADER_NODE}") -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 78):
        raise Malformed(f"{name}: {text[:40]!r} is not a node id")
    return int(text)


def _slots(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise Malformed(f"slots: {text[:40]!r} is not a whole number")
    return min(int(text), messages.SLOTS_MAX)
