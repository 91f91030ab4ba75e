from __future__ import annotations

from typing import Any

import boa
import pytest
from logs import events_of
from prlx_scene import ALICE, BOB, CAROL, ZERO_ADDRESS, allowed


@pytest.mark.parametrize("amount", [0, 1, 10**27, 2**256 - 1])
def test_an_approval_replaces_the_one_before(token: Any, amount: int) -> None:
    token.approve(BOB, 5, sender=ALICE)

    assert token.approve(BOB, amount, sender=ALICE)

    assert events_of(token) == [allowed(ALICE, BOB, amount)]
    assert token.allowance(ALICE, BOB) == amount


def test_an_approval_is_the_caller_s_own_and_for_one_spender(token: Any) -> None:
    token.approve(BOB, 5, sender=ALICE)

    assert token.allowance(BOB, ALICE) == token.allowance(ALICE, CAROL) == token.allowance(CAROL, BOB) == 0


def test_the_zero_address_is_allowed_nothing(token: Any) -> None:
    with boa.reverts(vm_error="erc20: approve to the zero address"):
        token.approve(ZERO_ADDRESS, 5, sender=ALICE)
