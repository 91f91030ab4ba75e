from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from http_network import CATALOGUE, Ground, Network, StartNetwork, running_network
from talking_runtime import TalkingRuntime

from parallelix.node import keys
from parallelix.node.home import Home
from parallelix.node.runtimes import base


@pytest.fixture(scope="session")
def node_homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two nodes' folders after `init`, made once: RSA keys take a second."""
    homes = [Home(tmp_path_factory.mktemp("node") / ".parallelix") for _ in range(2)]
    for home in homes:
        keys.create_keys(home, replace=False, config=None)
    return tuple(home.root for home in homes)


@pytest.fixture
def runtime() -> TalkingRuntime:
    return TalkingRuntime()


@pytest.fixture(scope="module")
def start_network(tmp_path_factory: pytest.TempPathFactory, node_homes: tuple[Path, ...]) -> StartNetwork:
    def start(
        runtime: base.Runtime, *, nodes: int = 1, catalogue: str = CATALOGUE, **settings: Any
    ) -> contextlib.AbstractAsyncContextManager[Network]:
        folder = tmp_path_factory.mktemp("coordinator")
        return running_network(
            Ground(folder=folder, homes=node_homes[:nodes], runtime=runtime, catalogue=catalogue, settings=settings)
        )

    return start


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(start_network: StartNetwork) -> AsyncIterator[Network]:
    """A network for tests that leave nothing behind but their own account's requests."""
    async with start_network(TalkingRuntime()) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(network: Network) -> AsyncIterator[httpx.AsyncClient]:
    """A client with an account of its own."""
    async with network.customer() as customer:
        yield customer
