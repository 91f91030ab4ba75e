"""A coordinator and its nodes as processes of their own, in one folder: keys, registry, catalogue, API keys, ports.

    FOLDER/coordinator/   coordinator.toml, catalogue.toml, registry.json, the store (or where `store_url` says)
    FOLDER/node1/         the home of the first node, and so on
    FOLDER/chain/, keys/  where there is a chain (chain.py); it takes the place of registry.json
    FOLDER/*.out          what each process printed; the coordinator's is its log, one JSON object a line

The folder can be used again: keys and store stay, settings, catalogue and registry are written anew. Every process dies
with ours, however ours ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
import msgspec
import tomli_w

from parallelix.coordinator import commands
from parallelix.coordinator.settings import RPC_VARIABLE, load
from parallelix.coordinator.store.store import Store
from parallelix.devnet.processes import Child, ProcessError
from parallelix.node import config, keys
from parallelix.node.home import Home
from parallelix.private_files import FOLDER_MODE
from parallelix.protocol.accounts import KEY_SCOPES, Scope
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.registry import MINIMUM_STAKE_WEI, Registration
from parallelix.protocol.requests import NetworkView

if TYPE_CHECKING:
    # A network without a chain, and every node with a fault, starts a second sooner without them.
    from parallelix.devnet.chain import ChainPlan, LocalChain, Stake, Tell

CHAIN_ID = 31337
FIRST_NODE_ID = 1001
"""Where there is no chain, which has ids of its own."""
REQUESTER_WALLET = "requester"
CREDITS_WEI = 1_000 * 10**18
"""Granted, or deposited where there is a chain."""
TOKENS_WEI = 1_500 * 10**18
"""What a requester's wallet is given on a chain; the rest of it is there to try a deposit with."""
START_SECONDS = 120.0
"""A loaded machine with two cores starts a coordinator in three seconds, and loads a small model in ten."""
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """What a node's command must know. `number` counts from 1."""

    number: int
    node_id: int
    home: Path
    coordinator_url: str
    """The base of the operator's calls."""


NodeCommand: TypeAlias = Callable[[Seat], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run. `settings` are the coordinator's (coordinator.toml); `port` 0 takes a free one, and keeps it.

    With a `chain` nodes are there because they are staked for, and credits because they were deposited; without one a
    file and grants stand in.

    `coordinator_cpus` and `node_cpus` bind the processes, on Linux; empty leaves them free.
    """

    folder: Path
    catalogue: str
    node_command: NodeCommand
    node_count: int = 3
    settings: Mapping[str, Any]
    port: int = 0
    chain: ChainPlan | None = None
    coordinator_command: tuple[str, ...] = (sys.executable, "-m", "parallelix.coordinator")
    """Its last argument, the folder, is added."""
    coordinator_cpus: Collection[int] = ()
    node_cpus: Collection[int] = ()


@asynccontextmanager
async def running(plan: Plan) -> AsyncGenerator[Network]:
    """A network with all its nodes online. Everything is stopped at the end, nodes first."""
    network = Network(plan)
    try:
        await asyncio.to_thread(network.prepare)
        await network.start_chain()
        await network.start_coordinator()
        for number in network.seats:
            network.start_node(number)
        await network.online(plan.node_count)
        yield network
    finally:
        await network.stop()


class Network:
    """One coordinator and its nodes, by number from 1. `prepare` comes first; what runs then is the caller's choice."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.port = plan.port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.coordinator: Child | None = None
        self.nodes: dict[int, Child] = {}
        self.chain: LocalChain | None = None
        if plan.chain is not None:
            from parallelix.devnet.chain import LocalChain

            self.chain = LocalChain(plan.chain, plan.folder, port=plan.chain.port or free_port())
        self.stakes: dict[int, Stake] = {}
        """By seat, where there is a chain."""
        self._newest_key = ""
        self.seats = {
            number: Seat(
                number=number,
                node_id=FIRST_NODE_ID + number - 1,
                home=plan.folder / f"node{number}",
                coordinator_url=f"{self.url}/api",
            )
            for number in range(1, plan.node_count + 1)
        }

    @property
    def coordinator_folder(self) -> Path:
        return self.plan.folder / "coordinator"

    @property
    def coordinator_log(self) -> Path:
        return self.plan.folder / "coordinator.out"

    @property
    def store_url(self) -> str:
        return load(self.coordinator_folder).database_url

    def prepare(self) -> None:
        """Makes folders, keys and files. Takes about a second a node at first: each gets two RSA keys."""
        self.coordinator_folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._require_same_kind()
        # A charge waits for its audit, and an audit for a second owner's node: only plans that have one turn them on.
        given = {"port": self.port, "chain_id": CHAIN_ID, "audits": False}
        settings = {**given, **self._chain_settings(), **self.plan.settings}
        (self.coordinator_folder / "coordinator.toml").write_text(tomli_w.dumps(settings))
        (self.coordinator_folder / "catalogue.toml").write_text(self.plan.catalogue)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            registrations = list(threads.map(registration, self.seats.values()))
        if self.chain is None:
            self.write_registry(registrations)

    async def start_chain(self, tell: Tell = lambda _: None) -> None:
        """With its contracts, a stake for each node, and what the requester's wallet needs; nothing where the plan has
        none. From here on seats have the node ids that the chain gave. Raises `ProcessError` and `ChainError`."""
        if self.chain is None:
            return
        await self.chain.start(tell)
        taken_in = self._taken_in()
        if taken_in is not None:
            await self.chain.require_block(*taken_in)
        for number, seat in self.seats.items():
            tell(f"staking for node {number}")
            key_hash = from_hex(registration(seat).node_key_hash, name="node_key_hash", length_bytes=32)
            stake = await self.chain.stake(operator_wallet(number), key_hash, MINIMUM_STAKE_WEI)
            self.stakes[number] = stake
            self.seats[number] = replace(seat, node_id=stake.node_id)
        if await self.chain.is_new(REQUESTER_WALLET):
            await self.chain.fund(REQUESTER_WALLET, TOKENS_WEI)

    def number_of(self, node_id: int | str) -> int:
        """The seat of a node. Raises `KeyError`."""
        return {seat.node_id: number for number, seat in self.seats.items()}[int(node_id)]

    @property
    def staked(self) -> list[int]:
        """The seats that may serve: all, but for those whose stake was taken back."""
        return [number for number in self.seats if number not in self.stakes or self.stakes[number].active]

    def write_registry(self, registrations: Sequence[Registration]) -> None:
        """Replaces registry.json in one step; the coordinator sees it within a second."""
        path = self.coordinator_folder / "registry.json"
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(registrations)))
        temporary.replace(path)

    def read_registry(self) -> list[Registration]:
        return msgspec.json.decode((self.coordinator_folder / "registry.json").read_bytes(), type=list[Registration])

    def new_key(
        self,
        *,
        account: str = "devnet",
        name: str = "devnet",
        credits_wei: int = CREDITS_WEI,
        requests_per_minute: int = 0,
        concurrency: int = 0,
        budget_wei: int = 0,
        scopes: Sequence[Scope] = KEY_SCOPES,
    ) -> str:
        """An API key for `account`, which is granted `credits_wei`. `start_coordinator` returns when it works; where
        the coordinator runs already, wait for `accepts`."""
        key, now = commands.new_key(), time.time_ns() // 1_000_000
        issue = commands.KeyCommand(
            key_id=key.key_id,
            key_hash=key.key_hash,
            account=account,
            name=name,
            requests_per_minute=requests_per_minute,
            concurrency=concurrency,
            budget_wei=str(budget_wei),
            scopes=",".join(scopes),
        )
        store = Store.open(self.store_url)
        try:
            if credits_wei:
                grant = commands.GrantCommand(account=account, amount_wei=str(credits_wei))
                store.insert_command(commands.command_row("grant", grant, now=now))
            store.insert_command(commands.command_row("key", issue, now=now))
        finally:
            store.close()
        self._newest_key = key.secret
        return key.secret

    async def wallet_key(self, name: str, *, deposit_wei: int = CREDITS_WEI) -> str:
        """An API key of the requester's wallet, which deposits first where it never has. Raises `CallRefused`."""
        from parallelix.devnet.wallet_calls import WalletCalls

        chain = self.chain
        assert chain is not None and deposit_wei > 0
        if await chain.is_new(REQUESTER_WALLET):
            await chain.deposit(REQUESTER_WALLET, deposit_wei)
        async with WalletCalls(self.url, chain.account(REQUESTER_WALLET)) as calls:
            await calls.sign_in(await calls.message())

            async def credited() -> bool:
                return int((await calls.account()).available_wei) > 0

            await self._until("the deposit is credited", credited)
            return await calls.new_key(name)

    async def start_coordinator(self) -> None:
        """Returns when it is ready to serve. Raises `ProcessError`."""
        assert self.coordinator is None or not self.coordinator.running, "the coordinator runs already"
        self.coordinator = Child(
            "coordinator",
            [*self.plan.coordinator_command, str(self.coordinator_folder)],
            output=self.coordinator_log,
            # Over what the person's own environment says, which would go before the file.
            environment={RPC_VARIABLE: self.chain.url} if self.chain is not None else None,
            cpus=self.plan.coordinator_cpus,
        )
        await self._until("the coordinator is ready", self._is_ready)
        if self._newest_key:
            # They are applied in order.
            await self.accepts(self._newest_key)

    def kill_coordinator(self) -> None:
        """SIGKILL. `start_coordinator` starts it again on the same port and store."""
        assert self.coordinator is not None
        self.coordinator.kill()

    def start_node(self, number: int, command: NodeCommand | None = None) -> Child:
        """By `command`, else by the plan's. It is not online yet: see `online`."""
        seat = self.seats[number]
        previous = self.nodes.get(number)
        assert previous is None or not previous.running, f"node {number} runs already"
        self.nodes[number] = Child(
            f"node {number}",
            (command or self.plan.node_command)(seat),
            output=self.plan.folder / f"node{number}.out",
            environment={"PARALLELIX_HOME": str(seat.home)},
            cpus=self.plan.node_cpus,
        )
        return self.nodes[number]

    def kill_node(self, number: int) -> None:
        """SIGKILL, in the middle of whatever it does."""
        self.nodes[number].kill()

    async def stop_node(self, number: int) -> int:
        """SIGTERM: it finishes what it runs. Its exit code."""
        return await self.nodes[number].stopped()

    async def view(self) -> NetworkView:
        """The coordinator's public totals. Raises `httpx.HTTPError`."""
        return msgspec.json.decode(await self._get("/v1/network"), type=NetworkView)

    async def online(self, count: int, *, seconds: float = START_SECONDS) -> None:
        """Waits until exactly `count` nodes are. Raises `ProcessError`, at once where a node has ended."""

        async def holds() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return (await self.view()).nodes_online == count
            return False

        await self._until(f"{count} nodes are online", holds, seconds=seconds)

    async def accepts(self, api_key: str) -> None:
        """Waits until a key from `new_key` works. Raises `ProcessError`."""

        async def holds() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                await self._get("/v1/account", {"Authorization": f"Bearer {api_key}"})
                return True
            return False

        await self._until("the API key works", holds)

    async def stop(self) -> None:
        """Nodes first, so that they can return what they finish; the chain last, which all others need."""
        try:
            await asyncio.gather(*(node.stopped() for node in self.nodes.values()))
        finally:
            try:
                if self.coordinator is not None:
                    await self.coordinator.stopped()
            finally:
                if self.chain is not None:
                    await self.chain.stop()

    def _chain_settings(self) -> dict[str, Any]:
        """What the coordinator must know; its keys lie where it looks for them."""
        if self.chain is None:
            return {}
        return {"deployment_file": str(self.chain.deployment_path), "rpc_url": self.chain.url}

    def _require_same_kind(self) -> None:
        """A store that began without a chain has records that no contract knows, and the other way round."""
        stored = (self.coordinator_folder / "coordinator.db").exists()
        chained = (self.plan.folder / "chain").exists()
        if stored and chained is not (self.chain is not None):
            began, way_out = ("with", "without --no-chain") if chained else ("without", "with --no-chain")
            raise ProcessError(
                f"{self.plan.folder}: its network began {began} a chain and can only go on so; start it {way_out}, or"
                " choose another --folder"
            )

    def _taken_in(self) -> tuple[int, str] | None:
        """The last block that the coordinator's store holds, and its hash."""
        store = self.coordinator_folder / "coordinator.db"
        if not store.exists():
            return None
        with contextlib.closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT block, block_hash FROM chain_cursor").fetchone()

    async def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            await self._get("/readyz")
            return True
        return False

    async def _get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        # A proxy that the environment names has no business between processes of one machine.
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, verify=False, timeout=10) as http:
            return (await http.get(path, headers=headers)).raise_for_status().content

    async def _until(self, what: str, holds: Callable[[], Any], *, seconds: float = START_SECONDS) -> None:
        chain = self.chain.anvil.process if self.chain is not None else None
        there = (chain, self.coordinator, *self.nodes.values())
        children = [child for child in there if child is not None and child.running]
        try:
            async with asyncio.timeout(seconds):
                while not await holds():
                    for child in children:
                        if not child.running:
                            raise ProcessError(f"{child.name} ended with {child.exit_code}:\n{child.tail()}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            tails = "\n".join(f"{child.name}: {child.tail()}" for child in children)
            raise ProcessError(f"waited {seconds:g} s in vain until {what}\n{tails}") from error


def operator_wallet(number: int) -> str:
    """The name of the wallet that stakes for a seat."""
    return f"operator{number}"


def registration(seat: Seat) -> Registration:
    """The seat's entry of the registry, its keys and configuration made where they are not there."""
    home = Home(seat.home)
    if keys.node_key_exists(home):
        node = keys.load_node_key(home)
    else:
        seat.home.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        settings = config.Config(coordinator=seat.coordinator_url, chain_id=CHAIN_ID, tier=1)
        node = keys.create_keys(home, replace=False, config=config.encode_config(settings))
    return Registration(
        node_id=str(seat.node_id),
        owner=f"0x{seat.number:040x}",
        stake_wei=str(MINIMUM_STAKE_WEI),
        hardware_tier=1,
        node_key_hash=to_hex(node.key_hash),
        state="active",
    )


def real_node(gguf: Path, *, slots: int = 2) -> NodeCommand:
    """`parallelix-node start` as an operator runs it, with llama.cpp and one model file."""

    def command(seat: Seat) -> list[str]:
        start = [sys.executable, "-m", "parallelix.node", "start", "--foreground", "--cpu"]
        choices = ["--node-id", str(seat.node_id), "--coordinator", seat.coordinator_url, "--slots", str(slots)]
        return [*start, *choices, "--gguf", str(gguf)]

    return command


def catalogue_entry(
    name: str,
    digest: str,
    *,
    context_tokens: int,
    prompt_wei_per_1000: int = 10**15,
    completion_wei_per_1000: int = 3 * 10**15,
    max_tokens_max: int = 4096,
) -> str:
    """One `[[models]]` table of catalogue.toml. `digest` is the hex SHA-256 of the weights file."""
    entry = {
        "name": name,
        "digests": [digest],
        "prompt_wei_per_1000": str(prompt_wei_per_1000),
        "completion_wei_per_1000": str(completion_wei_per_1000),
        "context_tokens": context_tokens,
        "max_tokens_default": min(256, max_tokens_max),
        "max_tokens_max": max_tokens_max,
    }
    lines = (f"{key} = {json.dumps(value)}" for key, value in entry.items())
    return "\n".join(("[[models]]", *lines, ""))


def is_free(port: int) -> bool:
    """Whether nobody listens there on the loopback."""
    with socket.socket() as probe:
        # As servers do: a port whose connections are only fading away is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
