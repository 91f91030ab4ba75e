"""Reads what a restart needs, all of it as of one moment."""

from __future__ import annotations

from parallelix.coordinator.store import queries
from parallelix.coordinator.store.backend import Reading
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
from parallelix.engine.settings import DAY_MS, HOUR_MS
from parallelix.engine.snapshot import Idempotent, Snapshot
from parallelix.engine.uptime import HOURS_KEPT


def read_snapshot(reading: Reading, *, now: int) -> Snapshot:
    """`now` in Unix milliseconds. The caller began a transaction in which all reads see the same state."""
    since = now - DAY_MS
    return Snapshot(
        requests=tuple(reading.rows(RequestRow, queries.LIVE_REQUESTS)),
        attempts=tuple(reading.rows(AttemptRow, queries.LIVE_ATTEMPTS)),
        nodes=tuple(reading.rows(NodeRow, queries.NODES)),
        balances=tuple(reading.rows(BalanceRow, queries.BALANCES)),
        keys=tuple(reading.rows(KeyRow, queries.KEYS)),
        faults=tuple(reading.rows(FaultRow, queries.FAULTS_SINCE, since=since)),
        batches=tuple(reading.rows(BatchRow, queries.LIVE_BATCHES)),
        records=tuple(reading.rows(RecordRow, queries.UNBATCHED_RECORDS)),
        head=reading.row(RecordRow, queries.HEAD_RECORD),
        idempotent=tuple(map(_idempotent, reading.rows(RequestRow, queries.IDEMPOTENT_SINCE, since=since))),
        uptime=tuple(reading.rows(UptimeRow, queries.UPTIME_SINCE, hour=now // HOUR_MS - HOURS_KEPT)),
        cursor=reading.row(ChainCursorRow, queries.CHAIN_CURSOR),
        vault_accounts=tuple(reading.rows(VaultAccountRow, queries.VAULT_ACCOUNTS)),
        clearances=tuple(reading.rows(ClearanceRow, queries.OPEN_CLEARANCES)),
        registrations=tuple(reading.rows(RegistrationRow, queries.REGISTRATIONS)),
        liveness=tuple(reading.rows(NodeLivenessRow, queries.NODE_LIVENESS)),
        audits=tuple(reading.rows(AuditRow, queries.OPEN_AUDITS)),
        trust=tuple(reading.rows(NodeTrustRow, queries.NODE_TRUST)),
        epochs=tuple(reading.rows(EpochRow, queries.UNREVEALED_EPOCHS)),
    )


def _idempotent(row: RequestRow) -> Idempotent:
    return Idempotent(
        account=row.account,
        idempotency_key=row.idempotency_key,
        fingerprint=row.fingerprint,
        request_id=row.request_id,
        admitted_at=row.admitted_at,
    )
