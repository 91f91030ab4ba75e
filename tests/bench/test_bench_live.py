"""The benchmark in its reduced form: it runs, reports every figure, and catches the faults that it makes on purpose."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from bench import floor, load, matches, openai_backend, stopwatch
from parallelix.devnet.network import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
RUN_SECONDS_MAX = 600
"""A tenth of it on two quiet cores."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    command = [sys.executable, "-m", "bench.live", "--quick", "--without-litellm", "--report", str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=RUN_SECONDS_MAX)
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80, "the table is wider than a terminal"
    return json.loads(path.read_text())


def test_a_run_passes_and_every_fault_made_on_purpose_is_caught(report: dict[str, Any]) -> None:
    assert report["passed"], report["results"]["faults"]
    assert report["results"]["faults"] == []
    assert len(report["controls"]) == 4
    assert all(control["caught"] for control in report["controls"])


def test_the_report_names_every_figure_and_says_where_it_was_measured(report: dict[str, Any]) -> None:
    results = report["results"]
    assert {"commit", "command", "seed", "machine", "load"} <= report.keys()
    assert results.keys() >= {
        "coordinator_cpu_ms_per_request",
        "floor_cpu_ms_per_request",
        "requests_per_core_second",
        "litellm_requests_per_core_second",
        "ratio_to_litellm",
        "added_latency_ms",
        "first_token_added_ms",
        "heartbeats_per_core_second",
        "resident_mib",
        "match_us",
    }
    assert results["added_latency_ms"].keys() == {"1", "32"}
    assert results["added_latency_ms"]["32"].keys() == {"p50", "p99"}
    assert results["first_token_added_ms"].keys() == {"1", "256"}
    assert results["match_us"].keys() == {"100", "10000"}
    assert results["coordinator_cpu_ms_per_request"] > results["floor_cpu_ms_per_request"] > 0
    assert {goal["figure"] for goal in results["goals"]} >= {"coordinator_cpu_ms_per_request", "alone_added_ms_p50"}


def test_what_was_not_measured_is_reported_as_nothing(report: dict[str, Any]) -> None:
    assert report["results"]["litellm_requests_per_core_second"] is None
    assert report["results"]["ratio_to_litellm"] is None


@pytest.fixture
async def backend() -> AsyncIterator[str]:
    """The server that answers at once, in a thread of its own: the URL of its chat completions."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(openai_backend.app, host="127.0.0.1", port=port, lifespan="off", log_config=None)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}/v1/chat/completions"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize(
    ("model", "text", "error"),
    [
        ("instant", openai_backend.TEXT, ""),
        ("instant", openai_backend.TEXT + ".", "another text"),
        (openai_backend.BROKEN, openai_backend.TEXT, "status 500"),
    ],
    ids=["the right answer", "another text", "an error"],
)
async def test_only_the_right_answer_counts_as_completed(backend: str, model: str, text: str, error: str) -> None:
    body = load.chat_body(model, "Hello", max_tokens=16)
    target = load.Target(url=backend, key="key", body=body, text=text)
    done = await load.drive(target, requests=20, in_flight=4, watched_pid=os.getpid())
    assert done.completed == (0 if error else 20)
    assert len(done.errors) == 20 - done.completed
    assert all(error in each for each in done.errors)
    assert done.cpu_seconds > 0


async def test_a_stream_that_breaks_off_does_not_count(backend: str) -> None:
    body = load.chat_body("instant", "Hello", max_tokens=16, stream=True)
    target = load.Target(url=backend, key="key", body=body, text=openai_backend.TEXT, streams=True)
    done = await load.drive(target, requests=3, in_flight=1, watched_pid=os.getpid())
    assert done.completed == 0
    assert ["[DONE]" in each for each in done.errors] == [True] * 3


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([5.0], 0.5, 5.0), ([1.0, 2.0, 3.0], 0.5, 2.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0), ([*range(1, 101)], 0.99, 99)],
)
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(
    values: list[float], share: float, expected: float
) -> None:
    assert stopwatch.percentile(values, share) == expected


def test_a_stopwatch_reads_what_was_written_since_the_last_time(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    writer = stopwatch.SampleWriter(path)
    writer.add("decrypt", 0.001)
    reader = stopwatch.SampleReader([path])
    writer.add("sign", 0.002)
    writer.add("sign", 0.003)
    assert reader.take() == {"decrypt": [], "sign": [2.0, 3.0], "first": [], "runtime": []}
    assert reader.take()["sign"] == []


def test_the_clock_of_another_process_sees_what_it_burns() -> None:
    burning = "import time; end = time.thread_time() + 0.2\nwhile time.thread_time() < end: pass\ninput()"
    with subprocess.Popen([sys.executable, "-c", burning], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            for _ in range(3000):
                if stopwatch.cpu_seconds(child.pid) >= 0.2:
                    break
                threading.Event().wait(0.01)
            assert stopwatch.cpu_seconds(child.pid) >= 0.2
            assert stopwatch.resident_mib(child.pid) > 1
        finally:
            child.communicate(b"\n")


def test_the_floor_counts_only_operations_that_it_measured() -> None:
    measured = floor.measure(repeats=2)
    assert measured.keys() == floor.PER_REQUEST.keys()
    alone = dict.fromkeys(measured, 0.0) | {"secp256k1 recover": 500.0}
    assert floor.cpu_ms_per_request(alone) == 1.0


def test_a_measured_pool_matches_and_is_found_busy_when_it_is() -> None:
    found = matches.measure(100, batches=2)
    assert found.match_us > 0
    assert found.release_us > 0
    assert found.busy_us > 0
