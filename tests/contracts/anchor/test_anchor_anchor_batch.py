from __future__ import annotations

import dataclasses
from typing import Any

import boa
import pytest
from anchor_scene import (
    DEPLOYER,
    EMPTY,
    STRANGER,
    SUCCESSOR,
    VALIDATOR,
    AnchoredBatch,
    anchor_next,
    commit,
    next_batch,
    reveal,
)
from harness import contract_state
from logs import events_of

LAST_NUMBER = 2**64 - 1
RECORDS_MAX = 2**32
VIEWS = ("head", "batchCount", "nextSequence", "newestEpoch", "committedEpochs", "revealedEpochs", "validator")


def anchored(number: int, batch: AnchoredBatch) -> tuple[str, dict[str, Any]]:
    return "BatchAnchored", {
        "number": number,
        "previousHash": batch.previous_hash,
        "headHash": batch.head_hash,
        "first": batch.first,
        "last": batch.last,
        "count": batch.count,
        "merkleRoot": batch.merkle_root,
        "epoch": batch.epoch,
    }


def refuses(anchor: Any, batch: AnchoredBatch, reason: str, *, caller: str = VALIDATOR) -> None:
    before = contract_state(anchor, *VIEWS)
    with boa.reverts(vm_error=reason):
        anchor.anchorBatch(*batch.arguments, sender=caller)
    assert contract_state(anchor, *VIEWS) == before
    assert anchor.rootOf(before["batchCount"]) == EMPTY


def test_batches_make_one_chain(anchor: Any) -> None:
    batches: list[AnchoredBatch] = []
    for number, count in enumerate((1, 1_000_000, 7), start=1):
        batch = next_batch(anchor, count=count)
        assert anchor.anchorBatch(*batch.arguments, sender=VALIDATOR) == number
        assert events_of(anchor) == [anchored(number, batch)]
        batches.append(batch)

    assert batches[0].previous_hash == EMPTY
    assert [each.previous_hash for each in batches[1:]] == [each.head_hash for each in batches[:-1]]
    assert [anchor.rootOf(number) for number in (1, 2, 3, 4)] == [*(each.merkle_root for each in batches), EMPTY]
    assert (anchor.head(), anchor.batchCount(), anchor.nextSequence()) == (batches[-1].head_hash, 4, 1_000_008)


@pytest.mark.parametrize("caller", [STRANGER, DEPLOYER, SUCCESSOR])
def test_only_the_validator_anchors(anchor: Any, caller: str) -> None:
    refuses(anchor, next_batch(anchor), "anchor: caller is not the validator", caller=caller)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"previous_hash": EMPTY}, "anchor: previous hash is not the head"),
        ({"previous_hash": b"\x01" * 32}, "anchor: previous hash is not the head"),
        ({"count": 0}, "anchor: empty batch"),
        ({"count": 2}, "anchor: count does not match first and last"),
        ({"count": 4}, "anchor: count does not match first and last"),
        ({"count": LAST_NUMBER}, "anchor: count does not match first and last"),
        ({"last": 4}, "anchor: count does not match first and last"),
        ({"last": 2}, "anchor: count does not match first and last"),
        ({"last": 0}, "anchor: count does not match first and last"),
        ({"last": LAST_NUMBER}, "anchor: count does not match first and last"),
        ({"first": 4}, "anchor: count does not match first and last"),
        ({"first": 4, "last": 6}, "anchor: first is not the next record"),
        ({"first": 2, "last": 4}, "anchor: first is not the next record"),
        ({"first": 0, "last": 2}, "anchor: first is not the next record"),
        ({"first": 4, "count": 2}, "anchor: first is not the next record"),
        ({"first": LAST_NUMBER, "last": LAST_NUMBER, "count": 1}, "anchor: first is not the next record"),
        ({"head_hash": EMPTY}, "anchor: head hash is empty"),
        ({"merkle_root": EMPTY}, "anchor: merkle root is empty"),
        ({"epoch": 1}, "anchor: epoch is not committed"),
        ({"epoch": LAST_NUMBER}, "anchor: epoch is not committed"),
    ],
    ids=str,
)
def test_a_batch_that_does_not_continue_the_chain_is_refused(anchor: Any, change: dict[str, Any], reason: str) -> None:
    anchor_next(anchor, count=3)

    refuses(anchor, dataclasses.replace(next_batch(anchor), **change), reason)


def test_a_batch_sent_twice_is_refused_the_second_time(anchor: Any) -> None:
    batch = next_batch(anchor)
    anchor.anchorBatch(*batch.arguments, sender=VALIDATOR)

    refuses(anchor, batch, "anchor: previous hash is not the head")


def test_a_batch_before_any_commitment_is_refused(anchor: Any) -> None:
    commit(anchor, 1)

    refuses(anchor, next_batch(anchor, epoch=2), "anchor: epoch is not committed")


def test_the_epochs_of_batches_never_go_back(anchor: Any) -> None:
    commit(anchor, 1)
    anchor_next(anchor, epoch=1)

    refuses(anchor, next_batch(anchor, epoch=0), "anchor: epoch goes backwards")
    anchor_next(anchor, epoch=1)
    assert anchor.newestEpoch() == 1


def test_the_first_two_epochs_need_no_secret(anchor: Any) -> None:
    commit(anchor, 1)

    anchor_next(anchor, epoch=0)
    anchor_next(anchor, epoch=1)

    assert anchor.revealedEpochs() == 0


def test_a_batch_of_an_epoch_waits_for_the_secret_of_the_one_before_last(anchor: Any) -> None:
    commit(anchor, 1, 2, 3)
    refuses(anchor, next_batch(anchor, epoch=2), "anchor: epoch before last is not revealed")

    reveal(anchor, 0)

    anchor_next(anchor, epoch=2)
    refuses(anchor, next_batch(anchor, epoch=3), "anchor: epoch before last is not revealed")
    reveal(anchor, 1)
    anchor_next(anchor, epoch=3)


def test_leaping_over_epochs_hides_no_secret(anchor: Any) -> None:
    commit(anchor, 1, 2, 3, 4, 5)
    anchor_next(anchor, epoch=0)
    reveal(anchor, 0, 1, 2)

    refuses(anchor, next_batch(anchor, epoch=5), "anchor: epoch before last is not revealed")
    reveal(anchor, 3)
    anchor_next(anchor, epoch=5)


def test_no_batch_can_use_up_the_numbers(anchor: Any) -> None:
    """Or else one false batch of a stolen key would be the last of all."""
    refuses(anchor, next_batch(anchor, count=RECORDS_MAX + 1), "anchor: too many records")
    refuses(anchor, next_batch(anchor, count=LAST_NUMBER), "anchor: too many records")

    anchor_next(anchor, count=RECORDS_MAX)
    anchor_next(anchor, count=RECORDS_MAX)

    assert anchor.nextSequence() == 2 * RECORDS_MAX
