from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boa
import pytest
from network import Network, deploy_network
from sablier import bind_stream, deploy_sablier

# Not in the person's home, where titanoboa would keep what it compiled.
boa.interpret.set_cache_dir(str(Path(__file__).resolve().parents[2] / ".pytest_cache" / "titanoboa"))


@pytest.fixture(autouse=True)
def isolated_chain() -> Iterator[None]:
    """What a test does to the chain, its clock included, is gone when the test is over."""
    with boa.env.anchor():
        yield


@pytest.fixture(scope="session")
def deployed_network() -> Network:
    """Ask for `network`: this one is shared, and only safe because each test is undone."""
    return deploy_network()


@pytest.fixture
def network(deployed_network: Network, isolated_chain: None) -> Network:
    """All five contracts, bound and exempted, each role an account of its own; no stream."""
    return deployed_network


@pytest.fixture
def lockup(sablier_folder: Path, isolated_chain: None) -> Any:
    """A real Sablier Lockup that asks no fee."""
    return deploy_sablier()


@pytest.fixture
def stream_id(network: Network, lockup: Any) -> int:
    """The production stream to the rewards of `network`, bound and starting now."""
    return bind_stream(network, lockup)
