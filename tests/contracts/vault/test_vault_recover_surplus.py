from __future__ import annotations

import boa
from hostile_contracts import TokenMode
from locker_scene import events
from vault_scene import PRLX, VaultScene


def test_what_belongs_to_no_deposit_goes_to_the_treasury(scene: VaultScene, alice: str, mallory: str) -> None:
    scene.token.transfer(scene.vault.address, 7 * PRLX, sender=scene.owner)

    assert scene.vault.recoverSurplus(sender=mallory) == 7 * PRLX

    assert events(scene.vault, scene.vault) == [("SurplusRecovered", {"amount": 7 * PRLX})]
    assert scene.token.balanceOf(scene.treasury) == 7 * PRLX
    assert scene.vault.totalDeposits() == scene.token.balanceOf(scene.vault.address) == 100 * PRLX


def test_deposits_are_no_surplus(scene: VaultScene, alice: str, mallory: str) -> None:
    scene.vault.requestWithdrawal(100 * PRLX, sender=alice)
    boa.env.time_travel(seconds=scene.vault.withdrawalDelaySeconds())
    for anybody in (mallory, alice, scene.owner, scene.treasury):
        with scene.refused("vault: no surplus"):
            scene.vault.recoverSurplus(sender=anybody)


def test_a_surplus_is_recovered_while_the_vault_is_paused(scene: VaultScene, mallory: str) -> None:
    scene.token.transfer(scene.vault.address, 1, sender=scene.owner)
    scene.vault.pause(sender=scene.guardian)
    assert scene.vault.recoverSurplus(sender=mallory) == 1


def test_a_token_that_says_it_failed_recovers_nothing(hostile_token_scene: VaultScene) -> None:
    scene = hostile_token_scene
    scene.token.transfer(scene.vault.address, 1, sender=scene.owner)
    scene.token.behave(TokenMode.SAY_FALSE)
    with scene.refused("vault: token transfer failed"):
        scene.vault.recoverSurplus(sender=scene.owner)
