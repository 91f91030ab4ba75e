from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prlx_scene import ALICE, BOB, DEPLOYER, TREASURY

from vector_files import examples


@pytest.mark.parametrize(
    ("sender", "receiver", "tax"),
    [
        (ALICE, BOB, 40),
        (BOB, ALICE, 40),
        (ALICE, ALICE, 40),
        (ALICE, TREASURY, 0),
        (TREASURY, ALICE, 0),
        (DEPLOYER, ALICE, 0),
        (ALICE, DEPLOYER, 0),
        (DEPLOYER, TREASURY, 0),
    ],
)
def test_it_says_what_a_transfer_would_pay(token: Any, sender: str, receiver: str, tax: int) -> None:
    assert token.taxOn(sender, receiver, 1_000) == tax


def test_it_is_four_percent_rounded_down_of_any_amount_there_is(token: Any) -> None:
    @examples(100)
    @given(st.integers(0, 2**256 - 1) | st.integers(0, 10_000))
    def is_four_percent(amount: int) -> None:
        assert token.taxOn(ALICE, BOB, amount) == amount * 400 // 10_000

    is_four_percent()
