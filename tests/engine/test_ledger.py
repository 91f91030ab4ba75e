"""The ledger, as a table of what each posting does, and as random postings beside a plain list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.engine.ledger import (
    AMOUNT_WEI_MAX,
    GRANTS,
    USAGE,
    InsufficientCredits,
    Ledger,
    available,
    held,
    split_usage,
)
from parallelix.engine.rows import BalanceRow, TransferRow

ADA, BOB = available("ada"), available("bob")


def holding(amount_wei: int) -> Ledger:
    ledger = Ledger()
    ledger.post("grant:1", debit=GRANTS, credit=ADA, amount_wei=amount_wei, request_id="", at=1)
    ledger.take_rows()
    return ledger


def post(ledger: Ledger, amount_wei: int, *, debit: str = ADA, credit: str = BOB) -> None:
    ledger.post("t:1", debit=debit, credit=credit, amount_wei=amount_wei, request_id="req", at=2)


@pytest.mark.parametrize("amount_wei", [1, 99, 100])
def test_a_transfer_moves_its_amount_from_one_account_to_the_other(amount_wei: int) -> None:
    ledger = holding(100)
    post(ledger, amount_wei)
    assert (ledger.balance_wei(ADA), ledger.balance_wei(BOB)) == (100 - amount_wei, amount_wei)
    assert ledger.accounts() == {GRANTS: -100, ADA: 100 - amount_wei, BOB: amount_wei}


def test_nothing_is_paid_out_of_an_account_that_does_not_have_it_and_nothing_changes() -> None:
    ledger = holding(100)
    with pytest.raises(InsufficientCredits, match="holds 100 wei, but 101 wei are needed") as refused:
        post(ledger, 101)
    assert (refused.value.account, refused.value.needed_wei, refused.value.available_wei) == (ADA, 101, 100)
    with pytest.raises(InsufficientCredits):
        post(ledger, 1, debit=BOB, credit=ADA)
    assert ledger.accounts() == {GRANTS: -100, ADA: 100}
    assert ledger.take_rows() == []


def test_only_a_source_goes_below_zero() -> None:
    ledger = Ledger()
    post(ledger, 5, debit="source:deposits", credit=ADA)
    assert ledger.balance_wei("source:deposits") == -5
    for account in (USAGE, held("ada"), "sources", "operators", "my source:"):
        with pytest.raises(InsufficientCredits):
            post(ledger, 1, debit=account, credit=ADA)


@pytest.mark.parametrize("amount_wei", [0, -1, AMOUNT_WEI_MAX + 1])
def test_an_amount_that_no_transfer_has_is_our_bug(amount_wei: int) -> None:
    with pytest.raises(AssertionError):
        post(holding(100), amount_wei, debit=GRANTS)


def test_the_largest_amount_is_moved() -> None:
    ledger = holding(AMOUNT_WEI_MAX)
    post(ledger, AMOUNT_WEI_MAX)
    assert ledger.balance_wei(BOB) == AMOUNT_WEI_MAX


def test_an_account_does_not_pay_itself() -> None:
    with pytest.raises(AssertionError):
        post(holding(100), 1, credit=ADA)


def test_rows_tell_each_transfer_once_and_the_balances_it_left() -> None:
    ledger = holding(100)
    post(ledger, 30)
    assert ledger.take_rows() == [
        TransferRow(transfer_id="t:1", debit_account=ADA, credit_account=BOB, amount_wei="30", request_id="req", at=2),
        BalanceRow(account=ADA, balance_wei="70"),
        BalanceRow(account=BOB, balance_wei="30"),
    ]
    assert ledger.take_rows() == []
    post(ledger, 10)
    assert len(ledger.take_rows()) == 3


def test_a_ledger_goes_on_from_its_balances_and_refuses_ones_that_do_not_sum_to_zero() -> None:
    balances = {GRANTS: -100, ADA: 100}
    ledger = Ledger(balances)
    post(ledger, 40)
    assert ledger.accounts() == {GRANTS: -100, ADA: 60, BOB: 40}
    assert balances == {GRANTS: -100, ADA: 100}
    with pytest.raises(AssertionError):
        Ledger({GRANTS: -100, ADA: 99})


accounts = st.sampled_from([GRANTS, ADA, BOB, held("ada"), USAGE])
postings = st.lists(st.tuples(accounts, accounts, st.integers(1, 50) | st.integers(1, 10**24)), max_size=30)


@vectors.examples(200)
@given(postings)
def test_whatever_is_posted_sums_to_zero_replays_to_the_same_and_leaves_nobody_below_zero(
    made: list[tuple[str, str, int]],
) -> None:
    ledger, replayed = Ledger(), dict[str, int]()
    for debit, credit, amount_wei in made:
        if debit == credit:
            continue
        try:
            post(ledger, amount_wei, debit=debit, credit=credit)
        except InsufficientCredits:
            assert replayed.get(debit, 0) < amount_wei
            continue
        replayed[debit] = replayed.get(debit, 0) - amount_wei
        replayed[credit] = replayed.get(credit, 0) + amount_wei
        assert sum(ledger.accounts().values()) == 0
        assert all(balance >= 0 for account, balance in ledger.accounts().items() if account != GRANTS)
    assert ledger.accounts() == replayed
    stored = {row.account: int(row.balance_wei) for row in ledger.take_rows() if isinstance(row, BalanceRow)}
    assert stored == replayed


@pytest.mark.parametrize(
    ("amount_wei", "operators", "treasury", "infrastructure"),
    [(100, 85, 10, 5), (0, 0, 0, 0), (1, 1, 0, 0), (19, 18, 1, 0), (20, 17, 2, 1), (99, 86, 9, 4), (10**30, 85, 10, 5)],
)
def test_usage_is_split_85_10_5_and_what_does_not_divide_goes_to_the_operators(
    amount_wei: int, operators: int, treasury: int, infrastructure: int
) -> None:
    scale = 10**28 if amount_wei == 10**30 else 1
    assert split_usage(amount_wei) == [
        ("operators", operators * scale),
        ("treasury", treasury * scale),
        ("infrastructure", infrastructure * scale),
    ]


@vectors.examples(200)
@given(st.integers(0, 10**30))
def test_the_parts_of_usage_are_the_whole(amount_wei: int) -> None:
    parts = dict(split_usage(amount_wei))
    assert sum(parts.values()) == amount_wei
    assert all(part >= 0 for part in parts.values())
    assert parts["operators"] - amount_wei * 85 // 100 <= 2
