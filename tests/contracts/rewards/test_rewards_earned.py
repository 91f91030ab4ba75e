from __future__ import annotations

from typing import Any

import boa
import pytest
from network import BOOTSTRAP_WEI, STALE_SECONDS
from rewards_stage import DAY_SECONDS, PRLX, Stage, bootstrap_wei, go_to_midnight, pass_time, stranger
from sablier import DOLLAR, ask_fee


def test_it_grows_every_second_without_any_call(streaming: Stage, node: int) -> None:
    for seconds in range(1, 6):
        pass_time(1)
        assert streaming.earned(node) == bootstrap_wei(seconds)


def test_it_counts_what_the_stream_would_release_now(streaming: Stage) -> None:
    """Nothing but the stream's own release is there to pay it: the node came online with its first second."""
    node_id = streaming.stake()
    streaming.online(node_id)
    assert streaming.rewards.held() == 0
    pass_time(1_000)
    assert streaming.earned(node_id) == bootstrap_wei(1_000)
    assert streaming.claim(node_id) == bootstrap_wei(1_000)


def test_it_counts_what_somebody_else_had_the_stream_pay(streaming: Stage, lockup: Any) -> None:
    node_id = streaming.stake()
    streaming.online(node_id)
    pass_time(1_000)
    lockup.withdrawMax(streaming.rewards.streamId(), streaming.rewards.address, sender=stranger())
    assert streaming.earned(node_id) == bootstrap_wei(1_000)
    assert streaming.claim(node_id) == bootstrap_wei(1_000)


@pytest.mark.parametrize("brought", ["the fee", "a wei less"])
def test_it_counts_it_only_when_the_fee_can_be_paid(streaming: Stage, lockup: Any, brought: str) -> None:
    node_id = streaming.stake()
    streaming.online(node_id)
    pass_time(1_000)
    fee_wei = ask_fee(lockup, DOLLAR)
    payable = brought == "the fee"
    boa.env.set_balance(streaming.rewards.address, fee_wei if payable else fee_wei - 1)
    expected_wei = bootstrap_wei(1_000) if payable else 0
    assert streaming.earned(node_id) == expected_wei
    if payable:
        assert streaming.claim(node_id) == expected_wei
    else:
        with streaming.refused("rewards: nothing earned"):
            streaming.claim(node_id)


def test_unbooked_income_is_nobodys_today(streaming: Stage, node: int) -> None:
    pass_time(100)
    before_wei = streaming.earned(node)
    streaming.fund(86_400 * PRLX)
    assert streaming.earned(node) == before_wei
    assert streaming.claim(node) == before_wei


def test_it_never_falls_whatever_is_done(streaming: Stage, pair: tuple[int, int], lockup: Any) -> None:
    first, second = pair
    rewards, roles = streaming.rewards, streaming.network.roles
    steps = [
        lambda: streaming.fund(10 * PRLX),
        lambda: lockup.withdraw(rewards.streamId(), rewards.address, 1, sender=stranger()),
        streaming.pull,
        lambda: streaming.report((second, True, 5)),
        lambda: streaming.offline(first),
        lambda: streaming.online(first, second),
        lambda: rewards.sync(second, sender=stranger()),
        lambda: rewards.pause(sender=roles.guardian),
        lambda: rewards.unpause(sender=roles.owner),
        lambda: streaming.online(first, second),
        lambda: streaming.claim(second),
        lambda: streaming.retire(second),
        go_to_midnight,
        lambda: pass_time(40 * DAY_SECONDS),
        streaming.report,
        lambda: streaming.retire(first),
    ]
    lowest_wei = 0
    for step in steps:
        before_wei = streaming.earned(first)
        step()
        assert streaming.earned(first) >= before_wei >= lowest_wei
        lowest_wei = before_wei
        pass_time(997)
    assert streaming.claim(first) >= lowest_wei > 0


def test_of_a_node_that_never_was_it_is_nothing(stage: Stage) -> None:
    assert [stage.earned(node_id) for node_id in (0, 1, 2**256 - 1)] == [0, 0, 0]


def test_all_nodes_together_never_earn_more_than_came(streaming: Stage) -> None:
    node_ids = [streaming.stake(tier=tier, stake_wei=(50_000 + tier * 7_919) * PRLX) for tier in (1, 2, 3, 4)]
    streaming.online(*node_ids)
    for _ in range(10):
        pass_time(1_234)
        streaming.report()
        earned_wei = streaming.earned(*node_ids)
        distributed_wei = streaming.rewards.held() - streaming.rewards.undistributed()
        assert 0 <= distributed_wei - earned_wei <= len(node_ids)
    assert streaming.rewards.held() == bootstrap_wei(12_340)


def test_a_whole_supply_on_one_node_and_a_least_stake_on_another_are_both_paid(streaming: Stage) -> None:
    roles = streaming.network.roles
    whale = streaming.stake("whale", stake_wei=74_000_000 * PRLX, tier=4)
    minnow = streaming.stake("minnow")
    assert streaming.token.balanceOf(roles.deployer) < BOOTSTRAP_WEI
    pass_time(3_600)
    streaming.online(whale, minnow)
    pass_time(STALE_SECONDS)
    total_weight = 74_000_000 * 30 + 50_000 * 10
    assert streaming.earned(minnow) == bootstrap_wei(STALE_SECONDS) * 50_000 * 10 // total_weight
    assert streaming.earned(whale) == bootstrap_wei(STALE_SECONDS) * 74_000_000 * 30 // total_weight
