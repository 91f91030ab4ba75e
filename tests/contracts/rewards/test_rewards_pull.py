from __future__ import annotations

from typing import Any

import boa
import pytest
from rewards_stage import BATCH_0, BOOTSTRAP_SOURCE, INCOME_SOURCE, PRLX, Stage, bootstrap_wei, now, pass_time, stranger
from sablier import DOLLAR, ask_fee


def test_anybody_draws_what_the_stream_has_released(streaming: Stage) -> None:
    pass_time(1_000)
    streaming.pull()
    assert streaming.events() == [
        (
            "RewardsFunded",
            {"source": BOOTSTRAP_SOURCE, "amount": bootstrap_wei(1_000), "totalHeld": bootstrap_wei(1_000)},
        )
    ]
    assert streaming.token.balanceOf(streaming.rewards.address) == streaming.rewards.held() == bootstrap_wei(1_000)
    assert streaming.rewards.bootstrapHeld() == streaming.rewards.undistributed() == bootstrap_wei(1_000)


def test_with_nothing_to_draw_only_the_time_of_the_checkpoint_moves(streaming: Stage) -> None:
    pass_time(1_000)
    streaming.pull()
    before = streaming.everything()
    streaming.pull()
    assert (streaming.events(), streaming.everything()) == ([], before)
    pass_time(1)
    streaming.pull()
    assert streaming.rewards.lastUpdateAt() == now()


def test_without_a_stream_it_books_what_arrived(stage: Stage) -> None:
    stage.fund(3 * PRLX)
    stage.pull()
    assert stage.events() == [("RewardsFunded", {"source": INCOME_SOURCE, "amount": 3 * PRLX, "totalHeld": 3 * PRLX})]
    assert (stage.rewards.held(), stage.rewards.undistributed(), stage.rewards.bootstrapHeld()) == (
        3 * PRLX,
        3 * PRLX,
        0,
    )


def test_both_sources_of_one_call_are_told_apart(streaming: Stage) -> None:
    pass_time(1_000)
    streaming.fund(3 * PRLX)
    streaming.pull()
    assert streaming.funded() == {BOOTSTRAP_SOURCE: bootstrap_wei(1_000), INCOME_SOURCE: 3 * PRLX}
    assert streaming.logged("RewardsFunded")[-1]["totalHeld"] == streaming.rewards.held()


@pytest.mark.parametrize("fund_wei", [0, 3 * PRLX])
def test_what_somebody_else_had_the_stream_pay_is_bootstrap_all_the_same(
    streaming: Stage, lockup: Any, fund_wei: int
) -> None:
    pass_time(1_000)
    streaming.fund(fund_wei)
    lockup.withdraw(streaming.rewards.streamId(), streaming.rewards.address, 5 * PRLX, sender=stranger())
    pass_time(1_000)
    streaming.pull()
    expected = {BOOTSTRAP_SOURCE: bootstrap_wei(2_000)} | ({INCOME_SOURCE: fund_wei} if fund_wei else {})
    assert streaming.funded() == expected
    assert streaming.rewards.bootstrapHeld() == bootstrap_wei(2_000)


def test_all_of_it_drawn_by_somebody_else_is_bootstrap_too(streaming: Stage, lockup: Any) -> None:
    pass_time(1_000)
    lockup.withdrawMax(streaming.rewards.streamId(), streaming.rewards.address, sender=stranger())
    streaming.pull()
    assert streaming.funded() == {BOOTSTRAP_SOURCE: bootstrap_wei(1_000)}


def test_every_state_change_but_a_claim_draws_first(streaming: Stage, node: int) -> None:
    rewards, roles = streaming.rewards, streaming.network.roles
    changes = {
        "report": lambda: rewards.reportLiveness(*BATCH_0, [], sender=roles.liveness),
        "sync": lambda: rewards.sync(node, sender=stranger()),
        "pause": lambda: rewards.pause(sender=roles.guardian),
        "unpause": lambda: rewards.unpause(sender=roles.owner),
    }
    for name, change in changes.items():
        pass_time(100)
        change()
        assert BOOTSTRAP_SOURCE in streaming.funded(), name
    held_before_wei = rewards.held()
    pass_time(100)
    streaming.retire(node)
    assert rewards.held() > held_before_wei


# --- the fee that Sablier may ask ---


@pytest.fixture
def fee_wei(streaming: Stage, lockup: Any) -> int:
    """What each withdrawal costs: half a thousandth of a coin, a dollar's worth."""
    boa.env.set_balance(stranger(), 10**18)
    return ask_fee(lockup, DOLLAR)


def test_whoever_pulls_may_bring_the_fee(streaming: Stage, fee_wei: int) -> None:
    pass_time(1_000)
    streaming.rewards.pull(sender=stranger(), value=fee_wei)
    assert streaming.funded() == {BOOTSTRAP_SOURCE: bootstrap_wei(1_000)}
    assert boa.env.get_balance(streaming.rewards.address) == 0


@pytest.mark.parametrize("short_wei", [0, 1])
def test_without_the_fee_nothing_is_drawn_and_nothing_fails(streaming: Stage, fee_wei: int, short_wei: int) -> None:
    pass_time(1_000)
    brought_wei = fee_wei - 1 if short_wei else 0
    streaming.rewards.pull(sender=stranger(), value=brought_wei)
    assert (streaming.funded(), streaming.rewards.held()) == ({}, 0)
    assert boa.env.get_balance(streaming.rewards.address) == brought_wei


def test_what_is_left_pays_the_next_fees_whoever_calls(streaming: Stage, fee_wei: int) -> None:
    pass_time(1_000)
    streaming.rewards.pull(sender=stranger(), value=2 * fee_wei)
    assert boa.env.get_balance(streaming.rewards.address) == fee_wei
    pass_time(1_000)
    streaming.report()
    assert streaming.rewards.held() == bootstrap_wei(2_000)
    assert boa.env.get_balance(streaming.rewards.address) == 0


def test_with_nothing_to_draw_no_fee_is_spent(streaming: Stage, fee_wei: int) -> None:
    pass_time(1_000)
    streaming.rewards.pull(sender=stranger(), value=2 * fee_wei)
    streaming.pull()
    assert boa.env.get_balance(streaming.rewards.address) == fee_wei


def test_ether_that_is_not_needed_is_not_spent(streaming: Stage) -> None:
    boa.env.set_balance(stranger(), 10**18)
    pass_time(1_000)
    streaming.rewards.pull(sender=stranger(), value=10**17)
    assert streaming.rewards.held() == bootstrap_wei(1_000)
    assert boa.env.get_balance(streaming.rewards.address) == 10**17


# --- plain ETH ---


def test_plain_ether_is_taken_for_the_fees(streaming: Stage, fee_wei: int) -> None:
    boa.env.raw_call(streaming.rewards.address, sender=stranger(), value=fee_wei)
    pass_time(1_000)
    streaming.pull()
    assert streaming.rewards.held() == bootstrap_wei(1_000)
    assert boa.env.get_balance(streaming.rewards.address) == 0


@pytest.mark.parametrize("value", [0, 1])
def test_a_function_that_does_not_exist_is_refused(streaming: Stage, fee_wei: int, value: int) -> None:
    before = streaming.everything()
    call = boa.env.execute_code(
        to_address=streaming.rewards.address, sender=stranger(), value=value, data=b"what is this?"
    )
    assert call.is_error
    assert b"rewards: no such function" in call.output
    assert streaming.everything() == before
