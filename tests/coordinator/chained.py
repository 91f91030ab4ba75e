"""A real coordinator on a real chain, with one staked node and one account that deposited; a test drives all three."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import httpx
import msgspec
from hand_driven import CATALOGUE, MODEL, HandNode, Opened

from bench.chain_world import TOKEN, ChainWorld
from parallelix import private_files
from parallelix.chain.abi import Call
from parallelix.coordinator import app, commands, spec
from parallelix.coordinator.operator import OperatorApp
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.engine import events
from parallelix.engine.entities import ApiKey
from parallelix.protocol.registry import MINIMUM_STAKE_WEI
from parallelix.protocol.requests import ChatMessage, CreateRequest

DEPOSIT_WEI = 1_000 * TOKEN
SECONDS_MAX = 30.0
"""Before a test gives up."""
LIVELY: dict[str, Any] = {
    "confirmations": 1,
    "chain_poll_seconds": 0.05,
    "batch_records_max": 1,
    "settle_seconds": 86_400,
    "liveness_seconds": 86_400,
    "offline_seconds": 3600,
    "acknowledge_seconds": 600,
    "poll_seconds": 0.1,
    "audits": False,
}
"""Looks often, closes a batch for each record, and settles only when it is asked to. A node alone has no auditor."""
HELD_KEYS = ("validator", "liveness", "settler")


def stake(world: ChainWorld) -> HandNode:
    """A node that its owner has staked for, not attached yet."""
    node_id = world.next_node_id
    node = HandNode(http=httpx.AsyncClient(base_url="http://coordinator"), node_id=node_id)
    world.do(world.person("owner of nodes"), world.locker.register_node(MINIMUM_STAKE_WEI, 2, node.key.key_hash))
    return node


def make_folder(world: ChainWorld, path: Path) -> Path:
    """What a coordinator on this chain needs to start."""
    path.mkdir(mode=0o700, exist_ok=True)
    for role in HELD_KEYS:
        private_files.create(path / f"{role}.key", f"0x{world.roles[role].key.hex()}\n".encode(), durable=False)
    (path / "catalogue.toml").write_text(CATALOGUE)
    return path


def settings_in(folder: Path, world: ChainWorld, **changes: Any) -> CoordinatorSettings:
    given = {"data_folder": str(folder), "deployment_file": str(world.deployment_path), "rpc_url": world.anvil.url}
    return msgspec.convert({**LIVELY, **given, **changes}, CoordinatorSettings)


@dataclass(kw_only=True)
class Chained:
    """`account` is the depositor's address; its key pays from there."""

    world: ChainWorld
    coordinator: Coordinator
    node: HandNode
    account: str
    key: ApiKey
    told: list[tuple[str, dict[str, Any]]]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    async def offered(self) -> Opened:
        """A new request's work, at the node."""
        message = ChatMessage(role="user", content=f"say so, {next(self._numbers)} times")
        body = CreateRequest(model=MODEL, messages=(message,))
        await self.coordinator.create(self.key, spec.from_create(body), attached=False)
        return await self.node.take()

    async def executed(self) -> Opened:
        """A request that is recorded and charged."""
        work = await self.offered()
        assert (await self.node.acknowledge(work)).status_code == 200
        answer = await self.node.return_(self.node.result(work))
        assert answer.status_code == 200, answer.text
        return work

    def do(self, person: str, call: Call) -> None:
        self.world.do(self.world.person(person), call)

    async def until(self, holds: Callable[[], object], *, mining: bool = True) -> None:
        """While blocks come, unless `mining` is false."""
        async with asyncio.timeout(SECONDS_MAX):
            while not holds():
                if mining:
                    self.world.mine()
                await asyncio.sleep(0.02)

    async def until_told(self, name: str) -> dict[str, Any]:
        await self.until(lambda: self.all_told(name))
        return self.all_told(name)[0]

    def all_told(self, name: str) -> list[dict[str, Any]]:
        return [fields for each, fields in self.told if each == name]

    @property
    def block(self) -> int:
        cursor = self.coordinator.engine.mirror.cursor
        return -1 if cursor is None else cursor.block

    def transactions(self, role: str) -> int:
        """How many the role's account has in blocks."""
        return int(self.world.anvil.ask("eth_getTransactionCount", self.world.roles[role].address, "latest"), 16)


@asynccontextmanager
async def chained(
    world: ChainWorld, folder: Path, node: HandNode, *, person: str = "ann", **settings: Any
) -> AsyncGenerator[Chained]:
    """One process's life. It has read the chain, the node is attached, the account has a key."""
    told: list[tuple[str, dict[str, Any]]] = []

    def log(name: str, fields: dict[str, Any]) -> None:
        told.append((name, fields))

    async with app.running(settings_in(folder, world, **settings), log=log, on_fatal=_fatal) as coordinator:
        transport = httpx.ASGITransport(OperatorApp(coordinator))
        async with httpx.AsyncClient(transport=transport, base_url="http://coordinator", timeout=30) as client:
            node.http = client
            account = world.person(person).address
            scene = Chained(
                world=world, coordinator=coordinator, node=node, account=account, key=await _key(coordinator, account),
                told=told,
            )  # fmt: skip
            head = world.head
            await scene.until(lambda: coordinator.engine.mirror.heard_at and scene.block >= head)
            await node.attach()
            yield scene
    assert not [fields for name, fields in told if name == "http.unexpected"]


async def _key(coordinator: Coordinator, account: str) -> ApiKey:
    made = commands.new_key()
    await coordinator.issue_key(
        events.KeyIssued(key_id=made.key_id, key_hash=made.key_hash, account=account, name="test")
    )
    return coordinator.authenticate(made.secret)


def _fatal(error: BaseException) -> NoReturn:
    raise AssertionError("the coordinator cannot go on") from error
