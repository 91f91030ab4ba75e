"""`python -m bench.live --report FILE`: what the coordinator adds to an answer, beside LiteLLM's proxy in the same run.

Everything is real but the model: HTTP, signatures, envelopes, a durable store, nodes as processes of their own, whose
runtime answers at once. Each server has one core to itself; nodes, backend and load share another. What is to be
compared is measured in turns, three rounds of it, and the median is given with its spread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvloop

from bench import litellm_proxy, openai_backend
from bench.instant_runtime import DIGEST, MODEL, TOKENS_DEFAULT, answer_text
from bench.load import Drive, Target, chat_body, drive
from bench.node import Pace, bench_node, prompt
from bench.stopwatch import SampleReader, median, percentile
from parallelix.devnet.network import Network, Plan, catalogue_entry, running
from parallelix.devnet.processes import ProcessError
from parallelix.devnet.report import Report

NODES = 2
IN_FLIGHT = 32
STREAMS = 256
AT_ONCE = Pace()
PACED = Pace(before_ms=400)
"""With it 32 requests are open at once and none waits for the core that nodes and load share."""
PACED_STREAM = Pace(between_ms=5)
PACED_STREAMS = Pace(between_ms=400)
"""Sixteen tokens in six seconds: 256 streams are then 680 tokens a second."""
CONTROL_REQUESTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything. Numbers of requests are for one round."""

    rounds: int = 3
    warm_up: int = 200
    alone: int = 200
    crowd: int = 1000
    paced: int = 256
    stream_alone: int = 40
    streams: int = 512
    litellm: int = 600


FULL = Scale()
QUICK = Scale(rounds=1, warm_up=40, alone=50, crowd=200, paced=64, stream_alone=10, streams=0, litellm=200)


@dataclass(slots=True)
class Figures:
    """Each figure's value in each round, and everything that went wrong."""

    series: dict[str, list[float]] = field(default_factory=lambda: defaultdict[str, list[float]](list))
    faults: list[str] = field(default_factory=list[str])

    def add(self, name: str, value: float) -> None:
        self.series[name].append(value)

    def value(self, name: str) -> float | None:
        """The median of the rounds."""
        return round(median(self.series[name]), 4) if self.series.get(name) else None

    def spread(self) -> dict[str, list[float]]:
        return {name: [round(min(values), 4), round(max(values), 4)] for name, values in self.series.items()}

    def take_over(self, what: str, done: Drive, wanted: int) -> None:
        if done.completed != wanted:
            first = done.errors[0] if done.errors else "no error was reported"
            self.faults.append(f"{what}: {done.completed} of {wanted} completed; {first}")


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


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The network ----------------------------------------------------------------------------------------------------------


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

    def target(self, pace: Pace = AT_ONCE, *, stream: bool = False, queue_seconds: float = 0) -> Target:
        body = chat_body(MODEL, prompt(pace), max_tokens=TOKENS_DEFAULT, stream=stream, queue_seconds=queue_seconds)
        url = f"{self.network.url}/v1/chat/completions"
        return Target(url=url, key=self.key, body=body, text=answer_text(), streams=stream)


@asynccontextmanager
async def site(
    folder: Path, on: Cores, *, nodes: int = NODES, tamper: bool = False, coordinator: str = "parallelix.coordinator"
) -> AsyncGenerator[Site]:
    """A coordinator with default settings and nodes, all online."""

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
    async with running(plan) as network:
        key = network.new_key(account="bench", credits_wei=10**24)
        await _applied(network, key)
        yield Site(network=network, key=key, samples=SampleReader([samples(seat) for seat in network.seats]))


async def _applied(network: Network, key: str) -> None:
    """Waits until the coordinator knows the key."""
    async with httpx.AsyncClient(base_url=network.url, trust_env=False, verify=False, timeout=10) as http:
        for _ in range(100):
            if (await http.get("/v1/account", headers={"authorization": f"Bearer {key}"})).status_code == 200:
                return
            await asyncio.sleep(0.1)
    raise ProcessError("the coordinator did not take up an API key within ten seconds")


# What is measured in turns --------------------------------------------------------------------------------------------


async def measure_rounds(here: Site, proxy: litellm_proxy.Proxy | None, scale: Scale, figures: Figures) -> int:
    """Every round of the coordinator and of the proxy. Gives the number of requests that the coordinator completed."""
    completed = (await drive(here.target(), requests=scale.warm_up, in_flight=8, watched_pid=here.pid)).completed
    if proxy is not None:
        await drive(proxy_target(proxy), requests=scale.warm_up, in_flight=8, watched_pid=proxy.pid)
    for number in range(1, scale.rounds + 1):
        say(f"round {number} of {scale.rounds}: coordinator")
        completed += await measure_coordinator(here, scale, figures)
        completed += await measure_streams(here, scale, figures)
        if proxy is not None:
            say(f"round {number} of {scale.rounds}: LiteLLM {proxy.version}")
            await measure_proxy(proxy, scale, figures)
    return completed


async def measure_coordinator(here: Site, scale: Scale, figures: Figures) -> int:
    alone = await _measure(here, figures, "alone", here.target(), requests=scale.alone, in_flight=1)
    figures.add("coordinator_cpu_ms_per_request_alone", alone.cpu_ms_per_request)
    crowd = await _measure(here, figures, "saturated", here.target(), requests=scale.crowd, in_flight=IN_FLIGHT)
    figures.add("coordinator_cpu_ms_per_request", crowd.cpu_ms_per_request)
    figures.add("requests_per_core_second", crowd.requests_per_core_second)
    figures.add("requests_per_second", crowd.completed / crowd.seconds)
    paced = await _measure(
        here,
        figures,
        "paced",
        here.target(PACED),
        requests=scale.paced,
        in_flight=IN_FLIGHT,
        spread_seconds=PACED.before_ms / 1000,
    )
    return alone.completed + crowd.completed + paced.completed


async def _measure(
    here: Site,
    figures: Figures,
    name: str,
    target: Target,
    *,
    requests: int,
    in_flight: int,
    spread_seconds: float = 0.0,
) -> Drive:
    """Added latency: what a requester waits, less the median times of the runtime and of the node's RSA."""
    here.samples.take()
    done = await drive(
        target, requests=requests, in_flight=in_flight, watched_pid=here.pid, spread_seconds=spread_seconds
    )
    figures.take_over(name, done, requests)
    samples = here.samples.take()
    if not done.completed:
        return done
    runtime, decrypt, sign = (median(samples[kind]) for kind in ("runtime", "decrypt", "sign"))
    figures.add(f"{name}_runtime_ms", runtime)
    figures.add(f"{name}_rsa_ms", decrypt + sign)
    for share in (0.5, 0.99):
        whole = percentile(done.latencies_ms, share)
        figures.add(f"{name}_latency_ms_p{share * 100:.0f}", whole)
        figures.add(f"{name}_added_ms_p{share * 100:.0f}", whole - runtime - decrypt - sign)
    if done.first_ms:
        before_first = median(samples["first"]) + decrypt
        figures.add(f"{name}_first_added_ms_p50", percentile(done.first_ms, 0.5) - before_first)
        figures.add(f"{name}_first_added_ms_p99", percentile(done.first_ms, 0.99) - before_first)
    return done


async def measure_streams(here: Site, scale: Scale, figures: Figures) -> int:
    one = await _measure(
        here, figures, "stream", here.target(PACED_STREAM, stream=True), requests=scale.stream_alone, in_flight=1
    )
    if not scale.streams:
        return one.completed
    many = await _measure(
        here,
        figures,
        "streams",
        here.target(PACED_STREAMS, stream=True),
        requests=scale.streams,
        in_flight=STREAMS,
        spread_seconds=PACED_STREAMS.between_ms * TOKENS_DEFAULT / 1000,
    )
    return one.completed + many.completed


def proxy_target(proxy: litellm_proxy.Proxy, model: str = litellm_proxy.MODEL) -> Target:
    body = chat_body(model, prompt(AT_ONCE), max_tokens=TOKENS_DEFAULT)
    return Target(url=f"{proxy.url}/v1/chat/completions", key=proxy.master_key, body=body, text=openai_backend.TEXT)


async def measure_proxy(proxy: litellm_proxy.Proxy, scale: Scale, figures: Figures) -> None:
    done = await drive(proxy_target(proxy), requests=scale.litellm, in_flight=IN_FLIGHT, watched_pid=proxy.pid)
    figures.take_over("LiteLLM", done, scale.litellm)
    figures.add("litellm_cpu_ms_per_request", done.cpu_ms_per_request)
    figures.add("litellm_requests_per_core_second", done.requests_per_core_second)
    figures.add("litellm_latency_ms_p50", percentile(done.latencies_ms, 0.5))


# The whole run --------------------------------------------------------------------------------------------------------


async def measure(options: argparse.Namespace, folder: Path, report: Report) -> Figures:
    scale, on, figures = (QUICK if options.quick else FULL), cores(), Figures()
    if on.rest:
        os.sched_setaffinity(0, on.rest)
    async with contextlib.AsyncExitStack() as stack:
        proxy = None
        if not options.without_litellm:
            say(f"starting LiteLLM {litellm_proxy.version()}")
            litellm_proxy.install()
            proxy = await stack.enter_async_context(litellm_proxy.running(folder, cpus=on.server, backend_cpus=on.rest))
        say(f"starting a coordinator and {NODES} nodes")
        here = await stack.enter_async_context(site(folder / "network", on))
        completed = await measure_rounds(here, proxy, scale, figures)
        recorded = (await here.network.view()).records
        if recorded != completed:
            figures.faults.append(f"{completed} requests completed, but {recorded} are in the record chain")
        if proxy is not None:
            await control_proxy(proxy, report)
    return figures


async def control_proxy(proxy: litellm_proxy.Proxy, report: Report) -> None:
    target = proxy_target(proxy, openai_backend.BROKEN)
    done = await drive(target, requests=CONTROL_REQUESTS, in_flight=1, watched_pid=proxy.pid)
    report.control("an answer of a broken backend does not count for LiteLLM", done.completed == 0)


def results_of(figures: Figures) -> dict[str, Any]:
    value = figures.value
    own, other = value("requests_per_core_second"), value("litellm_requests_per_core_second")
    return {
        "coordinator_cpu_ms_per_request": value("coordinator_cpu_ms_per_request"),
        "requests_per_core_second": own,
        "litellm_requests_per_core_second": other,
        "ratio_to_litellm": round(own / other, 2) if own and other else None,
        "all": {name: value(name) for name in figures.series},
        "spread": figures.spread(),
        "faults": figures.faults,
    }


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    report = Report("bench", shlex.join(["python", "-m", "bench.live", *arguments]))
    with tempfile.TemporaryDirectory(prefix="parallelix-bench-") as folder:
        figures = uvloop.run(measure(options, Path(folder), report))
    results = results_of(figures)
    print(json.dumps(results, indent=1))
    return report.write(options.report, results, not figures.faults)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.live")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--without-litellm", action="store_true", help="measure the coordinator alone")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
