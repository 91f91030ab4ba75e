"""The node's three keys, each with one job.

    ~/.parallelix/node.key            secp256k1: signs liveness and results (its hash is registered on-chain)
    ~/.parallelix/keys/envelope.pem   RSA-3072: opens the envelopes of work
    ~/.parallelix/keys/poe.pem        RSA-3072: signs proofs of execution

`node.key` is installed last, so it exists only where the others do. The RSA keys are announced anew at every attach:
losing them to a crash in mid-`init` loses nothing. None of them is a wallet's key, and none ever leaves the machine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from parallelix import private_files
from parallelix.node.errors import KeyExists, KeyRefused
from parallelix.node.home import Home, exclusive, key_trouble
from parallelix.protocol.signing import NodeKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from joserfc.jwk import RSAKey

RSA_BITS = 3072
NODE_KEY_PREFIX = "parallelix-node-key-v1:"
"""So that nobody takes the file for a wallet's key, nor a wallet's key for it."""
STAGING_PREFIX = ".init-"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKeys:
    node: NodeKey
    envelope: RSAKey = field(repr=False)
    poe: RSAPrivateKey = field(repr=False)

    @property
    def envelope_public_pem(self) -> str:
        return self.envelope.as_pem(private=False).decode()

    @property
    def poe_public_pem(self) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.poe.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def node_key_exists(home: Home) -> bool:
    return os.path.lexists(home.node_key)


def load_node_key(home: Home) -> NodeKey:
    """Raises `KeyMissing` or `KeyRefused`."""
    with key_trouble():
        private_files.require_folder(home.root)
        data = private_files.read(home.node_key)
    return _parse_node_key(home.node_key, data)


def load_keys(home: Home) -> NodeKeys:
    """All three. Raises `KeyMissing` or `KeyRefused` when one is missing, damaged, loose, foreign or a link."""
    from joserfc.jwk import RSAKey

    node = load_node_key(home)
    with key_trouble():
        private_files.require_folder(home.keys_folder)
        envelope = private_files.read(home.envelope_key)
        poe = private_files.read(home.poe_key)
    _parse_rsa(home.envelope_key, envelope)
    return NodeKeys(node=node, envelope=RSAKey.import_key(envelope), poe=_parse_rsa(home.poe_key, poe))


def create_keys(
    home: Home, *, replace: bool, config: bytes | None, progress: Callable[[str], None] = lambda _step: None
) -> NodeKey:
    """Generates and installs the three keys, and `config.toml` before the last of them, all or nothing.

    Raises `KeyExists` unless `replace`, and `Busy` while a daemon or another `init` uses the folder. `progress` is
    told of each step before it begins.
    """
    _make_folder(home.root)
    with exclusive(home, purpose="init"):
        if node_key_exists(home) and not replace:
            raise KeyExists(existing_key_message(home))
        _remove_staging(home)
        _make_folder(home.keys_folder)
        staging = home.root / f"{STAGING_PREFIX}{os.getpid()}"
        _make_folder(staging)
        try:
            return _stage_and_install(home, staging, config, progress)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _make_folder(path: Path) -> None:
    try:
        private_files.make_folder(path)
    except private_files.PrivateFileRefused as error:
        raise KeyRefused(str(error)) from error


def existing_key_message(home: Home) -> str:
    return (
        f"{home.node_key}: a node key is there already and was left alone; "
        "`init --force` replaces it and orphans the node that is registered with it"
    )


def _stage_and_install(home: Home, staging: Path, config: bytes | None, progress: Callable[[str], None]) -> NodeKey:
    progress("envelope key (RSA-3072)")
    private_files.create(staging / home.envelope_key.name, _new_rsa_pem())
    progress("proof key (RSA-3072)")
    private_files.create(staging / home.poe_key.name, _new_rsa_pem())
    progress("node key (secp256k1)")
    node = NodeKey.generate()
    private_files.create(staging / home.node_key.name, f"{NODE_KEY_PREFIX}{node.secret.hex()}\n".encode())
    private_files.sync_folder(staging)
    for path in (home.envelope_key, home.poe_key):
        (staging / path.name).replace(path)
    private_files.sync_folder(home.keys_folder)
    # What is known of the old key's node says nothing about the new one's.
    home.state.unlink(missing_ok=True)
    if config is not None:
        private_files.replace(home.config, config)
    (staging / home.node_key.name).replace(home.node_key)
    private_files.sync_folder(home.root)
    return node


def _remove_staging(home: Home) -> None:
    """Clears what an `init` that was killed left behind; the lock says that none is at work now."""
    for leftover in home.root.glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _new_rsa_pem() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _parse_node_key(path: Path, data: bytes) -> NodeKey:
    text = data.decode("ascii", errors="replace").strip()
    digits = text.removeprefix(NODE_KEY_PREFIX)
    damaged = KeyRefused(f"{path}: damaged or not a node key; restore your copy, or `init --force` for a new node")
    if digits == text or len(digits) != 64:
        raise damaged
    try:
        return NodeKey(bytes.fromhex(digits))
    # The cause holds part of the secret, so it must not travel along.
    except ValueError:
        raise damaged from None


def _parse_rsa(path: Path, data: bytes) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey) or key.key_size != RSA_BITS:
        raise KeyRefused(
            f"{path}: not an RSA key of {RSA_BITS} bits in PEM; restore your copy, or `init --force` for a new node"
        )
    return key
