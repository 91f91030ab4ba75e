from __future__ import annotations

from typing import Any

import boa
import pytest
from logs import events_of
from prlx_scene import ALICE, BOB, CAROL, DEPLOYER, LOCKER, ZERO_ADDRESS


def test_ownership_passes_when_the_new_owner_accepts(token: Any) -> None:
    token.transfer_ownership(BOB, sender=DEPLOYER)
    assert events_of(token) == [("OwnershipTransferStarted", {"previous_owner": DEPLOYER, "new_owner": BOB})]
    assert (token.owner(), token.pending_owner()) == (DEPLOYER, BOB)

    token.accept_ownership(sender=BOB)

    assert events_of(token) == [("OwnershipTransferred", {"previous_owner": DEPLOYER, "new_owner": BOB})]
    assert (token.owner(), token.pending_owner()) == (BOB, ZERO_ADDRESS)
    with boa.reverts(vm_error="ownable: caller is not the owner"):
        token.addExemption(LOCKER, sender=DEPLOYER)
    token.addExemption(LOCKER, sender=BOB)


def test_only_the_owner_hands_ownership_on(token: Any) -> None:
    with boa.reverts(vm_error="ownable: caller is not the owner"):
        token.transfer_ownership(ALICE, sender=ALICE)


@pytest.mark.parametrize("caller", [ALICE, DEPLOYER, CAROL])
def test_only_the_one_named_accepts(token: Any, caller: str) -> None:
    token.transfer_ownership(BOB, sender=DEPLOYER)

    with boa.reverts(vm_error="ownable_2step: caller is not the new owner"):
        token.accept_ownership(sender=caller)
    assert token.owner() == DEPLOYER


def test_naming_nobody_takes_the_offer_back(token: Any) -> None:
    token.transfer_ownership(BOB, sender=DEPLOYER)

    token.transfer_ownership(ZERO_ADDRESS, sender=DEPLOYER)

    with boa.reverts(vm_error="ownable_2step: caller is not the new owner"):
        token.accept_ownership(sender=BOB)
