"""The coordinator's own secrets, in files of mode 0600 outside the database: the key that wraps what is stored, the key
that signs receipts, and the one that every epoch's sampling secret is made of.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from parallelix import private_files
from parallelix.protocol.envelope import KEY_BYTES
from parallelix.protocol.signing import NodeKey


class SecretRefused(Exception):
    """A secret file is missing, loose or damaged; the message says what to do."""


class CoordinatorSecrets:
    def __init__(self, storage_key: bytes, signer: NodeKey, sampling_key: bytes) -> None:
        assert len(storage_key) == len(sampling_key) == KEY_BYTES, (len(storage_key), len(sampling_key))
        self.storage_key = storage_key
        self.signer = signer
        self.sampling_key = sampling_key
        self.fingerprint_key = _derived(storage_key, b"parallelix/idempotency/v1")
        self.nonce_key = _derived(storage_key, b"parallelix/sign-in/v1")

    def __repr__(self) -> str:
        return f"CoordinatorSecrets({self.signer.address})"


def load_or_create(folder: Path) -> CoordinatorSecrets:
    """The secrets in `folder`, made on first use. Raises `SecretRefused` when a file is loose or damaged."""
    folder.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
    return CoordinatorSecrets(
        storage_key=_load_or_create(folder / "storage.key"),
        signer=NodeKey(_load_or_create(folder / "coordinator.key")),
        sampling_key=_load_or_create(folder / "sampling.key"),
    )


def _derived(storage_key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(storage_key)


def _load_or_create(path: Path) -> bytes:
    """Thirty-two random bytes as hex. A file that exists is never replaced: what it sealed would be lost with it."""
    with suppress(FileExistsError):
        private_files.create(path, f"{secrets.token_hex(KEY_BYTES)}\n".encode())
    try:
        secret = bytes.fromhex(private_files.read(path).decode().strip())
    except private_files.PrivateFileRefused as error:
        raise SecretRefused(str(error)) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise SecretRefused(f"{path}: is not {KEY_BYTES} bytes in hex; restore it from a backup") from error
    if len(secret) != KEY_BYTES:
        raise SecretRefused(f"{path}: {len(secret)} bytes, expected {KEY_BYTES}; restore it from a backup")
    return secret
