"""The anchor in plain Python: what each call should answer, and what is anchored after it.

Each method answers the reason it is refused for and changes nothing, or None and changes what is held.
"""

from __future__ import annotations

import dataclasses
import hashlib

from anchor_scene import EMPTY, EMPTY_ROOT, ZERO_ADDRESS, AnchoredBatch

RECORDS_MAX = 2**32
"""In one batch."""
NOT_OWNER = "ownable: caller is not the owner"
NOT_VALIDATOR = "anchor: caller is not the validator"


@dataclasses.dataclass(kw_only=True, slots=True)
class AnchorModel:
    owner: str
    validator: str
    pending_owner: str = ZERO_ADDRESS
    head: bytes = EMPTY
    next_sequence: int = 0
    newest_epoch: int = 0
    roots: list[bytes] = dataclasses.field(default_factory=lambda: [EMPTY_ROOT])
    commitments: list[bytes] = dataclasses.field(default_factory=list[bytes])
    secrets: list[bytes] = dataclasses.field(default_factory=list[bytes])

    def anchor_batch(self, caller: str, batch: AnchoredBatch) -> str | None:
        refusals = {
            NOT_VALIDATOR: caller != self.validator,
            "anchor: previous hash is not the head": batch.previous_hash != self.head,
            "anchor: empty batch": batch.count == 0,
            "anchor: count does not match first and last": batch.count != batch.last - batch.first + 1,
            "anchor: too many records": batch.count > RECORDS_MAX,
            "anchor: first is not the next record": batch.first != self.next_sequence,
            "anchor: head hash is empty": batch.head_hash == EMPTY,
            "anchor: merkle root is empty": batch.merkle_root == EMPTY,
            "anchor: epoch goes backwards": batch.epoch < self.newest_epoch,
            "anchor: epoch is not committed": batch.epoch >= len(self.commitments),
            "anchor: epoch before last is not revealed": batch.epoch - 2 >= len(self.secrets),
        }
        if refusal := first_true(refusals):
            return refusal
        self.head, self.next_sequence, self.newest_epoch = batch.head_hash, batch.last + 1, batch.epoch
        self.roots.append(batch.merkle_root)
        return None

    def commit_sampling(self, caller: str, epoch: int, commitment: bytes) -> str | None:
        refusals = {
            NOT_VALIDATOR: caller != self.validator,
            "anchor: epoch is not the next": epoch != len(self.commitments),
            "anchor: commitment is empty": commitment == EMPTY,
        }
        if refusal := first_true(refusals):
            return refusal
        self.commitments.append(commitment)
        return None

    def reveal_sampling(self, caller: str, epoch: int, secret: bytes) -> str | None:
        refusals = {
            NOT_VALIDATOR: caller != self.validator,
            "anchor: epoch is not committed": epoch >= len(self.commitments),
            "anchor: already revealed": epoch < len(self.secrets),
            "anchor: epoch is not the next": epoch > len(self.secrets),
            "anchor: epoch has no successor yet": epoch == len(self.commitments) - 1,
        }
        if refusal := first_true(refusals):
            return refusal
        if hashlib.sha256(secret).digest() != self.commitments[epoch]:
            return "anchor: secret does not match"
        self.secrets.append(secret)
        return None

    def set_validator(self, caller: str, validator: str) -> str | None:
        refusals = {NOT_OWNER: caller != self.owner, "anchor: zero address": validator == ZERO_ADDRESS}
        if refusal := first_true(refusals):
            return refusal
        self.validator = validator
        return None

    def transfer_ownership(self, caller: str, new_owner: str) -> str | None:
        if caller != self.owner:
            return NOT_OWNER
        self.pending_owner = new_owner
        return None

    def accept_ownership(self, caller: str) -> str | None:
        if caller != self.pending_owner:
            return "ownable_2step: caller is not the new owner"
        self.owner, self.pending_owner = caller, ZERO_ADDRESS
        return None


def first_true(refusals: dict[str, bool]) -> str | None:
    return next((reason for reason, holds in refusals.items() if holds), None)
