"""What happens because time passed. A timer that comes when its matter is settled, or moved, does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from parallelix.engine import events
from parallelix.engine.effects import Answer
from parallelix.engine.lifecycle import AttemptState, RequestState
from parallelix.engine.onchain import OnChain
from parallelix.engine.settings import MINUTE_MS


class Deadlines(OnChain):
    def _tick(self, event: events.Tick) -> Answer:
        while (timer := self._timers.take_due(self._now)) is not None:
            _, _, kind, subject = timer
            self._due[kind](self, subject)
        return None

    def _queue_due(self, request_id: str) -> None:
        request = self.requests.get(request_id)
        if request is None or request.state is not RequestState.QUEUED:
            return
        due_at = request.waiting_since + request.queue_ms
        if due_at > self._now:
            self._timers.set(due_at, "queue", request_id)
            return
        self._give_up(request, RequestState.EXPIRED, self._held_reason(request), "no_node")

    def _acknowledge_due(self, attempt_id: str) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is not None and attempt.state is AttemptState.OFFERED:
            self._let_pass(attempt.node_id)
            self._withdraw(attempt, "not_acknowledged", partial=False)
            self._end_attempt(self.requests[attempt.request_id], attempt, AttemptState.WITHDRAWN, "not_acknowledged")

    def _deadline_due(self, attempt_id: str) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is None or attempt.state is not AttemptState.RUNNING:
            return
        if attempt.deadline_at > self._now:
            self._timers.set(attempt.deadline_at, "deadline", attempt_id)
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
        if attempt is not None:
            self._drain(self.pool.nodes[attempt.node_id])

    def _audit_due(self, audit_id: str) -> None:
        audit = self.audits.get(audit_id)
        if audit is None:
            return
        attempt = audit.unit.open_attempt
        if attempt is not None:
            self._withdraw(attempt, "lifetime_exceeded", partial=False)
            self._close_attempt(attempt, AttemptState.CANCELLED, "lifetime_exceeded")
        self._audit_unanswered(audit, "no_answer")
        if attempt is not None:
            self._drain(self.pool.nodes[attempt.node_id])

    def _auditor_due(self, audit_id: str) -> None:
        if audit_id in self.queue and self.requests[audit_id].auditor is not None:
            self._draw_anew(audit_id)

    def _offline_due(self, node_id: int) -> None:
        node = self.pool.nodes[node_id]
        if not node.online:
            return
        due_at = node.last_seen + self.settings.offline_ms
        if due_at > self._now:
            self._timers.set(due_at, "offline", node_id)
            return
        node.online = False
        self.pool.refresh(node)
        self._log("node.offline", node_id=str(node_id), last_seen=node.last_seen)
        # An unstaking node is refused its heartbeats; what it was given before it may still return, in its time.
        if not node.cooling:
            self._lose_attempts(node, "node_offline")
        self._drain_penalised()

    def _return_due(self, node_id: int) -> None:
        node = self.pool.nodes[node_id]
        if node.removed_until and node.removed_until <= self._now:
            # It comes back as a new node: nothing known of it counts any more.
            node.removed_until = 0
            node.rejections.clear()
            node.speeds = {}
            self.trust.begin_anew(node_id)
            self._expect_proof(node)
            self.pool.refresh(node)
            self._rows.append(node.row())
            self._log("node.readmitted", node_id=str(node_id))
            self._drain(node)

    def _speed_due(self, measured: tuple[int, str]) -> None:
        """What was too slow some time ago, under another load perhaps, is tried again."""
        node_id, digest = measured
        node = self.pool.nodes.get(node_id)
        if node is None or digest not in node.measured_at:
            return
        due_at = node.measured_at[digest] + self.settings.speed_lifetime_ms
        if due_at > self._now:
            self._timers.set(due_at, "speed", measured)
            return
        del node.measured_at[digest]
        self.pool.forget_speed(node, digest)
        self._drain(node)

    def _batch_due(self, number: int) -> None:
        if number == self.recorder.next_batch:
            self._close_batch()

    def _ask_due(self, planned: tuple[int, int]) -> None:
        node = self.pool.find(planned[0])
        was_held = node is not None and node.held
        self._challenge_due(planned)
        if node is not None and was_held and not node.held:
            self._drain(node)

    def _stand_in_due(self, _: None) -> None:
        self._drain_penalised()

    def _uptime_due(self, _: None) -> None:
        self._rows.extend(self.uptime.take_rows(self._now))
        self._timers.set(self._now + MINUTE_MS, "uptime", None)

    _due: ClassVar[dict[str, Callable[[Deadlines, Any], None]]] = {
        "queue": _queue_due,
        "acknowledge": _acknowledge_due,
        "deadline": _deadline_due,
        "cancel": _cancel_due,
        "orphan": _orphan_due,
        "lifetime": _lifetime_due,
        "audit": _audit_due,
        "auditor": _auditor_due,
        "offline": _offline_due,
        "return": _return_due,
        "speed": _speed_due,
        "challenge": _ask_due,
        "proof": OnChain._proof_due,
        "stand_in": _stand_in_due,
        "batch": _batch_due,
        "uptime": _uptime_due,
    }
