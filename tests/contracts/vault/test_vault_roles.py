from __future__ import annotations

import boa
import pytest
from locker_scene import events
from vault_scene import NOBODY, SETTLER, VaultScene

ROLES = ["Settler", "Guardian"]


@pytest.mark.parametrize("role", ROLES)
def test_the_owner_replaces_a_role_at_once(scene: VaultScene, mallory: str, role: str) -> None:
    previous = getattr(scene.vault, role.lower())()

    getattr(scene.vault, f"set{role}")(mallory, sender=scene.owner)

    assert events(scene.vault, scene.vault) == [(f"{role}Changed", {"previous": previous, "current": mallory})]
    assert getattr(scene.vault, role.lower())() == mallory


def test_who_was_replaced_can_do_nothing_any_more(scene: VaultScene, alice: str, mallory: str) -> None:
    for role in ROLES:
        getattr(scene.vault, f"set{role}")(mallory, sender=scene.owner)
    with scene.refused("vault: caller is not the settler"):
        scene.vault.settle([(alice, 1)], sender=SETTLER.address)
    with scene.refused("vault: caller is not the guardian"):
        scene.vault.pause(sender=scene.guardian)

    scene.vault.settle([(alice, 1)], sender=mallory)
    scene.vault.pause(sender=mallory)
    assert (scene.vault.settled(alice), scene.vault.paused()) == (1, True)


@pytest.mark.parametrize("role", ROLES)
def test_nobody_but_the_owner_replaces_a_role(scene: VaultScene, alice: str, mallory: str, role: str) -> None:
    for stranger in (alice, mallory, scene.settler, scene.guardian):
        with scene.refused("ownable: caller is not the owner"):
            getattr(scene.vault, f"set{role}")(mallory, sender=stranger)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_never_nobodys(scene: VaultScene, role: str) -> None:
    with scene.refused("vault: zero address"):
        getattr(scene.vault, f"set{role}")(NOBODY, sender=scene.owner)


def test_ownership_is_handed_over_in_two_steps(scene: VaultScene, alice: str, mallory: str) -> None:
    scene.vault.transfer_ownership(alice, sender=scene.owner)
    assert (scene.vault.owner(), scene.vault.pending_owner()) == (scene.owner, alice)
    with scene.refused("ownable_2step: caller is not the new owner"):
        scene.vault.accept_ownership(sender=mallory)

    scene.vault.accept_ownership(sender=alice)

    assert (scene.vault.owner(), scene.vault.pending_owner()) == (alice, NOBODY)
    with scene.refused("ownable: caller is not the owner"):
        scene.vault.setSettler(mallory, sender=scene.owner)


def test_nobody_hands_over_what_is_not_theirs(scene: VaultScene, mallory: str) -> None:
    with scene.refused("ownable: caller is not the owner"):
        scene.vault.transfer_ownership(mallory, sender=mallory)


@pytest.mark.parametrize("name", ["renounce_ownership", "setTreasury", "setRewards", "setInfrastructure"])
def test_some_things_nobody_can_do(scene: VaultScene, name: str) -> None:
    assert not hasattr(scene.vault, name)


def test_the_first_settler_and_guardian_are_announced(scene: VaultScene) -> None:
    announced = [event for event in events(scene.vault, scene.vault) if event[0].endswith("Changed")]
    assert announced == [
        ("SettlerChanged", {"previous": NOBODY, "current": scene.settler}),
        ("GuardianChanged", {"previous": NOBODY, "current": scene.guardian}),
    ]


def test_the_vault_takes_no_coins(scene: VaultScene, alice: str) -> None:
    boa.env.set_balance(alice, 1)
    with pytest.raises(boa.BoaError):
        scene.vault.requestWithdrawal(1, sender=alice, value=1)
    assert boa.env.get_balance(scene.vault.address) == 0
