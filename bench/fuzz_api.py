"""`python -m bench.fuzz_api --report reports/fuzz-api.json`: schemathesis against a real coordinator with a real node.

Its cases come from the OpenAPI document that the coordinator serves: right ones, wrong ones, and chains of calls along
the document's links. Then the same against a coordinator with a fault in each of a few routes: every one has to be
found.

Checks that are left out, and why:

    positive_data_acceptance    some rules lie between fields (one of messages, prompt and input), beyond JSON Schema
    use_after_free              DELETE cancels a request; what it cost stays to be seen
    object_level_authorization  needs a second account; tests/coordinator/http holds it for every call by name
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from bench import brittle_coordinator
from bench.instant_node import TIER, instant_node
from bench.instant_runtime import DIGEST, MODEL
from parallelix.devnet.network import Network, Plan, catalogue_entry
from parallelix.devnet.report import Report
from parallelix.protocol.accounts import SCOPES

LEFT_OUT = ("positive_data_acceptance", "use_after_free", "object_level_authorization")
EXAMPLES = 50
"""Good and bad cases for each operation; what the document's bounds ask for by themselves comes on top."""
CONTROL_EXAMPLES = 2
SEED = 1
CREDITS_WEI = 10**26
SETTINGS: dict[str, Any] = {"batch_seconds": 0.5, "deadline_seconds": 30.0}
FAILURES_SHOWN = 20
MESSAGE_CHARACTERS_MAX = 400
ASK_SECONDS = 0.1
ASKED_MAX = 600
OWN_KEY_VARIABLE = "PARALLELIX_FUZZ_KEY_ID"
"""Tells `fuzz_hooks` which key not to revoke: the one that everything is called with."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of failure as schemathesis tells it."""

    check: str
    operation: str
    title: str
    message: str


@dataclass(kw_only=True)
class Run:
    """What one run of schemathesis saw."""

    operations: int = 0
    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter[int])
    answers: Counter[str] = field(default_factory=Counter[str])
    """How often each operation answered with a success."""
    failures: list[Failure] = field(default_factory=list[Failure])
    exit_code: int = 0
    output: str = ""

    @property
    def status_5xx(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 500)

    def failed(self, check: str, path: str) -> bool:
        return any(each.check == check and path in each.operation for each in self.failures)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """How much to try. `phases` are schemathesis's; `paths` are all where none is named."""

    examples: int
    phases: tuple[str, ...] = ("coverage", "fuzzing", "stateful")
    paths: tuple[str, ...] = ()
    seed: int = SEED


@asynccontextmanager
async def network_of(folder: Path, command: tuple[str, ...]) -> AsyncGenerator[tuple[Network, str]]:
    """A coordinator started by `command`, one node that takes every request, and an API key."""
    entry = catalogue_entry(MODEL, DIGEST, context_tokens=8192)
    plan = Plan(
        folder=folder, catalogue=entry, node_command=instant_node(), node_count=1, settings=SETTINGS,
        coordinator_command=command,
    )  # fmt: skip
    network = Network(plan)
    try:
        await asyncio.to_thread(network.prepare)
        network.write_registry(
            [msgspec.structs.replace(each, hardware_tier=TIER) for each in network.read_registry()]
        )  # fmt: skip
        await network.start_coordinator()
        network.start_node(1)
        yield network, await usable_key(network)
    finally:
        await network.stop()


async def usable_key(network: Network) -> str:
    """A key that the coordinator knows by now and for which a node is there."""
    secret = network.new_key(credits_wei=CREDITS_WEI, scopes=SCOPES)
    headers = {"authorization": f"Bearer {secret}"}
    body = {"model": MODEL, "prompt": "Hello", "hardware_tier": TIER}
    async with httpx.AsyncClient(base_url=network.url, headers=headers, trust_env=False, timeout=30) as http:
        answer = ""
        for _ in range(ASKED_MAX):
            quote = await http.post("/v1/quote", json=body)
            if quote.status_code == 200 and quote.json()["capable_nodes"]:
                return secret
            answer = quote.text
            await asyncio.sleep(ASK_SECONDS)
    raise RuntimeError(f"no node and key after {ASKED_MAX * ASK_SECONDS:g} s; the last answer was {answer}")


async def fuzz(url: str, secret: str, scope: Scope, folder: Path) -> Run:
    """Runs schemathesis in a process of its own, with its reports in `folder`."""
    ndjson, summary = folder / "events.ndjson", folder / "run.json"
    arguments = [
        f"{url}/schema/openapi.json",
        "--header", f"Authorization: Bearer {secret}",
        "--phases", ",".join(scope.phases),
        "--max-examples", str(scope.examples),
        "--seed", str(scope.seed),
        "--checks", "all",
        "--exclude-checks", ",".join(LEFT_OUT),
        # Text that is no Unicode has tests of its own; here it would only hide what else is in a body.
        "--generation-codec", "utf-8",
        "--generation-database", "none",
        "--suppress-health-check", "all",
        "--continue-on-failure", "--no-color", "--no-shrink",
        "--report", "ndjson,json",
        "--report-ndjson-path", str(ndjson),
        "--report-json-path", str(summary),
        *(argument for path in scope.paths for argument in ("--include-path", path)),
    ]  # fmt: skip
    root = str(Path(__file__).parents[1])
    key_id = f"key_{hashlib.sha256(secret.encode()).hexdigest()[:16]}"
    own = {"SCHEMATHESIS_HOOKS": "bench.fuzz_hooks", OWN_KEY_VARIABLE: key_id, "PYTHONPATH": root, "NO_PROXY": "*"}
    environment = {**os.environ, **own}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "schemathesis.cli", "run", *arguments], cwd=folder, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if not summary.exists():
        raise RuntimeError(f"schemathesis ended with {done.returncode} and no report:\n{done.stdout[-4000:]}")
    run = read_run(summary, ndjson)
    run.exit_code, run.output = done.returncode, done.stdout
    return run


class _Counted(msgspec.Struct):
    tested: int = 0
    generated: int = 0


class _Summary(msgspec.Struct):
    operations: _Counted
    test_cases: _Counted


class _Told(msgspec.Struct):
    operation: str = ""
    title: str = ""
    message: str = ""


class _Info(msgspec.Struct):
    failure: _Told


class _Check(msgspec.Struct):
    name: str
    status: str
    failure_info: _Info | None = None


class _Response(msgspec.Struct):
    status_code: int


class _Interaction(msgspec.Struct):
    response: _Response | None = None


class _Recorder(msgspec.Struct):
    label: str
    interactions: dict[str, _Interaction] = {}
    checks: dict[str, list[_Check]] = {}


class _Scenario(msgspec.Struct):
    recorder: _Recorder


class _Event(msgspec.Struct):
    """A line of schemathesis's report; of most kinds there is nothing to read."""

    scenario: _Scenario | None = msgspec.field(default=None, name="ScenarioFinished")


def read_run(summary: Path, ndjson: Path) -> Run:
    told = msgspec.json.decode(summary.read_bytes(), type=_Summary)
    run = Run(operations=told.operations.tested, cases=told.test_cases.generated)
    decoder = msgspec.json.Decoder(_Event)
    with ndjson.open("rb") as lines:
        for line in lines:
            scenario = decoder.decode(line).scenario
            if scenario is not None:
                _count(run, scenario.recorder)
    return run


def _count(run: Run, recorder: _Recorder) -> None:
    for interaction in recorder.interactions.values():
        if interaction.response is not None:
            run.statuses[interaction.response.status_code] += 1
            run.answers[recorder.label] += interaction.response.status_code < 300
    for checks in recorder.checks.values():
        run.failures += [_failure(recorder.label, check) for check in checks if check.status == "failure"]


def _failure(label: str, check: _Check) -> Failure:
    told = check.failure_info.failure if check.failure_info is not None else _Told()
    message = told.message[:MESSAGE_CHARACTERS_MAX]
    return Failure(check=check.name, operation=told.operation or label, title=told.title, message=message)


async def controls_of(folder: Path, examples: int = CONTROL_EXAMPLES) -> dict[str, bool]:
    """For each check that a faulty route has to fail, whether it did."""
    command = (sys.executable, "-m", "bench.brittle_coordinator")
    faults = brittle_coordinator.FAULTS
    place = folder / "brittle"
    place.mkdir()
    async with network_of(place, command) as (network, secret):
        scope = Scope(examples=examples, phases=("fuzzing",), paths=tuple(faults.values()))
        run = await fuzz(network.url, secret, scope, place)
    return {check: run.failed(check, path) for check, path in faults.items()}


def results_of(run: Run) -> dict[str, Any]:
    return {
        "operations": run.operations,
        "cases": run.cases,
        "status_5xx": run.status_5xx,
        "statuses": dict(sorted(run.statuses.items())),
        "successes": dict(sorted(run.answers.items())),
        "failures": run.failures[:FAILURES_SHOWN],
    }


def faults_of(run: Run) -> list[str]:
    """Why a run has not passed; nothing when it has."""
    found = [f"{each.check}: {each.operation}: {each.title}: {each.message}" for each in run.failures]
    if run.status_5xx:
        found.append(f"{run.status_5xx} answers had a status of 500 or above")
    if run.exit_code and not found:
        found.append(f"schemathesis ended with {run.exit_code}:\n{run.output[-4000:]}")
    if not run.cases:
        found.append("nothing was tried")
    return found


async def measure(scope: Scope, folder: Path) -> tuple[Run, dict[str, bool]]:
    """The run itself and, beside it, the one that must fail."""
    return await asyncio.gather(fuzz_the_real_one(scope, folder), controls_of(folder))


async def fuzz_the_real_one(scope: Scope, folder: Path) -> Run:
    place = folder / "real"
    place.mkdir()
    async with network_of(place, (sys.executable, "-m", "parallelix.coordinator")) as (network, secret):
        return await fuzz(network.url, secret, scope, place)


def lines_of(run: Run, controls: dict[str, bool]) -> Iterator[str]:
    yield f"{run.operations} operations, {run.cases} cases, {run.status_5xx} answers of 500 or above"
    yield "answers by status: " + ", ".join(f"{status}: {count}" for status, count in sorted(run.statuses.items()))
    yield from (f"FAILED {fault}" for fault in faults_of(run))
    yield from (f"control {name}: {'caught' if caught else 'NOT CAUGHT'}" for name, caught in controls.items())


def main(arguments: list[str]) -> int:
    options = _parsed(arguments)
    command = "python -m bench.fuzz_api " + " ".join(arguments)
    report = Report("fuzz-api", command.strip(), seed=options.seed)
    scope = Scope(examples=options.examples, seed=options.seed)
    print(f"schemathesis makes about {scope.examples} cases for each operation, and a few hundred more")
    with tempfile.TemporaryDirectory(prefix="parallelix-fuzz-") as folder:
        run, controls = asyncio.run(measure(scope, Path(folder)))
    for name, caught in controls.items():
        report.control(name, caught)
    print("\n".join(lines_of(run, controls)))
    return report.write(options.report, results_of(run), passed=not faults_of(run))


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz_api")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="good and bad cases for each operation")
    parser.add_argument("--seed", type=int, default=SEED)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
