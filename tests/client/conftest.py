from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from client_scene import Operate, Printed
from cutting_wire import CuttingWire
from http_network import CATALOGUE, Ground, Network, StartNetwork, running_network
from talking_runtime import TalkingRuntime

from parallelix.client import cli
from parallelix.node import keys
from parallelix.node.home import Home
from parallelix.node.runtimes import base


@pytest.fixture(autouse=True)
def plain_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = ("URL", "API_KEY", "DEPLOYMENT", "RPC_URL", "RPC", "KEY_FILE")
    for name in ("NO_COLOR", "FORCE_COLOR", "http_proxy", "all_proxy", *(f"PARALLELIX_{each}" for each in ours)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PARALLELIX_HOME", str(tmp_path / ".parallelix"))


@pytest.fixture(scope="session")
def client_node_homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two nodes' folders after `init`, made once: RSA keys take a second."""
    homes = [Home(tmp_path_factory.mktemp("node") / ".parallelix") for _ in range(2)]
    for home in homes:
        keys.create_keys(home, replace=False, config=None)
    return tuple(home.root for home in homes)


@pytest.fixture
def runtime() -> TalkingRuntime:
    return TalkingRuntime()


@pytest.fixture(scope="module")
def start_network(tmp_path_factory: pytest.TempPathFactory, client_node_homes: tuple[Path, ...]) -> StartNetwork:
    def start(
        runtime: base.Runtime, *, nodes: int = 1, **settings: Any
    ) -> contextlib.AbstractAsyncContextManager[Network]:
        folder = tmp_path_factory.mktemp("coordinator")
        homes = client_node_homes[:nodes]
        return running_network(
            Ground(folder=folder, homes=homes, runtime=runtime, catalogue=CATALOGUE, settings=settings)
        )

    return start


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(start_network: StartNetwork) -> AsyncIterator[Network]:
    """A network whose batches are confirmed at once, for tests that leave nothing behind but their own requests."""
    async with start_network(TalkingRuntime(), batch_seconds=0.05) as running:
        yield running


@pytest.fixture
def wire() -> Callable[[Network], contextlib.AbstractAsyncContextManager[CuttingWire]]:
    """What lies between a client and a network, for a test to break."""
    return lambda network: CuttingWire.to(network.url)


@pytest.fixture
def operate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operate:
    """Runs one command as a requester types it, with `stdin` piped in."""

    def run(*arguments: str, stdin: str = "") -> Printed:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = cli.run(list(arguments))
        captured = capsys.readouterr()
        return Printed(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture
def operating(operate: Operate) -> Callable[..., Awaitable[Printed]]:
    """The same beside a running network: the command has a loop of its own in a thread of its own."""

    async def run(*arguments: str, stdin: str = "") -> Printed:
        return await asyncio.to_thread(operate, *arguments, stdin=stdin)

    return run
