"""poe.v1, the proof of execution: a node's commitment to a result, and its two signatures.

    poe             SHA-256(unit id, 32 bytes ‖ result ‖ node id, 32 bytes)
    signature       personal-sign of `parallelix-node:result:<unit id>` by the node key
    poe_signature   RSA-PSS by the node's proof key over a tag, result ‖ poe, and the attempt's facts
    poe_commitment  SHA-256(domain ‖ poe ‖ the node's salt): all that the public sees

It binds one node to one result for one unit. It does not prove that the computation was honest: audits do that.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from parallelix.protocol import canonical
from parallelix.protocol.errors import BadSignature
from parallelix.protocol.ids import node_bytes, unit_bytes
from parallelix.protocol.work import Usage

SCHEME = "poe.v1"
SALT_BYTES = 32

_TAG = b"parallelix/poe.v1\x00"
_COMMITMENT_DOMAIN = "parallelix/poe-commitment/v1"
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)


class AttemptFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the node says of the attempt besides the result. Hashes are 0x-hex."""

    scheme: Literal["poe.v1"] = "poe.v1"
    chain_id: canonical.Count
    attempt_id: str
    attempt_number: canonical.Count
    outcome: Literal["completed", "cancelled"]
    input_hash: str
    model_digest: str
    usage: Usage
    entries_root: str
    salt_hash: str
    """SHA-256 of the salt of the node's commitment, so that the salt is fixed before anyone draws from it."""


def proof_of_execution(unit_id: str, result: bytes, node_id: int) -> bytes:
    return hashlib.sha256(unit_bytes(unit_id) + result + node_bytes(node_id)).digest()


def commitment(poe: bytes, salt: bytes) -> bytes:
    return canonical.domain_hash(_COMMITMENT_DOMAIN, poe, salt)


def salt_hash(salt: bytes) -> bytes:
    return hashlib.sha256(salt).digest()


def signed_bytes(result: bytes, poe: bytes, facts: AttemptFacts) -> bytes:
    """What the RSA signature covers; the length keeps result, proof and facts apart."""
    assert len(poe) == 32, len(poe)
    return _TAG + len(result).to_bytes(8, "big") + result + poe + canonical.encode(facts)


def sign(private_key: RSAPrivateKey, result: bytes, poe: bytes, facts: AttemptFacts) -> bytes:
    return private_key.sign(signed_bytes(result, poe, facts), _PSS, hashes.SHA256())


def require_signature(
    public_key: RSAPublicKey, signature: bytes, result: bytes, poe: bytes, facts: AttemptFacts
) -> None:
    """Raises `BadSignature` unless the node's proof key signed this result with these facts."""
    try:
        public_key.verify(signature, signed_bytes(result, poe, facts), _PSS, hashes.SHA256())
    except InvalidSignature as error:
        raise BadSignature(
            "poe_signature: not made by the node's proof key over this result and these facts"
        ) from error
