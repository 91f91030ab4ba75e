"""The chain of records: an `ExecutionRecord` for each verified execution and an `AuditRecord` for each that was drawn,
each naming the hash of the one before.

Nothing in the chain is ever edited. A record says nothing that identifies a node, a prompt or an answer: hashes of
those are salted, and the proof of execution appears only as its commitment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from parallelix.protocol import canonical
from parallelix.protocol.canonical import Count
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.errors import Malformed
from parallelix.protocol.work import Usage

GENESIS_HASH = "0x" + "00" * 32
"""The `previous_hash` of the first record."""


class ExecutionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Hashes are 0x-hex, times Unix milliseconds. `rate` is the sampling rate in percent; with audits off it is 0."""

    version: Literal[1] = 1
    kind: Literal["execution"] = "execution"
    sequence: Count
    previous_hash: str
    request_id: str
    workload_class: str
    model_digest: str
    input_hash: str
    result_hash: str
    poe_commitment: str
    usage: Usage
    epoch: Count
    rate: Count
    started_at: Count
    finished_at: Count


Verdict: TypeAlias = Literal["agree", "disagree", "inconclusive", "unaudited"]


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an execution that was drawn. `execution_hash` is its record's, `reason` a stable code."""

    version: Literal[1] = 1
    kind: Literal["audit"] = "audit"
    sequence: Count
    previous_hash: str
    execution_hash: str
    verdict: Verdict
    reason: Annotated[str, Meta(max_length=64)]
    finished_at: Count


Record: TypeAlias = ExecutionRecord | AuditRecord
"""Both kinds stand in one chain. `decode_record` tells them apart."""


class BrokenChain(Malformed):
    """A record that does not follow from the one before it: something was edited, dropped, added or reordered."""

    code = "broken_chain"

    def __init__(self, sequence: int, reason: str) -> None:
        super().__init__(f"record {sequence}: {reason}")
        self.sequence = sequence


class _Kind(msgspec.Struct, frozen=True):
    kind: str = ""


def decode_record(data: bytes) -> Record:
    """The record whose canonical bytes these are. Raises `Malformed`."""
    kind = canonical.decode_json(data, _Kind).kind
    if kind == "audit":
        return canonical.decode(data, AuditRecord)
    return canonical.decode(data, ExecutionRecord)


def record_hash(record: Record) -> str:
    return to_hex(hashlib.sha256(canonical.encode(record)).digest())


def record_hash_bytes(record: Record) -> bytes:
    return hashlib.sha256(canonical.encode(record)).digest()


def verify_chain(
    records: Iterable[Record],
    *,
    previous_hash: str = GENESIS_HASH,
    first_sequence: int = 0,
    head_hash: str | None = None,
) -> str:
    """Walks the records in order and gives the last one's hash. Raises `BrokenChain` at the first that does not fit.

    The records alone cannot show that the last one was edited or that some are missing at the end: give the head that
    the chain must have, such as a batch's, as `head_hash`.
    """
    head, expected = previous_hash, first_sequence
    for record in records:
        if record.sequence != expected:
            raise BrokenChain(record.sequence, f"out of order: expected sequence {expected}")
        if record.previous_hash != head:
            raise BrokenChain(
                record.sequence, f"previous_hash is {record.previous_hash}, but the chain stands at {head}"
            )
        head, expected = record_hash(record), expected + 1
    if head_hash is not None and head != head_hash:
        raise BrokenChain(expected, f"the chain ends here at {head}, but its head must be {head_hash}")
    return head


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A run of records committed together. `previous_hash` is the head before it, `head_hash` the hash of its last."""

    number: Count
    previous_hash: str
    head_hash: str
    first: Count
    last: Count
    count: Count
    merkle_root: str


class RecordPage(msgspec.Struct, frozen=True, kw_only=True):
    """Records in the order of the chain; empty behind its end."""

    data: tuple[msgspec.Raw, ...]
    """Each one canonical JSON; `decode_record` reads it."""
