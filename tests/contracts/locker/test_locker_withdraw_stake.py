from __future__ import annotations

import boa
import pytest
from hostile_contracts import TokenMode
from locker_scene import COOLDOWN_SECONDS, MINIMUM_STAKE_WEI, WITHDRAWN, LockerScene, events, key_hash


def test_the_whole_stake_comes_back_to_the_wei(scene: LockerScene, alice: str) -> None:
    stake_wei = 73_000 * 10**18 + 12_345_678_901
    scene.stake(alice, stake_wei=stake_wei, tier=4, key=2)
    scene.retire(1)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    withdrawable_at = boa.env.timestamp

    scene.locker.withdrawStake(1, sender=alice)

    assert events(scene.locker, scene.locker) == [
        ("StakeWithdrawn", {"nodeId": 1, "owner": alice, "amount": stake_wei, "totalPrincipal": 0})
    ]
    assert scene.token.balanceOf(alice) == stake_wei
    assert scene.token.balanceOf(scene.locker.address) == scene.locker.totalPrincipal() == 0
    assert scene.locker.nodes(1) == (alice, stake_wei, 4, WITHDRAWN, key_hash(2), withdrawable_at)


def test_not_a_second_before_seven_days(scene: LockerScene, alice: str) -> None:
    scene.stake(alice)
    scene.retire(1)
    boa.env.time_travel(seconds=7 * 24 * 3600 - 1)
    with scene.refused("locker: cooldown is not over"):
        scene.locker.withdrawStake(1, sender=alice)

    boa.env.time_travel(seconds=1)
    scene.locker.withdrawStake(1, sender=alice)
    assert scene.token.balanceOf(alice) == MINIMUM_STAKE_WEI


def test_an_active_node_is_refused(scene: LockerScene, alice: str) -> None:
    scene.stake(alice)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    with scene.refused("locker: node is not cooling down"):
        scene.locker.withdrawStake(1, sender=alice)


@pytest.mark.parametrize("node_id", [0, 2, 2**256 - 1])
def test_a_node_that_never_was_has_no_stake(scene: LockerScene, alice: str, node_id: int) -> None:
    scene.stake(alice)
    with scene.refused("locker: no such node"):
        scene.locker.withdrawStake(node_id, sender=alice)


def test_a_stake_is_paid_once(scene: LockerScene, alice: str, mallory: str) -> None:
    scene.stake(alice)
    scene.stake(mallory)
    scene.retire(1)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    scene.locker.withdrawStake(1, sender=alice)
    with scene.refused("locker: stake was withdrawn"):
        scene.locker.withdrawStake(1, sender=alice)


def test_nobody_but_the_owner_of_the_node_is_paid(scene: LockerScene, alice: str, mallory: str) -> None:
    scene.stake(alice)
    scene.stake(mallory)
    scene.retire(1)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    for stranger in (mallory, scene.deployer, scene.treasury):
        with scene.refused("locker: caller is not the owner of the node"):
            scene.locker.withdrawStake(1, sender=stranger)


def test_other_peoples_stakes_stay(scene: LockerScene, alice: str, mallory: str) -> None:
    scene.stake(alice)
    scene.stake(mallory, stake_wei=2 * MINIMUM_STAKE_WEI)
    scene.retire(1)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)

    scene.locker.withdrawStake(1, sender=alice)

    assert scene.locker.totalPrincipal() == scene.token.balanceOf(scene.locker.address) == 2 * MINIMUM_STAKE_WEI


def test_a_payment_that_failed_leaves_the_stake_to_be_withdrawn(hostile_token_scene: LockerScene, alice: str) -> None:
    scene = hostile_token_scene
    scene.stake(alice)
    scene.retire(1)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    scene.token.behave(TokenMode.SAY_FALSE)
    with scene.refused("locker: token transfer failed"):
        scene.locker.withdrawStake(1, sender=alice)

    scene.token.behave(TokenMode.OBEY)
    scene.locker.withdrawStake(1, sender=alice)
    assert scene.token.balanceOf(alice) == MINIMUM_STAKE_WEI


def test_a_payment_that_calls_back_is_not_made_twice(hostile_token_scene: LockerScene, alice: str) -> None:
    scene = hostile_token_scene
    owner = scene.token.address
    scene.stake(owner)
    scene.stake(alice)
    scene.retire(1)
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    scene.token.callBack(scene.locker.address, scene.locker.withdrawStake.prepare_calldata(1))

    scene.locker.withdrawStake(1, sender=owner)

    assert (scene.token.callsTried(), scene.token.callsDone()) == (1, 0)
    assert scene.token.balanceOf(owner) == scene.locker.totalPrincipal() == MINIMUM_STAKE_WEI
