from __future__ import annotations

import boa
import pytest
from eth_account.signers.local import LocalAccount
from locker_scene import events
from vault_scene import FORGER, PRLX, VaultScene, key_of, permit_of

AMOUNT_WEI = 40 * PRLX


@pytest.fixture
def carol(scene: VaultScene) -> LocalAccount:
    """A requester with a key, 100 PRLX and no allowance."""
    carol = key_of("carol")
    scene.fund(carol.address, 100 * PRLX)
    scene.token.approve(scene.vault.address, 0, sender=carol.address)
    return carol


def soon() -> int:
    return boa.env.timestamp + 60


def test_a_permit_stands_for_an_approval(scene: VaultScene, carol: LocalAccount) -> None:
    deadline = soon()
    permit = permit_of(carol, scene.token, scene.vault.address, AMOUNT_WEI, deadline)

    scene.vault.depositWithPermit(AMOUNT_WEI, deadline, *permit, sender=carol.address)

    assert events(scene.vault, scene.vault) == [
        ("Deposited", {"account": carol.address, "amount": AMOUNT_WEI, "deposit": AMOUNT_WEI})
    ]
    assert scene.vault.deposits(carol.address) == AMOUNT_WEI
    assert scene.token.allowance(carol.address, scene.vault.address) == 0


def test_a_permit_that_somebody_else_sent_first_still_deposits(
    scene: VaultScene, carol: LocalAccount, mallory: str
) -> None:
    deadline = soon()
    permit = permit_of(carol, scene.token, scene.vault.address, AMOUNT_WEI, deadline)
    scene.token.permit(carol.address, scene.vault.address, AMOUNT_WEI, deadline, *permit, sender=mallory)

    scene.vault.depositWithPermit(AMOUNT_WEI, deadline, *permit, sender=carol.address)

    assert scene.vault.deposits(carol.address) == AMOUNT_WEI


def test_an_expired_permit_leaves_it_to_the_allowance(scene: VaultScene, carol: LocalAccount) -> None:
    deadline = boa.env.timestamp - 1
    permit = permit_of(carol, scene.token, scene.vault.address, AMOUNT_WEI, deadline)
    with scene.refused("erc20: insufficient allowance"):
        scene.vault.depositWithPermit(AMOUNT_WEI, deadline, *permit, sender=carol.address)

    scene.token.approve(scene.vault.address, AMOUNT_WEI, sender=carol.address)
    scene.vault.depositWithPermit(AMOUNT_WEI, deadline, *permit, sender=carol.address)
    assert scene.vault.deposits(carol.address) == AMOUNT_WEI


def test_a_permit_of_another_key_is_worth_nothing(scene: VaultScene, carol: LocalAccount) -> None:
    deadline = soon()
    permit = permit_of(FORGER, scene.token, scene.vault.address, AMOUNT_WEI, deadline)
    with scene.refused("erc20: insufficient allowance"):
        scene.vault.depositWithPermit(AMOUNT_WEI, deadline, *permit, sender=carol.address)


def test_somebody_elses_permit_deposits_nothing_of_theirs(scene: VaultScene, carol: LocalAccount, mallory: str) -> None:
    deadline = soon()
    permit = permit_of(carol, scene.token, scene.vault.address, AMOUNT_WEI, deadline)
    with scene.refused("erc20: insufficient allowance"):
        scene.vault.depositWithPermit(AMOUNT_WEI, deadline, *permit, sender=mallory)


def test_a_permit_works_once(scene: VaultScene, carol: LocalAccount) -> None:
    deadline = soon()
    permit = permit_of(carol, scene.token, scene.vault.address, AMOUNT_WEI, deadline)
    scene.vault.depositWithPermit(AMOUNT_WEI, deadline, *permit, sender=carol.address)
    with scene.refused("erc20: insufficient allowance"):
        scene.vault.depositWithPermit(AMOUNT_WEI, deadline, *permit, sender=carol.address)


def test_nothing_is_refused_and_the_permit_is_not_used_up(scene: VaultScene, carol: LocalAccount) -> None:
    deadline = soon()
    permit = permit_of(carol, scene.token, scene.vault.address, 0, deadline)
    with scene.refused("vault: amount is zero"):
        scene.vault.depositWithPermit(0, deadline, *permit, sender=carol.address)
    assert scene.token.nonces(carol.address) == 0


def test_a_paused_vault_takes_no_permits(scene: VaultScene, carol: LocalAccount) -> None:
    deadline = soon()
    permit = permit_of(carol, scene.token, scene.vault.address, AMOUNT_WEI, deadline)
    scene.vault.pause(sender=scene.guardian)
    with scene.refused("vault: deposits are paused"):
        scene.vault.depositWithPermit(AMOUNT_WEI, deadline, *permit, sender=carol.address)
    assert scene.token.nonces(carol.address) == 0
