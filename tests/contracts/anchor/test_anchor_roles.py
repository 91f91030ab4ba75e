from __future__ import annotations

from typing import Any

import boa
import pytest
from anchor_scene import (
    DEPLOYER,
    STRANGER,
    SUCCESSOR,
    VALIDATOR,
    ZERO_ADDRESS,
    anchor_next,
    commitment_of,
    next_batch,
)
from logs import events_of


def test_the_owner_names_another_validator_at_once(anchor: Any) -> None:
    anchor_next(anchor)

    anchor.setValidator(SUCCESSOR, sender=DEPLOYER)

    assert events_of(anchor) == [("ValidatorChanged", {"previous": VALIDATOR, "current": SUCCESSOR})]
    assert anchor.validator() == SUCCESSOR
    with boa.reverts(vm_error="anchor: caller is not the validator"):
        anchor_next(anchor)
    assert anchor.anchorBatch(*next_batch(anchor).arguments, sender=SUCCESSOR) == 2
    anchor.commitSampling(1, commitment_of(1), sender=SUCCESSOR)


@pytest.mark.parametrize("caller", [STRANGER, VALIDATOR, SUCCESSOR])
def test_nobody_else_names_the_validator(anchor: Any, caller: str) -> None:
    with boa.reverts(vm_error="ownable: caller is not the owner"):
        anchor.setValidator(SUCCESSOR, sender=caller)
    assert anchor.validator() == VALIDATOR


def test_the_zero_address_is_no_validator(anchor: Any) -> None:
    with boa.reverts(vm_error="anchor: zero address"):
        anchor.setValidator(ZERO_ADDRESS, sender=DEPLOYER)


def test_ownership_of_the_anchor_passes_in_two_steps(anchor: Any) -> None:
    anchor.transfer_ownership(SUCCESSOR, sender=DEPLOYER)
    assert events_of(anchor) == [("OwnershipTransferStarted", {"previous_owner": DEPLOYER, "new_owner": SUCCESSOR})]
    assert (anchor.owner(), anchor.pending_owner()) == (DEPLOYER, SUCCESSOR)

    anchor.accept_ownership(sender=SUCCESSOR)

    assert events_of(anchor) == [("OwnershipTransferred", {"previous_owner": DEPLOYER, "new_owner": SUCCESSOR})]
    anchor.setValidator(STRANGER, sender=SUCCESSOR)
    with boa.reverts(vm_error="ownable: caller is not the owner"):
        anchor.setValidator(VALIDATOR, sender=DEPLOYER)


def test_only_the_owner_hands_the_anchor_on_and_only_the_named_one_takes_it(anchor: Any) -> None:
    with boa.reverts(vm_error="ownable: caller is not the owner"):
        anchor.transfer_ownership(STRANGER, sender=STRANGER)
    anchor.transfer_ownership(SUCCESSOR, sender=DEPLOYER)
    with boa.reverts(vm_error="ownable_2step: caller is not the new owner"):
        anchor.accept_ownership(sender=STRANGER)
    assert anchor.owner() == DEPLOYER
