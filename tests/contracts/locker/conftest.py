from __future__ import annotations

from collections.abc import Iterator

import boa
import pytest
from locker_scene import LockerScene, deploy_locker, deploy_locker_of_hostile_token


@pytest.fixture
def scene() -> Iterator[LockerScene]:
    """A locker that is exempt from the tax, with no rewards contract bound."""
    with boa.env.anchor():
        yield deploy_locker()


@pytest.fixture
def hostile_token_scene() -> Iterator[LockerScene]:
    """A locker of a token that misbehaves."""
    with boa.env.anchor():
        yield deploy_locker_of_hostile_token()


@pytest.fixture
def alice(scene: LockerScene) -> str:
    return boa.env.generate_address("alice")


@pytest.fixture
def mallory(scene: LockerScene) -> str:
    """A stranger."""
    return boa.env.generate_address("mallory")
