from __future__ import annotations

import boa
from locker_scene import events
from vault_scene import DELAY_SECONDS, PRLX, VaultScene


def test_a_request_is_taken_back(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(30 * PRLX, sender=alice)

    scene.vault.cancelWithdrawal(sender=alice)

    assert events(scene.vault, scene.vault) == [("WithdrawalCancelled", {"account": alice})]
    assert scene.vault.pendingWithdrawal(alice) == (0, 0)
    assert scene.vault.deposits(alice) == 100 * PRLX


def test_a_cancelled_request_is_never_paid(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(30 * PRLX, sender=alice)
    scene.vault.cancelWithdrawal(sender=alice)
    boa.env.time_travel(seconds=DELAY_SECONDS)
    with scene.refused("vault: no withdrawal was requested"):
        scene.vault.withdraw(sender=alice)


def test_cancelling_works_while_the_vault_is_paused(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(PRLX, sender=alice)
    scene.vault.pause(sender=scene.guardian)
    scene.vault.cancelWithdrawal(sender=alice)
    assert scene.vault.pendingWithdrawal(alice) == (0, 0)


def test_cancelling_keeps_what_was_settled_today(scene: VaultScene, alice: str) -> None:
    scene.settle((alice, 20 * PRLX))
    scene.vault.requestWithdrawal(30 * PRLX, sender=alice)
    scene.vault.cancelWithdrawal(sender=alice)
    assert scene.vault.settledToday(alice) == 20 * PRLX


def test_without_a_request_there_is_nothing_to_cancel(scene: VaultScene, alice: str) -> None:
    with scene.refused("vault: no withdrawal was requested"):
        scene.vault.cancelWithdrawal(sender=alice)


def test_nobody_cancels_somebody_elses_request(scene: VaultScene, alice: str, bob: str, mallory: str) -> None:
    scene.vault.requestWithdrawal(30 * PRLX, sender=alice)
    for stranger in (bob, mallory, scene.owner, scene.guardian, scene.settler):
        with scene.refused("vault: no withdrawal was requested"):
            scene.vault.cancelWithdrawal(sender=stranger)
