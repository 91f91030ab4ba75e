from __future__ import annotations

import dataclasses

import boa
import pytest
from hostile_contracts import TokenMode
from locker_scene import events
from permits import Signature
from vault_scene import FORGER, PRLX, VaultScene, deploy_vault_of


def test_a_clearance_settles_what_was_spent_and_pays_at_once(scene: VaultScene, alice: str, bob: str) -> None:
    scene.withdraw_cleared(scene.clearance(alice, 30 * PRLX, spent_wei=20 * PRLX))

    split = {"operators": 17 * PRLX, "treasury": 2 * PRLX, "infrastructure": PRLX}
    assert events(scene.vault, scene.vault) == [
        (
            "SpendSettled",
            {"account": alice, "amount": 20 * PRLX, "cumulativeSettled": 20 * PRLX, "deposit": 80 * PRLX},
        ),
        (
            "Withdrawn",
            {"account": alice, "amount": 30 * PRLX, "deposit": 50 * PRLX, "nonce": 0, "cleared": True},
        ),
        ("SpendSplit", split),
    ]
    assert scene.account(alice)[:4] == (50 * PRLX, 20 * PRLX, 0, 1)
    assert scene.token.balanceOf(alice) == 30 * PRLX
    assert scene.shares() == tuple(split.values())
    assert scene.vault.totalDeposits() == scene.token.balanceOf(scene.vault.address) == 60 * PRLX


def test_with_nothing_spent_only_the_withdrawal_is_made(scene: VaultScene, alice: str) -> None:
    scene.withdraw_cleared(scene.clearance(alice, 100 * PRLX))

    assert events(scene.vault, scene.vault) == [
        ("Withdrawn", {"account": alice, "amount": 100 * PRLX, "deposit": 0, "nonce": 0, "cleared": True})
    ]
    assert scene.token.balanceOf(alice) == 100 * PRLX
    assert scene.shares() == (0, 0, 0)


def test_a_deposit_is_paid_out_to_the_last_wei(scene: VaultScene, alice: str) -> None:
    scene.withdraw_cleared(scene.clearance(alice, 1, spent_wei=100 * PRLX - 1))
    assert scene.account(alice)[:2] == (0, 100 * PRLX - 1)
    assert sum(scene.shares()) == 100 * PRLX - 1


def test_the_accounts_consent_lifts_the_daily_limit(scene: VaultScene, alice: str) -> None:
    scene.vault.setDailyLimit(scene.vault.defaultDailyLimit(), sender=alice)
    scene.settle((alice, 50 * PRLX))

    scene.withdraw_cleared(scene.clearance(alice, PRLX, spent_wei=90 * PRLX))

    assert scene.account(alice)[:3] == (9 * PRLX, 90 * PRLX, 50 * PRLX)


@pytest.mark.parametrize("spent_wei", [0, 39 * PRLX, 40 * PRLX])
def test_what_a_batch_settled_meanwhile_is_not_settled_again(scene: VaultScene, alice: str, spent_wei: int) -> None:
    clearance = scene.clearance(alice, 60 * PRLX, spent_wei=spent_wei)
    scene.settle((alice, 40 * PRLX))
    before = scene.shares()

    scene.withdraw_cleared(clearance)

    assert [name for name, _ in events(scene.vault, scene.vault)] == ["Withdrawn"]
    assert scene.account(alice)[:2] == (0, 40 * PRLX)
    assert scene.shares() == before


def test_a_batch_and_a_clearance_together_take_each_wei_once(scene: VaultScene, alice: str) -> None:
    clearance = scene.clearance(alice, 55 * PRLX, spent_wei=45 * PRLX)
    scene.settle((alice, 20 * PRLX))

    scene.withdraw_cleared(clearance)
    scene.settle((alice, 45 * PRLX))

    assert events(scene.vault, scene.vault)[0][1]["reason"] == 1
    assert scene.account(alice)[:2] == (0, 45 * PRLX)
    assert (sum(scene.shares()), scene.token.balanceOf(alice)) == (45 * PRLX, 55 * PRLX)


def test_a_clearance_works_while_the_vault_is_paused(scene: VaultScene, alice: str) -> None:
    scene.vault.pause(sender=scene.guardian)

    scene.withdraw_cleared(scene.clearance(alice, PRLX, spent_wei=PRLX))

    assert scene.vault.deposits(alice) == 98 * PRLX
    assert sum(scene.shares()) == PRLX


def test_an_open_request_keeps_what_the_deposit_still_covers(scene: VaultScene, alice: str) -> None:
    scene.vault.requestWithdrawal(80 * PRLX, sender=alice)
    _, available_at = scene.vault.pendingWithdrawal(alice)

    scene.withdraw_cleared(scene.clearance(alice, 15 * PRLX, spent_wei=5 * PRLX))
    assert scene.vault.pendingWithdrawal(alice) == (80 * PRLX, available_at)

    scene.withdraw_cleared(scene.clearance(alice, 10 * PRLX, spent_wei=10 * PRLX))
    assert scene.vault.pendingWithdrawal(alice) == (65 * PRLX, available_at)


def test_nothing_is_refused(scene: VaultScene, alice: str) -> None:
    with scene.refused("vault: amount is zero"):
        scene.withdraw_cleared(scene.clearance(alice, 0, spent_wei=PRLX))


def test_a_clearance_holds_to_its_last_second_and_no_longer(scene: VaultScene, alice: str) -> None:
    clearance = scene.clearance(alice, PRLX, seconds=60)
    boa.env.time_travel(seconds=61)
    with scene.refused("vault: clearance has expired"):
        scene.withdraw_cleared(clearance)

    clearance = scene.clearance(alice, PRLX, seconds=60)
    boa.env.time_travel(seconds=60)
    scene.withdraw_cleared(clearance)
    assert scene.vault.nonces(alice) == 1


def test_a_clearance_works_once(scene: VaultScene, alice: str) -> None:
    clearance = scene.clearance(alice, PRLX)
    scene.withdraw_cleared(clearance)
    with scene.refused("vault: clearance nonce is not the next"):
        scene.withdraw_cleared(clearance)


def test_of_two_clearances_with_one_nonce_only_one_is_paid(scene: VaultScene, alice: str) -> None:
    first, second = scene.clearance(alice, PRLX), scene.clearance(alice, 2 * PRLX)
    scene.withdraw_cleared(second)
    with scene.refused("vault: clearance nonce is not the next"):
        scene.withdraw_cleared(first)


@pytest.mark.parametrize("nonce", [1, 2**256 - 1])
def test_a_clearance_out_of_turn_is_refused(scene: VaultScene, alice: str, nonce: int) -> None:
    with scene.refused("vault: clearance nonce is not the next"):
        scene.withdraw_cleared(dataclasses.replace(scene.clearance(alice, PRLX), nonce=nonce))


def test_somebody_elses_clearance_is_refused(scene: VaultScene, alice: str, bob: str) -> None:
    arguments = scene.clearance(alice, PRLX).arguments(scene.vault.address)
    with scene.refused("vault: clearance is not from the settler"):
        scene.vault.withdrawWithClearance(*arguments, sender=bob)


@pytest.mark.parametrize("field", range(4), ids=["amount", "cumulativeSpent", "nonce", "expiry"])
def test_another_figure_than_was_signed_is_refused(scene: VaultScene, alice: str, field: int) -> None:
    scene.withdraw_cleared(scene.clearance(alice, 1))
    clearance = dataclasses.replace(scene.clearance(alice, PRLX, spent_wei=PRLX), nonce=0 if field == 2 else 1)
    arguments = list(clearance.arguments(scene.vault.address))
    arguments[field] = arguments[field] + 1  # pyright: ignore[reportOperatorIssue]
    with scene.refused("vault: clearance is not from the settler"):
        scene.vault.withdrawWithClearance(*arguments, sender=alice)


def test_a_clearance_for_another_vault_is_refused(scene: VaultScene, alice: str) -> None:
    other = deploy_vault_of(scene.token, scene.owner, scene.treasury)
    arguments = scene.clearance(alice, PRLX).arguments(other.vault.address)
    with scene.refused("vault: clearance is not from the settler"):
        scene.vault.withdrawWithClearance(*arguments, sender=alice)


def test_a_clearance_for_another_chain_is_refused(scene: VaultScene, alice: str) -> None:
    chain_id = boa.env.evm.patch.chain_id + 1
    arguments = scene.clearance(alice, PRLX).arguments(scene.vault.address, chain_id=chain_id)
    with scene.refused("vault: clearance is not from the settler"):
        scene.vault.withdrawWithClearance(*arguments, sender=alice)

    boa.env.evm.patch.chain_id = chain_id
    scene.vault.withdrawWithClearance(*arguments, sender=alice)
    assert scene.token.balanceOf(alice) == PRLX


def test_a_clearance_of_another_key_is_refused(scene: VaultScene, alice: str) -> None:
    arguments = scene.clearance(alice, PRLX).arguments(scene.vault.address, signer=FORGER)
    with scene.refused("vault: clearance is not from the settler"):
        scene.vault.withdrawWithClearance(*arguments, sender=alice)


def test_a_new_settler_makes_the_clearances_of_the_last_one_void(scene: VaultScene, alice: str) -> None:
    clearance = scene.clearance(alice, PRLX)
    scene.vault.setSettler(FORGER.address, sender=scene.owner)
    with scene.refused("vault: clearance is not from the settler"):
        scene.vault.withdrawWithClearance(*clearance.arguments(scene.vault.address), sender=alice)

    scene.vault.withdrawWithClearance(*clearance.arguments(scene.vault.address, signer=FORGER), sender=alice)
    assert scene.vault.nonces(alice) == 1


def test_the_other_form_of_the_same_signature_is_refused(scene: VaultScene, alice: str) -> None:
    *fields, v, r, s = scene.clearance(alice, PRLX).arguments(scene.vault.address)
    other = Signature(v, r, s).malleated()
    with scene.refused("ecdsa: invalid signature `s` value"):
        scene.vault.withdrawWithClearance(*fields, *other, sender=alice)


@pytest.mark.parametrize("v", [0, 1, 26, 29, 255])
def test_a_signature_that_recovers_nobody_is_refused(scene: VaultScene, alice: str, v: int) -> None:
    *fields, _, r, s = scene.clearance(alice, PRLX).arguments(scene.vault.address)
    with scene.refused("ecdsa: invalid signature"):
        scene.vault.withdrawWithClearance(*fields, v, r, s, sender=alice)


@pytest.mark.parametrize(
    ("amount_wei", "spent_wei"),
    [
        (100 * PRLX + 1, 0),
        (60 * PRLX + 1, 40 * PRLX),
        (1, 100 * PRLX),
        (1, 2**256 - 1),
        (2**256 - 1, 0),
        (2**256 - 1, 2),
        (2**256 - 1, 2**256 - 1),
    ],
)
def test_more_than_the_deposit_covers_is_refused(
    scene: VaultScene, alice: str, bob: str, amount_wei: int, spent_wei: int
) -> None:
    with scene.refused("vault: clearance exceeds the deposit"):
        scene.withdraw_cleared(scene.clearance(alice, amount_wei, spent_wei=spent_wei))


def test_a_token_that_says_it_failed_leaves_the_clearance_unused(hostile_token_scene: VaultScene) -> None:
    scene = hostile_token_scene
    alice = scene.depositor("alice", PRLX)
    clearance = scene.clearance(alice, PRLX)
    scene.token.behave(TokenMode.SAY_FALSE)
    with scene.refused("vault: token transfer failed"):
        scene.withdraw_cleared(clearance)

    scene.token.behave(TokenMode.OBEY)
    scene.withdraw_cleared(clearance)
    assert scene.token.balanceOf(alice) == PRLX


def test_a_token_that_calls_back_cannot_use_a_clearance_twice(hostile_token_scene: VaultScene) -> None:
    scene = hostile_token_scene
    account = scene.token.address
    scene.fund(account, 2 * PRLX)
    scene.vault.deposit(2 * PRLX, sender=account)
    scene.vault.requestWithdrawal(2 * PRLX, sender=account)
    boa.env.time_travel(seconds=scene.vault.withdrawalDelaySeconds())
    scene.token.callBack(scene.vault.address, scene.vault.withdraw.prepare_calldata())

    scene.withdraw_cleared(scene.clearance(account, PRLX))

    assert (scene.token.callsTried(), scene.token.callsDone()) == (1, 0)
    assert scene.token.balanceOf(account) == scene.vault.deposits(account) == PRLX
