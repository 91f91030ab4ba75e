from __future__ import annotations

import boa
import pytest
from harness import revert_reason
from hostile_contracts import hostile_deployer
from locker_scene import NOBODY, LockerScene, events
from sources import deployer_of


def test_the_deployer_names_the_rewards_contract(scene: LockerScene) -> None:
    rewards = hostile_deployer("HostileRewards")(scene.locker.address).address
    assert scene.locker.rewards() == NOBODY

    scene.locker.bindRewards(rewards, sender=scene.deployer)

    assert events(scene.locker, scene.locker) == [("RewardsBound", {"rewards": rewards})]
    assert scene.locker.rewards() == rewards


def test_nobody_else_does(scene: LockerScene, alice: str, mallory: str) -> None:
    rewards = hostile_deployer("HostileRewards")(scene.locker.address).address
    scene.stake(alice)
    for caller in (alice, mallory, scene.treasury, rewards):
        with scene.refused("locker: caller is not the deployer"):
            scene.locker.bindRewards(rewards, sender=caller)


def test_it_is_named_once_and_for_good(scene: LockerScene) -> None:
    first, second = (hostile_deployer("HostileRewards")(scene.locker.address).address for _ in range(2))
    scene.locker.bindRewards(first, sender=scene.deployer)
    for again in (first, second):
        with scene.refused("locker: rewards already bound"):
            scene.locker.bindRewards(again, sender=scene.deployer)


def test_the_rewards_of_another_locker_are_refused(scene: LockerScene, alice: str) -> None:
    foreign = hostile_deployer("HostileRewards")(alice).address
    for wrong in (foreign, alice, NOBODY):
        with scene.refused("locker: rewards serve another locker"):
            scene.locker.bindRewards(wrong, sender=scene.deployer)


def test_a_locker_knows_its_token_treasury_and_deployer(scene: LockerScene) -> None:
    assert (scene.locker.token(), scene.locker.treasury(), scene.locker.deployer()) == (
        scene.token.address,
        scene.treasury,
        scene.deployer,
    )
    assert (scene.locker.MINIMUM_STAKE(), scene.locker.COOLDOWN_SECONDS()) == (50_000 * 10**18, 7 * 24 * 3600)


def test_a_locker_without_a_token_or_a_treasury_is_not_deployed(scene: LockerScene) -> None:
    for token, treasury in ((NOBODY, scene.treasury), (scene.token.address, NOBODY)):
        with pytest.raises(boa.BoaError) as caught:
            deployer_of("NodeRegistryLocker")(token, treasury)
        assert revert_reason(caught.value) == "locker: zero address"
