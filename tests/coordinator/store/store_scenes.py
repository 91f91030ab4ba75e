"""Rows as the engine makes them, with everything that a test does not speak of filled in."""

from __future__ import annotations

from typing import Any

import msgspec

from parallelix.coordinator.store.rows import ClaimRow, EnvelopeRow, PayloadRow, ResultRow
from parallelix.engine.rows import (
    AttemptRow,
    AuditRow,
    BatchRow,
    ClearanceRow,
    EpochRow,
    FaultRow,
    KeyRow,
    NodeRow,
    RecordRow,
    RequestRow,
    Row,
    TransferRow,
    UptimeRow,
    VaultAccountRow,
)

NOW = 1_800_000_000_000
HOUR_MS = 3_600_000


def request_id(number: int) -> str:
    return f"req_{number:064x}"


def attempt_id(number: int) -> str:
    return f"att_{number:032x}"


def filled(row_type: type[Row], **known: object) -> Any:
    """Every field that is not known gets an ordinary value of its type."""
    ordinary: dict[object, object] = {str: "", int: 0, bool: False, bytes: b""}
    fields = {field.name: ordinary[field.type] for field in msgspec.structs.fields(row_type)}
    return row_type(**fields | known)


def request(number: int, **known: object) -> RequestRow:
    ordinary = {"account": "ada", "state": "queued", "admitted_at": NOW + number, "record_sequence": -1}
    return filled(RequestRow, request_id=request_id(number), **ordinary | known)


def attempt(number: int, /, *, of: int, **known: object) -> AttemptRow:
    ordinary = {"number": 1, "node_id": "7", "state": "running"}
    return filled(AttemptRow, attempt_id=attempt_id(number), request_id=request_id(of), **ordinary | known)


def transfer(transfer_id: str, **known: object) -> TransferRow:
    ordinary = {"debit_account": "source:grants", "credit_account": "available:ada", "amount_wei": str(10**30)}
    return filled(TransferRow, transfer_id=transfer_id, **ordinary | known)


def record(sequence: int, *, of: int) -> RecordRow:
    return RecordRow(
        sequence=sequence, record_hash=f"0x{sequence:064x}", request_id=request_id(of), body=bytes([0, sequence, 255])
    )


def batch(number: int, *, first: int, last: int, confirmed_at: int = 0) -> BatchRow:
    return filled(
        BatchRow,
        number=number,
        first=first,
        last=last,
        count=last - first + 1,
        closed_at=NOW,
        confirmed_at=confirmed_at,
    )


def node(node_id: str) -> NodeRow:
    return filled(NodeRow, node_id=node_id, manifest='{"region": "eu"}')


def fault(number: int, *, at: int) -> FaultRow:
    return filled(FaultRow, attempt_id=attempt_id(number), node_id="7", at=at)


def uptime(node_id: str, *, hour: int) -> UptimeRow:
    return filled(UptimeRow, node_id=node_id, hour=hour, credited="f" * 90, voided="0")


def key(key_id: str) -> KeyRow:
    return filled(KeyRow, key_id=key_id, account="ada", budget_wei="0", spent_wei="0")


def vault_account(account: str) -> VaultAccountRow:
    wei = str(10**26)
    return filled(
        VaultAccountRow, account=account, deposit_wei=wei, settled_wei=wei, requested_wei="0", charged_wei="0"
    )


def clearance(account: str, *, nonce: int, state: str) -> ClearanceRow:
    return filled(ClearanceRow, account=account, nonce=nonce, expiry=NOW // 1000, amount_wei=str(10**26), state=state)


def payload(of: int, **known: object) -> PayloadRow:
    ordinary = {"sealed": b"\x00sealed\xff", "created_at": NOW}
    return filled(PayloadRow, request_id=request_id(of), **ordinary | known)


def envelope(number: int, *, of: int) -> EnvelopeRow:
    return filled(EnvelopeRow, attempt_id=attempt_id(number), request_id=request_id(of), wrapped_secret=b"\xfe")


def result(of: int, *, expires_at: int) -> ResultRow:
    return filled(ResultRow, request_id=request_id(of), sealed=b"result", expires_at=expires_at)


def audit_id(number: int) -> str:
    return f"sub_{number:064x}"


def audit(number: int, *, of: int, **known: object) -> AuditRow:
    ordinary = {"node_id": "7", "opened_at": NOW + number, "refunded_wei": "0", "audit_sequence": -1}
    return filled(AuditRow, audit_id=audit_id(number), request_id=request_id(of), **ordinary | known)


def claim(number: int) -> ClaimRow:
    return ClaimRow(audit_id=audit_id(number), sealed=b"\x00claim\xff", wrapped_key=b"\xfe")


def epoch(number: int, *, revealed_at: int = 0) -> EpochRow:
    secret = f"0x{number:064x}" if revealed_at else ""
    return filled(EpochRow, epoch=number, secret=secret, began_at=NOW + number, revealed_at=revealed_at)
