"""Everything that an engine remembers, what may be asked of it, and the few verbs that all its parts use.

The engine is one object in layers, a file each: `state`, `deposits`, `admission`, `challenges`, `settling`,
`auditing`, `dispatching`, `steps`, `nodes`, `onchain`, `deadlines`, `restoring`, `core`. A layer calls what lies below
it and never what lies above, so each can be read knowing only those before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

from parallelix.engine import effects
from parallelix.engine.catalogue import Catalogue
from parallelix.engine.effects import Answer, Effect, Refused
from parallelix.engine.entities import ApiKey, Asking, Attempt, Audit, Request
from parallelix.engine.ledger import Ledger
from parallelix.engine.liveness import Liveness
from parallelix.engine.mirror import Mirror, Part
from parallelix.engine.pool import Pool
from parallelix.engine.queue import Queue
from parallelix.engine.recorder import Recorder
from parallelix.engine.rows import AuditRow, EpochRow, Row
from parallelix.engine.settings import EngineSettings
from parallelix.engine.timers import Timer, Timers
from parallelix.engine.trust import Trust
from parallelix.engine.uptime import Uptime
from parallelix.protocol.registry import Registration
from parallelix.protocol.requests import Held

RandomBytes: TypeAlias = Callable[[int], bytes]

_LAST_UNIX_SECOND = int(datetime.max.replace(tzinfo=UTC).timestamp()) - 1
"""A registry may name a later one than a date can hold."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a step decided: rows to make durable, then effects to carry out, then the answer to give."""

    rows: tuple[Row, ...]
    effects: tuple[Effect, ...]
    answer: Answer


class State:
    """One coordinator's whole state. Not thread-safe: one caller steps it, in order.

    `requests` holds the units of open audits too, each under its `audit_id`.
    """

    def __init__(self, settings: EngineSettings, catalogue: Catalogue) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.ledger = Ledger()
        self.mirror = Mirror()
        self.recorder = Recorder(first_batch=settings.first_batch)
        self.uptime = Uptime()
        self.liveness = Liveness(
            online_after_slots=settings.online_after_slots, offline_after_slots=settings.offline_after_slots
        )
        self.queue = Queue()
        self.pool = Pool(settings, (digest for model in catalogue.models for digest in model.digests))
        self.requests: dict[str, Request] = {}
        self.audits: dict[str, Audit] = {}
        """The open ones, by their ids."""
        self.trust = Trust(settings)
        self.epoch = 0
        """Of sampling: what is dispatched now belongs to it."""
        self.keys: dict[str, ApiKey] = {}
        self.registrations: dict[int, Registration] = {}
        self.open_of_account: dict[str, int] = {}
        self._attempts: dict[str, Attempt] = {}
        self._unsettled: dict[int, Request] = {}
        self._uncharged: dict[int, Request] = {}
        self._audit_of_request: dict[str, str] = {}
        self._audits_ended: OrderedDict[str, AuditRow] = OrderedDict()
        self.epochs: dict[int, EpochRow] = {}
        self._nodes_of_owner: dict[str, set[int]] = {}
        self._unusable_words: OrderedDict[tuple[int, str], int] = OrderedDict()
        self._asking: dict[int, Asking] = {}
        self._closed_at: dict[int, int] = {}
        self._idempotent: OrderedDict[tuple[str, str], tuple[str, str, int]] = OrderedDict()
        self._answers: OrderedDict[str, tuple[int, effects.ResultTaken]] = OrderedDict()
        self._orphans: set[str] = set()
        self._owing: set[str] = set()
        self._span_halt: tuple[Part, str] | None = None
        self._service_ms: dict[str, float] = {}
        self._models_of_digest: dict[str, list[str]] = {}
        self._floors: dict[tuple[str, int], float] = {}
        """Tokens per second, by weights and tier."""
        for model in catalogue.models:
            for digest in model.digests:
                self._models_of_digest.setdefault(digest, []).append(model.name)
                for tier, floor in model.speed_floors.items():
                    place = digest, int(tier)
                    self._floors[place] = max(floor, self._floors.get(place, 0.0))
        self._timers = Timers(self._purposeful, sweep_min=settings.timers_sweep_min)
        self._now = 0
        self._random: RandomBytes = _no_random
        self._rows: list[Row] = []
        self._effects: list[Effect] = []

    def next_due(self) -> int | None:
        """When the next `Tick` has something to do; None while nothing waits for time."""
        return self._timers.next_at()

    @property
    def timers_waiting(self) -> int:
        return len(self._timers)

    @property
    def requests_open(self) -> int:
        """Those of requesters; the units of audits are not among them."""
        return len(self.requests) - len(self.audits)

    def held(self, request: Request) -> Held | None:
        """Why a queued request waits."""
        if request.request_id not in self.queue:
            return None
        position = self.queue.position(request.request_id)
        slots, _ = self.pool.slots(request.need)
        service_ms = self._service_ms.get(request.model)
        estimate = None if not slots or service_ms is None else round((position + 1) * service_ms / slots / 1000, 1)
        return Held(reason=self._held_reason(request), position=position, estimate_seconds=estimate)

    def service_seconds(self, model: str) -> float | None:
        service_ms = self._service_ms.get(model)
        return None if service_ms is None else service_ms / 1000

    def attempt(self, attempt_id: str) -> Attempt | None:
        return self._attempts.get(attempt_id)

    def orphaned(self, request_id: str) -> bool:
        """Whether the request's client was lost in a restart and has not come back."""
        return request_id in self._orphans

    def standing(self, node_id: int) -> Refused | None:
        """What the registry says against a node's calls; None when it may work."""
        registration = self.registrations.get(node_id)
        if registration is None or registration.state == "retired":
            return Refused(
                code="not_staked",
                message=f"node {node_id} has no live stake; register it (registerNode), or start another node id",
            )
        if registration.state == "cooling":
            withdrawable = _from(registration.cooldown_ends_at)
            return Refused(
                code="in_cooldown", message=f"node {node_id} is unstaking; its stake is withdrawable {withdrawable}"
            )
        return None

    # For the layers above ---------------------------------------------------------------------------------------------

    def _held_reason(self, request: Request) -> Any:
        excluded = request.failed_nodes | self._barred(request)
        if not self.pool.any_capable(request.need, excluded, penalised=not request.audit_id):
            return "no_capable_node"
        return "no_node_fast_enough" if self.pool.has_free_slot(request.need, excluded) else "no_free_slot"

    def _barred(self, request: Request) -> frozenset[int]:
        """Whom an audit must never be given to; nobody for a request."""
        theirs = (self._nodes_of_owner.get(owner, set[int]()) for owner in request.barred_owners)
        return request.barred_nodes.union(*theirs)

    def _enrol(self, registration: Registration) -> None:
        node_id = int(registration.node_id)
        self._strike_off(node_id)
        self.registrations[node_id] = registration
        self._nodes_of_owner.setdefault(registration.owner, set()).add(node_id)

    def _strike_off(self, node_id: int) -> None:
        known = self.registrations.pop(node_id, None)
        if known is not None:
            theirs = self._nodes_of_owner[known.owner]
            theirs.discard(node_id)
            if not theirs:
                del self._nodes_of_owner[known.owner]

    def _post(self, transfer_id: str, debit: str, credit: str, amount_wei: int, request_id: str) -> None:
        self.ledger.post(
            transfer_id, debit=debit, credit=credit, amount_wei=amount_wei, request_id=request_id, at=self._now
        )

    def _progress(
        self, request: Request, kind: Any, attempt: Attempt | None = None, *, state: str = "", reason: str = ""
    ) -> None:
        if request.audit_id:
            # No requester waits for it.
            return
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

    def _purposeful(self, timer: Timer) -> bool:
        """Whether the timer still has something to do. False only where its handler would do nothing."""
        _, _, kind, subject = timer
        match kind:
            case "queue" | "auditor":
                return subject in self.queue
            case "lifetime":
                return subject in self.requests
            case "orphan":
                return subject in self._orphans
            case "audit":
                return subject in self.audits
            case "acknowledge" | "deadline" | "cancel":
                return subject in self._attempts
            case "challenge":
                node_id, planned_at = subject
                return node_id in self._asking and self._asking[node_id].next_at == planned_at
            case _:
                return True

    def _take_step(self, answer: Answer) -> Step:
        rows = (
            *self._rows,
            *self.ledger.take_rows(),
            *self.mirror.take_rows(),
            *self.liveness.take_rows(),
            *self.trust.take_rows(),
        )
        step = Step(rows=rows, effects=tuple(self._effects), answer=answer)
        self._rows.clear()
        self._effects.clear()
        return step


def _from(unix_seconds: int) -> str:
    if not 0 < unix_seconds <= _LAST_UNIX_SECOND:
        return "when its cooldown ends"
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("from %Y-%m-%d %H:%M:%S UTC")


def _no_random(count: int) -> bytes:
    raise AssertionError("randomness is handed in with each step")
