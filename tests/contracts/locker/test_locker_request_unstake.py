from __future__ import annotations

import boa
import pytest
from harness import revert_reason
from hostile_contracts import RewardsMode
from locker_scene import COOLDOWN_SECONDS, COOLING, MINIMUM_STAKE_WEI, LockerScene, events, key_hash

REWARDS_GAS = 700_000


def test_asking_for_the_stake_retires_the_node_and_starts_the_cooldown(scene: LockerScene, alice: str) -> None:
    scene.stake(alice, tier=2, key=4)

    scene.locker.requestUnstake(1, sender=alice)

    withdrawable_at = boa.env.timestamp + COOLDOWN_SECONDS
    assert events(scene.locker, scene.locker) == [
        ("UnstakeRequested", {"nodeId": 1, "owner": alice, "withdrawableAt": withdrawable_at})
    ]
    assert scene.locker.nodes(1) == (alice, MINIMUM_STAKE_WEI, 2, COOLING, key_hash(4), withdrawable_at)
    assert scene.locker.nodeOfKey(key_hash(4)) == 0
    assert scene.locker.totalPrincipal() == scene.token.balanceOf(scene.locker.address) == MINIMUM_STAKE_WEI


@pytest.mark.parametrize("node_id", [0, 2, 2**256 - 1])
def test_a_node_that_never_was_is_refused(scene: LockerScene, alice: str, node_id: int) -> None:
    scene.stake(alice)
    with scene.refused("locker: no such node"):
        scene.locker.requestUnstake(node_id, sender=alice)


def test_somebody_elses_node_is_refused_to_everybody(scene: LockerScene, alice: str, mallory: str) -> None:
    scene.stake(alice)
    for stranger in (mallory, scene.deployer, scene.treasury, scene.token.address, scene.locker.address):
        with scene.refused("locker: caller is not the owner of the node"):
            scene.locker.requestUnstake(1, sender=stranger)


def test_a_retired_node_is_refused_so_that_no_cooldown_starts_again(scene: LockerScene, alice: str) -> None:
    scene.stake(alice)
    scene.retire(1)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    with scene.refused("locker: node is already retired"):
        scene.locker.requestUnstake(1, sender=alice)

    scene.locker.withdrawStake(1, sender=alice)
    with scene.refused("locker: node is already retired"):
        scene.locker.requestUnstake(1, sender=alice)


def test_the_rewards_contract_is_told_and_reads_the_new_state(scene: LockerScene, alice: str) -> None:
    rewards = scene.bind_hostile_rewards(RewardsMode.OBEY)
    scene.stake(alice)

    scene.locker.requestUnstake(1, sender=alice)

    assert (rewards.timesTold(1), rewards.stateSeen()) == (1, COOLING)
    assert [name for name, _ in events(scene.locker, scene.locker)] == ["UnstakeRequested"]


@pytest.mark.parametrize("mode", list(RewardsMode))
def test_whatever_the_rewards_contract_does_the_stake_comes_back(
    scene: LockerScene, alice: str, mode: RewardsMode
) -> None:
    rewards = scene.bind_hostile_rewards(mode)
    scene.stake(alice)

    scene.locker.requestUnstake(1, sender=alice)

    names = [name for name, _ in events(scene.locker, scene.locker)]
    assert names == ["UnstakeRequested"] + ["RewardsNotTold"] * (not mode.is_told)
    assert rewards.timesTold(1) == mode.is_told
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    scene.locker.withdrawStake(1, sender=alice)
    assert scene.token.balanceOf(alice) == MINIMUM_STAKE_WEI


def test_a_rewards_contract_without_code_does_not_keep_the_stake(scene: LockerScene, alice: str) -> None:
    rewards = scene.bind_hostile_rewards(RewardsMode.OBEY)
    boa.env.set_code(rewards.address, b"")
    scene.stake(alice)

    scene.locker.requestUnstake(1, sender=alice)

    assert scene.locker.nodes(1).state == COOLING


@pytest.mark.parametrize("mode", [RewardsMode.BURN_GAS, RewardsMode.ANSWER_AT_LENGTH, RewardsMode.REVERT_AT_LENGTH])
def test_what_the_rewards_contract_can_burn_is_bounded(scene: LockerScene, alice: str, mode: RewardsMode) -> None:
    scene.bind_hostile_rewards(mode)
    scene.stake(alice)

    scene.locker.requestUnstake(1, sender=alice, gas=REWARDS_GAS + 60_000)

    assert scene.locker.nodes(1).state == COOLING


def test_no_amount_of_gas_retires_a_node_without_telling_the_rewards(scene: LockerScene, alice: str) -> None:
    rewards = scene.bind_hostile_rewards(RewardsMode.OBEY)
    scene.stake(alice)
    reasons: set[str] = set()
    before = scene.everything()
    for gas in (*range(5_000, 700_000, 20_000), *range(700_000, 820_000, 4_000)):
        with boa.env.anchor():
            try:
                scene.locker.requestUnstake(1, sender=alice, gas=gas)
            except boa.BoaError as error:
                reasons.add(revert_reason(error))
                assert scene.everything() == before
                assert rewards.timesTold(1) == 0
            else:
                assert rewards.timesTold(1) == 1
                assert rewards.gasSeen() > REWARDS_GAS - 1_000

    assert "locker: too little gas to tell the rewards" in reasons


def test_with_too_little_gas_for_the_notice_the_request_is_refused(scene: LockerScene, alice: str) -> None:
    scene.bind_hostile_rewards(RewardsMode.OBEY)
    scene.stake(alice)
    with scene.refused("locker: too little gas to tell the rewards"):
        scene.locker.requestUnstake(1, sender=alice, gas=REWARDS_GAS)


def test_a_rewards_contract_that_calls_back_meets_the_lock(scene: LockerScene) -> None:
    rewards = scene.bind_hostile_rewards(RewardsMode.OBEY)
    scene.token.transfer(rewards.address, 3 * MINIMUM_STAKE_WEI, sender=scene.deployer)
    retired, other = (
        rewards.registerThere(scene.token.address, MINIMUM_STAKE_WEI, key_hash(number)) for number in (1, 2)
    )
    scene.token.transfer(scene.locker.address, 1, sender=scene.deployer)
    scene.token.approve(scene.locker.address, MINIMUM_STAKE_WEI, sender=rewards.address)
    rewards.behave(RewardsMode.REENTER, other)

    rewards.requestThere(retired)

    assert (rewards.reentriesTried(), rewards.reentriesDone()) == (5, 0)
    assert [scene.locker.nodes(node_id).state for node_id in (retired, other)] == [COOLING, 1]
    assert scene.token.balanceOf(scene.locker.address) == 2 * MINIMUM_STAKE_WEI + 1
    assert scene.locker.nodeCount() == 2


def test_a_matured_node_is_not_paid_out_from_within_the_notice(scene: LockerScene) -> None:
    rewards = scene.bind_hostile_rewards(RewardsMode.OBEY)
    scene.token.transfer(rewards.address, 2 * MINIMUM_STAKE_WEI, sender=scene.deployer)
    matured, retired = (
        rewards.registerThere(scene.token.address, MINIMUM_STAKE_WEI, key_hash(number)) for number in (1, 2)
    )
    rewards.requestThere(matured)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    rewards.behave(RewardsMode.REENTER, matured)

    rewards.requestThere(retired)

    assert rewards.reentriesDone() == 0
    assert scene.token.balanceOf(rewards.address) == 0
