from __future__ import annotations

from typing import Any

import boa
import pytest
from logs import events_of
from prlx_scene import (
    ALICE,
    BOB,
    DEPLOYER,
    HELD_BY_ALICE,
    LOCKER,
    SUPPLY,
    TREASURY,
    ZERO_ADDRESS,
    Balances,
    balances_of,
    moved,
)

RICH = SUPPLY - HELD_BY_ALICE


def test_between_two_accounts_4_percent_go_to_the_tax_recipient(token: Any) -> None:
    assert token.transfer(BOB, 100_000, sender=ALICE)

    assert events_of(token) == [moved(ALICE, TREASURY, 4_000), moved(ALICE, BOB, 96_000)]
    assert balances_of(token) == Balances(deployer=RICH, treasury=4_000, alice=900_000, bob=96_000)


@pytest.mark.parametrize(
    ("amount", "tax"),
    [
        (0, 0),
        (1, 0),
        (24, 0),
        (25, 1),
        (26, 1),
        (49, 1),
        (50, 2),
        (9_999, 399),
        (10_000, 400),
        (10_001, 400),
        (999_999, 39_999),
        (HELD_BY_ALICE, 40_000),
    ],
)
def test_the_tax_is_rounded_down_and_taken_once(token: Any, amount: int, tax: int) -> None:
    token.transfer(BOB, amount, sender=ALICE)

    assert tax == amount * 400 // 10_000
    assert balances_of(token) == Balances(deployer=RICH, treasury=tax, alice=HELD_BY_ALICE - amount, bob=amount - tax)


def test_a_tax_of_nothing_is_not_logged(token: Any) -> None:
    token.transfer(BOB, 24, sender=ALICE)

    assert events_of(token) == [moved(ALICE, BOB, 24)]


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [
        (DEPLOYER, BOB),
        (ALICE, DEPLOYER),
        (ALICE, TREASURY),
        (DEPLOYER, TREASURY),
        (ALICE, LOCKER),
        (DEPLOYER, LOCKER),
    ],
)
def test_a_transfer_with_an_exempt_side_pays_exactly_nothing(token: Any, sender: str, receiver: str) -> None:
    token.addExemption(LOCKER, sender=DEPLOYER)
    before = token.balanceOf(sender), token.balanceOf(receiver)

    token.transfer(receiver, 123_456, sender=sender)

    assert events_of(token) == [moved(sender, receiver, 123_456)]
    assert (token.balanceOf(sender), token.balanceOf(receiver)) == (before[0] - 123_456, before[1] + 123_456)


def test_what_an_exempt_contract_pays_out_arrives_whole(token: Any) -> None:
    token.addExemption(LOCKER, sender=DEPLOYER)
    token.transfer(LOCKER, 500_000, sender=ALICE)

    token.transfer(BOB, 500_000, sender=LOCKER)

    assert balances_of(token) == Balances(deployer=RICH, treasury=0, alice=500_000, bob=500_000)


def test_a_transfer_to_oneself_is_taxed_like_any_other(token: Any) -> None:
    token.transfer(ALICE, HELD_BY_ALICE, sender=ALICE)

    assert balances_of(token) == Balances(deployer=RICH, treasury=40_000, alice=960_000, bob=0)


@pytest.mark.parametrize("amount", [HELD_BY_ALICE + 1, HELD_BY_ALICE * 25, HELD_BY_ALICE * 25 + 25, 2**256 - 1])
def test_more_than_one_has_is_refused(token: Any, amount: int) -> None:
    with boa.reverts(vm_error="erc20: transfer amount exceeds balance"):
        token.transfer(BOB, amount, sender=ALICE)
    assert balances_of(token) == Balances(deployer=RICH, treasury=0, alice=HELD_BY_ALICE, bob=0)


def test_a_caller_with_nothing_is_refused(token: Any) -> None:
    with boa.reverts(vm_error="erc20: transfer amount exceeds balance"):
        token.transfer(ALICE, 1, sender=BOB)


@pytest.mark.parametrize("amount", [0, 1, 100_000])
def test_the_zero_address_receives_nothing(token: Any, amount: int) -> None:
    with boa.reverts(vm_error="erc20: transfer to the zero address"):
        token.transfer(ZERO_ADDRESS, amount, sender=ALICE)
    assert balances_of(token) == Balances(deployer=RICH, treasury=0, alice=HELD_BY_ALICE, bob=0)


def test_the_supply_stays_what_it_was(token: Any) -> None:
    token.transfer(BOB, 99_999, sender=ALICE)
    token.transfer(ALICE, 77, sender=BOB)

    assert token.totalSupply() == SUPPLY
