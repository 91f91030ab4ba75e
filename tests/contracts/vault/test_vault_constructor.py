from __future__ import annotations

from typing import Any

import boa
import pytest
from harness import revert_reason
from sources import deployer_of
from vault_scene import (
    DAY_SECONDS,
    DEFAULT_LIMIT_WEI,
    DELAY_SECONDS,
    LIMIT_WEI_MAX,
    NOBODY,
    SETTLER,
    VaultScene,
    deploy_vault,
)

FIELDS = ["token", "rewards", "treasury", "infrastructure", "settler", "guardian"]


def deploy_with(scene: VaultScene, **changes: Any) -> Any:
    values: dict[str, Any] = {name: getattr(scene.vault, name)() for name in FIELDS}
    values |= {"delay_seconds": DELAY_SECONDS, "limit_wei": DEFAULT_LIMIT_WEI} | changes
    return deployer_of("CreditVault")(*values.values())


def refusal_of(scene: VaultScene, **changes: Any) -> str:
    with pytest.raises(boa.BoaError) as caught:
        deploy_with(scene, **changes)
    return revert_reason(caught.value)


def test_a_new_vault_is_what_it_was_told_to_be(scene: VaultScene) -> None:
    vault = scene.vault
    assert (vault.token(), vault.settler(), vault.guardian()) == (scene.token.address, SETTLER.address, scene.guardian)
    assert (vault.rewards(), vault.treasury(), vault.infrastructure()) == (
        scene.rewards,
        scene.treasury,
        scene.infrastructure,
    )
    assert (vault.withdrawalDelaySeconds(), vault.defaultDailyLimit()) == (DELAY_SECONDS, DEFAULT_LIMIT_WEI)
    assert (vault.owner(), vault.pending_owner()) == (scene.owner, NOBODY)
    assert (vault.totalDeposits(), vault.paused()) == (0, False)


@pytest.mark.parametrize("field", FIELDS)
def test_the_zero_address_is_refused_in_each_place(scene: VaultScene, field: str) -> None:
    assert refusal_of(scene, **{field: NOBODY}) == "vault: zero address"


@pytest.mark.parametrize("field", ["rewards", "treasury", "infrastructure"])
def test_a_vault_that_would_pay_itself_is_refused(scene: VaultScene, field: str) -> None:
    with boa.env.anchor():
        own_address = deploy_with(scene).address
    with boa.env.anchor():
        assert deploy_with(scene).address == own_address
    assert refusal_of(scene, **{field: own_address}) == "vault: would pay itself"


@pytest.mark.parametrize("delay_seconds", [0, DAY_SECONDS + 1, 2**256 - 1])
def test_a_delay_outside_its_bounds_is_refused(scene: VaultScene, delay_seconds: int) -> None:
    assert refusal_of(scene, delay_seconds=delay_seconds) == "vault: withdrawal delay out of range"


@pytest.mark.parametrize("delay_seconds", [1, DAY_SECONDS])
def test_a_delay_at_its_bounds_is_taken(delay_seconds: int) -> None:
    with boa.env.anchor():
        assert deploy_vault(delay_seconds=delay_seconds).vault.withdrawalDelaySeconds() == delay_seconds


@pytest.mark.parametrize("limit_wei", [LIMIT_WEI_MAX + 1, 2**256 - 1])
def test_a_default_limit_that_has_no_room_is_refused(scene: VaultScene, limit_wei: int) -> None:
    assert refusal_of(scene, limit_wei=limit_wei) == "vault: daily limit out of range"


@pytest.mark.parametrize("limit_wei", [0, LIMIT_WEI_MAX])
def test_a_default_limit_at_its_bounds_is_taken(limit_wei: int) -> None:
    with boa.env.anchor():
        scene = deploy_vault(limit_wei=limit_wei)
        assert scene.vault.dailyLimit(scene.owner) == scene.vault.defaultDailyLimit() == limit_wei


def test_clearances_are_signed_in_a_domain_that_anybody_can_read(scene: VaultScene) -> None:
    _, name, version, chain_id, contract, salt, extensions = scene.vault.eip712Domain()
    assert (name, version, chain_id) == ("ParalleliX CreditVault", "1", boa.env.evm.patch.chain_id)
    assert (contract, salt, extensions) == (scene.vault.address, bytes(32), [])


def test_the_domain_follows_the_chain_id(scene: VaultScene) -> None:
    before = scene.vault.DOMAIN_SEPARATOR()
    boa.env.evm.patch.chain_id += 1
    assert scene.vault.DOMAIN_SEPARATOR() != before
