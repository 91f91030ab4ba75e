"""An audit of a coordinator's store by somebody who trusts none of its code: only its rows, and what clients were told.

lost            acknowledged, but gone, or never ended, or ended without the answer or reason that belongs to it
charged_twice   more than one charge for a request, a charge above its hold, or two requests for one intent
broken          anything else that does not add up: ledger, holds, chain of records, audits, batches
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from parallelix.coordinator.store.backend import Reading
from parallelix.coordinator.store.backends import backend_of
from parallelix.coordinator.store.rows import ClaimRow, ResultRow
from parallelix.engine.rows import AuditRow, BalanceRow, BatchRow, EpochRow, RecordRow, RequestRow, TransferRow
from parallelix.protocol import merkle, sampling
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.errors import Malformed
from parallelix.protocol.records import (
    GENESIS_HASH,
    AuditRecord,
    ExecutionRecord,
    Record,
    decode_record,
    record_hash,
    verify_chain,
)

FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
USAGE, SPENT = "usage", "spent:"
"""Where a charge goes: at once to those who are paid, or on a chain to what the vault has still to settle."""


@dataclass(kw_only=True)
class Books:
    """Everything that counts, as stored."""

    requests: dict[str, RequestRow]
    results: frozenset[str]
    transfers: list[TransferRow]
    balances: dict[str, int]
    records: list[RecordRow]
    batches: list[BatchRow]
    audits: list[AuditRow]
    claims: frozenset[str]
    """Ids of audits."""
    epochs: dict[int, EpochRow]


@dataclass(kw_only=True)
class Findings:
    lost: list[str] = field(default_factory=list[str])
    charged_twice: list[str] = field(default_factory=list[str])
    broken: list[str] = field(default_factory=list[str])

    def __bool__(self) -> bool:
        return bool(self.lost or self.charged_twice or self.broken)

    def add(self, other: Findings) -> None:
        self.lost += other.lost
        self.charged_twice += other.charged_twice
        self.broken += other.broken


def read_books(store_url: str) -> Books:
    backend = backend_of(store_url)
    connection = backend.connect_reader()
    try:
        reading = Reading(backend, connection)
        return Books(
            requests={row.request_id: row for row in reading.rows(RequestRow, "SELECT {columns} FROM requests")},
            results=frozenset(row.request_id for row in reading.rows(ResultRow, "SELECT {columns} FROM results")),
            transfers=reading.rows(TransferRow, "SELECT {columns} FROM transfers ORDER BY at"),
            balances={
                row.account: int(row.balance_wei) for row in reading.rows(BalanceRow, "SELECT {columns} FROM balances")
            },
            records=reading.rows(RecordRow, "SELECT {columns} FROM records ORDER BY sequence"),
            batches=reading.rows(BatchRow, "SELECT {columns} FROM batches ORDER BY number"),
            audits=reading.rows(AuditRow, "SELECT {columns} FROM audits ORDER BY opened_at"),
            claims=frozenset(row.audit_id for row in reading.rows(ClaimRow, "SELECT {columns} FROM claims")),
            epochs={row.epoch: row for row in reading.rows(EpochRow, "SELECT {columns} FROM epochs")},
        )
    finally:
        connection.close()
        backend.close()


def audit(books: Books, acknowledged: Mapping[str, Collection[str]]) -> Findings:
    """`acknowledged` maps each intent (its Idempotency-Key) to the ids that its client was ever told.

    Expects a store that has come to rest: every request and every audit ended, every batch confirmed.
    """
    findings = Findings()
    findings.lost += list(_lost(books, acknowledged))
    findings.charged_twice += list(_charged_twice(books))
    for check in (_ends, _holds, _ledger, _chain, _audits, _batches):
        findings.broken += list(check(books))
    return findings


def _lost(books: Books, acknowledged: Mapping[str, Collection[str]]) -> Iterable[str]:
    for intent, ids in acknowledged.items():
        if len(ids) > 1:
            yield f"{intent}: acknowledged as {len(ids)} different requests"
        for request_id in ids:
            row = books.requests.get(request_id)
            if row is None:
                yield f"{request_id}: was acknowledged and is not in the store"
            elif row.idempotency_key != intent:
                yield f"{request_id}: was acknowledged for {intent}, the store says {row.idempotency_key}"
            elif row.state not in FINAL:
                yield f"{request_id}: is still {row.state}"


def _charged_twice(books: Books) -> Iterable[str]:
    charges: defaultdict[str, list[int]] = defaultdict(list)
    for transfer in books.transfers:
        if transfer.credit_account == USAGE or transfer.credit_account.startswith(SPENT):
            charges[transfer.request_id].append(int(transfer.amount_wei))
    for request_id, amounts in charges.items():
        row = books.requests.get(request_id)
        if len(amounts) > 1:
            yield f"{request_id}: {len(amounts)} charges"
        elif row is None:
            yield f"{request_id}: charged, but there is no such request"
        elif not amounts[0] == int(row.charge_wei) <= int(row.hold_wei):
            yield f"{request_id}: charged {amounts[0]} wei, its charge is {row.charge_wei} and its hold {row.hold_wei}"
    intents = Counter((row.account, row.idempotency_key) for row in books.requests.values() if row.idempotency_key)
    for (account, key), count in intents.items():
        if count > 1:
            yield f"{account}, Idempotency-Key {key}: {count} requests"


def _ends(books: Books) -> Iterable[str]:
    of_audits = {row.audit_sequence for row in books.audits}
    recorded = Counter(record.request_id for record in books.records if record.sequence not in of_audits)
    for row in books.requests.values():
        has_record = row.record_sequence >= 0
        if recorded[row.request_id] != int(has_record):
            yield f"{row.request_id}: {recorded[row.request_id]} records, but its record is {row.record_sequence}"
        if row.state == "completed":
            if not has_record or row.request_id not in books.results:
                yield f"{row.request_id}: completed without its record or result"
        elif row.state in FINAL and not row.reason:
            yield f"{row.request_id}: {row.state} without a reason"
        if int(row.charge_wei) and not has_record:
            yield f"{row.request_id}: {row.state} and charged without a record"


def _holds(books: Books) -> Iterable[str]:
    """What was held for a request went back or was charged, to the last wei."""
    held: defaultdict[str, int] = defaultdict(int)
    left: defaultdict[str, int] = defaultdict(int)
    for transfer in books.transfers:
        if transfer.credit_account.startswith("held:"):
            held[transfer.request_id] += int(transfer.amount_wei)
        if transfer.debit_account.startswith("held:"):
            left[transfer.request_id] += int(transfer.amount_wei)
    for row in books.requests.values():
        if held[row.request_id] != int(row.hold_wei):
            yield f"{row.request_id}: {held[row.request_id]} wei were held, its hold is {row.hold_wei}"
        if row.state in FINAL and left[row.request_id] != int(row.hold_wei):
            yield f"{row.request_id}: {left[row.request_id]} of {row.hold_wei} wei held were released or charged"


def _ledger(books: Books) -> Iterable[str]:
    replayed: defaultdict[str, int] = defaultdict(int)
    for transfer in books.transfers:
        replayed[transfer.debit_account] -= int(transfer.amount_wei)
        replayed[transfer.credit_account] += int(transfer.amount_wei)
    if sum(books.balances.values()):
        yield f"the balances sum to {sum(books.balances.values())} wei"
    for account in sorted({*replayed, *books.balances}):
        if replayed[account] != books.balances.get(account, 0):
            yield f"{account}: its transfers give {replayed[account]} wei, its balance is {books.balances.get(account)}"
        if replayed[account] < 0 and not account.startswith("source:"):
            yield f"{account}: overdrawn, {replayed[account]} wei"


def _chain(books: Books) -> Iterable[str]:
    records: list[Record] = []
    for row in books.records:
        try:
            record = decode_record(row.body)
        except Malformed as error:
            yield f"record {row.sequence}: {error.message}"
            return
        if record_hash(record) != row.record_hash:
            yield f"record {row.sequence}: its bytes hash to {record_hash(record)}, the store says {row.record_hash}"
        if isinstance(record, ExecutionRecord):
            owner = books.requests.get(record.request_id)
            if owner is None or owner.record_sequence != record.sequence or row.request_id != record.request_id:
                yield f"record {row.sequence}: no request says that it is its own"
        records.append(record)
    try:
        verify_chain(records, head_hash=books.batches[-1].head_hash if books.batches else GENESIS_HASH)
    except Malformed as error:
        yield error.message


def _audits(books: Books) -> Iterable[str]:
    """Every execution that was drawn has one audit with its verdict, which the chain tells too; nothing else has."""
    executions: dict[str, ExecutionRecord] = {}
    verdicts: dict[int, AuditRecord] = {}
    for row in books.records:
        record = decode_record(row.body)
        if isinstance(record, AuditRecord):
            verdicts[row.sequence] = record
        else:
            executions[row.record_hash] = record
    audited: set[str] = set()
    for audit_row in books.audits:
        if not audit_row.verdict or audit_row.audit_id in books.claims:
            yield f"{audit_row.audit_id}: has no verdict, or its claim is kept"
        if audit_row.prepared_from:
            continue
        told, execution = verdicts.pop(audit_row.audit_sequence, None), executions.get(audit_row.execution_hash)
        if execution is None or execution.request_id != audit_row.request_id or audit_row.execution_hash in audited:
            yield f"{audit_row.audit_id}: is of no execution, of another request's, or not the only one"
        audited.add(audit_row.execution_hash)
        if told is None or (told.execution_hash, told.verdict) != (audit_row.execution_hash, audit_row.verdict):
            yield f"{audit_row.audit_id}: {audit_row.verdict}, but record {audit_row.audit_sequence} says {told}"
        owner, refunded_wei = books.requests.get(audit_row.request_id), int(audit_row.refunded_wei)
        is_refunded = audit_row.verdict == "disagree"
        if is_refunded != (refunded_wei > 0) or (refunded_wei and owner is not None and int(owner.charge_wei)):
            yield f"{audit_row.audit_id}: {audit_row.verdict} gave back {refunded_wei} wei"
    for sequence in verdicts:
        yield f"record {sequence}: no audit says that it is its own"
    for digest, execution in executions.items():
        secret = books.epochs[execution.epoch].secret if execution.epoch in books.epochs else ""
        if not secret:
            continue
        draw = sampling.draw(from_hex(secret, name="secret", length_bytes=32), execution.poe_commitment)
        if sampling.drawn(draw, execution.rate) != (digest in audited):
            yield f"record {execution.sequence}: its draw at {execution.rate} % and its audit do not go together"


def _batches(books: Books) -> Iterable[str]:
    # The contract has an empty batch of its own before ours.
    first_number = books.batches[0].number if books.batches else 0
    if first_number > 1:
        yield f"batch {first_number}: is the first one here"
    head, first = GENESIS_HASH, 0
    hashes = {row.sequence: row.record_hash for row in books.records}
    for number, batch in enumerate(books.batches, start=first_number):
        inside = [hashes.get(sequence, GENESIS_HASH) for sequence in range(batch.first, batch.last + 1)]
        leaves = [from_hex(each, name="record_hash", length_bytes=32) for each in inside]
        if (batch.number, batch.first, batch.previous_hash) != (number, first, head):
            yield f"batch {batch.number}: does not follow from the one before"
        if batch.count != len(inside) or to_hex(merkle.root(leaves)) != batch.merkle_root:
            yield f"batch {batch.number}: its root is not that of its records"
        if not batch.confirmed_at:
            yield f"batch {batch.number}: is not confirmed"
        head, first = batch.head_hash, batch.last + 1
    if first != len(books.records):
        yield f"{len(books.records)} records, but the batches end before record {first}"
