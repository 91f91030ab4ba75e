"""What a requester keeps: a record, the salt that opens its hashes, the way from the record to its batch, and what
became of its audit.

`verify` needs no network: it says which claims hold by arithmetic alone. That the batches are really on-chain is asked
of the chain by the caller, with the batch numbers and roots that this module proved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from parallelix.protocol import canonical, merkle, sampling, signing, work
from parallelix.protocol.canonical import Count
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.errors import BadSignature, Malformed
from parallelix.protocol.records import AuditRecord, Batch, ExecutionRecord, Record, record_hash, record_hash_bytes
from parallelix.protocol.requests import AuditState
from parallelix.protocol.sampling import Epoch


class MerkleProof(msgspec.Struct, frozen=True, kw_only=True):
    index: Count
    count: Count
    siblings: tuple[str, ...]


class RecordedAudit(msgspec.Struct, frozen=True, kw_only=True):
    """The record of an audit; `batch` and `proof` are absent until its batch is confirmed."""

    record: AuditRecord
    record_hash: str
    batch: Batch | None = None
    proof: MerkleProof | None = None


class AuditPart(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a second node looked at the execution, as of the receipt's signature. `records` holds the audit's record
    once there is one, `epoch` what is public of the record's epoch; none where nothing is drawn (rate 0)."""

    state: AuditState
    refunded_wei: str
    records: tuple[RecordedAudit, ...] = ()
    epoch: Epoch | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """`batch` and `proof` are absent until the record's batch is confirmed. `signature` is the coordinator's.

    Version 1, from before there were audits, says nothing of any; version 2 has `audit`.
    """

    version: Literal[1, 2] = 1
    record: ExecutionRecord
    record_hash: str
    request_salt: str
    charge_wei: str
    batch: Batch | None = None
    proof: MerkleProof | None = None
    chain_id: Count
    anchor: str
    """The anchor's contract address, or "local" where the coordinator itself keeps the batches."""
    coordinator: str
    """The address whose key signed this receipt."""
    audit: AuditPart | UnsetType = UNSET
    signature: str = ""

    def __post_init__(self) -> None:
        if (self.version == 1) != (self.audit is UNSET):
            raise ValueError("a receipt of version 2 has `audit`, and one of version 1 has not")


Check: TypeAlias = tuple[str, bool, str]
"""(name, whether it holds, what that means in plain words)."""


def signed_text(receipt: Receipt) -> str:
    """The personal-sign text: a digest over the receipt without its signature."""
    unsigned = msgspec.structs.replace(receipt, signature="")
    digest = canonical.domain_hash("parallelix/receipt/v1", canonical.encode(unsigned))
    return f"parallelix-coordinator:receipt:{receipt.chain_id}:{to_hex(digest)}"


def sign(receipt: Receipt, key: signing.NodeKey) -> Receipt:
    return msgspec.structs.replace(receipt, signature=to_hex(key.sign(signed_text(receipt))))


def verify(
    receipt: Receipt, *, payload: bytes | None = None, result: bytes | None = None, coordinator: str | None = None
) -> list[Check]:
    """Every claim that follows from the receipt itself. With the canonical `payload` and `result`, also that the
    record is about exactly these. A receipt names its own signer, so anyone can sign one: with the address that the
    reader knows as the `coordinator`'s, also that it is this one."""
    checks: list[Check] = [
        ("record", _holds_record(receipt), "the record has the hash that the receipt names"),
        ("coordinator", _holds_signature(receipt), f"signed by the coordinator {receipt.coordinator}"),
    ]
    if coordinator is not None:
        checks.append(
            ("signer", receipt.coordinator.lower() == coordinator.lower(), f"the coordinator you know is {coordinator}")
        )
    if payload is not None:
        holds = _opens(receipt, work.input_hash, payload, receipt.record.input_hash)
        checks.append(("input", holds, "the record is about exactly this prompt and these options"))
    if result is not None:
        holds = _opens(receipt, work.result_hash, result, receipt.record.result_hash)
        checks.append(("result", holds, "the record is about exactly this answer"))
    if receipt.batch is not None or receipt.proof is not None:
        holds = _holds_proof(receipt.record, receipt.batch, receipt.proof)
        checks.append(("batch", holds, "the record is in the batch that the receipt names"))
    if isinstance(receipt.audit, AuditPart):
        checks += _audit_checks(receipt, receipt.audit)
    return checks


def _audit_checks(receipt: Receipt, audit: AuditPart) -> list[Check]:
    checks: list[Check] = [("audit", _holds_audit(receipt, audit), _audit_claim(receipt, audit))]
    anchored = [each for each in audit.records if each.batch is not None or each.proof is not None]
    if anchored:
        holds = all(_holds_proof(each.record, each.batch, each.proof) for each in anchored)
        checks.append(("audit batch", holds, "the audit's record is in the batch that the receipt names for it"))
    if audit.epoch is not None and audit.epoch.secret:
        was = "not drawn" if audit.state == "not_drawn" else "drawn"
        words = (
            f"by the secret of epoch {audit.epoch.epoch}, this record was {was} at a rate of {receipt.record.rate} %"
        )
        checks.append(("draw", _holds_draw(receipt, audit, audit.epoch), words))
    return checks


def _audit_claim(receipt: Receipt, audit: AuditPart) -> str:
    match audit.state:
        case "off":
            return "the record says that nothing is drawn for audits (rate 0)"
        case "not_drawn" | "pending":
            return f"no audit is recorded, and the record's rate is {receipt.record.rate} %"
        case _:
            return f"one audit is recorded, names this very record, and says: {audit.state}"


def _holds_audit(receipt: Receipt, audit: AuditPart) -> bool:
    """Whether state, records and rate agree, and the audit is one of this record."""
    if (audit.state == "off") != (receipt.record.rate == 0):
        return False
    if audit.epoch is not None and audit.epoch.epoch != receipt.record.epoch:
        return False
    if audit.state in ("off", "not_drawn", "pending"):
        return not audit.records and audit.refunded_wei == "0"
    if len(audit.records) != 1 or (audit.state != "disagree" and audit.refunded_wei != "0"):
        return False
    (found,) = audit.records
    return (
        record_hash(found.record) == found.record_hash
        and found.record.execution_hash == receipt.record_hash
        and found.record.sequence > receipt.record.sequence
        and found.record.verdict == audit.state
    )


def _holds_draw(receipt: Receipt, audit: AuditPart, epoch: Epoch) -> bool:
    try:
        secret = from_hex(epoch.secret, name="secret", length_bytes=sampling.SECRET_BYTES)
        draw = sampling.draw(secret, receipt.record.poe_commitment)
    except Malformed:
        return False
    if to_hex(sampling.commitment(secret)) != epoch.commitment:
        return False
    return sampling.drawn(draw, receipt.record.rate) == (audit.state not in ("off", "not_drawn"))


def _holds_record(receipt: Receipt) -> bool:
    return record_hash(receipt.record) == receipt.record_hash


def _holds_signature(receipt: Receipt) -> bool:
    try:
        signature = from_hex(receipt.signature, name="signature", length_bytes=signing.SIGNATURE_BYTES)
        public_key = signing.recover_public_key(signed_text(receipt), signature)
    except (Malformed, BadSignature):
        return False
    return signing.checksum_address(signing.public_key_hash(public_key)[12:]) == receipt.coordinator


def _holds_proof(record: Record, batch: Batch | None, proof: MerkleProof | None) -> bool:
    if batch is None or proof is None or proof.count != batch.count or not _fits(record, batch):
        return False
    if batch.first + proof.index != record.sequence:
        return False
    try:
        siblings = [from_hex(each, name="sibling", length_bytes=32) for each in proof.siblings]
        root = merkle.root_from_proof(
            record_hash_bytes(record), index=proof.index, count=proof.count, siblings=siblings
        )
    except Malformed:
        return False
    return to_hex(root) == batch.merkle_root


def _fits(record: Record, batch: Batch) -> bool:
    """Whether the batch's own numbers agree, and its ends with the record where the record is one of them."""
    return (
        batch.last - batch.first + 1 == batch.count
        and (record.sequence != batch.first or record.previous_hash == batch.previous_hash)
        and (record.sequence != batch.last or record_hash(record) == batch.head_hash)
    )


def _opens(receipt: Receipt, hash_with: Callable[[bytes, bytes], bytes], data: bytes, expected: str) -> bool:
    try:
        salt = from_hex(receipt.request_salt, name="request_salt", length_bytes=32)
    except Malformed:
        return False
    return to_hex(hash_with(salt, data)) == expected
