"""Bytes as text: hashes as 0x-hex, other bytes as unpadded base64url (RFC 4648, section 5)."""

from __future__ import annotations

import base64
import binascii
import re

from msgspec import Meta

from parallelix.protocol.errors import Malformed

_HEX = re.compile(r"0x[0-9a-f]*")
_HASH = re.compile(r"0x[0-9a-f]{64}")


def whole(pattern: str) -> Meta:
    """A message field that matches from its first character to its last; a bare `$` lets a final newline pass."""
    return Meta(pattern=rf"^({pattern})$(?!\n)")


def to_hex(data: bytes) -> str:
    return "0x" + data.hex()


def from_hex(text: str, *, name: str, length_bytes: int) -> bytes:
    """Raises `Malformed` unless `text` is 0x and exactly `length_bytes` bytes in lower-case hex."""
    if len(text) != 2 + 2 * length_bytes or _HEX.fullmatch(text) is None:
        raise Malformed(f"{name}: expected 0x and {2 * length_bytes} lower-case hex digits, got {len(text)} characters")
    return bytes.fromhex(text[2:])


def is_hash(text: str) -> bool:
    """Whether `text` is 0x and 64 lower-case hex digits."""
    return _HASH.fullmatch(text) is not None


def to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str, *, name: str) -> bytes:
    """Raises `Malformed` for padding, white space, the other alphabet or stray bits."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{name}: not unpadded base64url") from error
    if to_base64url(data) != text:
        raise Malformed(f"{name}: not the one base64url form of its bytes")
    return data
