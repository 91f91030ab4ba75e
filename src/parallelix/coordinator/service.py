"""The coordinator's body around the engine: it seals, commits, then acts.

Every call steps the engine once, hands the step's rows to the journal, and answers when they are durable. Effects are
carried out after the same commit and in the order of their steps, so nobody hears of anything that a power cut could
still undo. Only text that a node streams is shown at once, and it is marked provisional.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from parallelix.coordinator import challenging, errors
from parallelix.coordinator.auditing import Audit, Auditing, Judged
from parallelix.coordinator.feed import (
    RETRY_AFTER_SECONDS,
    Delta,
    Ended,
    Feed,
    Outcome,
    Position,
    Progress,
    Restarted,
    StreamItem,
)
from parallelix.coordinator.keyring import Keyring
from parallelix.coordinator.live import LiveAttempt, LivePayload, LiveRequest, LiveSession
from parallelix.coordinator.mailbox import Mailbox
from parallelix.coordinator.metrics import Metrics
from parallelix.coordinator.reading import Reading
from parallelix.coordinator.secrets import CoordinatorSecrets
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.coordinator.spec import RequestSpec
from parallelix.coordinator.steps import StepLog, now_ms
from parallelix.coordinator.store.journal import Journal
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.rows import ClaimRow, EnvelopeRow, PayloadRow, ResultRow
from parallelix.coordinator.store.statements import Delete
from parallelix.engine import challenges, effects, events, validator
from parallelix.engine.core import Engine, Step
from parallelix.engine.entities import ApiKey, Attempt, Request
from parallelix.engine.ledger import available
from parallelix.engine.mirror import Part
from parallelix.engine.rows import KeyRow, RequestRow, Row
from parallelix.points import reached
from parallelix.protocol import envelope, requests, sampling
from parallelix.protocol.accounts import ClearanceView, Scope
from parallelix.protocol.calibration import Card
from parallelix.protocol.canonical import decode, encode
from parallelix.protocol.encoding import from_hex
from parallelix.protocol.messages import Cancellation, Rejection, Result, ResultDetail, Work
from parallelix.protocol.records import Batch
from parallelix.protocol.work import Entry, Payload

if TYPE_CHECKING:
    from parallelix.chain.rpc import Rpc

__all__ = ["Coordinator", "Created", "Delta", "Ended", "Outcome", "Position", "Progress", "Restarted", "StreamItem"]

COMPARED_AT_ONCE_MAX = 64
"""Tokens of an answer: the comparison of a longer one takes milliseconds, and all else goes on beside it."""

RandomBytes: TypeAlias = Callable[[int], bytes]
LogEvent: TypeAlias = Callable[[str, dict[str, Any]], None]


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """`created` is false where an Idempotency-Key found the request that it made before."""

    request_id: str
    created: bool
    hold_wei: int


class Coordinator(Reading):
    """One running coordinator. All of it lives on one event loop."""

    def __init__(
        self,
        *,
        settings: CoordinatorSettings,
        engine: Engine,
        readers: Readers,
        journal: Journal,
        secrets: CoordinatorSecrets,
        metrics: Metrics,
        log: LogEvent,
        clock: Callable[[], int],
        random_bytes: RandomBytes,
        cards: Mapping[str, Card] | None = None,
    ) -> None:
        super().__init__(
            settings=settings, engine=engine, readers=readers, journal=journal, secrets=secrets, clock=clock
        )
        self.metrics = metrics
        self.signed_after = 0
        """A node's call that was signed at this time or before is refused: an earlier process may have taken it."""
        self.anchor_batch: Callable[[Batch, int], None] = _no_anchor
        """Takes a batch, and the newest epoch that a record of it or before it was drawn in."""
        self.sign_clearance: Callable[[effects.ClearanceGranted], ClearanceView] = _no_settler
        self.rpc: Rpc | None = None
        """The chain's endpoint, for reads; None where the network is on no chain."""
        self.check_rpc: Rpc | None = None
        """Where there is a second one, it must say the same."""
        self.stopping = False
        self.streams: set[asyncio.Task[Any]] = set()
        """The calls in which nodes are streaming."""
        self.log = log
        self.steps = StepLog(log, enabled=settings.log_steps)
        self._random = random_bytes
        self._requests: dict[str, LiveRequest] = {}
        self._attempts: dict[str, LiveAttempt] = {}
        self._sessions: dict[int, LiveSession] = {}
        self._mailboxes: dict[int, Mailbox] = {}
        self._results: dict[str, _Answer] = {}
        self.auditing = Auditing(cards=cards or {}, storage_key=secrets.storage_key, random_bytes=random_bytes)
        self.verdicts_awaited: dict[str, asyncio.Future[None]] = {}
        """Of requests whose followers wait for the end of the audit."""
        self._payload_bytes = 0
        self.keyring = Keyring()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._graces: dict[str, asyncio.TimerHandle] = {}

    # Steps --------------------------------------------------------------------------------------------------------

    def step(self, event: events.Event) -> tuple[effects.Answer, int]:
        """Steps the engine. Gives its answer and the ticket to wait for before anybody may hear it."""
        step = self.engine.step(event, self.clock(), self._random)
        return step.answer, self._carry(step)

    async def settle(self, event: events.Event) -> effects.Answer:
        """Steps the engine and returns its answer once what it says is durable."""
        answer, ticket = self.step(event)
        await self.journal.wait(ticket)
        return answer

    def _carry(self, step: Step, rows: Sequence[Row] = ()) -> int:
        """Hands a step to the journal: its rows, what must be sealed for its effects, and the effects to carry out
        after."""
        to_write, to_delete = [*step.rows, *rows], list[Delete]()
        works: dict[str, Work] = {}
        for effect in step.effects:
            row: Row | None = None
            if isinstance(effect, effects.Offer):
                self.steps.mark(3, effect.request_id, effect.attempt_number)
                works[effect.attempt_id], row = self._seal_offer(effect)
                self.steps.mark(4, effect.request_id, effect.attempt_number)
            elif isinstance(effect, effects.OpenAudit):
                row = self.auditing.open(effect)
            elif isinstance(effect, effects.RunAgain):
                self.auditing.run_again(effect.audit_id)
            elif isinstance(effect, effects.AuditEnded):
                to_delete.append(Delete(row_type=ClaimRow, key=(effect.audit_id,)))
            if row is not None:
                to_write.append(row)
        then: Callable[[], None] | None = None
        if step.effects:

            def carry_out() -> None:
                for effect in step.effects:
                    self._carry_out(effect, works)

            then = carry_out
        ticket = self.journal.append(to_write, to_delete, after=then)
        self._arm()
        return ticket

    def _carry_out(self, effect: effects.Effect, works: dict[str, Work]) -> None:
        if isinstance(effect, effects.RequestProgress):
            self._show_progress(effect)
        elif isinstance(effect, effects.Offer):
            # An offer may have been withdrawn by a later step of the same commit group.
            if effect.attempt_id in self._attempts and self.engine.attempt(effect.attempt_id) is not None:
                self.mailbox(effect.node_id).put_work(works[effect.attempt_id])
        elif isinstance(effect, effects.Withdraw):
            self.mailbox(effect.node_id).cancel(
                Cancellation(attempt_id=effect.attempt_id, reason=effect.reason, partial=effect.partial)
            )
            if not effect.partial:
                self._attempts.pop(effect.attempt_id, None)
        elif isinstance(effect, effects.TellRejection):
            # A result that came without an acknowledgement left its work in the inbox.
            self._forget_attempt(effect.attempt_id)
            self.mailbox(effect.node_id).tell(
                Rejection(attempt_id=effect.attempt_id, unit_id=effect.request_id, reason=effect.reason, at=effect.at)
            )
        elif isinstance(effect, effects.AnchorBatch):
            self.anchor_batch(effect.batch, effect.epoch)
        elif isinstance(effect, effects.StandingChanged):
            self.mailbox(effect.node_id).wake()
        elif isinstance(effect, effects.OpenAudit):
            self.metrics.audit_opened(prepared=bool(effect.prepared_from))
        elif isinstance(effect, effects.AuditEnded):
            self._end_audit(effect)
        elif isinstance(effect, effects.PoseChallenge):
            self._pose(effect)
        elif isinstance(effect, effects.RunAgain):
            pass
        else:
            self.metrics.event(effect.name)
            self.log(effect.name, effect.fields)

    def _arm(self) -> None:
        """Wakes for the engine's next timer."""
        due_at = self.engine.next_due()
        if due_at is None or (self._timer is not None and self._timer_at <= due_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due_at
        delay_seconds = max(0, due_at - self.clock()) / 1000
        self._timer = asyncio.get_running_loop().call_later(delay_seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.step(events.Tick())
        self._arm()

    def start(
        self,
        step: Step,
        payloads: Sequence[PayloadRow],
        envelopes: Sequence[EnvelopeRow],
        claims: Sequence[ClaimRow] = (),
    ) -> None:
        """Takes up the open requests and audits of a restored engine: unwraps their keys, then offers again what was
        offered."""
        self.keyring.add(self.engine.keys.values())
        self.auditing.take_up(claims)
        for row in payloads:
            request = self.engine.requests.get(row.request_id)
            if request is not None:
                content_key, salt = self._unwrap_keys(row.wrapped_keys)
                payload = LivePayload.stored(request.request_id, row.sealed, content_key=content_key, salt=salt)
                self._make_live(request, payload, row.requester_public_key)
        for row in envelopes:
            attempt = self.engine.attempt(row.attempt_id)
            if attempt is not None:
                self._attempts[row.attempt_id] = LiveAttempt(
                    attempt_id=row.attempt_id,
                    request_id=attempt.request_id,
                    number=attempt.number,
                    node_id=attempt.node_id,
                    model_digest=attempt.model_digest,
                    channel_secret=envelope.unwrap_at_rest(self.secrets.storage_key, row.wrapped_secret),
                )
                self._requests[attempt.request_id].feed.begin(attempt.number)
        self._carry(step)
        self._arm()

    def stop(self) -> None:
        """No new requests; polls are answered and followers told. What is open stays open in the store."""
        self.stopping = True
        for live in self._requests.values():
            live.feed.stop()
        for waiter in self.verdicts_awaited.values():
            waiter.set_exception(_stopping())
        self.verdicts_awaited.clear()
        for stream in self.streams:
            stream.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for mailbox in self._mailboxes.values():
            mailbox.wake()

    # 1 Request, 2 Admit ----------------------------------------------------------------------------------------------

    def authenticate(self, bearer: str, scope: Scope | None = None) -> ApiKey:
        """The API key that `bearer` is. Raises `Unauthorised`, or `Forbidden` for a key without the `scope`."""
        key = self.keyring.find(bearer)
        if key is None:
            raise errors.Unauthorised("the API key is not known here; make one with `parallelix keys create`")
        if key.revoked_at:
            raise errors.Unauthorised(f"API key {key.key_id} was revoked; use another", code="revoked_key")
        if not key.usable(self.clock()):
            raise errors.Unauthorised(f"API key {key.key_id} has expired; make a new one", code="expired_key")
        if scope is not None and not key.may(scope):
            raise errors.Forbidden(
                f"key {key.key_id} may do {key.scopes.replace(',', ' and ')}; this call needs a key with the scope "
                f"{scope}",
                code="missing_scope",
            )
        return key

    def fingerprint(self, body: bytes, route: str) -> str:
        """What an Idempotency-Key stands for. Keyed, so that the store does not give prompts away to guessing."""
        return hmac.digest(self.secrets.fingerprint_key, route.encode() + b"\0" + body, "sha256").hex()

    async def create(
        self, key: ApiKey, spec: RequestSpec, *, attached: bool, idempotency_key: str = "", fingerprint: str = ""
    ) -> Created:
        """Admits a request. Returns once it is durable; raises the `ApiError` that says why it cannot be."""
        if self.stopping:
            raise errors.Unavailable("the coordinator is stopping; try again", code="stopping", retry_after_seconds=5)
        if spec.credit_account and spec.credit_account.lower() != key.account.lower():
            raise errors.Forbidden(
                f"credit_account {spec.credit_account!r}: key {key.key_id} pays from {key.account!r}; leave it out"
            )
        if not self.is_sampling:
            raise errors.Unavailable(
                "the commitment to the first sampling secret is not confirmed yet; try again in a minute",
                code="starting",
                retry_after_seconds=5,
            )
        arrived_ms = now_ms()
        event = self._admission(key, spec, attached, idempotency_key, fingerprint)
        self.journal.require_room()
        if self._payload_bytes > self.settings.open_payload_bytes_max:
            raise errors.Unavailable(
                f"open requests hold {self._payload_bytes} bytes of payload, at most "
                f"{self.settings.open_payload_bytes_max}; try again later",
                retry_after_seconds=5,
            )
        step = self.engine.step(event, self.clock(), self._random)
        rows: list[Row] = []
        if isinstance(step.answer, effects.Admitted) and step.answer.created:
            self.steps.mark(1, step.answer.request_id, at_ms=arrived_ms)
            self.steps.mark(2, step.answer.request_id)
            rows.append(self._seal_request(step.answer.request_id, spec))
        ticket = self._carry(step, rows)
        await self.journal.wait(ticket)
        if isinstance(step.answer, effects.Refused):
            raise api_error(step.answer)
        assert isinstance(step.answer, effects.Admitted), step.answer
        if not step.answer.created and attached:
            self._drop_grace(step.answer.request_id)
            self.step(events.ClientReturned(request_id=step.answer.request_id))
        return Created(request_id=step.answer.request_id, created=step.answer.created, hold_wei=step.answer.hold_wei)

    def _pose(self, effect: effects.PoseChallenge) -> None:
        """Sends a node a request of our own. Whether it can take it now is the engine's to say; it asks again."""
        model = self.engine.catalogue.find(effect.model)
        if (
            self.stopping
            or not self.is_sampling
            or model is None
            or self._payload_bytes > self.settings.open_payload_bytes_max
        ):
            return
        models = self.engine.pool.nodes[effect.node_id].models
        spec = challenging.compose(
            effect.model,
            tokens=effect.tokens,
            tokens_max=model.max_tokens_max,
            chats=any("chat" in each.features for each in models if each.digest in model.digests),
            random_bytes=self._random,
        )
        event = msgspec.structs.replace(self._admission(None, spec, False, "", ""), only_node=effect.node_id)
        step = self.engine.step(event, self.clock(), self._random)
        rows: list[Row] = []
        if isinstance(step.answer, effects.Admitted):
            rows.append(self._seal_request(step.answer.request_id, spec))
            self.log("node.challenged", {"node_id": str(effect.node_id), "request_id": step.answer.request_id})
        self._carry(step, rows)

    def _admission(
        self, key: ApiKey | None, spec: RequestSpec, attached: bool, idempotency_key: str, fingerprint: str
    ) -> events.Admit:
        """Without a `key` it is a request of our own."""
        return events.Admit(
            account=key.account if key is not None else challenges.ACCOUNT,
            key_id=key.key_id if key is not None else "",
            workload_class=spec.workload_class,
            kind=spec.payload.kind,
            model=spec.payload.model,
            hardware_tier=spec.hardware_tier,
            priority=spec.priority,
            deadline_ms=round((spec.deadline_seconds or 0) * 1000),
            queue_ms=None if spec.queue_seconds is None else round(spec.queue_seconds * 1000),
            prompt_bytes=prompt_bytes(spec.payload),
            message_count=max(1, spec.message_count),
            max_tokens=spec.max_tokens,
            features=spec.features,
            attached=attached,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
        )

    async def quote(self, key: ApiKey, spec: RequestSpec) -> requests.Quote:
        event = self._admission(key, spec, False, "", "")
        plan = self.engine.quote(event)
        if isinstance(plan, effects.Refused):
            raise api_error(plan)
        need, price = plan.need, plan.price
        credit_wei = self.engine.ledger.balance_wei(available(key.account))
        slots, free = self.engine.pool.slots(need)
        waiting = self.engine.queue.waiting(spec.workload_class, spec.payload.model)
        service_seconds = self.engine.service_seconds(spec.payload.model)
        estimate = None
        if service_seconds is not None and slots:
            estimate = round(service_seconds * (1 + (0 if free else (waiting + 1) / slots)), 1)
        return requests.Quote(
            model=spec.payload.model,
            hold_wei=str(plan.hold_wei),
            prompt_wei_per_1000=str(price.prompt_wei),
            completion_wei_per_1000=str(price.completion_wei),
            prompt_tokens_max=plan.prompt_tokens_max,
            completion_tokens_max=need.tokens,
            available_wei=str(credit_wei),
            affordable=credit_wei >= plan.hold_wei,
            capable_nodes=self.engine.pool.capable_nodes(need),
            free_slots=free,
            waiting=waiting,
            estimate_seconds=estimate,
        )

    def _seal_request(self, request_id: str, spec: RequestSpec) -> PayloadRow:
        request = self.engine.requests[request_id]
        drawing = msgspec.structs.replace(spec.payload.sampling, max_tokens=request.completion_tokens_max)
        plaintext = encode(msgspec.structs.replace(spec.payload, sampling=drawing))
        payload = LivePayload.seal(request_id, plaintext, self._random)
        self._make_live(request, payload, spec.requester_public_key)
        return PayloadRow(
            request_id=request_id,
            sealed=payload.sealed,
            wrapped_keys=envelope.wrap_at_rest(self.secrets.storage_key, payload.content_key + payload.salt),
            requester_public_key=spec.requester_public_key,
            created_at=request.admitted_at,
        )

    def _make_live(self, request: Request, payload: LivePayload, requester_public_key: str) -> None:
        self._requests[request.request_id] = LiveRequest(
            request=request,
            payload=payload,
            requester_key=envelope.load_rsa_public_key(requester_public_key) if requester_public_key else None,
        )
        self._payload_bytes += len(payload.sealed)

    # 4 Encrypt, 5 Dispatch -------------------------------------------------------------------------------------------

    def _seal_offer(self, offer: effects.Offer) -> tuple[Work, EnvelopeRow | None]:
        """Seals the unit's keys to the node. An attempt that is offered again keeps its channel secret; one of an audit
        does not outlive this process, so nothing of it is stored."""
        payload, session = self._payload_of(offer), self.session(offer.node_id)
        known = self._attempts.get(offer.attempt_id)
        secret = known.channel_secret if known is not None else self._random(envelope.KEY_BYTES)
        sealed = envelope.seal_envelope(
            envelope.Secrets(content_key=payload.content_key, request_salt=payload.salt, channel_secret=secret),
            header=envelope.EnvelopeHeader(
                kid=session.envelope_key_id,
                attempt=offer.attempt_id,
                unit=offer.request_id,
                node=str(offer.node_id),
                payload_sha256=payload.sha256,
            ),
            recipient=session.envelope_key,
        )
        unit = Work(
            attempt_id=offer.attempt_id,
            attempt_number=offer.attempt_number,
            unit_id=offer.request_id,
            workload_class=offer.workload_class,
            model=offer.model,
            model_digest=offer.model_digest,
            deadline_seconds=offer.deadline_ms / 1000,
            payload=payload.text,
            envelope=sealed,
        )
        if known is not None:
            return unit, None
        self._attempts[offer.attempt_id] = LiveAttempt(
            attempt_id=offer.attempt_id,
            request_id=offer.request_id,
            number=offer.attempt_number,
            node_id=offer.node_id,
            model_digest=offer.model_digest,
            channel_secret=secret,
        )
        if offer.is_audit:
            return unit, None
        return unit, EnvelopeRow(
            attempt_id=offer.attempt_id,
            request_id=offer.request_id,
            envelope=sealed,
            wrapped_secret=envelope.wrap_at_rest(self.secrets.storage_key, secret),
        )

    def _payload_of(self, offer: effects.Offer) -> LivePayload:
        if not offer.is_audit:
            return self._requests[offer.request_id].payload
        audit = self.auditing.find(offer.request_id)
        assert audit is not None, f"{offer.attempt_id}: its audit was never opened"
        audit.attempt_ids.append(offer.attempt_id)
        return audit.sealed

    def mailbox(self, node_id: int) -> Mailbox:
        mailbox = self._mailboxes.get(node_id)
        if mailbox is None:
            mailbox = self._mailboxes[node_id] = Mailbox()
        return mailbox

    def session(self, node_id: int) -> LiveSession:
        """The node's present session with its keys parsed; parsed on first use after a restart."""
        node = self.engine.pool.nodes[node_id]
        session = self._sessions.get(node_id)
        if session is None or session.session != node.session:
            session = LiveSession(
                node_id=node_id,
                session=node.session,
                public_key=from_hex(node.public_key, name="public_key", length_bytes=64),
                envelope_key=envelope.load_rsa_public_key(node.manifest.envelope_key),
                envelope_key_id=hashlib.sha256(node.manifest.envelope_key.encode()).hexdigest()[:16],
                poe_key=envelope.load_rsa_public_key(node.manifest.poe_key),
            )
            self._sessions[node_id] = session
        return session

    # 7 Execute, as it streams ----------------------------------------------------------------------------------------

    def live_attempt(self, attempt_id: str) -> LiveAttempt | None:
        return self._attempts.get(attempt_id)

    def take_delta(self, attempt: LiveAttempt, entries: tuple[Entry, ...]) -> None:
        """Text that a node generated: shown at once, provisional until the result is verified."""
        if not attempt.received_bytes:
            self.steps.mark(7, attempt.request_id, attempt.number)
        attempt.received_bytes += sum(len(entry.text.encode()) for entry in entries)
        live = self._requests.get(attempt.request_id)
        if live is not None and live.streams and live.feed.attempt_number == attempt.number:
            live.feed.add(entries)

    # 9 Return, 10 Verify ----------------------------------------------------------------------------------------------

    async def take_result(self, attempt: LiveAttempt, result: Result, detail: ResultDetail) -> effects.Answer:
        """Verifies a sealed result, records it, and stores it for its requester; an auditor's is compared."""
        audit = self.auditing.find(attempt.request_id)
        if audit is not None:
            return await self._take_audit_answer(audit, attempt, result, detail)
        live = self._requests.get(attempt.request_id)
        known = self.engine.attempt(attempt.attempt_id)
        if live is None or known is None:
            return await self.settle(_returned(attempt, "failed"))
        self.steps.mark(9, attempt.request_id, attempt.number)
        verdict = self._examined(result, detail, self._expected(live, attempt), attempt)
        if isinstance(verdict, validator.Rejected):
            return await self.settle(_returned(attempt, "rejected", code=verdict.code, message=verdict.message))
        for number in (10, 11):
            self.steps.mark(number, attempt.request_id, attempt.number)
        outcome = "cancelled" if result.outcome == "cancelled" else "completed"
        facts = self._sampled(live, attempt, known, verdict)
        step = self.engine.step(
            msgspec.structs.replace(_returned(attempt, outcome), facts=facts), self.clock(), self._random
        )
        rows: list[Row] = []
        if attempt.request_id not in self.engine.requests:
            answer = self._answer(live, verdict)
            self._results[attempt.request_id] = answer
            rows.append(self._result_row(live, answer))
        ticket = self._carry(step, rows)
        self.auditing.forget_fresh(attempt.attempt_id)
        await self.journal.wait(ticket)
        return step.answer

    def _sampled(
        self, live: LiveRequest, attempt: LiveAttempt, known: Attempt, verdict: validator.Verified
    ) -> events.ExecutionFacts:
        """The facts with their draw. What an audit needs is got ready only where the result is drawn: for a long one it
        takes longer than all else that is done for it."""
        if not self.engine.settings.audits:
            return verdict.facts
        secret = sampling.epoch_secret(self.secrets.sampling_key, known.epoch)
        draw = sampling.draw(secret, verdict.facts.poe_commitment)
        facts = msgspec.structs.replace(verdict.facts, draw=draw)
        if not self.engine.draws(attempt.attempt_id, draw):
            return facts
        if self.auditing.held_bytes > self.settings.open_payload_bytes_max:
            return msgspec.structs.replace(facts, has_room=False)
        opened = envelope.open_payload(
            live.payload.sealed, unit_id=live.request_id, content_key=live.payload.content_key
        )
        return msgspec.structs.replace(
            facts, spot_check=self.auditing.consider(attempt.attempt_id, decode(opened, Payload), verdict)
        )

    def _examined(
        self, result: Result, detail: ResultDetail, expected: validator.Expected, attempt: LiveAttempt
    ) -> validator.Verified | validator.Rejected:
        poe_key = self.session(attempt.node_id).poe_key.raw_value
        assert isinstance(poe_key, RSAPublicKey)
        return validator.examine(result, detail, expected, poe_key)

    async def take_refusal(self, attempt: LiveAttempt, result: Result) -> effects.Answer:
        """The node says that it has no result."""
        outcome = "declined" if result.outcome == "declined" else "failed"
        event = _returned(attempt, outcome, code=result.code or "node.runtime_failed", message=result.message)
        answer = await self.settle(event)
        self.tidy_audit(attempt)
        return answer

    def _expected(self, live: LiveRequest, attempt: LiveAttempt) -> validator.Expected:
        feed = live.feed
        return self._expected_of(
            attempt,
            live.payload,
            streamed_text=feed.text() if feed.attempt_number == attempt.number else "",
            tokens_max=self.engine.requests[attempt.request_id].completion_tokens_max,
        )

    def _expected_of(
        self, attempt: LiveAttempt, payload: LivePayload, *, streamed_text: str, tokens_max: int, probes: int = 0
    ) -> validator.Expected:
        return validator.Expected(
            chain_id=self.settings.chain_id,
            unit_id=attempt.request_id,
            attempt_id=attempt.attempt_id,
            attempt_number=attempt.number,
            node_id=attempt.node_id,
            node_public_key=self.session(attempt.node_id).public_key,
            model_digest=attempt.model_digest,
            input_hash=payload.input_hash,
            request_salt=payload.salt,
            streamed_text=streamed_text,
            tokens_max=tokens_max,
            probes=probes,
        )

    def _answer(self, live: LiveRequest, verdict: validator.Verified) -> _Answer:
        if live.requester_key is None:
            return _Answer(verdict=verdict)
        sealed = envelope.seal_to_requester(verdict.content_bytes, live.requester_key, unit_id=live.request_id)
        return _Answer(verdict=verdict, sealed_result=sealed)

    def _result_row(self, live: LiveRequest, answer: _Answer) -> ResultRow:
        """At rest under the request's own key, and beneath it under the requester's where it gave one."""
        content = answer.verdict.content_bytes if answer.sealed_result is None else answer.sealed_result.encode()
        return ResultRow(
            request_id=live.request_id,
            sealed=self._seal_at_rest(live, content, "result"),
            entries=self._seal_at_rest(live, answer.verdict.entries_bytes, "entries"),
            expires_at=self.clock() + round(self.settings.retention_seconds * 1000),
        )

    def _seal_at_rest(self, live: LiveRequest, data: bytes, what: str) -> bytes:
        return envelope.seal_at_rest(
            live.payload.content_key,
            data,
            purpose=f"{what}:{live.request_id}",
            nonce=self._random(envelope.NONCE_BYTES),
        )

    # 11 Sample: audits ------------------------------------------------------------------------------------------------

    async def _take_audit_answer(
        self, audit: Audit, attempt: LiveAttempt, result: Result, detail: ResultDetail
    ) -> effects.Answer:
        """An auditor's answer is verified like any result, then compared with the claim."""
        if self.engine.attempt(attempt.attempt_id) is None:
            return await self.settle(_returned(attempt, "failed"))
        probes = len(audit.probes.positions) if audit.probes is not None else 0
        expected = self._expected_of(
            attempt, audit.sealed, streamed_text="", tokens_max=audit.tokens_max, probes=probes
        )
        verdict = self._examined(result, detail, expected, attempt)
        if isinstance(verdict, validator.Rejected):
            event = _returned(attempt, "rejected", code=verdict.code, message=verdict.message)
            answer, ticket = self.step(event)
        else:
            judged = await self._compared(audit, verdict)
            if self.engine.attempt(attempt.attempt_id) is None:
                answer, ticket = self.step(_returned(attempt, "failed"))
            else:
                answer, ticket = self._take_judgement(audit, attempt, verdict, judged)
        await self.journal.wait(ticket)
        self.tidy_audit(attempt)
        return answer

    async def _compared(self, audit: Audit, verdict: validator.Verified) -> Judged:
        begun = perf_counter()
        if len(audit.execution.claim.entries) <= COMPARED_AT_ONCE_MAX:
            judged = self.auditing.judge(audit, verdict)
        else:
            judged = await asyncio.to_thread(self.auditing.judge, audit, verdict)
        self.metrics.compare_seconds.observe(perf_counter() - begun)
        return judged

    def _take_judgement(
        self, audit: Audit, attempt: LiveAttempt, verdict: validator.Verified, judged: Judged
    ) -> tuple[effects.Answer, int]:
        known = self.engine.attempt(attempt.attempt_id)
        if known is not None and known.started_at:
            self.metrics.audit_seconds.observe((self.clock() - known.started_at) / 1000)
        event = events.AuditAnswered(
            attempt_id=attempt.attempt_id, node_id=attempt.node_id, finding=judged.finding, third=judged.third
        )
        # Before the step, which may open a prepared audit that is judged by this answer. Where the engine does not
        # believe the auditor after all, the audit stays where it is.
        noted = self.auditing.note(audit, verdict, judged.finding)
        stage = self.engine.audits[audit.audit_id].stage
        answer, ticket = self.step(event)
        after = self.engine.audits.get(audit.audit_id)
        if after is not None and after.stage == stage:
            noted.undo(audit)
        return answer, ticket

    def tidy_audit(self, attempt: LiveAttempt) -> None:
        """An audit's attempt makes no progress that is told, so its work is taken from the inbox here, once it is taken
        up or over."""
        if self.auditing.find(attempt.request_id) is None:
            return
        if self.engine.attempt(attempt.attempt_id) is None:
            self._forget_attempt(attempt.attempt_id)
        else:
            self.mailbox(attempt.node_id).drop_work(attempt.attempt_id)

    def _end_audit(self, ended: effects.AuditEnded) -> None:
        self.metrics.audit_verdicts.labels(ended.verdict).inc()
        audit = self.auditing.forget(ended.audit_id)
        for attempt_id in audit.attempt_ids if audit is not None else ():
            self._forget_attempt(attempt_id)
        waiter = self.verdicts_awaited.pop(ended.request_id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def verdict(self, key: ApiKey, request_id: str) -> requests.AuditEvent | None:
        """What came of the audit of a completed request, as soon as it is known; None where it was not drawn.

        Raises `Unavailable` when the coordinator stops first.
        """
        if self.auditing.is_open(request_id):
            if self.stopping:
                raise _stopping()
            waiter = self.verdicts_awaited.get(request_id)
            if waiter is None:
                waiter = self.verdicts_awaited[request_id] = asyncio.get_running_loop().create_future()
            await asyncio.shield(waiter)
        view = await self.view(key, request_id, with_result=False)
        if view.audit in ("off", "not_drawn", "pending"):
            return None
        return requests.AuditEvent(
            id=request_id,
            verdict=view.audit,
            reason=view.audit_reason,
            refunded_wei=view.refunded_wei,
            charge_wei=view.charge_wei,
        )

    # 13 Return result -------------------------------------------------------------------------------------------------

    def _show_progress(self, progress: effects.RequestProgress) -> None:
        live = self._requests.get(progress.request_id)
        if live is None:
            return
        if progress.kind == "finished":
            self._finish(live, progress)
        elif progress.kind == "restarted":
            self._forget_attempt(progress.attempt_id)
        else:
            if progress.kind == "dispatched":
                live.feed.begin(progress.attempt_number)
            live.feed.note(Progress(kind=progress.kind, attempt_number=progress.attempt_number, reason=progress.reason))
            if progress.kind == "running":
                self.steps.mark(6, progress.request_id, progress.attempt_number)
                attempt = self._attempts.get(progress.attempt_id)
                if attempt is not None:
                    self.mailbox(attempt.node_id).drop_work(attempt.attempt_id)

    def _forget_attempt(self, attempt_id: str) -> None:
        attempt = self._attempts.pop(attempt_id, None)
        if attempt is not None:
            self.mailbox(attempt.node_id).drop_work(attempt_id)

    def _finish(self, live: LiveRequest, progress: effects.RequestProgress) -> None:
        answer = self._results.pop(live.request_id, None)
        if answer is not None:
            # The commit that holds the record has just come back.
            self.steps.mark(12, live.request_id, progress.attempt_number)
        outcome = _outcome(live, answer, self._audit_told(live.request))
        for attempt in live.request.attempts:
            self._forget_attempt(attempt.attempt_id)
        if answer is not None and live.streams:
            _complete(live.feed, answer.verdict)
        live.feed.end(outcome)
        self.steps.mark(13, live.request_id, progress.attempt_number)
        self._payload_bytes -= len(live.payload.sealed)
        del self._requests[live.request_id]
        self._drop_grace(live.request_id)
        self.metrics.finished(progress.state, outcome.usage)

    def _audit_told(self, request: Request) -> requests.AuditState:
        """As it stands when the request ends: whoever asks again later is told what came of it."""
        if request.record_sequence < 0 or not self.settings.audits:
            return "off"
        audit = self.engine.audit_of(request.request_id)
        if audit is None:
            return "not_drawn"
        told: Any = audit.verdict or "pending"
        return told

    async def outcome(self, key: ApiKey, request_id: str) -> Outcome:
        """Waits for the end of a request. Raises `NotFound` for one that is not this account's."""
        live = self._requests.get(request_id)
        if live is not None and live.request.account == key.account:
            self._drop_grace(request_id)
            return await live.feed.wait_end()
        row = await self._own_row(key, request_id)
        return await self._stored_outcome(row)

    async def follow(
        self, key: ApiKey, request_id: str, *, after: Position | None = None
    ) -> AsyncGenerator[StreamItem, None]:
        """What happens to a request, from `after` on, until it ends; `Unavailable` when the coordinator stops first."""
        live = self._requests.get(request_id)
        if live is not None and live.request.account == key.account:
            self._drop_grace(request_id)
            if self.engine.orphaned(request_id):
                self.step(events.ClientReturned(request_id=request_id))
            feed = live.feed
        else:
            row = await self._own_row(key, request_id)
            feed = await self._stored_feed(row, await self._stored_outcome(row))
        # Closed here and now, so that whoever asks next how many follow is told right.
        async with aclosing(feed.follow(after)) as items:
            async for item in items:
                yield item

    async def _stored_feed(self, row: RequestRow, outcome: Outcome) -> Feed:
        feed = Feed()
        attempts = await self.readers.attempts_of(row.request_id)
        feed.begin(max((attempt.number for attempt in attempts), default=0))
        if outcome.content is not None:
            feed.add(outcome.entries or (Entry(outcome.content.text),))
        feed.end(outcome)
        return feed

    async def client_left(self, request_id: str) -> None:
        """A waiting client closed its connection: cancelled after a grace, unless somebody follows again."""
        live = self._requests.get(request_id)
        if live is None or live.feed.followers or self.stopping:
            return
        self._drop_grace(request_id)
        self._graces[request_id] = asyncio.get_running_loop().call_later(
            self.settings.client_grace_seconds, self._give_up, request_id
        )

    def _give_up(self, request_id: str) -> None:
        self._graces.pop(request_id, None)
        live = self._requests.get(request_id)
        if live is not None and not live.feed.followers:
            self.step(events.Cancel(request_id=request_id, charged=True, reason="client_left"))

    def _drop_grace(self, request_id: str) -> None:
        timer = self._graces.pop(request_id, None)
        if timer is not None:
            timer.cancel()

    async def abandon(self, request_id: str, reason: str) -> None:
        """Ends a request without a charge: its client saw text that is void now."""
        await self.settle(events.Cancel(request_id=request_id, charged=False, reason=reason))

    async def cancel(self, key: ApiKey, request_id: str) -> requests.RequestView:
        await self._own_row(key, request_id)
        await self.settle(events.Cancel(request_id=request_id, charged=True, reason="requester"))
        return await self.view(key, request_id)

    # How it is ------------------------------------------------------------------------------------------------------

    def ready(self) -> tuple[bool, str]:
        if self.stopping:
            return False, "stopping"
        return (True, "ready") if self.is_sampling else (False, "starting")

    @property
    def is_sampling(self) -> bool:
        """Whether what is executed now can be drawn, or need not be: nobody could verify the draws of an epoch that
        was not committed to."""
        return bool(self.engine.epochs) or not self.settings.audits

    def measure(self) -> None:
        """Brings the gauges of `/metrics` up to date."""
        nodes = self.engine.pool.nodes.values()
        online = [node for node in nodes if node.counts_as_online]
        self.metrics.open_requests.set(self.engine.requests_open)
        self.metrics.open_audits.set(len(self.auditing))
        self.metrics.epoch.set(self.engine.epoch)
        self.metrics.waiting_requests.set(len(self.engine.queue))
        self.metrics.nodes_online.set(len(online))
        self.metrics.nodes_benched.set(sum(node.online and node.benched for node in nodes))
        self.metrics.slots_free.set(sum(max(0, node.slots_free) for node in online))
        self.metrics.records.set(self.engine.recorder.sequence)
        mirror = self.engine.mirror
        self.metrics.chain_block.set(mirror.cursor.block if mirror.cursor is not None else 0)
        for part in get_args(Part):
            self.metrics.chain_halted.labels(part).set(1 if mirror.halts.get(part) else 0)

    # Keys and credits ------------------------------------------------------------------------------------------------

    def add_key(self, event: events.KeyIssued) -> tuple[ApiKey, int]:
        """The key, and the ticket to wait for before anybody may hear its secret."""
        _, ticket = self.step(event)
        key = self.engine.keys[event.key_id]
        self.keyring.add([key])
        return key, ticket

    async def issue_key(self, event: events.KeyIssued) -> None:
        _, ticket = self.add_key(event)
        await self.journal.wait(ticket)

    async def revoke_key(self, key_id: str) -> None:
        await self.settle(events.KeyRevoked(key_id=key_id))

    async def grant_clearance(self, account: str, amount_wei: int) -> ClearanceView:
        """Freezes the amount for the account's withdrawal, and signs it. Only on a chain; raises `ApiError`."""
        answer = await self.settle(events.ClearanceAsked(account=account, amount_wei=amount_wei))
        if isinstance(answer, effects.Refused):
            raise api_error(answer)
        assert isinstance(answer, effects.ClearanceGranted), answer
        reached("clearance.granted")
        return self.sign_clearance(answer)

    def forget_keys(self, keys: Sequence[ApiKey]) -> None:
        """Drops keys that are over from memory and from the store."""
        self.keyring.drop(keys)
        self.step(events.KeysForgotten(key_ids=tuple(key.key_id for key in keys)))
        self.journal.append([], [Delete(row_type=KeyRow, key=(key.key_id,)) for key in keys])


def prompt_bytes(payload: Payload) -> int:
    """The most tokens that a prompt can be: no tokenizer makes more of them than there are bytes."""
    texts = [payload.prompt, payload.tools, payload.response_format, *payload.inputs]
    for message in payload.messages:
        texts += (message.content, message.name, message.tool_call_id)
        for call in message.tool_calls:
            texts += (call.id, call.name, call.arguments)
    return sum(len(text.encode()) for text in texts if text)


_ERRORS: dict[str, type[errors.ApiError]] = {
    code: kind
    for kind in (
        errors.BadRequest,
        errors.UnknownWorkloadClass,
        errors.UnsupportedParameter,
        errors.ContextExceeded,
        errors.Unauthorised,
        errors.PaymentRequired,
        errors.NotFound,
        errors.ClearanceOpen,
        errors.IdempotencyKeyReused,
        errors.TooMany,
        errors.Unavailable,
        errors.NodeUnauthorised,
        errors.NodeForbidden,
        errors.NodeConflict,
        errors.AttemptClosed,
    )
    for code in kind.codes
}


def api_error(refused: effects.Refused) -> errors.ApiError:
    """The engine's refusal as what travels."""
    return _ERRORS[refused.code](
        refused.message, code=refused.code, retry_after_seconds=refused.retry_after_seconds or None
    )


def _returned(attempt: LiveAttempt, outcome: Any, *, code: str = "", message: str = "") -> events.ResultReturned:
    return events.ResultReturned(
        attempt_id=attempt.attempt_id, node_id=attempt.node_id, outcome=outcome, code=code, message=message
    )


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A verified result, and its form for the requester's eyes only where there is one."""

    verdict: validator.Verified
    sealed_result: str | None = None


def _outcome(live: LiveRequest, answer: _Answer | None, audit: requests.AuditState) -> Outcome:
    request = live.request
    state: Any = request.state.value
    shown = answer.verdict if answer is not None and live.streams else None
    return Outcome(
        request_id=live.request_id,
        state=state,
        reason=request.reason,
        content=shown.content if shown else None,
        sealed_result=answer.sealed_result if answer else None,
        entries=shown.entries if shown else (),
        usage=request.usage if request.record_sequence >= 0 else None,
        charge_wei=request.charge_wei,
        record_hash=request.record_hash or None,
        audit=audit,
    )


def _complete(feed: Feed, verdict: validator.Verified) -> None:
    """Adds what the stream did not bring, so that what the requester was shown is what was hashed."""
    shown = len(feed.entries)
    if feed.entries == list(verdict.entries[:shown]):
        rest = verdict.entries[shown:]
    else:
        missing = verdict.content.text[len(feed.text()) :]
        rest = (Entry(missing),) if missing else ()
    if rest:
        feed.add(rest)


def _no_settler(granted: effects.ClearanceGranted) -> ClearanceView:
    raise AssertionError(f"a clearance for {granted.account} was granted, but nobody signs any")


def _stopping() -> errors.Unavailable:
    return errors.Unavailable(
        "the coordinator is stopping; follow the request again",
        code="stopping",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _no_anchor(batch: Batch, epoch: int) -> None:
    raise AssertionError(f"batch {batch.number} closed before an anchor was set")
