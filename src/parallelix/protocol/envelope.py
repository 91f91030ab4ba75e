"""Sealed work: the payload once, its key to each recipient, and a channel back for each attempt.

    payload   A256GCM under a content key K, associated data = domain ‖ unit id. Encrypted once, whoever runs it.
    envelope  a compact JWE (RFC 7516; RSA-OAEP-256, A256GCM) to one node for one attempt. Its protected header names
              attempt, unit, node, key and payload digest; its plaintext is K, the request's salt and a fresh secret S.
    channel   HKDF-SHA256(S) with a label gives one key each for the acknowledgement, the deltas and the result.
              Nonce = connection number (4 bytes) ‖ counter (8 bytes), associated data = attempt id.

So an envelope cannot be moved to another unit or node, handing work to a second node never encrypts the payload again,
and the coordinator does no RSA private operation. At rest K and S are wrapped (A256KW) by a storage key.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from parallelix.protocol import canonical
from parallelix.protocol.encoding import from_base64url, to_base64url, to_hex
from parallelix.protocol.errors import BadEnvelope, Malformed
from parallelix.protocol.messages import RESULT_BYTES_MAX

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
RSA_KEY_BITS = 3072
RSA_EXPONENT = 65537
"""What every tool makes. An exponent as long as the modulus would make each of our encryptions forty times dearer."""
ENVELOPE_CHARACTERS_MAX = 4096
"""Header, key and secrets of one attempt are near 1,500 characters under a 3,072-bit key, 2,000 under 6,144 bits."""
SEALED_RESULT_CHARACTERS_MAX = 2 * RESULT_BYTES_MAX
"""The longest result, in base64url with room to spare."""
_PEM_CHARACTERS_MAX = 4096

_ALGORITHMS = ["RSA-OAEP-256", "A256GCM"]
_PAYLOAD_DOMAIN = b"parallelix/payload/v1:"
_PUBLIC_PEM = re.compile(r"\s*-----BEGIN (?:RSA )?PUBLIC KEY-----\s")
# The header parameters are ours, so the library must not insist on the registered ones; the algorithms stay fixed.
_REGISTRY = jwe.JWERegistry(algorithms=_ALGORITHMS, strict_check_header=False)
# The library's own bound, 64 KiB, is smaller than a long answer or a page of embeddings.
_RESULT_REGISTRY = jwe.JWERegistry(algorithms=_ALGORITHMS, strict_check_header=False)
_RESULT_REGISTRY.max_ciphertext_length = SEALED_RESULT_CHARACTERS_MAX

T = TypeVar("T")

ChannelLabel: TypeAlias = Literal["acknowledgement", "delta", "result"]


class EnvelopeHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The protected header: authenticated, readable by anyone who carries the envelope. It is canonical JSON with
    exactly these parameters, so `zip`, `crit`, a second `alg` and the like have no place in it."""

    alg: Literal["RSA-OAEP-256"] = "RSA-OAEP-256"
    enc: Literal["A256GCM"] = "A256GCM"
    typ: Literal["parallelix-work+jwe"] = "parallelix-work+jwe"
    kid: str
    attempt: str
    unit: str
    node: str
    payload_sha256: str


class _ResultHeader(msgspec.Struct, frozen=True, kw_only=True):
    alg: Literal["RSA-OAEP-256"] = "RSA-OAEP-256"
    enc: Literal["A256GCM"] = "A256GCM"
    typ: Literal["parallelix-result+jwe"] = "parallelix-result+jwe"
    unit: str


class _Hidden(msgspec.Struct, frozen=True, kw_only=True):
    """Shows no field, neither in a log nor in the locals of a traceback that rich prints."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class _EnvelopeSecrets(_Hidden, frozen=True, kw_only=True):
    content_key: str
    request_salt: str
    channel_secret: str


class Secrets(_Hidden, frozen=True, kw_only=True):
    """What an envelope carries to its node."""

    content_key: bytes
    request_salt: bytes
    channel_secret: bytes


def payload_digest(sealed_payload: bytes) -> str:
    return to_hex(hashlib.sha256(sealed_payload).digest())


def seal_payload(plaintext: bytes, *, unit_id: str, content_key: bytes, nonce: bytes) -> bytes:
    """nonce ‖ ciphertext ‖ tag. The key is fresh for every unit."""
    assert len(content_key) == KEY_BYTES and len(nonce) == NONCE_BYTES
    return nonce + AESGCM(content_key).encrypt(nonce, plaintext, _PAYLOAD_DOMAIN + unit_id.encode())


def open_payload(sealed: bytes, *, unit_id: str, content_key: bytes) -> bytes:
    """Raises `BadEnvelope` when altered, cut, or sealed for another unit."""
    return _open(content_key, sealed, _PAYLOAD_DOMAIN + unit_id.encode(), "payload")


def seal_envelope(secrets: Secrets, *, header: EnvelopeHeader, recipient: RSAKey) -> str:
    """The compact JWE that hands `secrets` to the holder of `recipient` for one attempt."""
    plaintext = canonical.encode(
        _EnvelopeSecrets(
            content_key=to_base64url(secrets.content_key),
            request_salt=to_base64url(secrets.request_salt),
            channel_secret=to_base64url(secrets.channel_secret),
        )
    )
    return jwe.encrypt_compact(msgspec.to_builtins(header, order="sorted"), plaintext, recipient, registry=_REGISTRY)


def open_envelope(envelope: str, *, private_key: RSAKey) -> tuple[EnvelopeHeader, Secrets]:
    """Raises `BadEnvelope` when it is not for this key or was altered. The caller compares the header with the work
    that came along: see `require_header`."""
    try:
        header = _protected(envelope, EnvelopeHeader, characters_max=ENVELOPE_CHARACTERS_MAX)
        opened = jwe.decrypt_compact(envelope, private_key, registry=_REGISTRY)
        secrets = canonical.decode(opened.plaintext or b"", _EnvelopeSecrets)
        return header, Secrets(
            content_key=_key(secrets.content_key, "content_key"),
            request_salt=_key(secrets.request_salt, "request_salt"),
            channel_secret=_key(secrets.channel_secret, "channel_secret"),
        )
    # joserfc lets a few of its parser's own exceptions through for hostile input.
    except (JoseError, Malformed, ValueError, KeyError, TypeError) as error:
        raise BadEnvelope("envelope: not sealed to this key, or altered on the way") from error


def require_header(
    header: EnvelopeHeader, *, attempt_id: str, unit_id: str, node_id: int, sealed_payload: bytes
) -> None:
    """Raises `BadEnvelope` unless the envelope was made for exactly this attempt, unit, node and payload."""
    expected = (attempt_id, unit_id, str(node_id), payload_digest(sealed_payload))
    if (header.attempt, header.unit, header.node, header.payload_sha256) != expected:
        raise BadEnvelope("envelope: made for another attempt, unit, node or payload than the one it came with")


def load_rsa_public_key(pem: str) -> RSAKey:
    """Raises `Malformed` unless it is an RSA public key in PEM of 3072 to 6144 bits with the exponent 65537."""
    if "PRIVATE KEY" in pem:
        raise Malformed("RSA key: this is a private key; send the public one")
    if len(pem) > _PEM_CHARACTERS_MAX or _PUBLIC_PEM.match(pem) is None:
        raise Malformed(f"RSA key: not a public key in PEM of at most {_PEM_CHARACTERS_MAX} characters")
    try:
        key = RSAKey.import_key(pem)
    except (JoseError, ValueError, TypeError) as error:
        raise Malformed("RSA key: not a public key in PEM") from error
    public_key = key.raw_value
    assert isinstance(public_key, RSAPublicKey)
    bits, numbers = public_key.key_size, public_key.public_numbers()
    if not RSA_KEY_BITS <= bits <= 2 * RSA_KEY_BITS:
        raise Malformed(f"RSA key: {bits} bits, expected {RSA_KEY_BITS} to {2 * RSA_KEY_BITS}")
    if numbers.e != RSA_EXPONENT:
        raise Malformed(f"RSA key: an exponent of {numbers.e.bit_length()} bits, expected {RSA_EXPONENT}")
    if numbers.n % 2 == 0:
        raise Malformed("RSA key: an even modulus, which no two primes have")
    return key


class Sealer:
    """One direction of a channel: every message gets the next counter, so no nonce is ever used twice.

    A sender that reconnects makes a new Sealer with a higher connection number.
    """

    def __init__(self, channel_secret: bytes, *, label: ChannelLabel, attempt_id: str, connection: int = 0) -> None:
        assert 0 <= connection < 2**32, connection
        self._cipher = AESGCM(channel_key(channel_secret, label))
        self._associated = attempt_id.encode()
        self._prefix = connection.to_bytes(4, "big")
        self._counter = 0

    def seal(self, plaintext: bytes) -> bytes:
        nonce = self._prefix + self._counter.to_bytes(8, "big")
        self._counter += 1
        return nonce + self._cipher.encrypt(nonce, plaintext, self._associated)


class Opener:
    """The receiving end. Messages of one connection must come complete and in order."""

    def __init__(self, channel_secret: bytes, *, label: ChannelLabel, attempt_id: str, connection: int = 0) -> None:
        self._cipher = AESGCM(channel_key(channel_secret, label))
        self._associated = attempt_id.encode()
        self._prefix = connection.to_bytes(4, "big")
        self._counter = 0

    def open(self, sealed: bytes) -> bytes:
        """Raises `BadEnvelope` when altered, replayed, out of order or for another attempt."""
        nonce = self._prefix + self._counter.to_bytes(8, "big")
        if sealed[:NONCE_BYTES] != nonce:
            raise BadEnvelope("channel: message out of order, replayed, or from another connection")
        try:
            plaintext = self._cipher.decrypt(nonce, sealed[NONCE_BYTES:], self._associated)
        except (InvalidTag, ValueError) as error:
            raise BadEnvelope("channel: altered, or sealed for another attempt") from error
        self._counter += 1
        return plaintext


def channel_key(channel_secret: bytes, label: ChannelLabel) -> bytes:
    info = b"parallelix/channel/v1:" + label.encode()
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(channel_secret)


def wrap_at_rest(storage_key: bytes, secret: bytes) -> bytes:
    """A256KW (RFC 3394) over a multiple of eight bytes."""
    return aes_key_wrap(storage_key, secret)


def unwrap_at_rest(storage_key: bytes, wrapped: bytes) -> bytes:
    """Raises `BadEnvelope` under another storage key or when altered."""
    try:
        return aes_key_unwrap(storage_key, wrapped)
    except (InvalidUnwrap, ValueError) as error:
        raise BadEnvelope("stored key: wrapped by another storage key, or altered") from error


def seal_at_rest(key: bytes, plaintext: bytes, *, purpose: str, nonce: bytes) -> bytes:
    """nonce ‖ ciphertext ‖ tag, bound to a purpose such as `result:req_…`."""
    return nonce + AESGCM(key).encrypt(nonce, plaintext, purpose.encode())


def open_at_rest(key: bytes, sealed: bytes, *, purpose: str) -> bytes:
    return _open(key, sealed, purpose.encode(), "stored data")


def seal_to_requester(plaintext: bytes, recipient: RSAKey, *, unit_id: str) -> str:
    """A result for the requester's eyes only: a compact JWE to the public key that came with the request."""
    header = msgspec.to_builtins(_ResultHeader(unit=unit_id), order="sorted")
    return jwe.encrypt_compact(header, plaintext, recipient, registry=_RESULT_REGISTRY)


def open_as_requester(sealed: str, private_key: RSAKey, *, unit_id: str) -> bytes:
    """Raises `BadEnvelope` unless it was sealed to this key for this unit."""
    try:
        header = _protected(sealed, _ResultHeader, characters_max=SEALED_RESULT_CHARACTERS_MAX)
        opened = jwe.decrypt_compact(sealed, private_key, registry=_RESULT_REGISTRY)
    except (JoseError, Malformed, ValueError, KeyError, TypeError) as error:
        raise BadEnvelope("result: not sealed to this key, or altered on the way") from error
    if header.unit != unit_id:
        raise BadEnvelope("result: sealed for another request")
    return opened.plaintext or b""


def _protected(envelope: str, kind: type[T], *, characters_max: int) -> T:
    """The protected header of a compact JWE in its one form, before any key is touched. Raises `Malformed`."""
    if len(envelope) > characters_max:
        raise Malformed(f"envelope: {len(envelope)} characters, at most {characters_max}")
    segments = envelope.split(".", 5)
    if len(segments) != 5:
        raise Malformed("envelope: not a compact JWE of five parts")
    header, _, nonce, _, tag = (from_base64url(each, name="envelope") for each in segments)
    if len(nonce) != NONCE_BYTES or len(tag) != TAG_BYTES:
        raise Malformed(f"envelope: a nonce of {len(nonce)} or a tag of {len(tag)} bytes")
    return canonical.decode(header, kind)


def _key(text: str, name: str) -> bytes:
    data = from_base64url(text, name=name)
    if len(data) != KEY_BYTES:
        raise Malformed(f"{name}: {len(data)} bytes, expected {KEY_BYTES}")
    return data


def _open(key: bytes, sealed: bytes, associated: bytes, what: str) -> bytes:
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise BadEnvelope(f"{what}: {len(sealed)} bytes are too few to be sealed data")
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
    except InvalidTag as error:
        raise BadEnvelope(f"{what}: altered, or sealed for something else") from error
