"""The bare cost of the cryptography that one request needs at the coordinator: the libraries' calls and nothing else.

It is what is left of the coordinator's cost when all else is free. Counted is a request whose runtime answers at once:
one call of the requester, one inbox poll, one result.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import coincurve
from Crypto.Hash import keccak
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from bench.stopwatch import median

KEY_BITS = 3072
PAYLOAD_BYTES = 256
ENVELOPE_BYTES = 192
RESULT_BYTES = 128
ENTRIES_BYTES = 2500
"""Sixteen tokens with five alternatives each."""
SEALED_RESULT_BYTES = 4096
BATCHES = 5

PER_REQUEST: Mapping[str, int] = {
    "secp256k1 recover": 2,  # inbox poll, result
    "keccak-256 of a text": 2,
    "RSA-PSS verify": 1,
    "RSA-OAEP encrypt": 1,
    "AES-GCM, payload": 1,
    "AES-GCM, envelope": 1,
    "AES-GCM, sealed result": 1,
    "AES-GCM, result at rest": 1,
    "AES-GCM, entries at rest": 1,
    "AES key wrap": 2,  # content key with salt, channel secret
    "HKDF": 1,
    "SHA-256, short": 7,  # API key, payload, input, proof, result, commitment, record
    "SHA-256, entries": 1,
}


def measure(repeats: int = 200) -> dict[str, float]:
    """Microseconds of CPU for each operation once, by its name in `PER_REQUEST`: the median of a few batches."""
    operations = _operations()
    return {name: _microseconds(operations[name], repeats) for name in PER_REQUEST}


def cpu_ms_per_request(microseconds: Mapping[str, float]) -> float:
    return sum(count * microseconds[name] for name, count in PER_REQUEST.items()) / 1000


def disk_sync_ms(folder: Path, *, repeats: int = 30) -> float:
    """How long the disk takes to make a page durable. A request waits for two such moments: admitted, recorded."""
    path, page, times = folder / "sync", os.urandom(4096), list[float]()
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for number in range(repeats):
            os.pwrite(file, page, 4096 * number)
            started = time.perf_counter()
            os.fdatasync(file)
            times.append((time.perf_counter() - started) * 1000)
    finally:
        os.close(file)
        path.unlink()
    return median(times)


def _microseconds(operation: Callable[[], object], repeats: int) -> float:
    operation()
    batches: list[float] = []
    for _ in range(BATCHES):
        started = time.thread_time()
        for _ in range(repeats):
            operation()
        batches.append((time.thread_time() - started) / repeats * 1e6)
    return median(batches)


def _operations() -> dict[str, Callable[[], object]]:
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    public_key = private_key.public_key()
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    signed = os.urandom(RESULT_BYTES + 512)
    proof = private_key.sign(signed, pss, hashes.SHA256())
    text, key, nonce, unit = os.urandom(150), os.urandom(32), os.urandom(12), os.urandom(68)
    digest = keccak.new(digest_bits=256, data=text).digest()
    signature = coincurve.PrivateKey().sign_recoverable(digest, hasher=None)  # pyright: ignore[reportUnknownMemberType]
    short, entries = os.urandom(RESULT_BYTES), os.urandom(ENTRIES_BYTES)
    payload, envelope, result = (os.urandom(size) for size in (PAYLOAD_BYTES, ENVELOPE_BYTES, SEALED_RESULT_BYTES))
    sealed = AESGCM(key).encrypt(nonce, result, unit)
    return {
        "secp256k1 recover": lambda: coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None),
        "keccak-256 of a text": lambda: keccak.new(digest_bits=256, data=text).digest(),
        "RSA-PSS verify": lambda: public_key.verify(proof, signed, pss, hashes.SHA256()),
        "RSA-OAEP encrypt": lambda: public_key.encrypt(key, oaep),
        "AES-GCM, payload": lambda: AESGCM(key).encrypt(nonce, payload, unit),
        "AES-GCM, envelope": lambda: AESGCM(key).encrypt(nonce, envelope, unit),
        "AES-GCM, sealed result": lambda: AESGCM(key).decrypt(nonce, sealed, unit),
        "AES-GCM, result at rest": lambda: AESGCM(key).encrypt(nonce, short, unit),
        "AES-GCM, entries at rest": lambda: AESGCM(key).encrypt(nonce, entries, unit),
        "AES key wrap": lambda: aes_key_wrap(key, key + key),
        "HKDF": lambda: HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=unit).derive(key),
        "SHA-256, short": lambda: hashlib.sha256(short).digest(),
        "SHA-256, entries": lambda: hashlib.sha256(entries).digest(),
    }
