"""The two state machines, each one table. Whatever is not in a table cannot happen; doing it anyway raises.

A request:

    queued ──► dispatched ──► running ──► validating ──► completed
      ▲  │         │             │            │
      └──┼─────────┴─────────────┴────────────┘   (another attempt)
         └──► expired, failed or cancelled, from any state that is not final

An attempt is one dispatch of a unit to one node.
"""

from __future__ import annotations

from enum import StrEnum


class IllegalTransition(AssertionError):
    """Our bug: a state was asked to become one that it cannot become."""


class RequestState(StrEnum):
    QUEUED = "queued"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    VALIDATING = "validating"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    OFFERED = "offered"
    RUNNING = "running"
    COMPLETED = "completed"
    REJECTED = "rejected"
    FAILED = "failed"
    DECLINED = "declined"
    MISSED = "missed"
    WITHDRAWN = "withdrawn"
    LOST = "lost"
    CANCELLED = "cancelled"


_R, _A = RequestState, AttemptState
_ENDED = frozenset({_R.FAILED, _R.EXPIRED, _R.CANCELLED})

REQUEST_TRANSITIONS: dict[RequestState, frozenset[RequestState]] = {
    _R.QUEUED: frozenset({_R.DISPATCHED}) | _ENDED,
    _R.DISPATCHED: frozenset({_R.RUNNING, _R.QUEUED}) | _ENDED,
    _R.RUNNING: frozenset({_R.VALIDATING, _R.QUEUED}) | _ENDED,
    _R.VALIDATING: frozenset({_R.COMPLETED, _R.QUEUED}) | _ENDED,
    _R.COMPLETED: frozenset(),
    _R.FAILED: frozenset(),
    _R.EXPIRED: frozenset(),
    _R.CANCELLED: frozenset(),
}

ATTEMPT_TRANSITIONS: dict[AttemptState, frozenset[AttemptState]] = {
    _A.OFFERED: frozenset({_A.RUNNING, _A.WITHDRAWN, _A.LOST, _A.DECLINED, _A.FAILED, _A.REJECTED, _A.CANCELLED}),
    _A.RUNNING: frozenset({_A.COMPLETED, _A.REJECTED, _A.FAILED, _A.DECLINED, _A.MISSED, _A.LOST, _A.CANCELLED}),
    **{
        state: frozenset[AttemptState]()
        for state in (
            _A.COMPLETED,
            _A.REJECTED,
            _A.FAILED,
            _A.DECLINED,
            _A.MISSED,
            _A.WITHDRAWN,
            _A.LOST,
            _A.CANCELLED,
        )
    },
}

FINAL_REQUEST_STATES = frozenset(state for state, after in REQUEST_TRANSITIONS.items() if not after)
FINAL_ATTEMPT_STATES = frozenset(state for state, after in ATTEMPT_TRANSITIONS.items() if not after)

COUNTED_ATTEMPTS = frozenset({_A.REJECTED, _A.FAILED, _A.DECLINED, _A.MISSED})
"""The ends that use up one of a unit's attempts. A lost node or an offer not taken is not the unit's doing."""

NEVER_TAKEN_UP = frozenset({_A.LOST, _A.WITHDRAWN})
"""The ends in which the node, unless it had started, has shown nothing about the unit."""


def require_request_transition(before: RequestState, after: RequestState) -> None:
    if after not in REQUEST_TRANSITIONS[before]:
        raise IllegalTransition(f"a request cannot go from {before} to {after}")


def require_attempt_transition(before: AttemptState, after: AttemptState) -> None:
    if after not in ATTEMPT_TRANSITIONS[before]:
        raise IllegalTransition(f"an attempt cannot go from {before} to {after}")
