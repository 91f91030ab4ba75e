"""The node's secp256k1 key and the texts it signs.

Texts are signed as Ethereum personal messages (EIP-191, version 0x45). Each names its purpose, so a signature made for
one call means nothing to another. A signature is 65 bytes: r, s, v. Only one of the many encodings that recover to the
same key is accepted: s in the lower half of the order, v 27 or 28. Signature bytes never identify a message.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import coincurve
from Crypto.Hash import keccak

from parallelix.protocol.errors import BadSignature

SECRET_BYTES = 32
SIGNATURE_BYTES = 65
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
HALF_ORDER = CURVE_ORDER // 2

TimedPurpose: TypeAlias = Literal["heartbeat", "inbox", "ack", "stream", "uptime"]


def keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


def attach_text(chain_id: int, node_id: int, manifest_sha256: str) -> str:
    """Signed once per session. `manifest_sha256` is the 0x-hex digest of the manifest's bytes."""
    return f"parallelix-node:attach:{chain_id}:{node_id}:{manifest_sha256}"


def timed_text(
    purpose: TimedPurpose, chain_id: int, node_id: int, session: str, unix_ms: int, attempt_id: str | None = None
) -> str:
    """Signed for every call inside a session; `ack` and `stream` name their attempt as well, because several are under
    way at once. Times of one purpose (and attempt) only go up."""
    text = f"parallelix-node:{purpose}:{chain_id}:{node_id}:{session}:{unix_ms}"
    return text if attempt_id is None else f"{text}:{attempt_id}"


def result_text(unit_id: str) -> str:
    return f"parallelix-node:result:{unit_id}"


def receipt_text(chain_id: int, node_id: int, session: str, unix_ms: int) -> str:
    """What the coordinator countersigns for a heartbeat; the operator keeps it as proof of uptime."""
    return f"parallelix-coordinator:uptime:{chain_id}:{node_id}:{session}:{unix_ms}"


def personal_hash(text: str) -> bytes:
    """keccak-256 of the EIP-191 personal message."""
    body = text.encode()
    return keccak256(b"\x19Ethereum Signed Message:\n" + str(len(body)).encode() + body)


def public_key_hash(public_key: bytes) -> bytes:
    """keccak-256 of the 64-byte uncompressed public key: what `registerNode` takes as nodeKeyHash."""
    assert len(public_key) == 64, len(public_key)
    return keccak256(public_key)


def checksum_address(address: bytes) -> str:
    """The 20-byte address in EIP-55 mixed case."""
    digits = address.hex()
    mask = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) >= 8 else digit for digit, nibble in zip(digits, mask, strict=False)
    )


class NodeKey:
    """A secp256k1 private key. Prints as its address, never as the secret."""

    def __init__(self, secret: bytes) -> None:
        """Raises `ValueError` unless `secret` is 32 bytes, above 0 and below the curve order."""
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"node key: {len(secret)} bytes, expected {SECRET_BYTES}")
        self._key = coincurve.PrivateKey(secret)
        self.public_key = self._key.public_key.format(compressed=False)[1:]
        self.key_hash = public_key_hash(self.public_key)
        self.address = checksum_address(self.key_hash[12:])

    def __repr__(self) -> str:
        return f"NodeKey({self.address})"

    @classmethod
    def generate(cls) -> NodeKey:
        return cls(coincurve.PrivateKey().secret)

    @property
    def secret(self) -> bytes:
        return self._key.secret

    def sign(self, text: str) -> bytes:
        """65 bytes r ‖ s ‖ v, s in the lower half, v 27 or 28 (RFC 6979 nonce)."""
        signature = self._key.sign_recoverable(personal_hash(text), hasher=None)  # pyright: ignore[reportUnknownMemberType]
        return signature[:64] + bytes([signature[64] + 27])


def recover_public_key(text: str, signature: bytes) -> bytes:
    """The 64-byte public key that signed `text`. Raises `BadSignature` for every encoding but the one we sign in."""
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature(f"signature: {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    if signature[64] not in (27, 28):
        raise BadSignature(f"signature: v is {signature[64]}, expected 27 or 28")
    if int.from_bytes(signature[32:64], "big") > HALF_ORDER:
        raise BadSignature("signature: s lies in the upper half of the curve order; sign again with low s")
    try:
        public_key = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), personal_hash(text), hasher=None
        )
    except ValueError as error:
        raise BadSignature("signature: no public key recovers from it") from error
    return public_key.format(compressed=False)[1:]


def require_signer(text: str, signature: bytes, public_key: bytes) -> None:
    """Raises `BadSignature` unless `public_key` (64 bytes) signed `text`."""
    if recover_public_key(text, signature) != public_key:
        raise BadSignature("signature: not made by the key registered for this node, or over another text")
