"""A requester's wallet: who signs, and what it signs to sign in to a coordinator (EIP-4361)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from parallelix import private_files
from parallelix.client.errors import ConfigRefused, KeyRefused
from parallelix.protocol.accounts import NonceView
from parallelix.protocol.sign_in import STATEMENT, SignIn, origin_of
from parallelix.protocol.signing import SECRET_BYTES, NodeKey


class Wallet(Protocol):
    """An Ethereum account that signs personal messages (EIP-191)."""

    @property
    def address(self) -> str:
        """In EIP-55 mixed case."""
        ...

    def sign(self, text: str) -> bytes:
        """65 bytes r, s, v."""
        ...


def read_wallet(path: Path) -> Wallet:
    """The account whose private key is in the file: 0x-hex, mode 0600. Raises `KeyRefused`."""
    try:
        digits = private_files.read(path).decode("ascii", "replace").strip().removeprefix("0x")
    except FileNotFoundError as error:
        raise KeyRefused(f"{path}: there is no such file; put the wallet's key there as 0x-hex, mode 0600") from error
    except private_files.PrivateFileRefused as error:
        raise KeyRefused(str(error)) from error
    if len(digits) != 2 * SECRET_BYTES:
        raise KeyRefused(f"{path}: {len(digits)} characters, expected 0x and {2 * SECRET_BYTES} hex digits: a key")
    try:
        return NodeKey(bytes.fromhex(digits))
    except ValueError:
        # Without the cause: its message may hold the key.
        raise KeyRefused(f"{path}: not a private key of Ethereum's curve in hex") from None


def message_of(nonce: NonceView, *, address: str, base_url: str) -> SignIn:
    """What to sign for the coordinator at `base_url`. Raises `ConfigRefused` where it asks to sign in elsewhere: who
    signed that would be signed in there, by whoever runs this one."""
    ours = origin_of(base_url)
    if origin_of(nonce.uri) != ours or not ours.endswith(f"://{nonce.domain.lower()}"):
        raise ConfigRefused(
            f"url {base_url}: this coordinator takes sign-ins for {nonce.uri[:120]}; if that is where it is, give that "
            "as the URL"
        )
    return SignIn(
        domain=nonce.domain,
        address=address,
        statement=STATEMENT,
        uri=base_url,
        version=nonce.version,
        chain_id=nonce.chain_id,
        nonce=nonce.nonce,
        issued_at=nonce.issued_at,
        expiration_time=nonce.expiration_time,
    )
