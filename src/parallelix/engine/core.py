"""The engine: `step(event, now, random_bytes)` changes the state and says what to write, to do and to answer.

The fourteen steps, and where each is decided:

     1 Request        the shell; arrives here as `Admit`
     2 Admit          `_admit`: credits are held, then the id is allocated
     3 Match          `_place`, over `pool.match`: capability, capacity, best fit, reputation; the slot is reserved
     4 Encrypt        the shell, for the `Offer` that `_place` makes
     5 Dispatch       the shell's inbox, once the rows of `_place` are durable
     6 Decrypt        `_acknowledged`: the deadline starts here
     7 Execute        the node
     8 PoE            the node
     9 Return         `_result_returned`
    10 Verify         `validator.examine`, whose verdict `_result_returned` acts on
    11 Sample         audits are off: every result goes on unaudited, and its record says rate 0
    12 Anchor         `_record`: the record joins the chain; `_close_batch` hands batches to the anchor
    13 Return result  the shell, once the rows of `_accept` are durable
    14 Settle         `_accept` releases the rest of the hold; `_batch_confirmed` posts the charge
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeAlias

import msgspec

from parallelix.engine import effects, events
from parallelix.engine.catalogue import (
    PRIORITIES,
    TIERS,
    WORKLOAD_CLASSES,
    Catalogue,
    ModelEntry,
    Price,
    Priority,
    price_of,
)
from parallelix.engine.effects import Answer, Effect, Refused
from parallelix.engine.entities import ApiKey, Attempt, Request
from parallelix.engine.ledger import GRANTS, USAGE, Ledger, available, held, split_usage
from parallelix.engine.lifecycle import FINAL_REQUEST_STATES, AttemptState, RequestState
from parallelix.engine.pool import Need, Node, Pool
from parallelix.engine.queue import Queue, queue_key
from parallelix.engine.recorder import Recorder, batch_of
from parallelix.engine.rows import FaultRow, NodeRow, Row
from parallelix.engine.settings import MINUTE_MS, EngineSettings
from parallelix.engine.snapshot import Snapshot
from parallelix.engine.uptime import Uptime
from parallelix.protocol import ids
from parallelix.protocol.messages import Manifest
from parallelix.protocol.records import ExecutionRecord
from parallelix.protocol.registry import Registration
from parallelix.protocol.requests import Held
from parallelix.protocol.work import Usage

RandomBytes: TypeAlias = Callable[[int], bytes]

MEASURABLE_TOKENS = 8
"""A shorter answer measures latency, not speed."""
SERVICE_TIME_WEIGHT = 0.2
BYTES_PER_TOKEN_GUESS = 4
"""For fitting a prompt into a context only; holds count every byte as a token."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a request needs of a node, what it is priced at, and the worst case that is held for it."""

    need: Need
    price: Price
    hold_wei: int
    prompt_tokens_max: int


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a step decided: rows to make durable, then effects to carry out, then the answer to give."""

    rows: tuple[Row, ...]
    effects: tuple[Effect, ...]
    answer: Answer


class Engine:
    """One coordinator's whole state. Not thread-safe: one caller steps it, in order."""

    def __init__(self, settings: EngineSettings, catalogue: Catalogue) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.ledger = Ledger()
        self.recorder = Recorder()
        self.uptime = Uptime()
        self.queue = Queue()
        self.pool = Pool(settings, (digest for model in catalogue.models for digest in model.digests))
        self.requests: dict[str, Request] = {}
        self.keys: dict[str, ApiKey] = {}
        self.registrations: dict[int, Registration] = {}
        self.open_of_account: dict[str, int] = {}
        self._attempts: dict[str, Attempt] = {}
        self._unsettled: dict[int, Request] = {}
        self._closed_at: dict[int, int] = {}
        self._idempotent: OrderedDict[tuple[str, str], tuple[str, str, int]] = OrderedDict()
        self._answers: OrderedDict[str, tuple[int, effects.ResultTaken]] = OrderedDict()
        self._orphans: set[str] = set()
        self._service_ms: dict[str, float] = {}
        self._models_of_digest: dict[str, list[str]] = {}
        for model in catalogue.models:
            for digest in model.digests:
                self._models_of_digest.setdefault(digest, []).append(model.name)
        self._timers: list[tuple[int, int, str, Any]] = []
        self._timer_count = 0
        self._now = 0
        self._random: RandomBytes = _no_random
        self._rows: list[Row] = []
        self._effects: list[Effect] = []
        self._handlers: dict[type[Any], Callable[[Any], Answer]] = {
            events.Admit: self._admit,
            events.Cancel: self._cancel,
            events.ClientReturned: self._client_returned,
            events.RegistryChanged: self._registry_changed,
            events.Attached: self._attached,
            events.Heartbeat: self._heartbeat,
            events.Acknowledged: self._acknowledged,
            events.ResultReturned: self._result_returned,
            events.BatchConfirmed: self._batch_confirmed,
            events.Grant: self._grant,
            events.KeyIssued: self._key_issued,
            events.KeyRevoked: self._key_revoked,
            events.Tick: self._tick,
        }

    def step(self, event: events.Event, now: int, random_bytes: RandomBytes) -> Step:
        """Decides one event at Unix millisecond `now`. Same state, event, time and randomness: same step."""
        # A clock that is set back must not undo a deadline that has passed.
        self._now = max(now, self._now)
        self._random = random_bytes
        answer = self._handlers[type(event)](event)
        return self._take_step(answer)

    def next_due(self) -> int | None:
        """When the next `Tick` has something to do; None while nothing waits for time."""
        return self._timers[0][0] if self._timers else None

    def held(self, request: Request) -> Held | None:
        """Why a queued request waits."""
        if request.request_id not in self.queue:
            return None
        position = self.queue.position(request.request_id)
        slots, _ = self.pool.slots(request.need)
        service_ms = self._service_ms.get(request.model)
        estimate = None if not slots or service_ms is None else round((position + 1) * service_ms / slots / 1000, 1)
        return Held(reason=self._held_reason(request), position=position, estimate_seconds=estimate)

    def quote(self, event: events.Admit) -> Plan | Refused:
        """What `Admit` would ask for, cost and hold at most, without keeping anything."""
        return self._plan(event)

    def service_seconds(self, model: str) -> float | None:
        service_ms = self._service_ms.get(model)
        return None if service_ms is None else service_ms / 1000

    def attempt(self, attempt_id: str) -> Attempt | None:
        return self._attempts.get(attempt_id)

    def orphaned(self, request_id: str) -> bool:
        """Whether the request's client was lost in a restart and has not come back."""
        return request_id in self._orphans

    def settled(self, record_sequence: int) -> bool:
        """Whether the charge of the record has posted."""
        return 0 <= record_sequence <= self.recorder.confirmed_through

    def standing(self, node_id: int) -> Refused | None:
        """What the registry says against a node's calls; None when it may work."""
        registration = self.registrations.get(node_id)
        if registration is None or registration.state == "retired":
            return Refused(
                code="not_staked",
                message=f"node {node_id} has no live stake; register it (registerNode), or start another node id",
            )
        if registration.state == "cooling":
            return Refused(
                code="in_cooldown",
                message=f"node {node_id} is unstaking; its cooldown ends at Unix time {registration.cooldown_ends_at}",
            )
        return None

    # 2 Admit ------------------------------------------------------------------------------------------------------

    def _admit(self, event: events.Admit) -> Answer:
        repeated = self._repeat_of(event)
        if repeated is not None:
            return repeated
        key = self.keys.get(event.key_id)
        refused = self._limit_refusal(event, key)
        if refused is not None:
            return refused
        assert key is not None
        plan = self._plan(event)
        if isinstance(plan, Refused):
            return plan
        refused = self._credit_refusal(key, plan.hold_wei)
        if refused is not None:
            return refused
        # The credits clear above; only now does an id exist.
        request_id = ids.request_id(ids.fresh_bytes(ids.UNIT_ID_BYTES, self._now, self._random))
        if plan.hold_wei:
            self._post(f"hold:{request_id}", available(event.account), held(event.account), plan.hold_wei, request_id)
        request = Request(
            request_id=request_id,
            account=event.account,
            key_id=event.key_id,
            workload_class=event.workload_class,
            kind=event.kind,
            model=event.model,
            priority=event.priority,
            need=plan.need,
            price=plan.price,
            queue_ms=plan.need.deadline_ms if event.queue_ms is None else event.queue_ms,
            admitted_at=self._now,
            prompt_tokens_max=plan.prompt_tokens_max,
            completion_tokens_max=plan.need.tokens,
            hold_wei=plan.hold_wei,
            attached=event.attached,
            idempotency_key=event.idempotency_key,
            fingerprint=event.fingerprint,
            waiting_since=self._now,
        )
        self._take_in(request, key)
        self._rows.append(request.row())
        if event.idempotency_key:
            self._idempotent[(event.account, event.idempotency_key)] = (event.fingerprint, request_id, self._now)
        self._set_timer(self._now + self.settings.lifetime_ms, "lifetime", request_id)
        self._place(request)
        return effects.Admitted(request_id=request_id, hold_wei=plan.hold_wei, created=True)

    def _repeat_of(self, event: events.Admit) -> Answer:
        if not event.idempotency_key:
            return None
        oldest = self._now - self.settings.idempotency_ms
        while self._idempotent and next(iter(self._idempotent.values()))[2] < oldest:
            self._idempotent.popitem(last=False)
        known = self._idempotent.get((event.account, event.idempotency_key))
        if known is None:
            if len(self._idempotent) >= self.settings.idempotency_keys_max:
                return _overloaded("too many Idempotency-Keys are remembered; try again later or without one")
            return None
        fingerprint, request_id, _ = known
        if fingerprint != event.fingerprint:
            return Refused(
                code="idempotency_key_reused",
                message=f"Idempotency-Key {event.idempotency_key!r} came with another body before; use a new key",
            )
        request = self.requests.get(request_id)
        return effects.Admitted(request_id=request_id, hold_wei=request.hold_wei if request else 0, created=False)

    def _limit_refusal(self, event: events.Admit, key: ApiKey | None) -> Refused | None:
        settings = self.settings
        if key is None or not key.usable(self._now):
            return Refused(code="invalid_api_key", message="the API key is unknown, expired or revoked; make a new one")
        wait_seconds = key.take_token(self._now)
        if wait_seconds:
            return Refused(
                code="rate_limited",
                message=f"key {key.key_id}: more than {key.requests_per_minute} requests a minute; slow down",
                retry_after_seconds=wait_seconds,
            )
        if key.concurrency and key.open_requests >= key.concurrency:
            return Refused(
                code="concurrency_exceeded",
                message=f"key {key.key_id}: {key.open_requests} requests are open, at most {key.concurrency}; wait",
                retry_after_seconds=1.0,
            )
        if len(self.requests) >= settings.open_requests_max:
            return _overloaded(f"{len(self.requests)} requests are open, at most {settings.open_requests_max}")
        if self.open_of_account.get(event.account, 0) >= settings.open_requests_per_account_max:
            return _overloaded(
                f"account {event.account} has {settings.open_requests_per_account_max} open requests, the most allowed"
            )
        return None

    def _plan(self, event: events.Admit) -> Plan | Refused:
        if event.workload_class not in WORKLOAD_CLASSES:
            return Refused(
                code="unknown_workload_class",
                message=f"workload_class {event.workload_class!r}: expected one of {', '.join(WORKLOAD_CLASSES)}",
            )
        model = self.catalogue.find(event.model)
        if model is None:
            return Refused(
                code="unknown_model", message=f"model {event.model!r} is not offered; see /v1/models for those that are"
            )
        assert event.hardware_tier in TIERS and event.priority in PRIORITIES, event
        completion_tokens = 0 if event.kind == "embedding" else event.max_tokens or model.max_tokens_default
        if completion_tokens > model.max_tokens_max:
            return Refused(
                code="max_tokens_too_large",
                message=f"max_tokens {completion_tokens}: model {model.name!r} gives at most {model.max_tokens_max}",
            )
        context = event.prompt_bytes // BYTES_PER_TOKEN_GUESS + completion_tokens
        if context > model.context_tokens:
            return Refused(
                code="context_exceeded",
                message=f"about {context} tokens in all; model {model.name!r} has room for {model.context_tokens}",
            )
        deadline_ms = event.deadline_ms or self.settings.deadline_ms_default
        prompt_tokens = event.prompt_bytes + model.template_tokens * event.message_count
        price = price_of(self.catalogue, model, tier=event.hardware_tier, priority=event.priority)
        hold_wei = price.cost_wei(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        need = Need(
            workload_class=event.workload_class,
            digests=model.digests,
            tier=event.hardware_tier,
            context_tokens=context,
            features=frozenset(event.features),
            tokens=completion_tokens,
            deadline_ms=min(deadline_ms, self.settings.deadline_ms_max),
        )
        return Plan(need=need, price=price, hold_wei=hold_wei, prompt_tokens_max=prompt_tokens)

    def _credit_refusal(self, key: ApiKey, hold_wei: int) -> Refused | None:
        if key.budget_wei and key.spent_wei + key.committed_wei + hold_wei > key.budget_wei:
            left = key.budget_wei - key.spent_wei - key.committed_wei
            return Refused(
                code="budget_exceeded",
                message=f"key {key.key_id}: the request may cost {hold_wei} wei, but {left} wei of its budget are left",
            )
        credit = self.ledger.balance_wei(available(key.account))
        if credit < hold_wei:
            return Refused(
                code="insufficient_credits",
                message=f"the request may cost {hold_wei} wei, but account {key.account} has {credit} wei available; "
                "deposit, or ask for fewer max_tokens",
            )
        return None

    def _take_in(self, request: Request, key: ApiKey | None) -> None:
        self.requests[request.request_id] = request
        self.open_of_account[request.account] = self.open_of_account.get(request.account, 0) + 1
        if key is not None:
            key.open_requests += 1
            key.committed_wei += request.hold_wei

    # 3 Match, 5 Dispatch ------------------------------------------------------------------------------------------

    def _place(self, request: Request) -> None:
        """Gives a queued request to a node, or lets it wait with a stated reason."""
        assert request.state is RequestState.QUEUED, request.state
        node = self.pool.match(request.need, request.failed_nodes)
        if node is not None:
            self._offer(request, node)
            return
        if request.request_id in self.queue:
            return
        key = queue_key(
            self.settings,
            admitted_at=request.admitted_at,
            priority=request.priority,
            complexity_tokens=request.need.tokens,
        )
        self.queue.add(request.request_id, request.lane, key)
        self._set_timer(request.waiting_since + request.queue_ms, "queue", request.request_id)
        reason = self._held_reason(request)
        self._progress(request, "held", reason=reason)
        self._log("request.held", request_id=request.request_id, model=request.model, reason=reason)

    def _offer(self, request: Request, node: Node) -> None:
        self.queue.discard(request.request_id)
        digests = request.need.digests
        attempt = Attempt(
            attempt_id=ids.attempt_id(ids.fresh_bytes(ids.ATTEMPT_ID_BYTES, self._now, self._random)),
            request_id=request.request_id,
            number=len(request.attempts) + 1,
            node_id=node.node_id,
            model_digest=next(model.digest for model in node.manifest.models if model.digest in digests),
            dispatched_at=self._now,
        )
        request.attempts.append(attempt)
        self._attempts[attempt.attempt_id] = attempt
        self.pool.reserve(node, attempt.attempt_id)
        request.become(RequestState.DISPATCHED, now=self._now)
        self._rows.append(attempt.row())
        self._send_offer(request, attempt, node)
        self._set_timer(self._now + self.settings.acknowledge_ms, "acknowledge", attempt.attempt_id)
        self._progress(request, "dispatched", attempt)

    def _send_offer(self, request: Request, attempt: Attempt, node: Node) -> None:
        self._effects.append(
            effects.Offer(
                attempt_id=attempt.attempt_id,
                attempt_number=attempt.number,
                request_id=request.request_id,
                node_id=node.node_id,
                session=node.session,
                model=next(each.name for each in node.manifest.models if each.digest == attempt.model_digest),
                model_digest=attempt.model_digest,
                workload_class=request.workload_class,
                deadline_ms=request.need.deadline_ms,
            )
        )

    def _held_reason(self, request: Request) -> Any:
        excluded = request.failed_nodes
        if not self.pool.any_capable(request.need, excluded):
            return "no_capable_node"
        return "no_node_fast_enough" if self.pool.has_free_slot(request.need, excluded) else "no_free_slot"

    def _drain(self, node: Node) -> None:
        """A slot of `node` may be free: give it to whoever waits first among those it can serve."""
        if node.slots_free <= 0 or not len(self.queue):
            return
        served: dict[tuple[str, str], list[frozenset[str]]] = {}
        for workload_class, digest, features in self.pool.serves(node):
            for model in self._models_of_digest[digest]:
                served.setdefault((workload_class, model), []).append(features)

        def suits(request_id: str) -> bool:
            request = self.requests[request_id]
            return node.node_id not in request.failed_nodes and self.pool.could_take(node, request.need)

        waiting = self.queue.first(
            served, tier=node.tier, wanted=node.slots_free, scanned_max=self.settings.drain_scan_max, suits=suits
        )
        for request_id in waiting:
            self._place(self.requests[request_id])

    def _drain_penalised(self) -> None:
        """A node went: where it was the last good one, the least bad serve what waits."""
        for node in self.pool.penalised():
            self._drain(node)

    # 6 Decrypt ----------------------------------------------------------------------------------------------------

    def _acknowledged(self, event: events.Acknowledged) -> Answer:
        found = self._open_attempt(event.attempt_id, event.node_id)
        if isinstance(found, Refused):
            return found
        request, attempt = found
        if attempt.state is AttemptState.OFFERED:
            self._start(request, attempt)
        return effects.Started(deadline_at=attempt.deadline_at)

    def _start(self, request: Request, attempt: Attempt) -> None:
        attempt.become(AttemptState.RUNNING, now=self._now)
        attempt.started_at = self._now
        attempt.deadline_at = self._now + request.need.deadline_ms
        request.become(RequestState.RUNNING, now=self._now)
        self._rows.append(attempt.row())
        self._set_timer(attempt.deadline_at, "deadline", attempt.attempt_id)
        self._progress(request, "running", attempt)

    def _open_attempt(self, attempt_id: str, node_id: int) -> tuple[Request, Attempt] | Refused:
        attempt = self._attempts.get(attempt_id)
        if attempt is None or not attempt.open:
            return Refused(code="attempt_closed", message=f"attempt {attempt_id} is over; drop the work")
        if attempt.node_id != node_id:
            return _not_your_attempt(attempt_id, node_id)
        return self.requests[attempt.request_id], attempt

    # 9 Return, 10 Verify ------------------------------------------------------------------------------------------

    def _result_returned(self, event: events.ResultReturned) -> Answer:
        node_id, remembered = self._answers.get(event.attempt_id, (event.node_id, None))
        if node_id != event.node_id:
            return _not_your_attempt(event.attempt_id, event.node_id)
        if remembered is not None:
            return remembered
        found = self._open_attempt(event.attempt_id, event.node_id)
        if isinstance(found, Refused):
            return found
        request, attempt = found
        if event.outcome == "cancelled" and not request.cancelling:
            event = msgspec.structs.replace(event, outcome="declined", code="node.busy", facts=None)
        if event.outcome == "rejected":
            return self._reject(request, attempt, event)
        if event.facts is None:
            return self._did_not_finish(request, attempt, event)
        if attempt.state is AttemptState.OFFERED:
            self._start(request, attempt)
        return self._accept(request, attempt, event.facts, cancelled=event.outcome == "cancelled")

    def _reject(self, request: Request, attempt: Attempt, event: events.ResultReturned) -> Answer:
        """A result that fails verification is dropped, its node flagged, its uptime voided, the unit goes elsewhere."""
        node = self.pool.nodes[attempt.node_id]
        reason = event.code
        self._rows.append(
            FaultRow(
                attempt_id=attempt.attempt_id,
                node_id=str(node.node_id),
                request_id=request.request_id,
                reason=reason,
                at=self._now,
            )
        )
        self._effects.append(
            effects.TellRejection(
                node_id=node.node_id,
                attempt_id=attempt.attempt_id,
                request_id=request.request_id,
                reason=f"{reason}: {event.message}",
                at=self._now,
            )
        )
        voided = self.uptime.void(node.node_id, attempt.dispatched_at, self._now)
        self._log(
            "attempt.rejected",
            request_id=request.request_id,
            attempt_id=attempt.attempt_id,
            node_id=str(node.node_id),
            reason=reason,
            detail=event.message,
            slots_voided=voided,
        )
        self._flag(node, reason)
        self._end_attempt(request, attempt, AttemptState.REJECTED, reason)
        return self._remember(attempt, effects.ResultTaken(accepted=False, reason=f"{reason}: {event.message}"))

    def _flag(self, node: Node, reason: str) -> None:
        node.rejections.append(self._now)
        while node.rejections and node.rejections[0] <= self._now - self.settings.rejection_window_ms:
            node.rejections.popleft()
        count = len(node.rejections)
        self._log("node.flagged", node_id=str(node.node_id), reason=reason, rejections=count)
        if count >= self.settings.rejections_to_remove and not node.removed_until:
            node.removed_until = self._now + self.settings.removal_ms
            self._rows.append(_node_row(node))
            self._set_timer(node.removed_until, "return", node.node_id)
            self.pool.refresh(node)
            self._log("node.removed", node_id=str(node.node_id), until=node.removed_until, rejections=count)

    def _did_not_finish(self, request: Request, attempt: Attempt, event: events.ResultReturned) -> Answer:
        """The node says itself that there is no result. Declining is never a fault."""
        if event.outcome == "declined":
            state = AttemptState.DECLINED
        elif event.code == "node.deadline_exceeded" and attempt.state is AttemptState.RUNNING:
            state = AttemptState.MISSED
        else:
            state = AttemptState.FAILED
        self._end_attempt(request, attempt, state, event.code or "node.runtime_failed")
        return self._remember(attempt, effects.ResultTaken(accepted=True))

    def _remember(self, attempt: Attempt, answer: effects.ResultTaken) -> effects.ResultTaken:
        self._answers[attempt.attempt_id] = attempt.node_id, answer
        if len(self._answers) > self.settings.answers_remembered_max:
            self._answers.popitem(last=False)
        return answer

    # 11 Sample (off), 12 Anchor, 13 Return result, 14 Settle ---------------------------------------------------------

    def _accept(self, request: Request, attempt: Attempt, facts: events.ExecutionFacts, *, cancelled: bool) -> Answer:
        request.become(RequestState.VALIDATING, now=self._now)
        usage = Usage(
            prompt_tokens=min(facts.usage.prompt_tokens, request.prompt_tokens_max),
            completion_tokens=min(facts.usage.completion_tokens, facts.entries_counted, request.completion_tokens_max),
        )
        request.usage = usage
        request.charge_wei = request.price.cost_wei(
            prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens
        )
        assert request.charge_wei <= request.hold_wei, (request.charge_wei, request.hold_wei)
        self._record(request, attempt, facts, usage)
        self._measure(request, attempt, facts.usage)
        self._close_attempt(attempt, AttemptState.CANCELLED if cancelled else AttemptState.COMPLETED, "")
        reason = request.reason if cancelled else ""
        self._finish(request, RequestState.CANCELLED if cancelled else RequestState.COMPLETED, reason)
        answer = self._remember(attempt, effects.ResultTaken(accepted=True))
        self._drain(self.pool.nodes[attempt.node_id])
        return answer

    def _record(self, request: Request, attempt: Attempt, facts: events.ExecutionFacts, usage: Usage) -> None:
        recorder = self.recorder
        record = ExecutionRecord(
            sequence=recorder.sequence,
            previous_hash=recorder.head_hash,
            request_id=request.request_id,
            workload_class=request.workload_class,
            model_digest=facts.model_digest,
            input_hash=facts.input_hash,
            result_hash=facts.result_hash,
            poe_commitment=facts.poe_commitment,
            usage=usage,
            epoch=0,
            rate=0,
            started_at=attempt.started_at,
            finished_at=self._now,
        )
        request.record_sequence = record.sequence
        row = recorder.append(record, now=self._now)
        request.record_hash = row.record_hash
        self._rows.append(row)
        self._unsettled[record.sequence] = request
        if recorder.open_count == 1:
            self._set_timer(self._now + self.settings.batch_ms, "batch", recorder.batches_closed)
        if recorder.open_count >= self.settings.batch_records_max:
            self._close_batch()

    def _close_batch(self) -> None:
        closed = self.recorder.close(now=self._now)
        if closed is not None:
            batch, row = closed
            self._closed_at[batch.number] = self._now
            self._rows.append(row)
            self._effects.append(effects.AnchorBatch(batch=batch))

    def _batch_confirmed(self, event: events.BatchConfirmed) -> Answer:
        """The batch is anchored: charge every record in it, and share out what was charged."""
        closed_at = self._closed_at.get(event.number, 0)
        confirmed = self.recorder.confirm(event.number, reference=event.reference, closed_at=closed_at, now=self._now)
        if confirmed is None:
            return None
        batch, row = confirmed
        self._closed_at.pop(batch.number, None)
        self._rows.append(row)
        total_wei = 0
        keys: dict[str, ApiKey] = {}
        for sequence in range(batch.first, batch.last + 1):
            request = self._unsettled.pop(sequence)
            total_wei += self._charge(request, keys)
        for account, share_wei in split_usage(total_wei):
            if share_wei:
                self._post(f"split:{batch.number}:{account}", USAGE, account, share_wei, "")
        self._rows.extend(key.row() for key in keys.values())
        return None

    def _charge(self, request: Request, keys: dict[str, ApiKey]) -> int:
        charge_wei = request.charge_wei
        if charge_wei:
            self._post(f"charge:{request.request_id}", held(request.account), USAGE, charge_wei, request.request_id)
        key = self.keys.get(request.key_id)
        if key is not None:
            key.committed_wei -= charge_wei
            key.spent_wei += charge_wei
            keys[key.key_id] = key
        return charge_wei

    def _measure(self, request: Request, attempt: Attempt, usage: Usage) -> None:
        elapsed_ms = max(1, self._now - attempt.started_at)
        before = self._service_ms.get(request.model, float(elapsed_ms))
        self._service_ms[request.model] = before + SERVICE_TIME_WEIGHT * (elapsed_ms - before)
        if usage.completion_tokens >= MEASURABLE_TOKENS:
            node = self.pool.nodes[attempt.node_id]
            self.pool.measure(node, attempt.model_digest, usage.completion_tokens * 1000 / elapsed_ms)

    # Ends ---------------------------------------------------------------------------------------------------------

    def _close_attempt(self, attempt: Attempt, state: AttemptState, reason: str) -> None:
        attempt.become(state, now=self._now, reason=reason)
        self._rows.append(attempt.row())
        del self._attempts[attempt.attempt_id]
        self.pool.release(self.pool.nodes[attempt.node_id], attempt.attempt_id)

    def _end_attempt(self, request: Request, attempt: Attempt, state: AttemptState, reason: str) -> None:
        """An attempt ended without a result: try elsewhere while the rules allow it, else fail with the reason."""
        self._close_attempt(attempt, state, reason)
        if request.cancelling:
            self._finish(request, RequestState.CANCELLED, request.reason)
        elif self._may_try_again(request):
            request.become(RequestState.QUEUED, now=self._now)
            request.waiting_since = self._now
            self._log(
                "attempt.redispatched",
                request_id=request.request_id,
                attempt_id=attempt.attempt_id,
                attempt_number=attempt.number,
                reason=reason,
            )
            self._progress(request, "restarted", attempt, reason=reason)
            self._place(request)
        else:
            self._finish(request, RequestState.FAILED, reason)
        self._drain(self.pool.nodes[attempt.node_id])

    def _may_try_again(self, request: Request) -> bool:
        settings = self.settings
        return (
            request.attempts_counted < settings.attempts_max
            and request.count(AttemptState.MISSED) <= settings.redispatches_after_deadline_max
            and len(request.attempts) < settings.attempts_hard_max
        )

    def _finish(self, request: Request, state: RequestState, reason: str) -> None:
        """The one way out: release what is not charged, write the end, tell whoever waits."""
        self.queue.discard(request.request_id)
        request.become(state, now=self._now, reason=reason)
        released_wei = request.hold_wei - request.charge_wei
        if released_wei:
            self._post(
                f"release:{request.request_id}",
                held(request.account),
                available(request.account),
                released_wei,
                request.request_id,
            )
        key = self.keys.get(request.key_id)
        if key is not None:
            key.open_requests -= 1
            key.committed_wei -= released_wei
        self.open_of_account[request.account] -= 1
        if not self.open_of_account[request.account]:
            del self.open_of_account[request.account]
        del self.requests[request.request_id]
        self._rows.append(request.row())
        self._progress(request, "finished", state=state.value, reason=reason)
        if state in (RequestState.FAILED, RequestState.EXPIRED):
            self._log(
                "request.failed",
                request_id=request.request_id,
                state=state.value,
                reason=reason,
                attempts=len(request.attempts),
            )

    # Cancel -------------------------------------------------------------------------------------------------------

    def _cancel(self, event: events.Cancel) -> Answer:
        request = self.requests.get(event.request_id)
        if request is None or (request.cancelling and event.charged):
            return None
        attempt = request.open_attempt
        if attempt is None:
            self._finish(request, RequestState.CANCELLED, event.reason)
        elif event.charged and attempt.state is AttemptState.RUNNING:
            request.cancelling, request.reason = True, event.reason
            self._rows.append(request.row())
            self._ask_for_partial(request, attempt)
        else:
            self._drop(request, attempt, event.reason)
        return None

    def _ask_for_partial(self, request: Request, attempt: Attempt) -> None:
        self._withdraw(attempt, request.reason, partial=True)
        self._set_timer(self._now + self.settings.cancel_grace_ms, "cancel", attempt.attempt_id)

    def _drop(self, request: Request, attempt: Attempt, reason: str) -> None:
        self._withdraw(attempt, reason, partial=False)
        self._close_attempt(attempt, AttemptState.CANCELLED, reason)
        self._finish(request, RequestState.CANCELLED, reason)
        self._drain(self.pool.nodes[attempt.node_id])

    def _withdraw(self, attempt: Attempt, reason: str, *, partial: bool) -> None:
        self._effects.append(
            effects.Withdraw(attempt_id=attempt.attempt_id, node_id=attempt.node_id, reason=reason, partial=partial)
        )

    def _client_returned(self, event: events.ClientReturned) -> Answer:
        self._orphans.discard(event.request_id)
        return None

    # Nodes --------------------------------------------------------------------------------------------------------

    def _registry_changed(self, event: events.RegistryChanged) -> Answer:
        for node_id in event.removed:
            self.registrations.pop(node_id, None)
        for registration in event.registrations:
            self.registrations[int(registration.node_id)] = registration
        for node_id in (*event.removed, *(int(each.node_id) for each in event.registrations)):
            node = self.pool.find(node_id)
            if node is not None:
                node.registration = self.registrations.get(node_id)
                self.pool.refresh(node)
                self._effects.append(effects.StandingChanged(node_id=node_id))
                self._drain(node)
        self._drain_penalised()
        return None

    def _attached(self, event: events.Attached) -> Answer:
        """The shell has checked the signature and that the key hashes to the registered one."""
        standing = self.standing(event.node_id)
        if standing is not None:
            return standing
        registration = self.registrations[event.node_id]
        if event.manifest.hardware_tier < registration.hardware_tier:
            return Refused(
                code="tier_mismatch",
                message=f"node {event.node_id} is registered for tier {registration.hardware_tier}, but this machine "
                f"is tier {event.manifest.hardware_tier}; run it on the hardware it was registered for",
            )
        before = self.pool.find(event.node_id)
        if before is None and len(self.pool.nodes) >= self.settings.nodes_max:
            return _overloaded(f"{len(self.pool.nodes)} nodes are attached, the most this coordinator serves")
        if before is not None and event.manifest.issued_at <= before.issued_at:
            return Refused(
                code="stale_time",
                message=f"manifest issued at {event.manifest.issued_at}, not after the last one ({before.issued_at})",
            )
        restarted = before is not None and before.manifest.run_id != event.manifest.run_id
        node = self._new_session(event, before, registration)
        if restarted:
            # Another run of the daemon: whatever the last one was doing died with it.
            self._lose_attempts(node, "node_restarted")
        else:
            self._offer_again(node)
        self._drain(node)
        return None

    def _new_session(self, event: events.Attached, before: Node | None, registration: Registration) -> Node:
        node = Node(
            node_id=event.node_id,
            session=event.session,
            manifest=event.manifest,
            manifest_json=event.manifest_json,
            public_key=event.public_key,
            issued_at=event.manifest.issued_at,
            attached_at=self._now,
            registration=registration,
            last_seen=self._now,
            online=True,
        )
        if before is not None:
            node.removed_until, node.rejections = before.removed_until, before.rejections
            node.reserved, node.speeds = before.reserved, before.speeds
        self.pool.put(node)
        self._rows.append(_node_row(node))
        if before is None or not before.online:
            self._set_timer(self._now + self.settings.offline_ms, "offline", node.node_id)
        return node

    def _offer_again(self, node: Node) -> None:
        """A new session of the same run: what it has not acknowledged is sealed to its new keys."""
        for attempt_id in sorted(node.reserved):
            attempt = self._attempts[attempt_id]
            if attempt.state is AttemptState.OFFERED:
                self._send_offer(self.requests[attempt.request_id], attempt, node)

    def _lose_attempts(self, node: Node, reason: str) -> None:
        for attempt_id in sorted(node.reserved):
            attempt = self._attempts[attempt_id]
            self._end_attempt(self.requests[attempt.request_id], attempt, AttemptState.LOST, reason)

    def _heartbeat(self, event: events.Heartbeat) -> Answer:
        standing = self.standing(event.node_id)
        if standing is not None:
            return standing
        node = self.pool.nodes[event.node_id]
        node.last_seen = self._now
        if not node.online or node.paused != event.paused:
            if not node.online:
                self._set_timer(self._now + self.settings.offline_ms, "offline", node.node_id)
            node.online, node.paused = True, event.paused
            self.pool.refresh(node)
            self._drain(node)
            if event.paused:
                self._drain_penalised()
        slot, credited = self.uptime.credit(event.node_id, event.unix_ms)
        return effects.SlotCredited(slot=slot, credited=credited)

    # Money and keys -------------------------------------------------------------------------------------------------

    def _grant(self, event: events.Grant) -> Answer:
        self._post(event.transfer_id, GRANTS, available(event.account), event.amount_wei, "")
        return None

    def _key_issued(self, event: events.KeyIssued) -> Answer:
        key = ApiKey(
            key_id=event.key_id,
            key_hash=event.key_hash,
            account=event.account,
            name=event.name,
            requests_per_minute=event.requests_per_minute,
            concurrency=event.concurrency,
            budget_wei=event.budget_wei,
            spent_wei=0,
            created_at=self._now,
            expires_at=event.expires_at,
            revoked_at=0,
        )
        if event.key_id not in self.keys:
            self.keys[event.key_id] = key
            self._rows.append(key.row())
        return None

    def _key_revoked(self, event: events.KeyRevoked) -> Answer:
        key = self.keys.get(event.key_id)
        if key is not None and not key.revoked_at:
            key.revoked_at = self._now
            self._rows.append(key.row())
        return None

    def _post(self, transfer_id: str, debit: str, credit: str, amount_wei: int, request_id: str) -> None:
        self.ledger.post(
            transfer_id, debit=debit, credit=credit, amount_wei=amount_wei, request_id=request_id, at=self._now
        )

    # Time -----------------------------------------------------------------------------------------------------------

    def _set_timer(self, at: int, kind: str, subject: Any) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (at, self._timer_count, kind, subject))

    def _tick(self, event: events.Tick) -> Answer:
        while self._timers and self._timers[0][0] <= self._now:
            _at, _count, kind, subject = heapq.heappop(self._timers)
            self._due[kind](self, subject)
        return None

    def _queue_due(self, request_id: str) -> None:
        request = self.requests.get(request_id)
        if request is None or request.state is not RequestState.QUEUED:
            return
        due_at = request.waiting_since + request.queue_ms
        if due_at > self._now:
            self._set_timer(due_at, "queue", request_id)
            return
        self._finish(request, RequestState.EXPIRED, self._held_reason(request))

    def _acknowledge_due(self, attempt_id: str) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is not None and attempt.state is AttemptState.OFFERED:
            self._withdraw(attempt, "not_acknowledged", partial=False)
            self._end_attempt(self.requests[attempt.request_id], attempt, AttemptState.WITHDRAWN, "not_acknowledged")

    def _deadline_due(self, attempt_id: str) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is None or attempt.state is not AttemptState.RUNNING:
            return
        if attempt.deadline_at > self._now:
            self._set_timer(attempt.deadline_at, "deadline", attempt_id)
            return
        self._withdraw(attempt, "node.deadline_exceeded", partial=False)
        self._end_attempt(self.requests[attempt.request_id], attempt, AttemptState.MISSED, "node.deadline_exceeded")

    def _cancel_due(self, attempt_id: str) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is not None:
            request = self.requests[attempt.request_id]
            self._drop(request, attempt, request.reason)

    def _orphan_due(self, request_id: str) -> None:
        if request_id in self._orphans:
            self._orphans.discard(request_id)
            self._cancel(events.Cancel(request_id=request_id, charged=False, reason="client_lost"))

    def _lifetime_due(self, request_id: str) -> None:
        request = self.requests.get(request_id)
        if request is None:
            return
        attempt = request.open_attempt
        if attempt is not None:
            self._withdraw(attempt, "lifetime_exceeded", partial=False)
            self._close_attempt(attempt, AttemptState.CANCELLED, "lifetime_exceeded")
        self._finish(request, RequestState.EXPIRED, "lifetime_exceeded")

    def _offline_due(self, node_id: int) -> None:
        node = self.pool.nodes[node_id]
        if not node.online:
            return
        due_at = node.last_seen + self.settings.offline_ms
        if due_at > self._now:
            self._set_timer(due_at, "offline", node_id)
            return
        node.online = False
        self.pool.refresh(node)
        self._log("node.offline", node_id=str(node_id), last_seen=node.last_seen)
        self._lose_attempts(node, "node_offline")
        self._drain_penalised()

    def _return_due(self, node_id: int) -> None:
        node = self.pool.nodes[node_id]
        if node.removed_until and node.removed_until <= self._now:
            # It comes back as a new node: nothing known of it counts any more.
            node.removed_until = 0
            node.rejections.clear()
            node.speeds = {}
            self.pool.refresh(node)
            self._rows.append(_node_row(node))
            self._log("node.readmitted", node_id=str(node_id))
            self._drain(node)

    def _batch_due(self, number: int) -> None:
        if number == self.recorder.batches_closed:
            self._close_batch()

    def _uptime_due(self, _: None) -> None:
        self._rows.extend(self.uptime.take_rows(self._now))
        self._set_timer(self._now + MINUTE_MS, "uptime", None)

    _due: ClassVar[dict[str, Callable[[Engine, Any], None]]] = {
        "queue": _queue_due,
        "acknowledge": _acknowledge_due,
        "deadline": _deadline_due,
        "cancel": _cancel_due,
        "orphan": _orphan_due,
        "lifetime": _lifetime_due,
        "offline": _offline_due,
        "return": _return_due,
        "batch": _batch_due,
        "uptime": _uptime_due,
    }

    # Restart -------------------------------------------------------------------------------------------------------

    def restore(
        self, snapshot: Snapshot, registrations: Iterable[Registration], now: int, random_bytes: RandomBytes
    ) -> Step:
        """Takes up where the store left off. Every open request goes on; every attempt gets some time more."""
        assert not self.requests, "an engine is restored once, before its first step"
        self._now, self._random = now, random_bytes
        self.registrations = {int(each.node_id): each for each in registrations}
        self.ledger = Ledger({row.account: int(row.balance_wei) for row in snapshot.balances})
        for row in snapshot.keys:
            self.keys[row.key_id] = ApiKey(
                key_id=row.key_id,
                key_hash=row.key_hash,
                account=row.account,
                name=row.name,
                requests_per_minute=row.requests_per_minute,
                concurrency=row.concurrency,
                budget_wei=int(row.budget_wei),
                spent_wei=int(row.spent_wei),
                created_at=row.created_at,
                expires_at=row.expires_at,
                revoked_at=row.revoked_at,
            )
        self.uptime.restore(snapshot.uptime)
        self._set_timer(now + MINUTE_MS, "uptime", None)
        self._restore_records(snapshot)
        self._restore_nodes(snapshot)
        for known in snapshot.idempotent:
            self._idempotent[(known.account, known.idempotency_key)] = (
                known.fingerprint,
                known.request_id,
                known.admitted_at,
            )
        self._restore_requests(snapshot)
        return self._take_step(None)

    def _restore_records(self, snapshot: Snapshot) -> None:
        self.recorder.restore(
            [batch_of(row) for row in snapshot.batches],
            {row.number for row in snapshot.batches if row.confirmed_at},
            [(row.sequence, row.record_hash) for row in snapshot.records],
            self._now,
        )
        self._closed_at = {row.number: row.closed_at for row in snapshot.batches if not row.confirmed_at}
        self._effects.extend(effects.AnchorBatch(batch=batch) for _, batch in sorted(self.recorder.unconfirmed.items()))
        if self.recorder.open_count:
            self._set_timer(self._now + self.settings.batch_ms, "batch", self.recorder.batches_closed)

    def _restore_nodes(self, snapshot: Snapshot) -> None:
        for row in snapshot.nodes:
            node = Node(
                node_id=int(row.node_id),
                session=row.session,
                manifest=msgspec.json.decode(row.manifest, type=Manifest),
                manifest_json=row.manifest,
                public_key=row.public_key,
                issued_at=row.issued_at,
                attached_at=row.attached_at,
                registration=self.registrations.get(int(row.node_id)),
                last_seen=self._now,
                # Whoever was online keeps its place for as long as a silent node would; who is gone times out.
                online=True,
                removed_until=row.removed_until,
            )
            self.pool.put(node)
            self._set_timer(self._now + self.settings.offline_ms, "offline", node.node_id)
            if node.removed_until:
                self._set_timer(node.removed_until, "return", node.node_id)
        for fault in snapshot.faults:
            node = self.pool.find(int(fault.node_id))
            if node is not None and fault.at > self._now - self.settings.rejection_window_ms:
                node.rejections.append(fault.at)

    def _restore_requests(self, snapshot: Snapshot) -> None:
        attempts: dict[str, list[Attempt]] = {}
        for row in snapshot.attempts:
            attempts.setdefault(row.request_id, []).append(
                Attempt(
                    attempt_id=row.attempt_id,
                    request_id=row.request_id,
                    number=row.number,
                    node_id=int(row.node_id),
                    model_digest=row.model_digest,
                    state=AttemptState(row.state),
                    reason=row.reason,
                    dispatched_at=row.dispatched_at,
                    started_at=row.started_at,
                    deadline_at=row.deadline_at,
                    finished_at=row.finished_at,
                )
            )
        waiting: list[Request] = []
        for row in snapshot.requests:
            request = self._request_of(row, attempts.get(row.request_id, []))
            if request is None:
                continue
            key = self.keys.get(request.key_id)
            if request.final:
                if request.record_sequence > self.recorder.confirmed_through:
                    self._unsettled[request.record_sequence] = request
                    if key is not None:
                        key.committed_wei += request.charge_wei
                continue
            self._take_in(request, key)
            self._set_timer(request.admitted_at + self.settings.lifetime_ms, "lifetime", request.request_id)
            if request.attached:
                self._orphans.add(request.request_id)
                self._set_timer(self._now + self.settings.orphan_ms, "orphan", request.request_id)
            attempt = request.open_attempt
            if attempt is None:
                waiting.append(request)
            else:
                self._resume(request, attempt)
        for request in waiting:
            self._place(request)

    def _request_of(self, row: Any, attempts: list[Attempt]) -> Request | None:
        state = RequestState(row.state)
        if state in FINAL_REQUEST_STATES and row.record_sequence < 0:
            return None
        model: ModelEntry | None = self.catalogue.find(row.model)
        priority: Priority = row.priority
        last_end = max((attempt.finished_at for attempt in attempts), default=0)
        context = row.prompt_tokens_max // BYTES_PER_TOKEN_GUESS + row.completion_tokens_max
        return Request(
            request_id=row.request_id,
            account=row.account,
            key_id=row.key_id,
            workload_class=row.workload_class,
            kind=row.kind,
            model=row.model,
            priority=priority,
            need=Need(
                workload_class=row.workload_class,
                digests=model.digests if model else (),
                tier=row.hardware_tier,
                context_tokens=min(context, model.context_tokens) if model else context,
                features=frozenset(filter(None, row.features.split(","))),
                tokens=row.completion_tokens_max,
                deadline_ms=row.deadline_ms,
            ),
            price=Price(prompt_wei=int(row.prompt_price_wei), completion_wei=int(row.completion_price_wei)),
            queue_ms=row.queue_ms,
            admitted_at=row.admitted_at,
            prompt_tokens_max=row.prompt_tokens_max,
            completion_tokens_max=row.completion_tokens_max,
            hold_wei=int(row.hold_wei),
            attached=row.attached,
            cancelling=row.cancelling,
            idempotency_key=row.idempotency_key,
            fingerprint=row.fingerprint,
            state=state,
            reason=row.reason,
            waiting_since=max(row.admitted_at, last_end),
            attempts=attempts,
            finished_at=row.finished_at,
            charge_wei=int(row.charge_wei),
            usage=Usage(prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens),
            record_sequence=row.record_sequence,
        )

    def _resume(self, request: Request, attempt: Attempt) -> None:
        """An attempt that was open when we went down: its node may still be at it."""
        node = self.pool.nodes[attempt.node_id]
        self._attempts[attempt.attempt_id] = attempt
        node.reserved.add(attempt.attempt_id)
        self.pool.refresh(node)
        earliest = self._now + self.settings.restart_grace_ms
        if attempt.state is AttemptState.OFFERED:
            request.state = RequestState.DISPATCHED
            self._send_offer(request, attempt, node)
            self._set_timer(earliest, "acknowledge", attempt.attempt_id)
        else:
            request.state = RequestState.RUNNING
            attempt.deadline_at = max(attempt.deadline_at, earliest)
            self._set_timer(attempt.deadline_at, "deadline", attempt.attempt_id)
            if request.cancelling:
                self._ask_for_partial(request, attempt)

    # Small things --------------------------------------------------------------------------------------------------

    def _take_step(self, answer: Answer) -> Step:
        step = Step(rows=(*self._rows, *self.ledger.take_rows()), effects=tuple(self._effects), answer=answer)
        self._rows.clear()
        self._effects.clear()
        return step

    def _progress(
        self, request: Request, kind: Any, attempt: Attempt | None = None, *, state: str = "", reason: str = ""
    ) -> None:
        self._effects.append(
            effects.RequestProgress(
                request_id=request.request_id,
                kind=kind,
                attempt_id=attempt.attempt_id if attempt else "",
                attempt_number=attempt.number if attempt else len(request.attempts),
                state=state,
                reason=reason,
            )
        )

    def _log(self, name: str, **fields: Any) -> None:
        self._effects.append(effects.LogEvent(name=name, fields=fields))


def _not_your_attempt(attempt_id: str, node_id: int) -> Refused:
    return Refused(code="not_your_attempt", message=f"attempt {attempt_id} was not given to node {node_id}")


def _overloaded(why: str) -> Refused:
    return Refused(code="overloaded", message=why, retry_after_seconds=5.0)


def _no_random(count: int) -> bytes:
    raise AssertionError("randomness is handed in with each step")


def _node_row(node: Node) -> NodeRow:
    return NodeRow(
        node_id=str(node.node_id),
        session=node.session,
        manifest=node.manifest_json,
        public_key=node.public_key,
        issued_at=node.issued_at,
        attached_at=node.attached_at,
        removed_until=node.removed_until,
    )
