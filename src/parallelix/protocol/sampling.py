"""Which executions are audited, so that anybody can check it afterwards and nobody can know it before.

    secret      of an epoch; its SHA-256 is public before the epoch, the secret itself when its last attempt has ended
    draw        the first 64 bits of HMAC-SHA256(secret, poe_commitment)
    drawn       draw < rate / 100 × 2^64, with the rate in percent that the execution's record states

The node makes the salt of its commitment and signs it with the result, so it cannot look for one that is not drawn; the
coordinator is bound to the secret before it sees any commitment. What a dishonest one can choose still, which of two
open epochs a record names and which results it records at all, shows in how much is drawn (`audit_log`).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

import msgspec
from msgspec import Meta

from parallelix.protocol.canonical import Count
from parallelix.protocol.encoding import from_hex

SECRET_BYTES = 32
RATES_PERCENT = (100, 50, 20, 10)
"""What a node's results are sampled at: a new one's at the first, later at the next and the next, down to the network's
floor."""
DRAW_BITS = 64

_DOMAIN = b"parallelix/sampling/v1"


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """What is public of an epoch: 0x-hex of the commitment, and of the secret once it is out, else empty. Times are
    Unix milliseconds, 0 for not yet or not known."""

    epoch: Count
    commitment: str
    secret: str = ""
    began_at: Count = 0
    revealed_at: Count = 0


class EpochList(msgspec.Struct, frozen=True, kw_only=True):
    """In their order. `floor_percent` is the rate that no execution is sampled below."""

    data: tuple[Epoch, ...]
    floor_percent: Annotated[int, Meta(ge=0, le=100)]


def epoch_secret(master: bytes, epoch: int) -> bytes:
    """The secret of an epoch. One master serves them all: a shown secret tells nothing of the next."""
    return hmac.digest(master, _DOMAIN + epoch.to_bytes(8, "big"), "sha256")


def commitment(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def draw(secret: bytes, poe_commitment: str) -> int:
    """0 to 2^64 - 1, for a commitment as 0x-hex. Raises `Malformed`."""
    raw = from_hex(poe_commitment, name="poe_commitment", length_bytes=32)
    return int.from_bytes(hmac.digest(secret, raw, "sha256")[: DRAW_BITS // 8], "big")


def drawn(draw_value: int, rate_percent: int) -> bool:
    """Whether an execution with this draw is audited at this rate. A rate of 0 draws none, of 100 all."""
    return draw_value * 100 < rate_percent << DRAW_BITS
