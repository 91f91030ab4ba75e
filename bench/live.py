"""`python -m bench.live --report FILE`: what the coordinator adds to an answer, beside LiteLLM's proxy in the same run.

Everything is real but the model: HTTP, signatures, envelopes, a durable store, nodes as processes of their own, whose
runtime answers at once. Each server has one core to itself; nodes, backend and load share another. What is to be
compared is measured in turns, three rounds of it, and the median is given with its spread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench import floor, litellm_proxy, matches, openai_backend
from bench.burning_coordinator import BURN_MS
from bench.figures import Figures, results_of, table
from bench.fleet import Fleet, FleetError
from bench.instant_runtime import TOKENS_DEFAULT
from bench.load import Drive, Target, chat_body, drive
from bench.node import Pace, prompt
from bench.site import AT_ONCE, Cores, Site, cores, site
from bench.stopwatch import busy_seconds, cpu_seconds, median, percentile, resident_mib
from parallelix.devnet.processes import ProcessError
from parallelix.devnet.report import Report, machine
from parallelix.node.home import Home
from parallelix.node.keys import NodeKeys, load_keys

IN_FLIGHT = 32
STREAMS = 256
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
    nodes: int = 2
    idle_seconds: float = 3.0
    warm_up: int = 200
    alone: int = 200
    crowd: int = 1000
    paced: int = 256
    stream_alone: int = 40
    streams: int = 512
    litellm: int = 600
    litellm_alone: int = 100
    heartbeats: int = 10_000
    fleets: tuple[int, ...] = (1_000, 10_000)
    pools: tuple[int, ...] = (100, 10_000, 100_000)


FULL = Scale()
QUICK = Scale(
    rounds=1,
    nodes=1,
    idle_seconds=0.5,
    warm_up=40,
    alone=50,
    crowd=200,
    paced=64,
    stream_alone=10,
    streams=0,
    litellm=200,
    litellm_alone=20,
    fleets=(100,),
    pools=(100, 10_000),
)


_STARTED = time.monotonic()


def say(text: str) -> None:
    """Progress, with the seconds since the start."""
    print(f"[{time.monotonic() - _STARTED:4.0f} s] {text}", file=sys.stderr, flush=True)


# What is measured in turns --------------------------------------------------------------------------------------------


async def measure_rounds(here: Site, proxy: litellm_proxy.Proxy | None, scale: Scale, figures: Figures) -> int:
    """Every round of the coordinator and of the proxy. Gives the number of requests that the coordinator completed."""
    if proxy is not None:
        await drive(proxy_target(proxy), requests=scale.warm_up, in_flight=8, watched_pid=proxy.pid)
        proxy.hold()
    completed = (await drive(here.target(), requests=scale.warm_up, in_flight=8, watched_pid=here.pid)).completed
    for number in range(1, scale.rounds + 1):
        say(f"round {number} of {scale.rounds}: coordinator")
        with others_watched(here.pids, figures):
            completed += await measure_coordinator(here, scale, figures)
            completed += await measure_streams(here, scale, figures)
        if proxy is not None:
            say(f"round {number} of {scale.rounds}: LiteLLM {proxy.version}")
            proxy.go_on()
            await drive(proxy_target(proxy), requests=IN_FLIGHT, in_flight=IN_FLIGHT, watched_pid=proxy.pid)
            await measure_proxy(proxy, scale, figures)
            proxy.hold()
    return completed


@contextlib.contextmanager
def others_watched(pids: Sequence[int], figures: Figures) -> Generator[None]:
    """How much of the machine went to processes that have no part in this: they make every figure worse."""

    def others_seconds() -> float:
        return busy_seconds() - sum(map(cpu_seconds, pids))

    before, started = others_seconds(), time.perf_counter()
    yield
    cores_seconds = (time.perf_counter() - started) * (os.cpu_count() or 1)
    figures.add("others_percent", max(0.0, (others_seconds() - before) / cores_seconds * 100))


async def measure_coordinator(here: Site, scale: Scale, figures: Figures) -> int:
    before, started = cpu_seconds(here.pid), time.perf_counter()
    await asyncio.sleep(scale.idle_seconds)
    figures.add("idle_cpu_ms_per_second", (cpu_seconds(here.pid) - before) * 1000 / (time.perf_counter() - started))
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
    target = proxy_target(proxy)
    for name, requests, in_flight in (("alone", scale.litellm_alone, 1), ("saturated", scale.litellm, IN_FLIGHT)):
        done = await drive(target, requests=requests, in_flight=in_flight, watched_pid=proxy.pid)
        figures.take_over(f"LiteLLM, {name}", done, requests)
        figures.add(f"litellm_{name}_latency_ms_p50", percentile(done.latencies_ms, 0.5))
        if name == "saturated":
            figures.add("litellm_cpu_ms_per_request", done.cpu_ms_per_request)
            figures.add("litellm_requests_per_core_second", done.requests_per_core_second)
            own = figures.series["requests_per_core_second"][-1]
            figures.add("ratio_to_litellm", own / done.requests_per_core_second)


# Many nodes -----------------------------------------------------------------------------------------------------------


async def measure_fleet(
    folder: Path, keys: NodeKeys, on: Cores, count: int, scale: Scale, figures: Figures, report: Report
) -> None:
    """Heartbeats and memory with `count` nodes attached, each with its long poll open. They share the RSA `keys`."""
    fleet = Fleet(count, envelope_key=keys.envelope_public_pem, poe_key=keys.poe_public_pem)
    async with site(folder, on, nodes=0, registered=[node.registration() for node in fleet.nodes]) as here:
        figures.add("resident_mib_0", resident_mib(here.pid))
        try:
            started, cpu_before = time.perf_counter(), cpu_seconds(here.pid)
            await fleet.attach(here.network.port)
            figures.add(f"attaches_per_core_second_{count}", count / (cpu_seconds(here.pid) - cpu_before))
            say(f"  attached in {time.perf_counter() - started:.1f} s; opening long polls")
            await fleet.beat()
            await fleet.open_polls()
            for _ in range(scale.rounds):
                await _measure_heartbeats(fleet, here.pid, max(1, scale.heartbeats // count), figures)
            figures.add(f"resident_mib_{count}", resident_mib(here.pid))
            online = (await here.network.view()).nodes_online
            if (online, fleet.polls_open) != (count, count):
                figures.faults.append(f"of {count} nodes {online} are online and {fleet.polls_open} keep polling")
            report.control(
                f"a heartbeat with a strange key does not count ({count:,} nodes)",
                await fleet.beat_with_a_strange_key() == 0,
            )
        finally:
            await fleet.close()


async def _measure_heartbeats(fleet: Fleet, pid: int, rounds: int, figures: Figures) -> None:
    count, polls_before, cpu_before = len(fleet.nodes), fleet.polls_answered, cpu_seconds(pid)
    counted = await fleet.beat(rounds)
    figures.add(f"heartbeats_per_core_second_{count}", counted / (cpu_seconds(pid) - cpu_before))
    figures.add(f"polls_answered_meanwhile_{count}", fleet.polls_answered - polls_before)
    if counted != rounds * count:
        figures.faults.append(f"{counted} of {rounds * count} heartbeats were answered with a receipt")


# What needs no network ------------------------------------------------------------------------------------------------


def measure_floor(folder: Path, scale: Scale, figures: Figures) -> None:
    for _ in range(scale.rounds):
        operations = floor.measure()
        figures.add("floor_cpu_ms_per_request", floor.cpu_ms_per_request(operations))
        for name, microseconds in operations.items():
            figures.add(f"floor_us {name}", microseconds)
        figures.add("disk_sync_ms", floor.disk_sync_ms(folder))


def measure_matches(scale: Scale, figures: Figures, report: Report) -> None:
    for count in scale.pools:
        found = matches.measure(count, batches=20 * scale.rounds)
        figures.add(f"match_us_{count}", found.match_us)
        figures.add(f"match_all_busy_us_{count}", found.busy_us)
        figures.add(f"release_us_{count}", found.release_us)
    largest = scale.pools[-1]
    scan_us = matches.scan_us(largest)
    figures.add("match_by_scan_us", scan_us)
    slower = scan_us > 10 * median(figures.series[f"match_us_{largest}"])
    report.control(f"a scheduler that scans {largest:,} nodes is seen to be slower", slower)


# Controls -------------------------------------------------------------------------------------------------------------


async def control_tampering(folder: Path, on: Cores, report: Report) -> None:
    """One node, and all its proofs are spoilt."""
    async with site(folder / "tampering", on, nodes=1, tamper=True, homes=folder / "network") as here:
        target = here.target(queue_seconds=1)
        done = await drive(target, requests=CONTROL_REQUESTS, in_flight=CONTROL_REQUESTS, watched_pid=here.pid)
        recorded = (await here.network.view()).records
        rejected = here.network.coordinator_log.read_text().count('"attempt.rejected"')
    caught = (done.completed, recorded) == (0, 0) and rejected > 0
    report.control("a tampered answer does not count, and is not recorded", caught)


async def control_burning(folder: Path, on: Cores, scale: Scale, figures: Figures, report: Report) -> None:
    """The same measurement of a coordinator that burns `BURN_MS` more for each request."""
    burning = "bench.burning_coordinator"
    async with site(folder / "burning", on, nodes=scale.nodes, coordinator=burning, homes=folder / "network") as here:
        await drive(here.target(), requests=scale.warm_up, in_flight=8, watched_pid=here.pid)
        done = await drive(here.target(), requests=scale.crowd, in_flight=IN_FLIGHT, watched_pid=here.pid)
    figures.take_over("burning", done, scale.crowd)
    figures.add("burning_cpu_ms_per_request", done.cpu_ms_per_request)
    more_ms = done.cpu_ms_per_request - median(figures.series["coordinator_cpu_ms_per_request"])
    report.control(f"{BURN_MS:g} ms of CPU more for each request are seen", more_ms > BURN_MS / 2)


async def control_proxy(proxy: litellm_proxy.Proxy, report: Report) -> None:
    target = proxy_target(proxy, openai_backend.BROKEN)
    done = await drive(target, requests=CONTROL_REQUESTS, in_flight=1, watched_pid=proxy.pid)
    report.control("an answer of a broken backend does not count for LiteLLM", done.completed == 0)


# The whole run --------------------------------------------------------------------------------------------------------


async def measure(options: argparse.Namespace, folder: Path, scale: Scale, figures: Figures, report: Report) -> None:
    on, usable = cores(), os.sched_getaffinity(0)
    if on.rest:
        os.sched_setaffinity(0, on.rest)
    try:
        await measure_all(options, folder, on, scale, figures, report)
    finally:
        os.sched_setaffinity(0, usable)


async def measure_all(
    options: argparse.Namespace, folder: Path, on: Cores, scale: Scale, figures: Figures, report: Report
) -> None:
    say("the floor: cryptography and disk")
    measure_floor(folder, scale, figures)
    say("matches, " + ", ".join(f"{count:,}" for count in scale.pools) + " nodes")
    measure_matches(scale, figures, report)
    gc.collect()
    await measure_in_turns(options, folder, on, scale, figures, report)
    say("controls: a coordinator that burns, a node that tampers")
    await control_burning(folder, on, scale, figures, report)
    await control_tampering(folder, on, report)
    keys = load_keys(Home(folder / "network" / "node1"))
    for count in scale.fleets:
        say(f"{count:,} nodes: attaching")
        await measure_fleet(folder / f"fleet{count}", keys, on, count, scale, figures, report)


async def measure_in_turns(
    options: argparse.Namespace, folder: Path, on: Cores, scale: Scale, figures: Figures, report: Report
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        proxy = None
        if not options.without_litellm:
            say(f"starting LiteLLM {litellm_proxy.version()}")
            litellm_proxy.install()
            serving = litellm_proxy.running(folder, cpus=on.server, backend_cpus=on.rest)
            proxy = await stack.enter_async_context(serving)
            figures.add("litellm_resident_mib", resident_mib(proxy.pid))
        say("starting a coordinator and its nodes")
        here = await stack.enter_async_context(site(folder / "network", on, nodes=scale.nodes))
        completed = await measure_rounds(here, proxy, scale, figures)
        recorded = (await here.network.view()).records
        if recorded != completed:
            figures.faults.append(f"{completed} requests completed, but {recorded} are in the record chain")
        if proxy is not None:
            proxy.go_on()
            await control_proxy(proxy, report)


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    report = Report("bench", shlex.join(["python", "-m", "bench.live", *arguments]))
    scale, figures = (QUICK if options.quick else FULL), Figures()
    with tempfile.TemporaryDirectory(prefix="parallelix-bench-") as folder:
        try:
            uvloop.run(measure(options, Path(folder), scale, figures, report))
        except (ProcessError, FleetError, litellm_proxy.LiteLLMError) as error:
            figures.faults.append(str(error))
    results = results_of(figures, fleets=scale.fleets, pools=scale.pools)
    code = report.write(options.report, results, not figures.faults)
    show(report, scale, figures, results, minutes=(time.monotonic() - _STARTED) / 60)
    print("passed" if code == 0 else "NOT PASSED: " + options.report.as_posix())
    return code


def show(report: Report, scale: Scale, figures: Figures, results: dict[str, Any], *, minutes: float) -> None:
    """One JSON object, then the table."""
    print(json.dumps({name: each for name, each in results.items() if name not in ("details", "goals")}, indent=2))
    facts = machine()
    print(f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}")
    print(f"{minutes:.1f} minutes; load now {', '.join(f'{each:.1f}' for each in os.getloadavg())}")
    print(table(figures, fleets=scale.fleets, pools=scale.pools))
    for control in report.controls:
        print(f"control {'caught' if control.caught else 'NOT CAUGHT'}: {control.name}")


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.live")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--without-litellm", action="store_true", help="measure the coordinator alone")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
