from __future__ import annotations

from hostile_contracts import TokenMode
from locker_scene import MINIMUM_STAKE_WEI, LockerScene, events


def test_what_is_nobodys_stake_goes_to_the_treasury(scene: LockerScene, alice: str, mallory: str) -> None:
    scene.stake(alice)
    scene.token.transfer(scene.locker.address, 777, sender=scene.deployer)

    assert scene.locker.recoverSurplus(sender=mallory) == 777

    assert events(scene.locker, scene.locker) == [("SurplusRecovered", {"amount": 777})]
    assert scene.token.balanceOf(scene.treasury) == 777
    assert scene.token.balanceOf(scene.locker.address) == scene.locker.totalPrincipal() == MINIMUM_STAKE_WEI
    assert scene.token.balanceOf(mallory) == 0


def test_without_a_surplus_it_is_refused(scene: LockerScene, alice: str, mallory: str) -> None:
    with scene.refused("locker: no surplus"):
        scene.locker.recoverSurplus(sender=mallory)
    scene.stake(alice)
    for caller in (alice, mallory, scene.deployer, scene.treasury):
        with scene.refused("locker: no surplus"):
            scene.locker.recoverSurplus(sender=caller)


def test_the_stakes_of_retired_nodes_are_no_surplus(scene: LockerScene, alice: str, mallory: str) -> None:
    scene.stake(alice)
    scene.retire(1)
    with scene.refused("locker: no surplus"):
        scene.locker.recoverSurplus(sender=mallory)


def test_a_transfer_of_the_surplus_that_failed_is_told(hostile_token_scene: LockerScene) -> None:
    scene = hostile_token_scene
    scene.token.transfer(scene.locker.address, 5, sender=scene.deployer)
    scene.token.behave(TokenMode.SAY_FALSE)
    with scene.refused("locker: token transfer failed"):
        scene.locker.recoverSurplus()
