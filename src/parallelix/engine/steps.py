"""The life of a request: the fourteen steps, and where each is decided.

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

import msgspec

from parallelix.engine import effects, events
from parallelix.engine.admission import Admission
from parallelix.engine.effects import Answer, Refused
from parallelix.engine.entities import ApiKey, Attempt, Request
from parallelix.engine.ledger import USAGE, available, held, split_usage
from parallelix.engine.lifecycle import AttemptState, RequestState
from parallelix.engine.pool import Node
from parallelix.engine.queue import queue_key
from parallelix.engine.rows import FaultRow
from parallelix.protocol import ids
from parallelix.protocol.records import ExecutionRecord
from parallelix.protocol.work import Usage

MEASURABLE_TOKENS = 8
"""A shorter answer measures latency, not speed."""
SERVICE_TIME_WEIGHT = 0.2


class Steps(Admission):
    # 2 Admit ----------------------------------------------------------------------------------------------------------

    def _admit(self, event: events.Admit) -> Answer:
        repeated = self._repeat_of(event)
        if repeated is not None:
            return repeated
        key = self.keys.get(event.key_id)
        refused = self._limit_refusal(event, key)
        if refused is not None:
            return refused
        assert key is not None
        assert key.account == event.account, (key.account, event.account)
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
        self._timers.set(self._now + self.settings.lifetime_ms, "lifetime", request_id)
        self._place(request)
        return effects.Admitted(request_id=request_id, hold_wei=plan.hold_wei, created=True)

    def _take_in(self, request: Request, key: ApiKey | None) -> None:
        self.requests[request.request_id] = request
        self.open_of_account[request.account] = self.open_of_account.get(request.account, 0) + 1
        if key is not None:
            key.open_requests += 1
            key.committed_wei += request.hold_wei

    # 3 Match, 5 Dispatch ----------------------------------------------------------------------------------------------

    def _place(self, request: Request) -> None:
        """Gives a queued request to a node, or lets it wait with a stated reason."""
        assert request.state is RequestState.QUEUED, request.state
        node = self._best_node(request)
        if node is not None:
            self._offer(request, node)
            return
        if request.request_id in self.queue:
            return
        self.queue.add(request.request_id, request.lane, self._queue_key(request))
        self._timers.set(request.waiting_since + request.queue_ms, "queue", request.request_id)
        reason = self._held_reason(request)
        self._progress(request, "held", reason=reason)
        self._log("request.held", request_id=request.request_id, model=request.model, reason=reason)

    def _best_node(self, request: Request) -> Node | None:
        """One that never saw the unit if there is any, else one that let it pass."""
        node = self.pool.match(request.need, request.tried_nodes)
        if request.tried_nodes != request.failed_nodes and (node is None or node.removed_until):
            return self.pool.match(request.need, request.failed_nodes)
        return node

    def _queue_key(self, request: Request) -> int:
        return queue_key(
            self.settings,
            admitted_at=request.admitted_at,
            priority=request.priority,
            complexity_tokens=request.need.tokens,
        )

    def _offer(self, request: Request, node: Node) -> None:
        self.queue.discard(request.request_id)
        attempt = Attempt(
            attempt_id=ids.attempt_id(ids.fresh_bytes(ids.ATTEMPT_ID_BYTES, self._now, self._random)),
            request_id=request.request_id,
            number=len(request.attempts) + 1,
            node_id=node.node_id,
            model_digest=self.pool.model_for(node, request.need).digest,
            dispatched_at=self._now,
        )
        request.attempts.append(attempt)
        self._attempts[attempt.attempt_id] = attempt
        self.pool.reserve(node, attempt.attempt_id)
        request.become(RequestState.DISPATCHED, now=self._now)
        self._rows.append(attempt.row())
        self._send_offer(request, attempt, node)
        self._timers.set(self._now + self.settings.acknowledge_ms, "acknowledge", attempt.attempt_id)
        self._progress(request, "dispatched", attempt)

    def _send_offer(self, request: Request, attempt: Attempt, node: Node) -> None:
        self._effects.append(
            effects.Offer(
                attempt_id=attempt.attempt_id,
                attempt_number=attempt.number,
                request_id=request.request_id,
                node_id=node.node_id,
                session=node.session,
                model=next(model.name for model in node.models if model.digest == attempt.model_digest),
                model_digest=attempt.model_digest,
                workload_class=request.workload_class,
                deadline_ms=request.need.deadline_ms,
            )
        )

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

    # 6 Decrypt --------------------------------------------------------------------------------------------------------

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
        self._timers.set(attempt.deadline_at, "deadline", attempt.attempt_id)
        self._progress(request, "running", attempt)

    def _open_attempt(self, attempt_id: str, node_id: int) -> tuple[Request, Attempt] | Refused:
        attempt = self._attempts.get(attempt_id)
        if attempt is None or not attempt.open:
            return Refused(code="attempt_closed", message=f"attempt {attempt_id} is over; drop the work")
        if attempt.node_id != node_id:
            return _not_your_attempt(attempt_id, node_id)
        return self.requests[attempt.request_id], attempt

    # 9 Return, 10 Verify ----------------------------------------------------------------------------------------------

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
        if count >= self.settings.rejections_to_remove and not node.removed_until:
            node.removed_until = self._now + self.settings.removal_ms
            self._rows.append(node.row())
            self._timers.set(node.removed_until, "return", node.node_id)
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

    # 11 Sample (off), 12 Anchor, 13 Return result, 14 Settle ----------------------------------------------------------

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
        self._record(request, attempt, facts, usage)
        # A client that left, and a restart of ours, take time that was not the node's.
        if not (cancelled or attempt.resumed):
            self._measure(request, attempt, facts.usage)
        self._close_attempt(attempt, AttemptState.CANCELLED if cancelled else AttemptState.COMPLETED, "")
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
            self._timers.set(self._now + self.settings.batch_ms, "batch", recorder.next_batch)
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
        """Gives what is to be shared out; of what a deposit pays the vault does that when it is settled."""
        charge_wei = request.charge_wei
        from_deposit = self.lives_from_deposit(request.account)
        if charge_wei and from_deposit:
            self._charge_deposit(request.account, charge_wei, request.request_id)
        elif charge_wei:
            self._post(f"charge:{request.request_id}", held(request.account), USAGE, charge_wei, request.request_id)
        key = self.keys.get(request.key_id)
        if key is not None:
            key.committed_wei -= charge_wei
            key.spent_wei += charge_wei
            keys[key.key_id] = key
        return 0 if from_deposit else charge_wei

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

    # How an attempt ends, and a request -------------------------------------------------------------------------------

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
            self._release(request, released_wei)
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

    def _release(self, request: Request, released_wei: int) -> None:
        account, transfer_id = request.account, f"release:{request.request_id}"
        self._post(transfer_id, held(account), available(account), released_wei, request.request_id)
        if self.lives_from_deposit(account):
            self._write_off(account, because=transfer_id)

    # Cancel -----------------------------------------------------------------------------------------------------------

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
        self._timers.set(self._now + self.settings.cancel_grace_ms, "cancel", attempt.attempt_id)

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


def _not_your_attempt(attempt_id: str, node_id: int) -> Refused:
    return Refused(code="not_your_attempt", message=f"attempt {attempt_id} was not given to node {node_id}")
