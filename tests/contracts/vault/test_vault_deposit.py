from __future__ import annotations

import boa
import pytest
from hostile_contracts import TokenMode
from locker_scene import events
from vault_scene import PRLX, VaultScene, deploy_vault


def test_a_deposit_is_booked_and_says_so(scene: VaultScene, bob: str) -> None:
    alice = boa.env.generate_address("alice")
    scene.fund(alice, 7 * PRLX)

    scene.vault.deposit(5 * PRLX, sender=alice)

    assert events(scene.vault, scene.vault) == [
        ("Deposited", {"account": alice, "amount": 5 * PRLX, "deposit": 5 * PRLX})
    ]
    assert scene.vault.deposits(alice) == 5 * PRLX
    assert scene.vault.totalDeposits() == scene.token.balanceOf(scene.vault.address) == 15 * PRLX


def test_a_second_deposit_adds_to_the_first(scene: VaultScene, alice: str) -> None:
    scene.fund(alice, 3)

    scene.vault.deposit(3, sender=alice)

    assert events(scene.vault, scene.vault) == [
        ("Deposited", {"account": alice, "amount": 3, "deposit": 100 * PRLX + 3})
    ]
    assert scene.vault.deposits(alice) == 100 * PRLX + 3


def test_the_whole_supply_fits(scene: VaultScene) -> None:
    supply_wei = scene.token.totalSupply()
    scene.fund(scene.owner, 0)

    scene.vault.deposit(supply_wei, sender=scene.owner)
    scene.vault.requestWithdrawal(supply_wei, sender=scene.owner)
    scene.vault.setDailyLimit(supply_wei, sender=scene.owner)
    scene.settle((scene.owner, supply_wei - 1))

    assert scene.account(scene.owner)[:3] == (1, supply_wei - 1, supply_wei - 1)
    assert scene.vault.pendingWithdrawal(scene.owner)[0] == 1


def test_nothing_is_refused(scene: VaultScene, alice: str) -> None:
    with scene.refused("vault: amount is zero"):
        scene.vault.deposit(0, sender=alice)


def test_a_paused_vault_takes_no_deposits(scene: VaultScene, alice: str) -> None:
    scene.fund(alice, 5)
    scene.vault.pause(sender=scene.guardian)
    with scene.refused("vault: deposits are paused"):
        scene.vault.deposit(5, sender=alice)

    scene.vault.unpause(sender=scene.owner)
    scene.vault.deposit(5, sender=alice)
    assert scene.vault.deposits(alice) == 100 * PRLX + 5


def test_without_an_exemption_no_deposit_is_taken() -> None:
    with boa.env.anchor():
        taxed = deploy_vault(exempt=False)
        alice = boa.env.generate_address("alice")
        taxed.fund(alice, 100)
        with taxed.refused("vault: not exempt from the transfer tax"):
            taxed.vault.deposit(100, sender=alice)

        taxed.token.addExemption(taxed.vault.address, sender=taxed.owner)
        taxed.vault.deposit(100, sender=alice)
        assert taxed.vault.deposits(alice) == 100


def test_without_an_allowance_the_token_refuses(scene: VaultScene, alice: str) -> None:
    scene.fund(alice, 5)
    scene.token.approve(scene.vault.address, 4, sender=alice)
    with scene.refused("erc20: insufficient allowance"):
        scene.vault.deposit(5, sender=alice)


@pytest.mark.parametrize("amount_wei", [6, 2**96, 2**256 - 1])
def test_without_the_tokens_the_token_refuses(scene: VaultScene, alice: str, amount_wei: int) -> None:
    scene.fund(alice, 5)
    with scene.refused("erc20: transfer amount exceeds balance"):
        scene.vault.deposit(amount_wei, sender=alice)


def test_what_arrived_is_booked_and_not_what_was_asked_for(hostile_token_scene: VaultScene) -> None:
    scene = hostile_token_scene
    alice = boa.env.generate_address("alice")
    scene.fund(alice, 100 * PRLX)
    scene.token.behave(TokenMode.TAX_IN)

    scene.vault.deposit(100 * PRLX, sender=alice)

    assert events(scene.vault, scene.vault) == [
        ("Deposited", {"account": alice, "amount": 96 * PRLX, "deposit": 96 * PRLX})
    ]
    assert scene.vault.deposits(alice) == scene.vault.totalDeposits() == 96 * PRLX
    assert scene.token.balanceOf(scene.vault.address) == 96 * PRLX


def test_what_lay_here_before_is_nobodys_deposit(scene: VaultScene, alice: str) -> None:
    scene.token.transfer(scene.vault.address, 50 * PRLX, sender=scene.owner)
    scene.fund(alice, 1)

    scene.vault.deposit(1, sender=alice)

    assert scene.vault.deposits(alice) == scene.vault.totalDeposits() == 100 * PRLX + 1


def test_a_token_that_says_it_failed_is_believed(hostile_token_scene: VaultScene) -> None:
    scene = hostile_token_scene
    alice = boa.env.generate_address("alice")
    scene.fund(alice, PRLX)
    scene.token.behave(TokenMode.SAY_FALSE)
    with scene.refused("vault: token transfer failed"):
        scene.vault.deposit(PRLX, sender=alice)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [("deposit", (1,)), ("requestWithdrawal", (1,)), ("withdraw", ()), ("recoverSurplus", ()), ("totalDeposits", ())],
)
def test_a_token_that_calls_back_meets_the_lock(
    hostile_token_scene: VaultScene, function: str, arguments: tuple[object, ...]
) -> None:
    scene = hostile_token_scene
    account = scene.token.address
    scene.fund(account, 10 * PRLX)
    scene.vault.deposit(PRLX, sender=account)
    scene.vault.requestWithdrawal(PRLX, sender=account)
    scene.token.transfer(scene.vault.address, 1, sender=scene.owner)
    boa.env.time_travel(seconds=scene.vault.withdrawalDelaySeconds())
    scene.token.callBack(scene.vault.address, getattr(scene.vault, function).prepare_calldata(*arguments))

    scene.vault.deposit(PRLX, sender=account)

    assert (scene.token.callsTried(), scene.token.callsDone()) == (1, 0)
    assert scene.vault.totalDeposits() == scene.vault.deposits(account) == 2 * PRLX
