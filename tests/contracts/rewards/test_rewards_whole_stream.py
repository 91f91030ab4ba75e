"""The real stream from its first second to the end of the tail: everything that came is paid to those who earned it."""

from __future__ import annotations

import dataclasses
from typing import Any

import boa
import pytest
from network import BOOTSTRAP_SECONDS, BOOTSTRAP_WEI, MULTIPLIERS_TENTHS, Network
from rewards_stage import DAY_SECONDS, PRLX, Stage, pass_time, stranger
from sablier import bind_stream
from sources import deployer_of

DAYS = BOOTSTRAP_SECONDS // DAY_SECONDS
IDLE_DAYS = 20
"""In the middle of the stream nobody is online for so long."""


@pytest.fixture
def daily(network: Network, lockup: Any) -> Stage:
    """A network of its own whose reports hold for a day, so that its 731 days are not three thousand calls."""
    roles, token = network.roles, network.token
    with boa.env.prank(roles.deployer):
        locker = deployer_of("NodeRegistryLocker")(token.address, roles.treasury)
        rewards = deployer_of("OperatorStakeRewardsV2")(
            token.address,
            locker.address,
            network.anchor.address,
            roles.liveness,
            roles.guardian,
            BOOTSTRAP_WEI,
            BOOTSTRAP_SECONDS,
            MULTIPLIERS_TENTHS,
            DAY_SECONDS,
        )
        locker.bindRewards(rewards.address)
        rewards.transfer_ownership(roles.owner)
    rewards.accept_ownership(sender=roles.owner)
    for account in (locker, rewards):
        token.addExemption(account.address, sender=roles.owner)
    daily = dataclasses.replace(network, locker=locker, rewards=rewards)
    bind_stream(daily, lockup)
    return Stage(network=daily, owners=[])


def run_days(stage: Stage, days: int, *changes: tuple[int, bool, int]) -> None:
    """The changes at once, then a report a day."""
    stage.report(*changes)
    for _ in range(days):
        pass_time(DAY_SECONDS)
        stage.report()


@pytest.mark.slow
def test_all_of_25_million_and_all_income_is_paid_out(daily: Stage, lockup: Any) -> None:
    rewards, nodes = daily.rewards, [daily.stake(tier=1), daily.stake(tier=2), daily.stake(tier=4)]
    claimed_wei = income_wei = 0
    first, second, third = nodes

    run_days(daily, 100, (first, True, 0), (second, True, 0))
    for amount_wei in (1_000 * PRLX, 7 * PRLX + 1):
        daily.fund(amount_wei)
        income_wei += amount_wei
        run_days(daily, 1)
    claimed_wei += daily.claim(first)
    pass_time(1_000)
    lockup.withdrawMax(rewards.streamId(), rewards.address, sender=stranger())
    run_days(daily, 100, (third, True, 100))
    rewards.sync(third, sender=stranger())

    daily.offline(*nodes)
    pass_time(IDLE_DAYS * DAY_SECONDS)
    run_days(daily, 300, *((node_id, True, 0) for node_id in nodes))
    claimed_wei += sum(daily.claim(node_id) for node_id in nodes)
    daily.retire(second)
    run_days(daily, DAYS - 502 + 2)

    assert lockup.isDepleted(rewards.streamId())
    assert rewards.undistributed() == rewards.bootstrapHeld() == 0
    assert rewards.ratePerSecond() == 0
    claimed_wei += sum(daily.claim(node_id) for node_id in nodes if daily.earned(node_id))
    assert daily.earned(*nodes) == 0
    dust_wei = BOOTSTRAP_WEI + income_wei - claimed_wei
    assert 0 <= dust_wei < len(nodes)
    assert rewards.held() == daily.token.balanceOf(rewards.address) == dust_wei


def test_the_last_days_of_the_tail_are_paid_at_the_same_rate_and_end_to_the_wei(daily: Stage, lockup: Any) -> None:
    """Nobody is online until the stream is over; then one node earns all of it, in 731 days and no sooner."""
    node_id = daily.stake()
    pass_time(BOOTSTRAP_SECONDS)
    daily.online(node_id)
    assert lockup.isDepleted(daily.rewards.streamId())
    run_days(daily, 60)
    assert daily.earned(node_id) == BOOTSTRAP_WEI * 60 // DAYS
    assert daily.rewards.undistributed() == BOOTSTRAP_WEI - BOOTSTRAP_WEI * 60 // DAYS
