"""Rewards against exact fractions; and that neither splitting a stake nor calling more often earns more."""

from __future__ import annotations

import boa
import pytest
from rewards_differential import FIRST_SECOND, gain_by_splitting, run_schedule, run_schedules
from rewards_model import DAY_SECONDS, Change, RewardTerms
from rewards_scene import MINIMUM_STAKE_WEI, RewardsScene

pytestmark = pytest.mark.service

SCHEDULES = 12


def test_schedules_of_40_events_pay_what_exact_fractions_say_and_strand_nothing() -> None:
    result = run_schedules(SCHEDULES, seed=0)

    assert result.events == SCHEDULES * 40
    assert result.tails > 0
    assert result.max_error_wei < 4
    assert result.max_stranded_per_node_wei <= 1


def test_a_schedule_is_the_same_each_time_it_is_run() -> None:
    assert run_schedule(24).log == run_schedule(24).log


@pytest.mark.parametrize("parts", [2, 3])
def test_splitting_a_stake_and_calling_more_often_gain_at_most_a_wei_a_call(parts: int) -> None:
    gain_wei, more_calls = gain_by_splitting(parts, parts=parts)

    assert more_calls > 20
    assert gain_wei <= more_calls


def test_what_a_wei_was_short_of_is_not_carried_over_once_all_that_is_held_was_paid() -> None:
    boa.env.evm.patch.timestamp = FIRST_SECOND
    scene = RewardsScene(RewardTerms(bootstrap_wei=3, bootstrap_seconds=2))
    scene.start_stream(3)
    scene.bind_stream()
    node_id = scene.register(scene.around.operators[0], MINIMUM_STAKE_WEI, 1)
    scene.report([Change(node_id=node_id, online=True)])

    scene.pass_time(1)
    scene.pull()
    assert scene.lifetime_wei(node_id) == 1, "one and a half were due, and one was held"
    scene.report([Change(node_id=node_id, online=False)])
    scene.pass_time(2)
    scene.report([Change(node_id=node_id, online=True)])
    scene.pass_time(1)
    scene.pull()

    assert scene.lifetime_wei(node_id) == 1 + 1, "two are held, and again one and a half are due"
    scene.pass_time(DAY_SECONDS)
    assert scene.lifetime_wei(node_id) == 3


def test_a_stream_whose_first_payments_were_claimed_as_income_can_still_be_bound() -> None:
    boa.env.evm.patch.timestamp = FIRST_SECOND
    scene = RewardsScene(RewardTerms(bootstrap_wei=10**24, bootstrap_seconds=DAY_SECONDS, stale_seconds=DAY_SECONDS))
    scene.start_stream(10 * DAY_SECONDS)
    node_id = scene.register(scene.around.operators[0], MINIMUM_STAKE_WEI, 1)
    scene.pass_time(DAY_SECONDS)
    scene.withdraw_from_stream(10**23)
    for _ in range(3):
        scene.report([Change(node_id=node_id, online=True)])
        scene.pass_time(DAY_SECONDS)
    assert scene.claim(node_id) == 10**23

    scene.bind_stream()

    scene.check_totals()
    scene.pass_time(10 * DAY_SECONDS)
    scene.pull()
    assert scene.rewards.held() + 10**23 == 10**24


def test_a_claim_that_pays_all_that_is_held_keeps_the_part_of_a_wei_that_the_stream_covers() -> None:
    boa.env.evm.patch.timestamp = FIRST_SECOND
    scene = RewardsScene(RewardTerms(bootstrap_wei=3, bootstrap_seconds=4))
    node_id = scene.register(scene.around.operators[0], MINIMUM_STAKE_WEI, 1)
    scene.start_stream(3)
    scene.bind_stream()
    scene.report([Change(node_id=node_id, online=True)])
    for _ in range(2):
        scene.pass_time(1)
        scene.pull()

    scene.pass_time(1)
    scene.claim(node_id)
    scene.pass_time(1)

    assert scene.lifetime_wei(node_id) == 3, "three quarters of a wei a second, four seconds long"
