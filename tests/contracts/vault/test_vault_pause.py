from __future__ import annotations

from collections.abc import Callable

import boa
import pytest
from locker_scene import events
from vault_scene import DELAY_SECONDS, PRLX, VaultScene

Act = Callable[[VaultScene, str], object]

STOPPED: dict[str, tuple[Act, str]] = {
    "deposit": (lambda scene, alice: scene.vault.deposit(1, sender=alice), "vault: deposits are paused"),
    "depositWithPermit": (
        lambda scene, alice: scene.vault.depositWithPermit(1, 0, 27, bytes(32), bytes(32), sender=alice),
        "vault: deposits are paused",
    ),
    "settle": (lambda scene, alice: scene.settle((alice, 1)), "vault: settlement is paused"),
}
NEVER_STOPPED: dict[str, Act] = {
    "withdrawWithClearance": lambda scene, alice: scene.withdraw_cleared(scene.clearance(alice, 1, spent_wei=1)),
    "requestWithdrawal": lambda scene, alice: scene.vault.requestWithdrawal(1, sender=alice),
    "cancelWithdrawal": lambda scene, alice: scene.vault.cancelWithdrawal(sender=alice),
    "withdraw": lambda scene, alice: scene.vault.withdraw(sender=alice),
    "setDailyLimit": lambda scene, alice: scene.vault.setDailyLimit(1, sender=alice),
    "recoverSurplus": lambda scene, alice: scene.vault.recoverSurplus(sender=alice),
    "setSettler": lambda scene, alice: scene.vault.setSettler(alice, sender=scene.owner),
    "setGuardian": lambda scene, alice: scene.vault.setGuardian(alice, sender=scene.owner),
    "transfer_ownership": lambda scene, alice: scene.vault.transfer_ownership(alice, sender=scene.owner),
}
ABOUT_THE_PAUSE = {"pause", "unpause", "accept_ownership"}


@pytest.fixture
def ripe(scene: VaultScene, alice: str) -> str:
    """Alice with a ripe request, money to deposit, and a surplus in the vault."""
    scene.fund(alice, PRLX)
    scene.token.transfer(scene.vault.address, 1, sender=scene.owner)
    scene.vault.requestWithdrawal(PRLX, sender=alice)
    boa.env.time_travel(seconds=DELAY_SECONDS)
    return alice


def test_the_guardian_pauses(scene: VaultScene) -> None:
    scene.vault.pause(sender=scene.guardian)
    assert events(scene.vault, scene.vault) == [("Paused", {"account": scene.guardian})]
    assert scene.vault.paused()


def test_the_owner_pauses_and_unpauses(scene: VaultScene) -> None:
    scene.vault.pause(sender=scene.owner)
    assert events(scene.vault, scene.vault) == [("Paused", {"account": scene.owner})]

    scene.vault.unpause(sender=scene.owner)
    assert events(scene.vault, scene.vault) == [("Unpaused", {"account": scene.owner})]
    assert not scene.vault.paused()


def test_nobody_else_pauses(scene: VaultScene, alice: str, mallory: str) -> None:
    for stranger in (alice, mallory, scene.settler, scene.treasury):
        with scene.refused("vault: caller is not the guardian"):
            scene.vault.pause(sender=stranger)


def test_a_pause_ends_by_the_owner_alone(scene: VaultScene, alice: str, mallory: str) -> None:
    scene.vault.pause(sender=scene.guardian)
    for stranger in (scene.guardian, alice, mallory, scene.settler):
        with scene.refused("ownable: caller is not the owner"):
            scene.vault.unpause(sender=stranger)


def test_pausing_twice_is_refused(scene: VaultScene) -> None:
    scene.vault.pause(sender=scene.guardian)
    for caller in (scene.guardian, scene.owner):
        with scene.refused("vault: already paused"):
            scene.vault.pause(sender=caller)


def test_unpausing_what_is_not_paused_is_refused(scene: VaultScene) -> None:
    with scene.refused("vault: not paused"):
        scene.vault.unpause(sender=scene.owner)


@pytest.mark.parametrize("function", STOPPED)
def test_the_pause_stops_what_comes_in_and_settlement(scene: VaultScene, ripe: str, function: str) -> None:
    act, reason = STOPPED[function]
    scene.vault.pause(sender=scene.guardian)
    with scene.refused(reason):
        act(scene, ripe)

    scene.vault.unpause(sender=scene.owner)
    act(scene, ripe)


@pytest.mark.parametrize("function", NEVER_STOPPED)
def test_the_pause_stops_nothing_else(scene: VaultScene, ripe: str, function: str) -> None:
    scene.vault.pause(sender=scene.guardian)
    before = scene.everything()
    NEVER_STOPPED[function](scene, ripe)
    assert scene.everything() != before


def test_what_the_pause_does_is_said_of_each_function(scene: VaultScene) -> None:
    assert changing_functions(scene) == STOPPED.keys() | NEVER_STOPPED.keys() | ABOUT_THE_PAUSE


def changing_functions(scene: VaultScene) -> set[str]:
    abi = scene.vault.abi
    return {entry["name"] for entry in abi if entry["type"] == "function" and entry["stateMutability"] == "nonpayable"}
