"""An anchor just deployed, and what its validator brings to it."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import boa
from permits import signer
from sources import deployer_of

EMPTY = bytes(32)
EMPTY_ROOT = hashlib.sha256(b"").digest()
ZERO_ADDRESS = "0x" + "00" * 20

DEPLOYER, VALIDATOR, STRANGER, SUCCESSOR = (signer(number).address for number in range(1, 5))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AnchoredBatch:
    """The arguments of `anchorBatch`, in its order."""

    previous_hash: bytes
    head_hash: bytes
    first: int
    last: int
    merkle_root: bytes
    count: int
    epoch: int = 0

    @property
    def arguments(self) -> tuple[bytes, bytes, int, int, bytes, int, int]:
        return self.previous_hash, self.head_hash, self.first, self.last, self.merkle_root, self.count, self.epoch


def deploy_anchor(*, validator: str = VALIDATOR) -> Any:
    with boa.env.prank(DEPLOYER):
        return deployer_of("ExecutionAnchor").deploy(validator)


def secret_of(epoch: int) -> bytes:
    return hashlib.sha256(b"the secret of epoch %d" % epoch).digest()


def commitment_of(epoch: int) -> bytes:
    return hashlib.sha256(secret_of(epoch)).digest()


def commit(anchor: Any, *epochs: int) -> None:
    for epoch in epochs:
        anchor.commitSampling(epoch, commitment_of(epoch), sender=VALIDATOR)


def reveal(anchor: Any, *epochs: int) -> None:
    for epoch in epochs:
        anchor.revealSampling(epoch, secret_of(epoch), sender=VALIDATOR)


def next_batch(anchor: Any, *, count: int = 3, merkle_root: bytes | None = None, epoch: int = 0) -> AnchoredBatch:
    """A batch that continues what is anchored."""
    first = anchor.nextSequence()
    last = first + count - 1
    return AnchoredBatch(
        previous_hash=anchor.head(),
        head_hash=hashlib.sha256(b"record %d" % last).digest(),
        first=first,
        last=last,
        merkle_root=hashlib.sha256(b"root up to %d" % last).digest() if merkle_root is None else merkle_root,
        count=count,
        epoch=epoch,
    )


def anchor_next(anchor: Any, *, count: int = 3, merkle_root: bytes | None = None, epoch: int = 0) -> int:
    """Anchors a batch that continues what is anchored; its number."""
    batch = next_batch(anchor, count=count, merkle_root=merkle_root, epoch=epoch)
    return anchor.anchorBatch(*batch.arguments, sender=VALIDATOR)
