from __future__ import annotations

from typing import Any

import boa
import pytest
from logs import events_of
from prlx_scene import (
    ALICE,
    BOB,
    CAROL,
    DEPLOYER,
    HELD_BY_ALICE,
    LOCKER,
    SUPPLY,
    TREASURY,
    ZERO_ADDRESS,
    Balances,
    allowed,
    balances_of,
    moved,
)

UNLIMITED = 2**256 - 1
RICH = SUPPLY - HELD_BY_ALICE


def test_the_allowance_is_spent_by_the_whole_amount_tax_included(token: Any) -> None:
    token.approve(CAROL, 150_000, sender=ALICE)

    assert token.transferFrom(ALICE, BOB, 100_000, sender=CAROL)

    assert events_of(token) == [
        allowed(ALICE, CAROL, 50_000),
        moved(ALICE, TREASURY, 4_000),
        moved(ALICE, BOB, 96_000),
    ]
    assert balances_of(token) == Balances(deployer=RICH, treasury=4_000, alice=900_000, bob=96_000)
    assert token.allowance(ALICE, CAROL) == 50_000


def test_what_an_exempt_contract_collects_arrives_whole(token: Any) -> None:
    token.addExemption(LOCKER, sender=DEPLOYER)
    token.approve(LOCKER, 100_000, sender=ALICE)

    token.transferFrom(ALICE, LOCKER, 100_000, sender=LOCKER)

    assert events_of(token) == [allowed(ALICE, LOCKER, 0), moved(ALICE, LOCKER, 100_000)]
    assert token.balanceOf(LOCKER) == 100_000


def test_an_exempt_caller_does_not_free_others_from_the_tax(token: Any) -> None:
    token.addExemption(LOCKER, sender=DEPLOYER)
    token.approve(LOCKER, 100_000, sender=ALICE)

    token.transferFrom(ALICE, BOB, 100_000, sender=LOCKER)

    assert balances_of(token) == Balances(deployer=RICH, treasury=4_000, alice=900_000, bob=96_000)


def test_an_unlimited_allowance_is_never_spent(token: Any) -> None:
    token.approve(CAROL, UNLIMITED, sender=ALICE)

    token.transferFrom(ALICE, BOB, HELD_BY_ALICE, sender=CAROL)

    assert events_of(token) == [moved(ALICE, TREASURY, 40_000), moved(ALICE, BOB, 960_000)]
    assert token.allowance(ALICE, CAROL) == UNLIMITED


@pytest.mark.parametrize("allowance", [0, 1, 96_000, 99_999])
def test_an_allowance_below_the_whole_amount_is_refused(token: Any, allowance: int) -> None:
    token.approve(CAROL, allowance, sender=ALICE)

    with boa.reverts(vm_error="erc20: insufficient allowance"):
        token.transferFrom(ALICE, BOB, 100_000, sender=CAROL)
    assert balances_of(token) == Balances(deployer=RICH, treasury=0, alice=HELD_BY_ALICE, bob=0)
    assert token.allowance(ALICE, CAROL) == allowance


@pytest.mark.parametrize("caller", [BOB, DEPLOYER, TREASURY, ALICE])
def test_nobody_but_who_was_allowed_moves_an_account_s_tokens(token: Any, caller: str) -> None:
    token.approve(CAROL, 100_000, sender=ALICE)

    with boa.reverts(vm_error="erc20: insufficient allowance"):
        token.transferFrom(ALICE, BOB, 1, sender=caller)


@pytest.mark.parametrize("amount", [HELD_BY_ALICE + 1, UNLIMITED])
def test_more_than_the_sender_has_is_refused(token: Any, amount: int) -> None:
    token.approve(CAROL, UNLIMITED, sender=ALICE)

    with boa.reverts(vm_error="erc20: transfer amount exceeds balance"):
        token.transferFrom(ALICE, BOB, amount, sender=CAROL)


def test_the_zero_address_neither_sends_nor_receives(token: Any) -> None:
    token.approve(CAROL, 100_000, sender=ALICE)

    with boa.reverts(vm_error="erc20: transfer to the zero address"):
        token.transferFrom(ALICE, ZERO_ADDRESS, 100_000, sender=CAROL)
    with boa.reverts(vm_error="erc20: approve from the zero address"):
        token.transferFrom(ZERO_ADDRESS, BOB, 0, sender=CAROL)
    assert token.allowance(ALICE, CAROL) == 100_000
