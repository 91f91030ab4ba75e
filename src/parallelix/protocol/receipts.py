"""What a requester keeps: a record, the salt that opens its hashes, and the way from the record to its batch.

`verify` needs no network: it says which claims hold by arithmetic alone. That the batch is really on-chain is asked of
the chain by the caller, with the batch number and root that this module proved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from parallelix.protocol import canonical, merkle, signing, work
from parallelix.protocol.canonical import Count
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.errors import BadSignature, Malformed
from parallelix.protocol.records import Batch, ExecutionRecord, record_hash, record_hash_bytes


class MerkleProof(msgspec.Struct, frozen=True, kw_only=True):
    index: Count
    count: Count
    siblings: tuple[str, ...]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """`batch` and `proof` are absent until the record's batch is confirmed. `signature` is the coordinator's."""

    version: Literal[1] = 1
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
    signature: str = ""


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
        checks.append(("batch", _holds_proof(receipt), "the record is in the batch that the receipt names"))
    return checks


def _holds_record(receipt: Receipt) -> bool:
    return record_hash(receipt.record) == receipt.record_hash


def _holds_signature(receipt: Receipt) -> bool:
    try:
        signature = from_hex(receipt.signature, name="signature", length_bytes=signing.SIGNATURE_BYTES)
        public_key = signing.recover_public_key(signed_text(receipt), signature)
    except (Malformed, BadSignature):
        return False
    return signing.checksum_address(signing.public_key_hash(public_key)[12:]) == receipt.coordinator


def _holds_proof(receipt: Receipt) -> bool:
    batch, proof = receipt.batch, receipt.proof
    if batch is None or proof is None or proof.count != batch.count or not _fits(receipt.record, batch):
        return False
    if batch.first + proof.index != receipt.record.sequence:
        return False
    try:
        siblings = [from_hex(each, name="sibling", length_bytes=32) for each in proof.siblings]
        root = merkle.root_from_proof(
            record_hash_bytes(receipt.record), index=proof.index, count=proof.count, siblings=siblings
        )
    except Malformed:
        return False
    return to_hex(root) == batch.merkle_root


def _fits(record: ExecutionRecord, batch: Batch) -> bool:
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
