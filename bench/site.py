"""A network under measurement: its coordinator on one core, its nodes on another."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.instant_runtime import DIGEST, MODEL, TOKENS_DEFAULT, answer_text
from bench.load import Target, chat_body
from bench.node import Pace, bench_node, prompt
from bench.stopwatch import SampleReader
from parallelix.devnet.network import Network, Plan, catalogue_entry
from parallelix.devnet.processes import ProcessError
from parallelix.protocol.registry import Registration

AT_ONCE = Pace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """`server` for whatever is measured, `rest` for all else. Both empty where there are not two."""

    server: frozenset[int]
    rest: frozenset[int]


def cores() -> Cores:
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        return Cores(server=frozenset(), rest=frozenset())
    return Cores(server=frozenset(usable[:1]), rest=frozenset(usable[1:2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A network under measurement."""

    network: Network
    key: str
    samples: SampleReader

    @property
    def pid(self) -> int:
        assert self.network.coordinator is not None
        return self.network.coordinator.pid

    @property
    def pids(self) -> list[int]:
        """Of every process that takes part, the load's too."""
        return [self.pid, os.getpid(), *(node.pid for node in self.network.nodes.values())]

    def target(self, pace: Pace = AT_ONCE, *, stream: bool = False, queue_seconds: float = 0) -> Target:
        body = chat_body(MODEL, prompt(pace), max_tokens=TOKENS_DEFAULT, stream=stream, queue_seconds=queue_seconds)
        url = f"{self.network.url}/v1/chat/completions"
        return Target(url=url, key=self.key, body=body, text=answer_text(), streams=stream)


@asynccontextmanager
async def site(
    folder: Path,
    on: Cores,
    *,
    nodes: int,
    tamper: bool = False,
    coordinator: str = "parallelix.coordinator",
    registered: Sequence[Registration] = (),
    homes: Path | None = None,
) -> AsyncGenerator[Site]:
    """A coordinator with default settings and nodes, all online. `registered` are more, whom the caller brings; `homes`
    is the folder of a site whose nodes' keys serve here too, since making them takes seconds."""

    def samples(number: int) -> Path:
        return folder / f"node{number}.samples"

    plan = Plan(
        folder=folder,
        catalogue=catalogue_entry(MODEL, DIGEST, context_tokens=8192),
        node_command=bench_node(samples, tamper=tamper),
        node_count=nodes,
        settings={},
        coordinator_command=(sys.executable, "-m", coordinator),
        coordinator_cpus=on.server,
        node_cpus=on.rest,
    )
    network = Network(plan)
    if homes is not None:
        for seat in network.seats.values():
            shutil.copytree(homes / seat.home.name, seat.home)
    await asyncio.to_thread(network.prepare)
    network.write_registry([*network.read_registry(), *registered])
    key = network.new_key(account="bench", credits_wei=10**24)
    try:
        await network.start_coordinator()
        for number in network.seats:
            network.start_node(number)
        await network.online(nodes)
        await _applied(network, key)
        yield Site(network=network, key=key, samples=SampleReader([samples(seat) for seat in network.seats]))
    finally:
        await network.stop()


async def _applied(network: Network, key: str) -> None:
    """Waits until the coordinator knows the key."""
    async with httpx.AsyncClient(base_url=network.url, trust_env=False, verify=False, timeout=10) as http:
        for _ in range(100):
            if (await http.get("/v1/account", headers={"authorization": f"Bearer {key}"})).status_code == 200:
                return
            await asyncio.sleep(0.1)
    raise ProcessError("the coordinator did not take up an API key within ten seconds")
