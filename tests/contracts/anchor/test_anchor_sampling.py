from __future__ import annotations

import hashlib
from typing import Any

import boa
import pytest
from anchor_scene import (
    DEPLOYER,
    EMPTY,
    STRANGER,
    VALIDATOR,
    commit,
    commitment_of,
    deploy_anchor,
    reveal,
    secret_of,
)
from logs import events_of

LAST_NUMBER = 2**64 - 1


def test_a_commitment_binds_the_next_epoch(anchor: Any) -> None:
    anchor.commitSampling(1, commitment_of(1), sender=VALIDATOR)

    assert events_of(anchor) == [("SamplingCommitted", {"epoch": 1, "commitment": commitment_of(1)})]
    assert (anchor.committedEpochs(), anchor.commitmentOf(1), anchor.commitmentOf(2)) == (2, commitment_of(1), EMPTY)


@pytest.mark.parametrize("caller", [STRANGER, DEPLOYER])
def test_only_the_validator_commits(anchor: Any, caller: str) -> None:
    with boa.reverts(vm_error="anchor: caller is not the validator"):
        anchor.commitSampling(1, commitment_of(1), sender=caller)


@pytest.mark.parametrize("epoch", [0, 2, LAST_NUMBER])
def test_epochs_are_committed_in_their_order_and_once(anchor: Any, epoch: int) -> None:
    with boa.reverts(vm_error="anchor: epoch is not the next"):
        anchor.commitSampling(epoch, b"\x02" * 32, sender=VALIDATOR)
    assert (anchor.committedEpochs(), anchor.commitmentOf(0)) == (1, commitment_of(0))


def test_the_first_epoch_is_0() -> None:
    with boa.env.anchor():
        anchor = deploy_anchor()

        with boa.reverts(vm_error="anchor: epoch is not the next"):
            commit(anchor, 1)
        commit(anchor, 0)


def test_a_commitment_to_nothing_is_refused(anchor: Any) -> None:
    with boa.reverts(vm_error="anchor: commitment is empty"):
        anchor.commitSampling(1, EMPTY, sender=VALIDATOR)


def test_a_secret_is_shown_once_its_successor_is_committed(anchor: Any) -> None:
    commit(anchor, 1)

    anchor.revealSampling(0, secret_of(0), sender=VALIDATOR)

    assert events_of(anchor) == [("SamplingRevealed", {"epoch": 0, "secret": secret_of(0)})]
    assert (anchor.revealedEpochs(), anchor.secretOf(0), anchor.secretOf(1)) == (1, secret_of(0), EMPTY)
    assert hashlib.sha256(anchor.secretOf(0)).digest() == anchor.commitmentOf(0)


@pytest.mark.parametrize("caller", [STRANGER, DEPLOYER])
def test_only_the_validator_reveals(anchor: Any, caller: str) -> None:
    commit(anchor, 1)

    with boa.reverts(vm_error="anchor: caller is not the validator"):
        anchor.revealSampling(0, secret_of(0), sender=caller)


def test_the_newest_secret_is_never_shown(anchor: Any) -> None:
    with boa.reverts(vm_error="anchor: epoch has no successor yet"):
        reveal(anchor, 0)
    commit(anchor, 1)
    reveal(anchor, 0)
    with boa.reverts(vm_error="anchor: epoch has no successor yet"):
        reveal(anchor, 1)
    assert anchor.secretOf(1) == EMPTY


@pytest.mark.parametrize("epoch", [3, 4, LAST_NUMBER])
def test_an_epoch_without_a_commitment_has_no_secret_to_show(anchor: Any, epoch: int) -> None:
    commit(anchor, 1, 2)

    with boa.reverts(vm_error="anchor: epoch is not committed"):
        reveal(anchor, epoch)


def test_a_secret_is_shown_once(anchor: Any) -> None:
    commit(anchor, 1, 2)
    reveal(anchor, 0, 1)

    for epoch in (0, 1):
        with boa.reverts(vm_error="anchor: already revealed"):
            reveal(anchor, epoch)


def test_secrets_are_shown_in_the_order_of_their_epochs(anchor: Any) -> None:
    commit(anchor, 1, 2)

    with boa.reverts(vm_error="anchor: epoch is not the next"):
        reveal(anchor, 1)
    reveal(anchor, 0, 1)


@pytest.mark.parametrize("secret", [EMPTY, secret_of(1), commitment_of(0)], ids=["empty", "another", "commitment"])
def test_another_secret_than_was_committed_is_refused(anchor: Any, secret: bytes) -> None:
    commit(anchor, 1)

    with boa.reverts(vm_error="anchor: secret does not match"):
        anchor.revealSampling(0, secret, sender=VALIDATOR)
    assert (anchor.revealedEpochs(), anchor.secretOf(0)) == (0, EMPTY)
