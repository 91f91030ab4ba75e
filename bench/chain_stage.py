"""A coordinator on a chain of its own, with a node at work and people who deposit: what the faults of chains act on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import tomli_w
from eth_account.signers.local import LocalAccount

from bench.chain_books import OVER, Agreement, ChainReader, LedgerSide, read_cursor, read_ledger
from bench.chain_world import ROLES_THAT_SEND, STATES_KEPT, TOKEN, ChainWorld
from bench.echo_runtime import CONTEXT_TOKENS, DIGEST, MODEL
from bench.nursery import Born, Nursery
from bench.reorgs import DEPTH_MAX
from parallelix import points, private_files
from parallelix.coordinator import commands
from parallelix.coordinator.store.store import Store
from parallelix.devnet.network import CHAIN_ID, Seat, catalogue_entry, free_port, registration
from parallelix.devnet.processes import Child, ProcessError
from parallelix.protocol.encoding import from_hex
from parallelix.protocol.registry import MINIMUM_STAKE_WEI

KILLED = -9
"""How a process ends that died at a point."""
CONFIRMATIONS = DEPTH_MAX
START_SECONDS = 120.0
REST_SECONDS = 180.0
EARNING_SECONDS = 120.0
LOOK_SECONDS = 0.05
BLOCKS_AT_ONCE, BLOCKS_SECONDS = 4, 0.1
BEHIND_MAX = STATES_KEPT // 2
"""The contracts have to be asked as of the last block that the store has read."""
WORD_SECONDS = 0.01
SLOTS = 64
STEADY, RATE = "steady", 4.0
"""The requester whose every prompt must be answered and charged, and its prompts a second."""
LARGE_DEPOSIT_WEI = 5_000 * TOKEN
RESTLESS = ("ann", "bob", "cleo", "dan", "eve", "fay")
"""Requesters who come and go with their money, so that some of their prompts are refused."""
PATIENT = ("gil", "hal", "ida", "joe", "kim", "lou")
"""They keep their deposits until somebody must be there who can be cleared at once: a clearance that is lost with its
coordinator stands in its account's way for a minute."""
KEY_SCOPES = "inference,read,withdraw"

SETTINGS: dict[str, Any] = {
    "batch_seconds": 1.0,
    "orphan_seconds": 8.0,
    "restart_grace_seconds": 10.0,
    "client_grace_seconds": 2.0,
    "heartbeat_seconds": 2.0,
    "confirmations": CONFIRMATIONS,
    "chain_poll_seconds": 0.05,
    "settle_seconds": 0.5,
    "liveness_seconds": 0.5,
    "reconcile_seconds": 2.0,
    "fee_bump_seconds": 2.0,
    "clearance_seconds": 60.0,
}
"""As fast as the chain below it, whose blocks come many times a second."""


class ChainStage:
    """`prepare` comes first. Coordinators come from `nursery`, one at a time, on the same store and port."""

    def __init__(self, folder: Path, world: ChainWorld, nursery: Nursery, **settings: Any) -> None:
        self.folder = folder
        self.world = world
        self.nursery = nursery
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.coordinator: Born | None = None
        self.node: Child | None = None
        self.keys: dict[str, str] = {}
        self.reader = ChainReader(world, final_after=CONFIRMATIONS)
        self.seat = Seat(number=1, node_id=0, home=folder / "node1", coordinator_url=f"{self.url}/api")
        self._settings = {**SETTINGS, **settings}

    @property
    def coordinator_folder(self) -> Path:
        return self.folder / "coordinator"

    @property
    def log(self) -> Path:
        return self.folder / "coordinator.out"

    @property
    def store(self) -> Path:
        return self.coordinator_folder / "coordinator.db"

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.store}"

    def prepare(self) -> None:
        """Files, keys, a stake for the node, and deposits that are deep in the chain."""
        self.coordinator_folder.mkdir(mode=private_files.FOLDER_MODE, parents=True)
        place = {
            "port": self.port,
            "chain_id": CHAIN_ID,
            "deployment_file": str(self.world.deployment_path),
            "rpc_url": self.world.anvil.url,
            # One node alone has no auditor: what is drawn is recorded as unaudited, and charged then.
            "audits": True,
            "epoch_seconds": 2.0,
            "audit_queue_seconds": 0.5,
        }
        (self.coordinator_folder / "coordinator.toml").write_text(tomli_w.dumps({**place, **self._settings}))
        (self.coordinator_folder / "catalogue.toml").write_text(
            catalogue_entry(MODEL, DIGEST, context_tokens=CONTEXT_TOKENS)
        )
        for role in ROLES_THAT_SEND:
            secret = f"0x{self.world.roles[role].key.hex().removeprefix('0x')}\n"
            private_files.create(self.coordinator_folder / f"{role}.key", secret.encode())
        entry = registration(self.seat)
        self.seat = dataclasses.replace(self.seat, node_id=self.world.next_node_id)
        key_hash = from_hex(entry.node_key_hash, name="node_key_hash", length_bytes=32)
        self.world.do(self.world.person("operator"), self.world.locker.register_node(MINIMUM_STAKE_WEI, 1, key_hash))
        for name in (STEADY, *RESTLESS, *PATIENT):
            amount_wei = 50 * TOKEN if name in RESTLESS else LARGE_DEPOSIT_WEI
            self.world.do(self.world.person(name), self.world.vault.deposit(amount_wei))
        self.world.mine(CONFIRMATIONS)
        self._make_keys()

    def _make_keys(self) -> None:
        store = Store.open(self.store_url)
        try:
            for name in (STEADY, *RESTLESS, *PATIENT):
                key, now = commands.new_key(), time.time_ns() // 1_000_000
                issue = commands.KeyCommand(
                    key_id=key.key_id,
                    key_hash=key.key_hash,
                    account=self.world.person(name).address,
                    name=name,
                    scopes=KEY_SCOPES,
                )
                store.insert_command(commands.command_row("key", issue, now=now))
                self.keys[name] = key.secret
        finally:
            store.close()

    def person(self, name: str) -> LocalAccount:
        return self.world.person(name)

    # Processes --------------------------------------------------------------------------------------------------------

    def bear(self, *, kill_at: str = "") -> Born:
        """Starts a coordinator, which dies at the point `kill_at` (such as `outbox.sent:2`). It is not ready yet."""
        assert self.coordinator is None or not self.coordinator.running, "a coordinator runs already"
        self.coordinator = self.nursery.bear(
            [str(self.coordinator_folder)], environment={points.VARIABLE: kill_at}, output=self.log
        )
        return self.coordinator

    async def start(self) -> None:
        """Starts a coordinator, and returns when it is ready. Raises `ProcessError`."""
        self.bear()

        async def holds() -> bool:
            # Its first epoch begins when the commitment is confirmed, and nobody else makes blocks yet.
            self.world.mine(1)
            return await self._is_ready()

        await self.until("the coordinator is ready", holds, seconds=START_SECONDS)

    def start_node(self) -> None:
        place = [str(self.seat.home), str(self.seat.node_id), self.seat.coordinator_url]
        pace = ["--slots", str(SLOTS), "--pause-seconds", str(WORD_SECONDS)]
        self.node = Child(
            "node 1",
            [sys.executable, "-m", "bench.eager_node", *place, *pace],
            output=self.folder / "node1.out",
            environment={"PARALLELIX_HOME": str(self.seat.home)},
        )

    async def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(base_url=self.url, trust_env=False, verify=False, timeout=5) as http:
                return (await http.get("/readyz")).is_success
        return False

    async def online(self) -> None:
        """Waits until the node is."""

        async def holds() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                async with httpx.AsyncClient(base_url=self.url, trust_env=False, verify=False, timeout=5) as http:
                    answer = await http.get("/v1/network")
                return answer.is_success and answer.json()["nodes_online"] == 1
            return False

        await self.until("the node is online", holds, seconds=START_SECONDS)

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
        """Raises `ProcessError` with the ends of all logs, at once where the coordinator has ended."""
        assert self.coordinator is not None
        try:
            async with asyncio.timeout(seconds):
                while not await holds():
                    if not self.coordinator.running:
                        raise ProcessError(f"the coordinator ended with {self.coordinator.exit_code} before {what}")
                    await asyncio.sleep(LOOK_SECONDS)
        except (TimeoutError, ProcessError) as error:
            tails = "\n".join(each.tail() for each in (self.coordinator, self.node) if each is not None)
            raise ProcessError(f"{error or f'{seconds:g} s passed before {what}'}\n{tails}") from error

    async def aclose(self) -> None:
        if self.node is not None:
            await self.node.stopped()
        if self.coordinator is not None:
            self.coordinator.kill()

    # Looking ----------------------------------------------------------------------------------------------------------

    def agreement(self) -> Agreement:
        """How the store and the contracts agree now, with a coordinator at work or without."""
        return self.reader.beside(self.store_url)

    def ledger(self) -> LedgerSide:
        """Without its transfers."""
        return read_ledger(self.store_url, whole=False)

    async def caught_up(self, block: int) -> None:
        """Waits until the store has read up to `block`."""

        async def holds() -> bool:
            cursor = read_cursor(self.store_url)
            return cursor is not None and cursor.block >= block

        await self.until(f"block {block} is read", holds, seconds=REST_SECONDS)

    async def earning(self) -> None:
        """Waits until the rewards contract pays the node, which takes it some slots of ten seconds."""

        async def holds() -> bool:
            return "liveness" in {intent.role for intent in self.ledger().intents if intent.state == "final"}

        await self.until("the node earns", holds, seconds=EARNING_SECONDS)

    async def at_rest(self) -> None:
        """Waits until nothing is open: every record anchored, all spending settled, every intent over but reports on
        nodes and what epochs are about, which never end. What does not come to rest is for an audit to find."""

        async def holds() -> bool:
            return restless(self.ledger()) == []

        with contextlib.suppress(ProcessError):
            await self.until("all is at rest", holds, seconds=REST_SECONDS)


ENDLESS = ("liveness:", "sampling:", "reveal:")


def restless(ledger: LedgerSide) -> list[str]:
    """What is not at rest."""
    found = [f"{account}: {wei} wei" for account, wei in ledger.balances.items() if wei and _moves(account)]
    found += [f"batch {batch.number} is not confirmed" for batch in ledger.batches if not batch.confirmed_at]
    found += [
        f"{intent.intent_id} is {intent.state}"
        for intent in ledger.intents
        if intent.state not in OVER and not intent.intent_id.startswith(ENDLESS)
    ]
    return found


def _moves(account: str) -> bool:
    return account.startswith(("held:", "spent:"))


@asynccontextmanager
async def mining(stage: ChainStage) -> AsyncGenerator[None]:
    """Blocks at a steady pace, as long as the store is not too far behind them."""

    async def mine() -> None:
        while True:
            cursor = read_cursor(stage.store_url)
            if cursor is None or stage.world.head - cursor.block < BEHIND_MAX:
                stage.world.mine(BLOCKS_AT_ONCE)
            await asyncio.sleep(BLOCKS_SECONDS)

    task = asyncio.create_task(mine())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


@asynccontextmanager
async def chain_stage(
    folder: Path, world: ChainWorld, *, coordinator: str = "parallelix.coordinator.__main__", **settings: Any
) -> AsyncGenerator[ChainStage]:
    """A stage whose coordinator runs and whose node is online. `coordinator` is the module that runs as one."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    nursery = Nursery(coordinator, output=folder / "nursery.out")
    stage = ChainStage(folder, world, nursery, **settings)
    try:
        await asyncio.to_thread(stage.prepare)
        await stage.start()
        stage.start_node()
        await stage.online()
        yield stage
    finally:
        await stage.aclose()
        nursery.close()


def log_lines(path: Path, event: str) -> list[dict[str, Any]]:
    """What a coordinator has logged under this name."""
    lines = (line for line in path.read_text(errors="replace").splitlines() if f'"{event}"' in line)
    return [json.loads(line) for line in lines]
