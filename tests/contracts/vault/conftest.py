from __future__ import annotations

from collections.abc import Iterator

import boa
import pytest
from vault_scene import PRLX, VaultScene, deploy_vault, deploy_vault_of_hostile_token


@pytest.fixture
def scene() -> Iterator[VaultScene]:
    """An empty vault that is exempt from the tax; a day's delay, 50 PRLX a day."""
    with boa.env.anchor():
        yield deploy_vault()


@pytest.fixture
def hostile_token_scene() -> Iterator[VaultScene]:
    """A vault of a token that misbehaves."""
    with boa.env.anchor():
        yield deploy_vault_of_hostile_token()


@pytest.fixture
def alice(scene: VaultScene) -> str:
    """A requester with 100 PRLX in the vault."""
    return scene.depositor("alice", 100 * PRLX)


@pytest.fixture
def bob(scene: VaultScene) -> str:
    """A requester with 10 PRLX in the vault."""
    return scene.depositor("bob", 10 * PRLX)


@pytest.fixture
def mallory(scene: VaultScene) -> str:
    """A stranger with nothing."""
    return boa.env.generate_address("mallory")
