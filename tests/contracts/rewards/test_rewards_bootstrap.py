"""The bootstrap is paid at one rate, whatever was held up before, and only for seconds in which somebody earns."""

from __future__ import annotations

from typing import Any

import boa
import pytest
from network import BOOTSTRAP_SECONDS, BOOTSTRAP_WEI, STALE_SECONDS
from rewards_stage import DAY_SECONDS, PRLX, STAKE_WEI, Stage, bootstrap_wei, pass_time
from sablier import bind_stream


@pytest.mark.parametrize("seconds", [1, 2, 13, 3_599, STALE_SECONDS])
def test_a_node_that_is_alone_earns_the_rate_to_the_wei(streaming: Stage, node: int, seconds: int) -> None:
    pass_time(seconds)
    assert streaming.earned(node) == bootstrap_wei(seconds)


def test_a_day_is_34199_prlx(streaming: Stage, node: int) -> None:
    streaming.active(DAY_SECONDS)
    assert streaming.earned(node) == bootstrap_wei(DAY_SECONDS) == BOOTSTRAP_WEI // 731
    assert streaming.earned(node) // PRLX == 34_199


def test_the_parts_of_a_wei_of_many_checkpoints_add_up(streaming: Stage, node: int) -> None:
    for _ in range(100):
        pass_time(7)
        streaming.pull()
    assert streaming.earned(node) == bootstrap_wei(700)


def test_it_is_shared_by_stake_and_tier(streaming: Stage) -> None:
    pass_time(3_600)
    # 1, 2 and 5 of 8 parts.
    single, double = streaming.stake(), streaming.stake(tier=2)
    fivefold = streaming.stake(stake_wei=2 * STAKE_WEI, tier=3)
    streaming.online(single, double, fivefold)
    pass_time(1_000)
    assert [streaming.earned(node_id) for node_id in (single, double, fivefold)] == [
        bootstrap_wei(1_000) * part // 8 for part in (1, 2, 5)
    ]


def test_a_node_that_comes_later_shares_from_then_on(streaming: Stage, node: int) -> None:
    pass_time(100)
    second = streaming.stake("second")
    streaming.online(second)
    pass_time(200)
    half_wei = bootstrap_wei(300) - bootstrap_wei(100)
    assert streaming.earned(second) in (half_wei // 2, half_wei // 2 - 1)
    assert streaming.earned(node) + streaming.earned(second) in (bootstrap_wei(300), bootstrap_wei(300) - 1)


def test_after_30_idle_days_the_rate_is_what_it_was(streaming: Stage, node: int) -> None:
    streaming.offline(node)
    pass_time(30 * DAY_SECONDS)
    before_wei = streaming.earned(node)
    streaming.online(node)
    assert streaming.earned(node) == before_wei
    pass_time(1_000)
    assert streaming.earned(node) - before_wei == bootstrap_wei(1_000)
    assert streaming.rewards.ratePerSecond() == BOOTSTRAP_WEI // BOOTSTRAP_SECONDS


def test_nothing_is_paid_while_no_report_comes_and_nothing_is_lost_by_it(streaming: Stage, node: int) -> None:
    pass_time(STALE_SECONDS)
    at_the_end_wei = streaming.earned(node)
    pass_time(30 * DAY_SECONDS)
    assert streaming.earned(node) == at_the_end_wei == bootstrap_wei(STALE_SECONDS)
    assert (streaming.rewards.isFresh(), streaming.rewards.ratePerSecond()) == (False, 0)
    streaming.report()
    assert streaming.earned(node) == at_the_end_wei
    assert streaming.rewards.undistributed() == streaming.rewards.held() - at_the_end_wei
    pass_time(1_000)
    assert streaming.earned(node) == bootstrap_wei(STALE_SECONDS + 1_000)


def test_rewards_that_never_had_a_stream_pay_none(stage: Stage) -> None:
    node_id = stage.stake()
    stage.online(node_id)
    pass_time(1_000)
    assert (stage.earned(node_id), stage.rewards.ratePerSecond()) == (0, 0)


def test_what_is_due_before_it_is_held_is_paid_at_the_end_of_the_tail(stage: Stage, lockup: Any) -> None:
    """Nobody has drawn on a stream that is only bound later: the rate does not rise to make up for it."""
    node_id = stage.stake()
    stage.online(node_id)
    pass_time(1_000)
    bind_stream(stage.network, lockup)
    assert stage.earned(node_id) == 0
    pass_time(1_000)
    assert stage.earned(node_id) == bootstrap_wei(1_000)


def test_the_tail_is_as_long_as_what_was_idle(streaming: Stage, node: int) -> None:
    """The stream has ended; what is left is paid at the same rate, to the last wei, and then no more."""
    streaming.offline(node)
    pass_time(BOOTSTRAP_SECONDS - 3_600)
    streaming.online(node)
    assert streaming.rewards.bootstrapHeld() == BOOTSTRAP_WEI
    assert not boa.env.get_balance(streaming.rewards.address)
    pass_time(STALE_SECONDS)
    assert streaming.earned(node) == bootstrap_wei(STALE_SECONDS)


def test_no_call_is_made_to_a_stream_that_has_paid_everything(streaming: Stage, node: int, lockup: Any) -> None:
    streaming.offline(node)
    pass_time(BOOTSTRAP_SECONDS)
    streaming.pull()
    assert lockup.isDepleted(streaming.rewards.streamId())
    boa.env.set_code(lockup.address, bytes.fromhex("fe"))
    streaming.pull()
    assert streaming.rewards.bootstrapHeld() == BOOTSTRAP_WEI
