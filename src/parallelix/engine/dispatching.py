"""3 Match, 5 Dispatch, 6 Decrypt: a unit is given to a node, a request's or an audit's alike; how an attempt ends."""

from __future__ import annotations

from collections.abc import Iterable

from parallelix.engine import effects, events
from parallelix.engine.auditing import Auditing
from parallelix.engine.effects import Answer, Refused
from parallelix.engine.entities import Attempt, Request
from parallelix.engine.lifecycle import AttemptState, RequestState
from parallelix.engine.pool import Node
from parallelix.engine.queue import AUDITOR, Lane, queue_key
from parallelix.engine.verdicts import Missing
from parallelix.protocol import ids

AUDITORS_DRAWN_MIN = 5
"""So many are drawn one after the other, before an audit has nobody."""
_DRAW_BYTES = 8


class Dispatching(Auditing):
    # 3 Match, 5 Dispatch ----------------------------------------------------------------------------------------------

    def _place(self, request: Request) -> None:
        """Gives a queued request to a node, or lets it wait with a stated reason."""
        assert request.state is RequestState.QUEUED, request.state
        node = self._best_node(request)
        if node is not None:
            self._offer(request, node)
            return
        if self.queue.lane_of(request.request_id) == request.lane:
            return
        self.queue.discard(request.request_id)
        self.queue.add(request.request_id, request.lane, self._queue_key(request))
        self._timers.set(request.waiting_since + request.queue_ms, "queue", request.request_id)
        reason = self._held_reason(request)
        if request.audit_id and reason == "no_capable_node" and self._audits_crowd:
            self._give_up(request, RequestState.EXPIRED, reason, "no_node")
            return
        if request.audit_id:
            if request.auditor is not None:
                # Whoever was drawn may be gone: several must have their turn while there is time.
                wait_ms = min(self.settings.auditor_wait_ms, self.settings.audit_queue_ms // AUDITORS_DRAWN_MIN)
                self._timers.set(self._now + wait_ms, "auditor", request.request_id)
            self._log("audit.held", audit_id=request.audit_id, model=request.model, reason=reason)
            return
        self._progress(request, "held", reason=reason)
        self._log("request.held", request_id=request.request_id, model=request.model, reason=reason)

    @property
    def _audits_crowd(self) -> bool:
        """Half of the room is for audits that somebody can do: else a requester with a model that one owner alone has
        could fill all of it, and nothing would be audited any more."""
        return len(self.audits) > self.settings.audits_open_max // 2

    def _place_all(self, units: Iterable[Request]) -> None:
        for unit in units:
            self._place(unit)

    def _best_node(self, request: Request) -> Node | None:
        """One that never saw the unit if there is any, else one that let it pass."""
        if request.only_node is not None:
            return self.pool.only(request.only_node, request.need)
        if request.audit_id:
            return self._best_auditor(request)
        node = self.pool.match(request.need, request.tried_nodes)
        if request.tried_nodes != request.failed_nodes and (node is None or node.penalised):
            return self.pool.match(request.need, request.failed_nodes)
        return node

    def _best_auditor(self, unit: Request) -> Node | None:
        """The one that was drawn, once it is free. Were it the best fit, or whoever is free, a node could make itself
        its friend's auditor."""
        barred = self._barred(unit)
        if unit.auditor is None or unit.auditor in unit.failed_nodes | barred or not self._can_audit(unit):
            unit.auditor = self._draw_auditor(unit, unit.tried_nodes | barred)
            if unit.auditor is None and unit.tried_nodes != unit.failed_nodes:
                unit.auditor = self._draw_auditor(unit, unit.failed_nodes | barred)
        node = None if unit.auditor is None else self.pool.only(unit.auditor, unit.need)
        # It may be held free for a challenge.
        return node if node is not None and node.slots_free > 0 else None

    def _can_audit(self, unit: Request) -> bool:
        return unit.auditor is not None and self.pool.is_capable(unit.auditor, unit.need)

    def _draw_auditor(self, unit: Request, excluded: frozenset[int]) -> int | None:
        def below(count: int) -> int:
            return int.from_bytes(self._random(_DRAW_BYTES), "big") % count

        return self.pool.draw(unit.need, excluded, below=below, runtime=unit.runtime)

    def _draw_anew(self, audit_id: str) -> None:
        """Its auditor is busy for long, or gone: another may be drawn."""
        unit = self.requests[audit_id]
        self.queue.discard(audit_id)
        unit.auditor = None
        self._place(unit)

    def _may_have(self, node: Node, request: Request) -> bool:
        """Whether nothing speaks against the node but its being busy or unable."""
        if node.node_id in request.failed_nodes or request.only_node not in (None, node.node_id):
            return False
        if not request.audit_id:
            return True
        owner = node.registration.owner if node.registration is not None else ""
        barred = node.node_id in request.barred_nodes or owner in request.barred_owners
        return not (barred or node.penalised)

    def _queue_key(self, request: Request) -> int:
        return queue_key(
            self.settings,
            admitted_at=request.admitted_at,
            priority=request.priority,
            complexity_tokens=request.need.tokens,
        )

    def _offer(self, request: Request, node: Node) -> None:
        self.queue.discard(request.request_id)
        request.auditor = None
        attempt = Attempt(
            attempt_id=ids.attempt_id(ids.fresh_bytes(ids.ATTEMPT_ID_BYTES, self._now, self._random)),
            request_id=request.request_id,
            number=len(request.attempts) + 1,
            node_id=node.node_id,
            model_digest=self.pool.model_for(node, request.need).digest,
            dispatched_at=self._now,
            epoch=self.epoch,
        )
        request.attempts.append(attempt)
        self._attempts[attempt.attempt_id] = attempt
        self.pool.reserve(node, attempt.attempt_id)
        request.become(RequestState.DISPATCHED, now=self._now)
        self._write_attempt(request, attempt)
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
                is_audit=bool(request.audit_id),
            )
        )

    def _write_attempt(self, request: Request, attempt: Attempt) -> None:
        """An audit begins anew after a restart, so nothing is kept of its attempts."""
        if not request.audit_id:
            self._rows.append(attempt.row())

    def _drain(self, node: Node) -> None:
        """A slot of `node` may be free: give it to whoever waits first among those it can serve."""
        if node.slots_free <= 0 or not len(self.queue):
            return
        served: dict[tuple[str, str], list[frozenset[str]]] = {}
        for workload_class, digest, features in self.pool.serves(node):
            for model in self._models_of_digest[digest]:
                served.setdefault((workload_class, model), []).append(features)
            served.setdefault((AUDITOR, str(node.node_id)), []).append(features)

        def suits(request_id: str) -> bool:
            request = self.requests[request_id]
            return self._may_have(node, request) and self.pool.could_take(node, request.need)

        owner = node.registration.owner if node.registration is not None else ""

        def open_to(lane: Lane) -> bool:
            """Thousands of audits may wait for another owner: they must not stand in the way of what it can serve."""
            return not lane.barred_owners or not (node.penalised or owner in lane.barred_owners)

        moved = True
        while moved and node.slots_free > 0:
            waiting = self.queue.first(
                served,
                tier=node.tier,
                wanted=node.slots_free,
                scanned_max=self.settings.drain_scan_max,
                suits=suits,
                open_to=open_to,
            )
            moved = False
            for request_id in waiting:
                lane = self.queue.lane_of(request_id)
                self._place(self.requests[request_id])
                # An audit may have drawn another node, for which it waits now: the slot is there for the next.
                moved = moved or self.queue.lane_of(request_id) != lane

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
        self._write_attempt(request, attempt)
        self._timers.set(attempt.deadline_at, "deadline", attempt.attempt_id)
        self._took_up(attempt.node_id)
        self._progress(request, "running", attempt)

    def _open_attempt(self, attempt_id: str, node_id: int) -> tuple[Request, Attempt] | Refused:
        attempt = self._attempts.get(attempt_id)
        if attempt is None or not attempt.open:
            return Refused(code="attempt_closed", message=f"attempt {attempt_id} is over; drop the work")
        if attempt.node_id != node_id:
            return not_your_attempt(attempt_id, node_id)
        return self.requests[attempt.request_id], attempt

    # How an attempt ends, and a request -------------------------------------------------------------------------------

    def _close_attempt(self, attempt: Attempt, state: AttemptState, reason: str) -> None:
        attempt.become(state, now=self._now, reason=reason)
        self._write_attempt(self.requests[attempt.request_id], attempt)
        del self._attempts[attempt.attempt_id]
        node = self.pool.nodes[attempt.node_id]
        self.pool.release(node, attempt.attempt_id)
        self._freed(node)

    def _end_attempt(self, request: Request, attempt: Attempt, state: AttemptState, reason: str) -> None:
        """An attempt ended without a result: try elsewhere while the rules allow it, else fail with the reason."""
        if request.audit_id and state is AttemptState.LOST:
            # There is no progress of an audit, from which the shell would know.
            self._withdraw(attempt, reason, partial=False)
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
            self._give_up(request, RequestState.FAILED, reason, "no_answer")
        self._drain(self.pool.nodes[attempt.node_id])

    def _give_up(self, request: Request, state: RequestState, reason: str, missing: Missing) -> None:
        """Nobody will serve it any more: `missing` is what an audit lacks then."""
        if request.audit_id:
            self._audit_unanswered(self.audits[request.audit_id], missing)
        else:
            self._finish(request, state, reason)

    def _may_try_again(self, request: Request) -> bool:
        settings = self.settings
        if request.audit_id:
            return sum(each.state is not AttemptState.COMPLETED for each in request.attempts) < (
                settings.audit_attempts_max
            )
        return (
            request.only_node is None
            and request.attempts_counted < settings.attempts_max
            and request.count(AttemptState.MISSED) <= settings.redispatches_after_deadline_max
            and len(request.attempts) < settings.attempts_hard_max
        )

    def _withdraw(self, attempt: Attempt, reason: str, *, partial: bool) -> None:
        self._effects.append(
            effects.Withdraw(attempt_id=attempt.attempt_id, node_id=attempt.node_id, reason=reason, partial=partial)
        )


def not_your_attempt(attempt_id: str, node_id: int) -> Refused:
    return Refused(code="not_your_attempt", message=f"attempt {attempt_id} was not given to node {node_id}")
