"""A real coordinator over real HTTP with a real store, and a real node whose model says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import httpx
import msgspec
from talking_runtime import DIGEST, MODEL

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

NODE_ID = 1844674407370955161
"""Of the first node; the second has the next one."""
CREDITS_WEI = 10**24


@dataclass(kw_only=True)
class Network:
    """One coordinator and its nodes."""

    coordinator: Coordinator
    url: str
    logged: list[tuple[str, dict[str, Any]]]
    identities: tuple[str, ...] = ()
    """What no requester may ever read: the nodes' ids, key hashes and addresses."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def client(self, secret: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {secret}"}, timeout=30)

    @asynccontextmanager
    async def customer(self, *, credits_wei: int = CREDITS_WEI, **limits: Any) -> AsyncGenerator[httpx.AsyncClient]:
        """A client with a key of an account of its own."""
        account = f"account{next(self._numbers)}"
        if credits_wei:
            grant = events.Grant(grant_id=f"grant:{account}", account=account, amount_wei=credits_wei)
            await self.coordinator.settle(grant)
        async with self.client(await self.new_key(account, **limits)) as client:
            yield client

    async def new_key(self, account: str, **limits: Any) -> str:
        key = commands.new_key()
        await self.coordinator.issue_key(
            events.KeyIssued(key_id=key.key_id, key_hash=key.key_hash, account=account, name="test", **limits)
        )
        return key.secret


@dataclass(kw_only=True)
class Ground:
    """Where a network of one test lies."""

    folder: Path
    homes: tuple[Path, ...]
    """Of the nodes to run; all of them have the same runtime."""
    runtime: base.Runtime
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


@asynccontextmanager
async def running_network(ground: Ground) -> AsyncGenerator[Network]:
    nodes = [Node(node_id=NODE_ID + at, home=home) for at, home in enumerate(ground.homes)]
    (ground.folder / "registry.json").write_bytes(msgspec.json.encode([node.registration for node in nodes]))
    (ground.folder / "catalogue.toml").write_text(ground.catalogue)
    given = {"data_folder": str(ground.folder), "audits": False, **ground.settings}
    settings = msgspec.convert(given, CoordinatorSettings)
    logged: list[tuple[str, dict[str, Any]]] = []
    async with app.running(settings, log=lambda name, fields: logged.append((name, fields)), on_fatal=fatal) as running:
        server = Server(build_app(running, OperatorApp(running)), host="127.0.0.1", port=0)
        async with server.serving() as url:
            identities = tuple(each for node in nodes for each in node.identities)
            network = Network(coordinator=running, url=url, logged=logged, identities=identities)
            async with contextlib.AsyncExitStack() as stack:
                for node in nodes:
                    await stack.enter_async_context(attached(node, network, ground.runtime))
                yield network
            # Answers the polls that wait, as the process does when it stops.
            running.stop()
    assert not [each for each in logged if each[0] == "http.unexpected"], logged


class Node:
    def __init__(self, *, node_id: int, home: Path) -> None:
        self.node_id = node_id
        self.home = home
        self.keys = keys.load_keys(Home(home))
        key_hash = signing.public_key_hash(self.keys.node.public_key)
        self.registration = Registration(
            node_id=str(node_id), owner=f"0x{node_id:040x}", stake_wei=str(MINIMUM_STAKE_WEI), hardware_tier=1,
            node_key_hash=to_hex(key_hash), state="active",
        )  # fmt: skip
        self.identities = (str(node_id), key_hash.hex(), key_hash[12:].hex())


@asynccontextmanager
async def attached(node: Node, network: Network, runtime: base.Runtime) -> AsyncGenerator[None]:
    open_log(Home(node.home))
    settings = DaemonSettings(
        node_id=node.node_id, chain_id=31337, coordinator_url=network.url + "/api", mode="cpu",
        hardware=messages.Hardware(cpu_cores=2), hardware_tier=1, region="", slots=4, models=(), home=node.home,
    )  # fmt: skip
    before = await free_slots(network)
    daemon = asyncio.create_task(run_daemon(settings, keys=node.keys, runtime=runtime, on_event=lambda event: None))
    try:
        await eventually(lambda: more_slots(network, before))
        yield
    finally:
        daemon.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await daemon


async def more_slots(network: Network, before: int) -> bool:
    return await free_slots(network) > before


async def free_slots(network: Network) -> int:
    return (await network.coordinator.network()).slots_free


StartNetwork = Callable[..., contextlib.AbstractAsyncContextManager[Network]]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)


def fatal(error: BaseException) -> NoReturn:
    raise AssertionError("the coordinator cannot go on") from error
