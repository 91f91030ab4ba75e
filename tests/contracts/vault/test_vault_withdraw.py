from __future__ import annotations

import boa
import pytest
from hostile_contracts import TokenMode
from locker_scene import events
from vault_scene import DAY_SECONDS, DEFAULT_LIMIT_WEI, DELAY_SECONDS, PRLX, VaultScene, deploy_vault, go_to


def test_after_the_delay_a_request_is_paid(scene: VaultScene, alice: str, bob: str) -> None:
    scene.vault.requestWithdrawal(30 * PRLX, sender=alice)
    boa.env.time_travel(seconds=DELAY_SECONDS)

    scene.vault.withdraw(sender=alice)

    assert events(scene.vault, scene.vault) == [
        ("Withdrawn", {"account": alice, "amount": 30 * PRLX, "deposit": 70 * PRLX, "nonce": 0, "cleared": False})
    ]
    assert scene.token.balanceOf(alice) == 30 * PRLX
    assert scene.vault.deposits(alice) == 70 * PRLX
    assert scene.vault.pendingWithdrawal(alice) == (0, 0)
    assert scene.vault.totalDeposits() == scene.token.balanceOf(scene.vault.address) == 80 * PRLX


def test_a_second_too_early_is_refused(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(30 * PRLX, sender=alice)
    boa.env.time_travel(seconds=DELAY_SECONDS - 1)
    with scene.refused("vault: withdrawal delay is not over"):
        scene.vault.withdraw(sender=alice)

    boa.env.time_travel(seconds=1)
    scene.vault.withdraw(sender=alice)
    assert scene.token.balanceOf(alice) == 30 * PRLX


def test_a_shorter_delay_is_over_sooner() -> None:
    with boa.env.anchor():
        scene = deploy_vault(delay_seconds=60)
        alice = scene.depositor("alice", PRLX)
        scene.vault.requestWithdrawal(PRLX, sender=alice)
        boa.env.time_travel(seconds=60)
        scene.vault.withdraw(sender=alice)
        assert scene.token.balanceOf(alice) == PRLX


def test_a_request_is_paid_once(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(30 * PRLX, sender=alice)
    boa.env.time_travel(seconds=DELAY_SECONDS)
    scene.vault.withdraw(sender=alice)
    with scene.refused("vault: no withdrawal was requested"):
        scene.vault.withdraw(sender=alice)


def test_without_a_request_nothing_is_paid(scene: VaultScene, alice: str, mallory: str) -> None:
    for account in (alice, mallory):
        with scene.refused("vault: no withdrawal was requested"):
            scene.vault.withdraw(sender=account)


def test_nobody_withdraws_what_somebody_else_asked_for(scene: VaultScene, alice: str, bob: str) -> None:
    scene.vault.requestWithdrawal(30 * PRLX, sender=alice)
    boa.env.time_travel(seconds=DELAY_SECONDS)
    for stranger in (bob, scene.owner, scene.guardian, scene.settler, scene.treasury):
        with scene.refused("vault: no withdrawal was requested"):
            scene.vault.withdraw(sender=stranger)


def test_spending_already_made_is_settled_before_the_withdrawal(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(100 * PRLX, sender=alice)
    scene.settle((alice, 20 * PRLX))
    boa.env.time_travel(seconds=DELAY_SECONDS)

    scene.vault.withdraw(sender=alice)

    assert scene.token.balanceOf(alice) == 80 * PRLX
    assert scene.account(alice)[:2] == (0, 20 * PRLX)
    assert sum(scene.shares()) == 20 * PRLX


def test_a_ripe_request_kept_in_reserve_is_settled_from_like_any_deposit(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(100 * PRLX, sender=alice)
    boa.env.time_travel(seconds=30 * DAY_SECONDS)
    scene.settle((alice, 50 * PRLX))
    assert scene.vault.pendingWithdrawal(alice)[0] == 50 * PRLX
    scene.fund(alice, 60 * PRLX)
    scene.vault.deposit(60 * PRLX, sender=alice)

    scene.vault.withdraw(sender=alice)

    assert scene.token.balanceOf(alice) == 50 * PRLX
    assert scene.vault.deposits(alice) == 60 * PRLX


def test_when_settlement_took_everything_nothing_is_left(scene: VaultScene, bob: str) -> None:
    scene.vault.requestWithdrawal(10 * PRLX, sender=bob)
    scene.settle((bob, 10 * PRLX))
    boa.env.time_travel(seconds=DELAY_SECONDS)
    with scene.refused("vault: nothing left to withdraw"):
        scene.vault.withdraw(sender=bob)


def test_a_clearance_between_request_and_withdrawal_pays_nothing_twice(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(100 * PRLX, sender=alice)
    clearance = scene.clearance(alice, 45 * PRLX, spent_wei=40 * PRLX, seconds=DELAY_SECONDS)
    scene.settle((alice, 25 * PRLX))
    scene.withdraw_cleared(clearance)
    boa.env.time_travel(seconds=DELAY_SECONDS)

    scene.vault.withdraw(sender=alice)

    assert scene.token.balanceOf(alice) == 60 * PRLX
    assert sum(scene.shares()) == 40 * PRLX
    assert scene.vault.deposits(alice) == scene.vault.totalDeposits() == 0


def test_a_clearance_after_the_withdrawal_finds_nothing(scene: VaultScene, alice: str) -> None:
    clearance = scene.clearance(alice, 100 * PRLX, seconds=2 * DELAY_SECONDS)
    scene.vault.requestWithdrawal(100 * PRLX, sender=alice)
    boa.env.time_travel(seconds=DELAY_SECONDS)
    scene.vault.withdraw(sender=alice)
    with scene.refused("vault: clearance exceeds the deposit"):
        scene.withdraw_cleared(clearance)


def test_with_the_coordinator_dead_and_the_vault_paused_everybody_gets_out(
    scene: VaultScene, alice: str, bob: str
) -> None:
    scene.vault.pause(sender=scene.guardian)
    for account in (alice, bob):
        scene.vault.requestWithdrawal(2**256 - 1, sender=account)
    boa.env.time_travel(seconds=DELAY_SECONDS)
    for account in (alice, bob):
        scene.vault.withdraw(sender=account)

    assert (scene.token.balanceOf(alice), scene.token.balanceOf(bob)) == (100 * PRLX, 10 * PRLX)
    assert scene.vault.totalDeposits() == scene.token.balanceOf(scene.vault.address) == 0


@pytest.mark.parametrize("second", [0, 1, 43_200, DAY_SECONDS - 1])
def test_a_stolen_settler_key_takes_two_days_limits_before_an_account_is_out(scene: VaultScene, second: int) -> None:
    alice = scene.depositor("alice", 1_000 * PRLX)
    go_to(second=second)
    everything = (alice, 2**256 - 1)
    scene.settle(everything)
    scene.vault.requestWithdrawal(2**256 - 1, sender=alice)
    for _ in range(24):
        scene.settle(everything)
        boa.env.time_travel(seconds=3_600)
    scene.settle(everything)

    scene.vault.withdraw(sender=alice)

    assert scene.token.balanceOf(alice) == 1_000 * PRLX - 2 * DEFAULT_LIMIT_WEI
    assert sum(scene.shares()) == 2 * DEFAULT_LIMIT_WEI


def test_a_token_that_says_it_failed_leaves_the_request_open(hostile_token_scene: VaultScene) -> None:
    scene = hostile_token_scene
    alice = scene.depositor("alice", PRLX)
    scene.vault.requestWithdrawal(PRLX, sender=alice)
    boa.env.time_travel(seconds=DELAY_SECONDS)
    scene.token.behave(TokenMode.SAY_FALSE)
    with scene.refused("vault: token transfer failed"):
        scene.vault.withdraw(sender=alice)

    scene.token.behave(TokenMode.OBEY)
    scene.vault.withdraw(sender=alice)
    assert scene.token.balanceOf(alice) == PRLX
