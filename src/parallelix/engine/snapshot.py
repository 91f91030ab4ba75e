"""What a restarted engine is rebuilt from: everything still open, and as much of the past as its rules look back on."""

from __future__ import annotations

import msgspec

from parallelix.engine.rows import (
    AttemptRow,
    AuditRow,
    BalanceRow,
    BatchRow,
    ChainCursorRow,
    ClearanceRow,
    EpochRow,
    FaultRow,
    KeyRow,
    NodeLivenessRow,
    NodeRow,
    NodeTrustRow,
    RecordRow,
    RegistrationRow,
    RequestRow,
    UptimeRow,
    VaultAccountRow,
)


class Idempotent(msgspec.Struct, frozen=True, kw_only=True):
    """A create that may be repeated: the same key must find the same request, and another fingerprint is an error."""

    account: str
    idempotency_key: str
    fingerprint: str
    request_id: str
    admitted_at: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Read in one transaction, so the parts fit together. The defaults are those of an empty store."""

    requests: tuple[RequestRow, ...] = ()
    """Not final, or recorded and not yet covered by a confirmed batch; oldest admission first."""
    attempts: tuple[AttemptRow, ...] = ()
    """All of those requests, in order of request and number."""
    nodes: tuple[NodeRow, ...] = ()
    balances: tuple[BalanceRow, ...] = ()
    keys: tuple[KeyRow, ...] = ()
    faults: tuple[FaultRow, ...] = ()
    """Of the last 24 hours, oldest first."""
    batches: tuple[BatchRow, ...] = ()
    """The unconfirmed ones, the last confirmed one and the last one, in order of number."""
    records: tuple[RecordRow, ...] = ()
    """In no batch yet, in order of sequence."""
    head: RecordRow | None = None
    """The last record of the chain, batched or not."""
    idempotent: tuple[Idempotent, ...] = ()
    """Of the last 24 hours, oldest first."""
    uptime: tuple[UptimeRow, ...] = ()
    """Of as many hours as `uptime` keeps: a rejected attempt may void slots of the last one still."""
    cursor: ChainCursorRow | None = None
    """None before the first block was read, and always off a chain, as what follows is empty there."""
    vault_accounts: tuple[VaultAccountRow, ...] = ()
    clearances: tuple[ClearanceRow, ...] = ()
    """The open ones."""
    registrations: tuple[RegistrationRow, ...] = ()
    liveness: tuple[NodeLivenessRow, ...] = ()
    audits: tuple[AuditRow, ...] = ()
    """The open ones, oldest first. `requests` holds theirs too: what is drawn is charged after its audit."""
    trust: tuple[NodeTrustRow, ...] = ()
    epochs: tuple[EpochRow, ...] = ()
    """The present one and those not revealed yet, in order."""
