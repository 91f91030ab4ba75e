"""A real coordinator over real HTTP with a real store, and a real node whose model says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import httpx
import msgspec
import pytest
import pytest_asyncio
from talking_runtime import DIGEST, MODEL, TalkingRuntime

from parallelix.coordinator import app, commands
from parallelix.coordinator.http.app import build_app
from parallelix.coordinator.http.server import Server
from parallelix.coordinator.operator import OperatorApp
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.engine import events
from parallelix.node import keys
from parallelix.node.daemon import DaemonSettings, run_daemon
from parallelix.node.home import Home
from parallelix.node.logging import open_log
from parallelix.node.runtimes import base
from parallelix.protocol import messages, signing
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.registry import MINIMUM_STAKE_WEI, Registration

ACCOUNT = "acme"
NODE_ID = 1844674407370955161
CREDITS_WEI = 10**24


@dataclass(kw_only=True)
class Network:
    """One coordinator, its node if it has one, and one account with a key."""

    coordinator: Coordinator
    url: str
    secret: str
    logged: list[tuple[str, dict[str, Any]]]
    identities: tuple[str, ...] = ()
    """What no requester may ever read: the node's id, key hash and address."""

    def client(self, secret: str | None = None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {secret or self.secret}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)

    async def new_key(self, account: str = ACCOUNT, **limits: Any) -> str:
        key = commands.new_key()
        await self.coordinator.issue_key(
            events.KeyIssued(key_id=key.key_id, key_hash=key.key_hash, account=account, name="test", **limits)
        )
        return key.secret


@dataclass(kw_only=True)
class Ground:
    """Where a network of one test lies."""

    folder: Path
    home: Path
    runtime: base.Runtime | None
    catalogue: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


CATALOGUE = f"""
[[models]]
name = "{MODEL}"
digests = ["{DIGEST}"]
prompt_wei_per_1000 = "1000000"
completion_wei_per_1000 = "2000000"
context_tokens = 8192
"""


@pytest.fixture(scope="session")
def node_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node's folder after `init`, made once: two RSA keys take a second."""
    home = Home(tmp_path_factory.mktemp("node") / ".parallelix")
    keys.create_keys(home, replace=False, config=None)
    return home.root


@pytest.fixture
def runtime() -> TalkingRuntime:
    return TalkingRuntime()


StartNetwork = Callable[..., contextlib.AbstractAsyncContextManager[Network]]


@pytest.fixture
def start_network(tmp_path: Path, node_home: Path) -> StartNetwork:
    def start(
        runtime: base.Runtime | None, *, catalogue: str = CATALOGUE, **settings: Any
    ) -> contextlib.AbstractAsyncContextManager[Network]:
        return running_network(
            Ground(folder=tmp_path, home=node_home, runtime=runtime, catalogue=catalogue, settings=settings)
        )

    return start


@pytest_asyncio.fixture
async def network(start_network: StartNetwork, runtime: TalkingRuntime) -> AsyncIterator[Network]:
    async with start_network(runtime) as running:
        yield running


@pytest_asyncio.fixture
async def lonely_network(start_network: StartNetwork) -> AsyncIterator[Network]:
    """A coordinator without any node."""
    async with start_network(None) as running:
        yield running


@asynccontextmanager
async def running_network(ground: Ground) -> AsyncGenerator[Network]:
    node_keys = keys.load_keys(Home(ground.home))
    key_hash = signing.public_key_hash(node_keys.node.public_key)
    registration = Registration(
        node_id=str(NODE_ID), owner="0x" + "11" * 20, stake_wei=str(MINIMUM_STAKE_WEI), hardware_tier=1,
        node_key_hash=to_hex(key_hash), state="active",
    )  # fmt: skip
    (ground.folder / "registry.json").write_bytes(msgspec.json.encode([registration]))
    (ground.folder / "catalogue.toml").write_text(ground.catalogue)
    settings = msgspec.convert({"data_folder": str(ground.folder), **ground.settings}, CoordinatorSettings)
    logged: list[tuple[str, dict[str, Any]]] = []
    async with app.running(settings, log=lambda name, fields: logged.append((name, fields)), on_fatal=fatal) as running:
        server = Server(build_app(running, OperatorApp(running)), host="127.0.0.1", port=0)
        async with server.serving() as url:
            network = Network(
                coordinator=running, url=url, secret="", logged=logged,
                identities=(str(NODE_ID), to_hex(key_hash)[2:], signing.checksum_address(key_hash[12:])[2:].lower()),
            )  # fmt: skip
            network.secret = await network.new_key()
            await running.settle(events.Grant(grant_id="grant_1", account=ACCOUNT, amount_wei=CREDITS_WEI))
            async with node_of(network, ground, node_keys):
                yield network
            # Answers the polls that wait, as the process does when it stops.
            running.stop()
    assert not [each for each in logged if each[0] == "http.unexpected"], logged


@asynccontextmanager
async def node_of(network: Network, ground: Ground, node_keys: keys.NodeKeys) -> AsyncGenerator[None]:
    if ground.runtime is None:
        yield
        return
    open_log(Home(ground.home))
    settings = DaemonSettings(
        node_id=NODE_ID, chain_id=31337, coordinator_url=network.url + "/api", mode="cpu",
        hardware=messages.Hardware(cpu_cores=2), hardware_tier=1, region="", slots=4, models=(), home=ground.home,
    )  # fmt: skip
    daemon = asyncio.create_task(
        run_daemon(settings, keys=node_keys, runtime=ground.runtime, on_event=lambda event: None)
    )
    try:
        await eventually(lambda: free_slots(network))
        yield
    finally:
        daemon.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await daemon


async def free_slots(network: Network) -> bool:
    return (await network.coordinator.network()).slots_free > 0


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)


def fatal(error: BaseException) -> NoReturn:
    raise AssertionError("the coordinator cannot go on") from error
