from __future__ import annotations

from typing import Any

import boa
import pytest
from logs import events_of
from prlx_scene import ALICE, BOB, DEPLOYER, LOCKER, TREASURY, ZERO_ADDRESS


def test_the_owner_exempts_an_account(token: Any) -> None:
    token.addExemption(LOCKER, sender=DEPLOYER)

    assert events_of(token) == [("ExemptionAdded", {"account": LOCKER})]
    assert token.isExempt(LOCKER)
    assert not token.isExempt(ALICE)


@pytest.mark.parametrize("caller", [ALICE, LOCKER, TREASURY])
def test_nobody_else_exempts_an_account(token: Any, caller: str) -> None:
    with boa.reverts(vm_error="ownable: caller is not the owner"):
        token.addExemption(LOCKER, sender=caller)
    assert not token.isExempt(LOCKER)


def test_the_zero_address_is_not_exempted(token: Any) -> None:
    with boa.reverts(vm_error="prlx: zero address"):
        token.addExemption(ZERO_ADDRESS, sender=DEPLOYER)


@pytest.mark.parametrize("account", [LOCKER, DEPLOYER, TREASURY])
def test_an_account_is_exempted_once(token: Any, account: str) -> None:
    token.addExemption(LOCKER, sender=DEPLOYER)

    with boa.reverts(vm_error="prlx: already exempt"):
        token.addExemption(account, sender=DEPLOYER)


def test_an_exemption_outlives_the_owner_who_gave_it(token: Any) -> None:
    token.addExemption(LOCKER, sender=DEPLOYER)
    token.transfer_ownership(BOB, sender=DEPLOYER)
    token.accept_ownership(sender=BOB)

    assert token.isExempt(LOCKER)
    assert token.isExempt(DEPLOYER)
    assert not token.isExempt(BOB)


def test_an_exemption_takes_no_tax_back_that_was_paid(token: Any) -> None:
    token.transfer(BOB, 100_000, sender=ALICE)

    token.addExemption(BOB, sender=DEPLOYER)

    assert (token.balanceOf(BOB), token.balanceOf(TREASURY)) == (96_000, 4_000)
    assert token.taxOn(ALICE, BOB, 100_000) == token.taxOn(BOB, ALICE, 100_000) == 0
