"""A coordinator and its follower, turned by hand, over a chain whose blocks come when we say so."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any, NoReturn

from bench.chain_world import TOKEN, ChainWorld
from lying_endpoint import Endpoint
from parallelix.chain.rpc import Rpc, connected
from parallelix.chain.watcher import Position, Watcher
from parallelix.coordinator import secrets
from parallelix.coordinator.metrics import Metrics
from parallelix.coordinator.onchain.follower import Follower
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.coordinator.store.journal import Journal
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.store import Store
from parallelix.engine import catalogue
from parallelix.engine.core import Engine
from parallelix.engine.ledger import available
from parallelix.engine.mirror import Mirror

CONFIRMATIONS = 3
POLL_SECONDS = 4.0
RECONCILE_SECONDS = 600.0
STAKE_WEI = 50_000 * TOKEN
CATALOGUE = f"""
[[models]]
name = "small"
digests = ["{"ab" * 32}"]
prompt_wei_per_1000 = "1000000"
completion_wei_per_1000 = "2000000"
context_tokens = 8192
max_tokens_default = 64
"""


@dataclass(kw_only=True)
class Following:
    """`seconds` is the follower's clock. `logged` is what a person would read."""

    world: ChainWorld
    endpoint: Endpoint
    coordinator: Coordinator
    rpc: Rpc
    logged: list[tuple[str, dict[str, Any]]]
    seconds: list[float] = field(default_factory=lambda: [1000.0])
    follower: Follower = field(init=False)

    def __post_init__(self) -> None:
        cursor = self.mirror.cursor
        watcher = Watcher(
            self.rpc,
            self.world.deployed,
            confirmations=CONFIRMATIONS,
            cursor=None if cursor is None else Position(block=cursor.block, hash=cursor.hash),
        )
        self.follower = Follower(
            self.coordinator,
            watcher,
            poll_seconds=POLL_SECONDS,
            reconcile_seconds=RECONCILE_SECONDS,
            clock=lambda: self.seconds[0],
        )

    @property
    def engine(self) -> Engine:
        return self.coordinator.engine

    @property
    def mirror(self) -> Mirror:
        return self.engine.mirror

    @property
    def halts(self) -> dict[str, str]:
        return {**self.mirror.halts}

    def available_wei(self, name: str) -> int:
        return self.engine.ledger.balance_wei(available(self.address(name)))

    def address(self, name: str) -> str:
        return self.world.person(name).address

    def events(self, name: str) -> list[dict[str, Any]]:
        return [fields for logged, fields in self.logged if logged == name]

    def deposit(self, name: str, amount_wei: int) -> None:
        self.world.do(self.world.person(name), self.world.vault.deposit(amount_wei))

    def ask_withdrawal(self, name: str, amount_wei: int) -> None:
        self.world.do(self.world.person(name), self.world.vault.request_withdrawal(amount_wei))

    def stake(self, name: str) -> bytes:
        """The hash of the new node's key."""
        key_hash = hashlib.sha256(f"{name} {self.world.next_node_id}".encode()).digest()
        self.world.do(self.world.person(name), self.world.locker.register_node(STAKE_WEI, 1, key_hash))
        return key_hash

    def confirm(self) -> None:
        self.world.mine(CONFIRMATIONS)

    async def caught_up(self) -> None:
        """Everything that is confirmed now is taken in."""
        for _ in range(20):
            if await self.follower.turn() == POLL_SECONDS and self.mirror.head_block == self.world.head:
                return
        raise AssertionError(f"not caught up: {self.logged[-3:]}")


@asynccontextmanager
async def following(
    world: ChainWorld, endpoint: Endpoint, folder: Path, *, patience_seconds: float = 30.0
) -> AsyncGenerator[Following]:
    """On a store in `folder`, which may hold an earlier one's. Waits `patience_seconds` for an answer."""
    folder.mkdir(exist_ok=True)
    settings = CoordinatorSettings(data_folder=str(folder), chain_id=world.deployed.chain_id)
    store, readers = Store.open(settings.database_url), Readers.open(settings.database_url)
    store.acquire("test")
    journal = Journal(store, on_fatal=_fatal)
    journal.start()
    on_chain = replaced(
        settings.engine(),
        on_chain=True,
        first_batch=1,
        default_daily_limit_wei=int(world.deployed.parameters.default_daily_limit),
    )
    logged: list[tuple[str, dict[str, Any]]] = []
    coordinator = Coordinator(
        settings=settings,
        engine=Engine(on_chain, catalogue.parse(CATALOGUE, source="catalogue")),
        readers=readers,
        journal=journal,
        secrets=secrets.load_or_create(folder),
        metrics=Metrics(),
        log=lambda name, fields: logged.append((name, fields)),
        clock=lambda: time.time_ns() // 1_000_000,
        random_bytes=lambda count: b"\x07" * count,
    )
    snapshot = store.load(now=coordinator.clock())
    coordinator.start(
        coordinator.engine.restore(snapshot, (), coordinator.clock(), lambda count: b"\x07" * count), [], []
    )
    try:
        async with connected(endpoint.url, tries=1, request_seconds=patience_seconds) as rpc:
            yield Following(world=world, endpoint=endpoint, coordinator=coordinator, rpc=rpc, logged=logged)
    finally:
        coordinator.stop()
        await journal.close()
        await readers.close()
        store.close()


def _fatal(error: BaseException) -> NoReturn:
    raise AssertionError("the store failed") from error
