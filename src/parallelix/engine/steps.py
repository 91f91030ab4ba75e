"""The life of a request: the fourteen steps, and where each is decided.

 1 Request        the shell; arrives here as `Admit`
 2 Admit          `_admit`: credits are held, then the id is allocated
 3 Match          `_place` in `dispatching.py`, over `pool.match`: capability, capacity, best fit, reputation; the slot
                  is reserved
 4 Encrypt        the shell, for the `Offer` that `_place` makes
 5 Dispatch       the shell's inbox, once the rows of `_place` are durable
 6 Decrypt        `_acknowledged` in `dispatching.py`: the deadline starts here
 7 Execute        the node
 8 PoE            the node
 9 Return         `_result_returned`
10 Verify         `validator.examine`, whose verdict `_result_returned` acts on
11 Sample         `_sample` in `auditing.py`, which `_accept` calls: the draw. An audit then goes through 3 to 10 as a
                  unit of its own; `_audit_answered` acts on what `verdicts.py` makes of its answers
12 Anchor         `_record`: the record joins the chain; `_close_batch` in `settling.py` hands batches to the anchor
13 Return result  the shell, once the rows of `_accept` are durable
14 Settle         `_finish` in `settling.py` releases the rest of the hold; `_batch_confirmed` posts the charge, of what
                  was drawn when its audit has ended
"""

from __future__ import annotations

import msgspec

from parallelix.engine import effects, events
from parallelix.engine.admission import Plan
from parallelix.engine.challenges import MEASURABLE_TOKENS
from parallelix.engine.dispatching import Dispatching, not_your_attempt
from parallelix.engine.effects import Answer, Refused
from parallelix.engine.entities import ApiKey, Attempt, Request
from parallelix.engine.ledger import available, held
from parallelix.engine.lifecycle import AttemptState, RequestState
from parallelix.engine.pool import Node
from parallelix.engine.rows import FaultRow
from parallelix.protocol import ids
from parallelix.protocol.records import ExecutionRecord
from parallelix.protocol.work import Usage

SERVICE_TIME_WEIGHT = 0.2


class Steps(Dispatching):
    # 2 Admit ----------------------------------------------------------------------------------------------------------

    def _admit(self, event: events.Admit) -> Answer:
        repeated = self._repeat_of(event)
        if repeated is not None:
            return repeated
        key = self.keys.get(event.key_id)
        plan = self._plan_for(event, key)
        if isinstance(plan, Refused):
            return plan
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
            only_node=event.only_node,
        )
        self._take_in(request, key)
        self._rows.append(request.row())
        if event.idempotency_key:
            self._idempotent[(event.account, event.idempotency_key)] = (event.fingerprint, request_id, self._now)
        self._timers.set(self._now + self.settings.lifetime_ms, "lifetime", request_id)
        self._place(request)
        self._challenge_placed(request)
        return effects.Admitted(request_id=request_id, hold_wei=plan.hold_wei, created=True)

    def _plan_for(self, event: events.Admit, key: ApiKey | None) -> Plan | Refused:
        if event.only_node is not None:
            plan = self._plan(event)
            return plan if isinstance(plan, Refused) else self._challenge_refusal(event, plan.need) or plan
        refused = self._limit_refusal(event, key)
        if refused is not None:
            return refused
        assert key is not None
        assert key.account == event.account, (key.account, event.account)
        plan = self._plan(event)
        return plan if isinstance(plan, Refused) else self._credit_refusal(key, plan.hold_wei) or plan

    def _take_in(self, request: Request, key: ApiKey | None) -> None:
        self.requests[request.request_id] = request
        self._challenge_began(request)
        self.open_of_account[request.account] = self.open_of_account.get(request.account, 0) + 1
        if key is not None:
            key.open_requests += 1
            key.committed_wei += request.hold_wei

    # 9 Return, 10 Verify ----------------------------------------------------------------------------------------------

    def _result_returned(self, event: events.ResultReturned) -> Answer:
        node_id, remembered = self._answers.get(event.attempt_id, (event.node_id, None))
        if node_id != event.node_id:
            return not_your_attempt(event.attempt_id, event.node_id)
        if remembered is not None:
            return remembered
        found = self._open_attempt(event.attempt_id, event.node_id)
        if isinstance(found, Refused):
            return found
        request, attempt = found
        assert event.facts is None or not request.audit_id, f"{event.attempt_id}: an audit is answered by AuditAnswered"
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
        voided = self._void_uptime(node.node_id, attempt.dispatched_at)
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
        if node.removed_until:
            self._drain_penalised()
        return self._remember(attempt, effects.ResultTaken(accepted=False, reason=f"{reason}: {event.message}"))

    def _void_uptime(self, node_id: int, since: int) -> int:
        """Durable with the rejection itself: what is written later could be lost, and restored by a receipt."""
        voided = self.uptime.void(node_id, since, self._now)
        self._rows.extend(self.uptime.take_rows_of(node_id))
        if self.settings.on_chain:
            self.liveness.void(node_id, voided)
        return voided

    def _flag(self, node: Node, reason: str) -> None:
        node.rejections.append(self._now)
        while node.rejections and node.rejections[0] <= self._now - self.settings.rejection_window_ms:
            node.rejections.popleft()
        count = len(node.rejections)
        self._log("node.flagged", node_id=str(node.node_id), reason=reason, rejections=count)
        self._sample_fully(node.node_id)
        if count >= self.settings.rejections_to_remove:
            self._remove(node)

    def _did_not_finish(self, request: Request, attempt: Attempt, event: events.ResultReturned) -> Answer:
        """The node says itself that there is no result. Declining is never a fault."""
        if event.outcome == "declined":
            self._took_up(attempt.node_id)
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

    def _audit_answered(self, event: events.AuditAnswered) -> Answer:
        """The shell has verified the answer and compared it. A node that was removed meanwhile is not believed."""
        node_id, remembered = self._answers.get(event.attempt_id, (event.node_id, None))
        if node_id != event.node_id:
            return not_your_attempt(event.attempt_id, event.node_id)
        if remembered is not None:
            return remembered
        found = self._open_attempt(event.attempt_id, event.node_id)
        if isinstance(found, Refused):
            return found
        unit, attempt = found
        assert unit.audit_id, f"{event.attempt_id} is no audit's"
        if attempt.state is AttemptState.OFFERED:
            self._start(unit, attempt)
        node = self.pool.nodes[attempt.node_id]
        if node.removed_until:
            self._end_attempt(unit, attempt, AttemptState.DECLINED, "auditor_removed")
            return self._remember(attempt, effects.ResultTaken(accepted=True))
        self._close_attempt(attempt, AttemptState.COMPLETED, "")
        self._place_all(self._audit_answer(self.audits[unit.audit_id], attempt, event))
        self._drain(node)
        self._drain_penalised()
        return self._remember(attempt, effects.ResultTaken(accepted=True))

    # 11 Sample, 12 Anchor, 13 Return result, 14 Settle ----------------------------------------------------------

    def _accept(self, request: Request, attempt: Attempt, facts: events.ExecutionFacts, *, cancelled: bool) -> Answer:
        reason = request.reason if cancelled else ""
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
        rate = self._rate_percent(attempt)
        self._record(request, attempt, facts, usage, rate)
        # A client that left, and a restart of ours, take time that was not the node's.
        if not (cancelled or attempt.resumed):
            self._measure(request, attempt, facts.usage)
        self._close_attempt(attempt, AttemptState.CANCELLED if cancelled else AttemptState.COMPLETED, "")
        audits = self._sample(request, attempt, facts, rate)
        self._finish(request, RequestState.CANCELLED if cancelled else RequestState.COMPLETED, reason)
        self._place_all(audits)
        answer = self._remember(attempt, effects.ResultTaken(accepted=True))
        self._drain(self.pool.nodes[attempt.node_id])
        return answer

    def _record(
        self, request: Request, attempt: Attempt, facts: events.ExecutionFacts, usage: Usage, rate: int
    ) -> None:
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
            epoch=attempt.epoch,
            rate=rate,
            started_at=attempt.started_at,
            finished_at=self._now,
        )
        request.record_sequence = record.sequence
        self._unsettled[record.sequence] = request
        request.record_hash = self._append_record(record, request.request_id).record_hash

    def _measure(self, request: Request, attempt: Attempt, usage: Usage) -> None:
        elapsed_ms = max(1, self._now - attempt.started_at)
        before = self._service_ms.get(request.model, float(elapsed_ms))
        self._service_ms[request.model] = before + SERVICE_TIME_WEIGHT * (elapsed_ms - before)
        if usage.completion_tokens >= MEASURABLE_TOKENS:
            node, digest = self.pool.nodes[attempt.node_id], attempt.model_digest
            self.pool.measure(node, digest, usage.completion_tokens * 1000 / elapsed_ms)
            if digest not in node.measured_at:
                self._timers.set(self._now + self.settings.speed_lifetime_ms, "speed", (node.node_id, digest))
            node.measured_at[digest] = self._now

    # Cancel -----------------------------------------------------------------------------------------------------------

    def _cancel(self, event: events.Cancel) -> Answer:
        request = self.requests.get(event.request_id)
        if request is None or request.audit_id or (request.cancelling and event.charged):
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
        self._timers.set(self._now + self.settings.cancel_grace_ms, "cancel", attempt.attempt_id)

    def _drop(self, request: Request, attempt: Attempt, reason: str) -> None:
        self._withdraw(attempt, reason, partial=False)
        self._close_attempt(attempt, AttemptState.CANCELLED, reason)
        self._finish(request, RequestState.CANCELLED, reason)
        self._drain(self.pool.nodes[attempt.node_id])

    def _client_returned(self, event: events.ClientReturned) -> Answer:
        self._orphans.discard(event.request_id)
        return None
