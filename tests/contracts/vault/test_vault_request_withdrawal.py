from __future__ import annotations

import boa
import pytest
from locker_scene import events
from vault_scene import DELAY_SECONDS, PRLX, VaultScene


def test_a_request_is_noted_and_moves_nothing(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(30 * PRLX, sender=alice)

    available_at = boa.env.timestamp + DELAY_SECONDS
    assert events(scene.vault, scene.vault) == [
        ("WithdrawalRequested", {"account": alice, "amount": 30 * PRLX, "availableAt": available_at})
    ]
    assert scene.vault.pendingWithdrawal(alice) == (30 * PRLX, available_at)
    assert scene.vault.deposits(alice) == scene.vault.totalDeposits() == 100 * PRLX


def test_another_request_replaces_the_first_and_waits_anew(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(30 * PRLX, sender=alice)
    boa.env.time_travel(seconds=DELAY_SECONDS)

    scene.vault.requestWithdrawal(20 * PRLX, sender=alice)

    assert scene.vault.pendingWithdrawal(alice) == (20 * PRLX, boa.env.timestamp + DELAY_SECONDS)
    with scene.refused("vault: withdrawal delay is not over"):
        scene.vault.withdraw(sender=alice)


@pytest.mark.parametrize("amount_wei", [100 * PRLX, 100 * PRLX + 1, 2**256 - 1])
def test_more_than_the_deposit_means_all_of_it(scene: VaultScene, alice: str, bob: str, amount_wei: int) -> None:
    scene.vault.requestWithdrawal(amount_wei, sender=alice)

    assert events(scene.vault, scene.vault)[0][1]["amount"] == 100 * PRLX
    assert scene.vault.pendingWithdrawal(alice)[0] == 100 * PRLX


def test_settling_in_front_of_a_request_does_not_stop_it(scene: VaultScene, alice: str) -> None:
    scene.settle((alice, 1))

    scene.vault.requestWithdrawal(100 * PRLX, sender=alice)

    assert scene.vault.pendingWithdrawal(alice)[0] == 100 * PRLX - 1


def test_a_request_works_while_the_vault_is_paused(scene: VaultScene, alice: str) -> None:
    scene.vault.pause(sender=scene.guardian)
    scene.vault.requestWithdrawal(PRLX, sender=alice)
    assert scene.vault.pendingWithdrawal(alice)[0] == PRLX


def test_a_later_deposit_does_not_widen_a_request(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(100 * PRLX, sender=alice)
    scene.settle((alice, 50 * PRLX))
    scene.fund(alice, 50 * PRLX)

    scene.vault.deposit(50 * PRLX, sender=alice)

    assert scene.vault.deposits(alice) == 100 * PRLX
    assert scene.vault.pendingWithdrawal(alice)[0] == 50 * PRLX


def test_nothing_is_refused(scene: VaultScene, alice: str) -> None:
    with scene.refused("vault: amount is zero"):
        scene.vault.requestWithdrawal(0, sender=alice)


def test_a_stranger_has_nothing_to_ask_for(scene: VaultScene, alice: str, mallory: str) -> None:
    with scene.refused("vault: nothing left to withdraw"):
        scene.vault.requestWithdrawal(PRLX, sender=mallory)


def test_an_account_that_spent_everything_has_nothing_to_ask_for(scene: VaultScene, bob: str) -> None:
    scene.settle((bob, 10 * PRLX))
    with scene.refused("vault: nothing left to withdraw"):
        scene.vault.requestWithdrawal(1, sender=bob)


def test_a_request_that_settlement_emptied_can_be_asked_anew(scene: VaultScene, bob: str) -> None:
    scene.vault.requestWithdrawal(10 * PRLX, sender=bob)
    scene.settle((bob, 10 * PRLX))
    scene.fund(bob, PRLX)
    scene.vault.deposit(PRLX, sender=bob)
    assert scene.vault.pendingWithdrawal(bob)[0] == 0

    scene.vault.requestWithdrawal(PRLX, sender=bob)

    assert scene.vault.pendingWithdrawal(bob) == (PRLX, boa.env.timestamp + DELAY_SECONDS)
