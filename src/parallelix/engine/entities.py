"""What the engine remembers while it is open: requests with their attempts, audits, challenges, and API keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from parallelix.engine.catalogue import Price, Priority
from parallelix.engine.lifecycle import (
    COUNTED_ATTEMPTS,
    FINAL_ATTEMPT_STATES,
    FINAL_REQUEST_STATES,
    NEVER_TAKEN_UP,
    AttemptState,
    RequestState,
    require_attempt_transition,
    require_request_transition,
)
from parallelix.engine.pool import Need
from parallelix.engine.queue import Lane, auditor_lane
from parallelix.engine.rows import AttemptRow, AuditRow, KeyRow, RequestRow
from parallelix.engine.verdicts import Stage
from parallelix.protocol.work import Usage


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One dispatch to one node. Times are Unix milliseconds, 0 for not yet."""

    attempt_id: str
    request_id: str
    number: int
    node_id: int
    model_digest: str
    state: AttemptState = AttemptState.OFFERED
    reason: str = ""
    dispatched_at: int
    started_at: int = 0
    deadline_at: int = 0
    finished_at: int = 0
    epoch: int = 0
    """Of sampling, fixed at the dispatch."""
    resumed: bool = False
    """It lived through a restart of the coordinator, so its time says nothing about its node."""

    @property
    def open(self) -> bool:
        return self.state not in FINAL_ATTEMPT_STATES

    def become(self, state: AttemptState, *, now: int, reason: str = "") -> None:
        require_attempt_transition(self.state, state)
        self.state, self.reason = state, reason
        if state in FINAL_ATTEMPT_STATES:
            self.finished_at = now

    @classmethod
    def of(cls, row: AttemptRow) -> Attempt:
        return cls(
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
            epoch=row.epoch,
        )

    def row(self) -> AttemptRow:
        return AttemptRow(
            attempt_id=self.attempt_id,
            request_id=self.request_id,
            number=self.number,
            node_id=str(self.node_id),
            state=self.state.value,
            reason=self.reason,
            model_digest=self.model_digest,
            dispatched_at=self.dispatched_at,
            started_at=self.started_at,
            deadline_at=self.deadline_at,
            finished_at=self.finished_at,
            epoch=self.epoch,
        )


@dataclass(slots=True, kw_only=True)
class Request:
    """One request from admission until its charge has posted. Or the unit of an audit, which is placed like a request:
    its id is `audit_id`, it costs nothing, nobody waits for it, and no row is written of it."""

    request_id: str
    account: str
    key_id: str
    workload_class: str
    kind: str
    model: str
    priority: Priority
    need: Need
    price: Price
    queue_ms: int
    admitted_at: int
    prompt_tokens_max: int
    completion_tokens_max: int
    hold_wei: int
    attached: bool
    idempotency_key: str
    fingerprint: str
    state: RequestState = RequestState.QUEUED
    reason: str = ""
    waiting_since: int = 0
    cancelling: bool = False
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    finished_at: int = 0
    charge_wei: int = 0
    usage: Usage | None = None
    record_sequence: int = -1
    record_hash: str = ""
    only_node: int | None = None
    """Of a challenge: the node that it is for."""
    audit_id: str = ""
    barred_nodes: frozenset[int] = frozenset()
    """The nodes that an audit is about, and `barred_owners` whose they are: none of theirs may have it."""
    barred_owners: frozenset[str] = frozenset()
    runtime: str = ""
    """Of an audit: what its executor runs models with. Whoever else does renders a chat alike."""
    auditor: int | None = None
    """Of an audit: the node that was drawn for it, which it waits for."""

    @property
    def final(self) -> bool:
        return self.state in FINAL_REQUEST_STATES

    @property
    def lane(self) -> Lane:
        need = self.need
        if self.auditor is not None:
            return auditor_lane(self.auditor, need.tier, need.features)
        return Lane(
            workload_class=need.workload_class,
            model=self.model,
            tier=need.tier,
            features=need.features,
            barred_owners=self.barred_owners,
        )

    @property
    def open_attempt(self) -> Attempt | None:
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.open else None

    @property
    def tried_nodes(self) -> frozenset[int]:
        return frozenset(attempt.node_id for attempt in self.attempts)

    @property
    def failed_nodes(self) -> frozenset[int]:
        """Nodes that had their turn with this unit; it never goes back to one of them.

        A node that was lost before it took the unit up, or was too slow to acknowledge it, has not had its turn: the
        only node of a network may be the one that comes back. That holds once for each node, so that one which comes
        and goes, or never answers, cannot hold a unit up."""
        had_it: set[int] = set()
        let_it_pass: set[int] = set()
        for attempt in self.attempts:
            if attempt.state is AttemptState.COMPLETED:
                # An auditor's, whose audit went on to another stage.
                continue
            never_taken_up = attempt.state in NEVER_TAKEN_UP and not attempt.started_at
            first_time = never_taken_up and attempt.node_id not in let_it_pass
            (let_it_pass if first_time else had_it).add(attempt.node_id)
        return frozenset(had_it)

    def count(self, *states: AttemptState) -> int:
        return sum(1 for attempt in self.attempts if attempt.state in states)

    @property
    def attempts_counted(self) -> int:
        return self.count(*COUNTED_ATTEMPTS)

    def become(self, state: RequestState, *, now: int, reason: str = "") -> None:
        require_request_transition(self.state, state)
        self.state, self.reason = state, reason
        if state in FINAL_REQUEST_STATES:
            self.finished_at = now

    def row(self) -> RequestRow:
        usage = self.usage or Usage(prompt_tokens=0, completion_tokens=0)
        return RequestRow(
            request_id=self.request_id,
            account=self.account,
            key_id=self.key_id,
            workload_class=self.workload_class,
            kind=self.kind,
            model=self.model,
            hardware_tier=self.need.tier,
            priority=self.priority,
            state=self.state.value,
            reason=self.reason,
            deadline_ms=self.need.deadline_ms,
            queue_ms=self.queue_ms,
            admitted_at=self.admitted_at,
            finished_at=self.finished_at,
            prompt_tokens_max=self.prompt_tokens_max,
            completion_tokens_max=self.completion_tokens_max,
            features=",".join(sorted(self.need.features)),
            attached=self.attached,
            cancelling=self.cancelling,
            prompt_price_wei=str(self.price.prompt_wei),
            completion_price_wei=str(self.price.completion_wei),
            hold_wei=str(self.hold_wei),
            charge_wei=str(self.charge_wei),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            record_sequence=self.record_sequence,
            idempotency_key=self.idempotency_key,
            fingerprint=self.fingerprint,
        )


@dataclass(slots=True, kw_only=True)
class Audit:
    """An execution that was drawn, while its audit is open. `unit` is what auditors are given; of the execution,
    `attempt_id` is the attempt that it came from and `node_id` its node."""

    audit_id: str
    request: Request
    attempt_id: str
    node_id: int
    model_digest: str
    execution_sequence: int
    execution_hash: str
    opened_at: int
    unit: Request
    stage: Stage = "first"
    auditor_id: int = -1
    """The first auditor, once it answered; it and the third are nobody while below 0."""
    auditor_attempt_id: str = ""
    auditor_runtime: str = ""
    rate_percent: int = 100
    """That its draw was made at; after a restart it is not known, and taken for the full one."""
    whole: bool = False
    """Its unit is run again whole, by the first auditor and by whoever comes after."""
    partial: bool = False
    """Of a result that was cut off by a cancel."""
    third_id: int = -1
    prepared_from: str = ""

    def row(
        self, *, verdict: str = "", reason: str = "", finished_at: int = 0, refunded_wei: int = 0, sequence: int = -1
    ) -> AuditRow:
        return AuditRow(
            audit_id=self.audit_id,
            request_id=self.request.request_id,
            execution_sequence=self.execution_sequence,
            execution_hash=self.execution_hash,
            node_id=str(self.node_id),
            verdict=verdict,
            reason=reason,
            auditor_id=str(self.auditor_id) if self.auditor_id >= 0 else "",
            third_id=str(self.third_id) if self.third_id >= 0 else "",
            opened_at=self.opened_at,
            finished_at=finished_at,
            refunded_wei=str(refunded_wei),
            audit_sequence=sequence,
            prepared_from=self.prepared_from,
            whole=self.whole,
        )


@dataclass(slots=True, kw_only=True)
class Asking:
    """The challenges of one node: when it is asked next, 0 where nothing is planned, and the request that is open."""

    next_at: int = 0
    request_id: str = ""
    slow_answers: int = 0
    """Running."""
    watched: bool = False
    """Whether a timer waits for the end of its proof."""
    spared_until: int = 0
    """Its proof ended while we were away, when nobody could have challenged it."""


@dataclass(slots=True, kw_only=True)
class ApiKey:
    """An API key and its limits; 0 means no limit. `committed_wei` is what its open requests may still cost."""

    key_id: str
    key_hash: str
    account: str
    name: str
    requests_per_minute: int
    concurrency: int
    budget_wei: int
    spent_wei: int
    created_at: int
    expires_at: int
    revoked_at: int
    scopes: str = "inference,read"
    kind: str = "key"
    open_requests: int = 0
    committed_wei: int = 0
    tokens: float = 0.0
    refilled_at: int = 0

    def usable(self, now: int) -> bool:
        return not self.revoked_at and (not self.expires_at or now < self.expires_at)

    def may(self, scope: str) -> bool:
        return scope in self.scopes.split(",")

    def take_token(self, now: int) -> float:
        """Takes one request from the bucket, which holds a minute's worth; gives 0, or the seconds to wait."""
        if not self.requests_per_minute:
            return 0.0
        if not self.refilled_at:
            self.tokens, self.refilled_at = float(self.requests_per_minute), now
        earned = max(0, now - self.refilled_at) * self.requests_per_minute / 60_000
        self.tokens = min(float(self.requests_per_minute), self.tokens + earned)
        self.refilled_at = max(now, self.refilled_at)
        if self.tokens < 1:
            return (1 - self.tokens) * 60 / self.requests_per_minute
        self.tokens -= 1
        return 0.0

    @classmethod
    def of(cls, row: KeyRow) -> ApiKey:
        return cls(
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
            scopes=row.scopes,
            kind=row.kind,
        )

    def row(self) -> KeyRow:
        return KeyRow(
            key_id=self.key_id,
            key_hash=self.key_hash,
            account=self.account,
            name=self.name,
            requests_per_minute=self.requests_per_minute,
            concurrency=self.concurrency,
            budget_wei=str(self.budget_wei),
            spent_wei=str(self.spent_wei),
            created_at=self.created_at,
            expires_at=self.expires_at,
            revoked_at=self.revoked_at,
            scopes=self.scopes,
            kind=self.kind,
        )
