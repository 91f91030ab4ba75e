"""`python -m bench.crash --cycles 50 --report reports/crash.json`: kill -9 of the coordinator, many times, under load.

Clients send at a steady rate through every crash. After each restart all that was acknowledged must be there; at the
end every request has ended, its money adds up to the last wei, and its record, receipt and answer verify. The store is
audited by `bench.books`, which shares no code with the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bench.books import FINAL, Findings, audit, read_books
from bench.crash_clients import Clients, Intent
from bench.echo_node import echo_node
from bench.echo_runtime import CONTEXT_TOKENS, DIGEST, MODEL
from parallelix.coordinator import secrets as coordinator_secrets
from parallelix.devnet.network import Network, Plan, catalogue_entry
from parallelix.devnet.report import Report
from parallelix.protocol import canonical, receipts, work
from parallelix.protocol.records import GENESIS_HASH
from parallelix.protocol.requests import AccountView, NetworkView, RequestView

T = TypeVar("T")

NODES = 2
SLOTS = 128
RATE = 40.0
"""Intents a second: twice what is promised, so that the rate over the whole run, restarts included, stays above it."""
RATE_MIN = 20.0
WORD_SECONDS = 0.02
"""Between two words of an answer: a request is open for a tenth of a second and more, so that every kill meets some."""
UP_SECONDS = (0.5, 4.0)
"""How long a coordinator lives after it is ready: from its first answers to a full load."""
EARLY_KILLS = 5
"""Every so many cycles it is also killed while it is starting, in the middle of its recovery."""
EARLY_SECONDS = (0.3, 1.5)
REST_SECONDS = 60.0
CHECKS_AT_ONCE = 16
HASTY_ACKNOWLEDGED = 40
"""A second's worth: by then some of them are always between their answer and their commit."""
SHOWN_MAX = 20

SETTINGS: dict[str, Any] = {
    "batch_seconds": 0.5,
    "orphan_seconds": 8.0,
    "restart_grace_seconds": 10.0,
    "client_grace_seconds": 2.0,
    "heartbeat_seconds": 2.0,
    "audits": True,
    "audit_queue_seconds": 5.0,
    "epoch_seconds": 3.0,
}


@dataclass(kw_only=True)
class Run:
    """What became of one run, before it is judged."""

    cycles: int = 0
    seconds: float = 0.0
    acknowledged_in_time: int = 0
    """Of all that was acknowledged, what was so while cycles went on, restarts included: `seconds`."""
    met_open: int = 0
    """Requests with a waiting client that a kill met, summed over all kills."""
    ended: set[str] = field(default_factory=set[str])
    """Ids that have been seen in a final state."""
    phantom_caught: bool = False
    head_hash: str = ""
    findings: Findings = field(default_factory=Findings)
    acknowledged: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    shapes: dict[str, int] = field(default_factory=dict[str, int])
    states: dict[str, int] = field(default_factory=dict[str, int])
    receipts_verified: int = 0
    store: Path = Path()
    """A copy of the store at rest."""

    @property
    def requests_per_second(self) -> float:
        return self.acknowledged_in_time / self.seconds if self.seconds else 0.0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description="kill -9 the coordinator under load")
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=Path("reports/crash.json"))
    options = parser.parse_args(arguments)
    report = Report("crash", " ".join(("python -m bench.crash", *arguments)), seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="parallelix-crash-") as folder:
        run, controls = asyncio.run(crash(Path(folder), options.cycles, options.rate, options.seed, say=print))
    for name, caught in controls:
        report.control(name, caught)
    results = results_of(run)
    passed = not run.findings and run.requests_per_second >= RATE_MIN
    code = report.write(options.report, results, passed)
    print_summary(results, controls)
    return code


async def crash(
    folder: Path, cycles: int, rate: float, seed: int, *, say: Callable[[str], None]
) -> tuple[Run, list[tuple[str, bool]]]:
    """The run and its controls, each with whether it was caught."""
    run = await cycles_of_crashes(folder / "sound", cycles, rate, seed, say=say)
    controls = [("an id that was acknowledged by nobody", run.phantom_caught), *store_controls(run, folder)]
    hasty = await hasty_is_caught(folder / "hasty", rate, seed)
    return run, [*controls, ("a coordinator that answers before its commit", hasty)]


async def cycles_of_crashes(
    folder: Path,
    cycles: int,
    rate: float,
    seed: int,
    *,
    say: Callable[[str], None],
    up_seconds: tuple[float, float] = UP_SECONDS,
) -> Run:
    chance, run = random.Random(seed), Run()
    async with stage(folder, rate, seed) as (network, clients):
        started_at = time.monotonic()
        clients.start()
        for cycle in range(1, cycles + 1):
            await asyncio.sleep(chance.uniform(*up_seconds))
            network.kill_coordinator()
            told = clients.acknowledged()
            run.met_open += sum(1 for intent in clients.intents if intent.ids and not intent.over)
            if cycle % EARLY_KILLS == 0:
                await kill_early(network, chance.uniform(*EARLY_SECONDS))
            await network.start_coordinator()
            run.findings.lost += await missing(clients, told, run.ended)
            run.cycles = cycle
            say(f"cycle {cycle}: {len(clients.acknowledged())} acknowledged, {len(run.findings.lost)} lost")
        run.seconds, run.acknowledged_in_time = time.monotonic() - started_at, len(clients.acknowledged())
        await clients.stop()
        await at_rest(clients)
        run.phantom_caught = bool(await missing(clients, {"nobody": ["req_" + "ab" * 32]}, set()))
        signer = coordinator_secrets.load_or_create(network.coordinator_folder).signer.address
        await check_answers(clients, run, signer)
        network.kill_coordinator()
        run.store = copied(network.coordinator_folder / "coordinator.db", folder / "rest")
    run.acknowledged = clients.acknowledged()
    run.shapes = dict(Counter(intent.shape for intent in clients.intents))
    books = read_books(f"sqlite:///{run.store}")
    run.findings.add(audit(books, run.acknowledged))
    if run.head_hash != (books.records[-1].record_hash if books.records else GENESIS_HASH):
        run.findings.broken.append(f"the coordinator says that the chain's head is {run.head_hash}")
    return run


@asynccontextmanager
async def stage(
    folder: Path, rate: float, seed: int, *, coordinator: str = "parallelix.coordinator"
) -> AsyncGenerator[tuple[Network, Clients]]:
    """A coordinator, two nodes, and clients that have not begun. `coordinator` is the module that runs as one."""
    network = Network(
        Plan(
            folder=folder,
            catalogue=catalogue_entry(MODEL, DIGEST, context_tokens=CONTEXT_TOKENS),
            node_command=echo_node(pause_seconds=WORD_SECONDS, slots=SLOTS),
            node_count=NODES,
            settings=SETTINGS,
            coordinator_command=(sys.executable, "-m", coordinator),
        )
    )
    await asyncio.to_thread(network.prepare)
    clients = Clients(network.url, network.new_key(), rate=rate, chance=random.Random(seed))
    try:
        await network.start_coordinator()
        for number in network.seats:
            network.start_node(number)
        await network.online(NODES)
        yield network, clients
    finally:
        await clients.aclose()
        await network.stop()


async def kill_early(network: Network, seconds: float) -> None:
    """Lets a coordinator begin, and kills it wherever it is by then."""
    starting = asyncio.create_task(network.start_coordinator())
    await asyncio.wait((starting,), timeout=seconds)
    network.kill_coordinator()
    starting.cancel()
    await asyncio.wait((starting,))


async def missing(clients: Clients, told: Mapping[str, Sequence[str]], ended: set[str]) -> list[str]:
    """What was acknowledged and cannot be found now. Adds to `ended` what needs no second look."""

    async def look(request_id: str) -> str:
        status, body = await clients.get(f"/v1/requests/{request_id}")
        if status != 200:
            return f"{request_id}: was acknowledged, but now the coordinator says {status}"
        if msgspec.json.decode(body, type=RequestView).state in FINAL:
            ended.add(request_id)
        return ""

    wanted = [request_id for ids in told.values() for request_id in ids if request_id not in ended]
    return [found for found in await bounded(look(request_id) for request_id in wanted) if found]


async def at_rest(clients: Clients) -> None:
    """Waits until nothing is open and nothing held. What does not come to rest is for the audit to find."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REST_SECONDS):
            while True:
                account = msgspec.json.decode((await clients.get("/v1/account"))[1], type=AccountView)
                if account.open_requests == 0 and account.held_wei == "0":
                    return
                await asyncio.sleep(0.1)


async def check_answers(clients: Clients, run: Run, signer: str) -> None:
    """Every request as its requester sees it: its end, its answer, its receipt, and the head of the chain."""

    async def check(intent: Intent) -> list[str]:
        found = [f"{intent.key}: {problem}" for problem in intent.problems]
        for request_id in intent.ids:
            view = msgspec.json.decode((await clients.get(f"/v1/requests/{request_id}"))[1], type=RequestView)
            run.states[view.state] = run.states.get(view.state, 0) + 1
            found += [f"{request_id}: {fault}" for fault in answer_faults(intent, view)]
            if view.record_hash is not None:
                _, body = await clients.get(f"/v1/requests/{request_id}/receipt")
                receipt = msgspec.json.decode(body, type=receipts.Receipt)
                found += [f"{request_id}: receipt: {fault}" for fault in receipt_faults(intent, view, receipt, signer)]
                run.receipts_verified += 1
        return found

    for found in await bounded(check(intent) for intent in clients.intents):
        run.findings.broken += found
    network = msgspec.json.decode((await clients.get("/v1/network"))[1], type=NetworkView)
    run.head_hash = network.head_hash


def answer_faults(intent: Intent, view: RequestView) -> Iterable[str]:
    if view.state == "completed":
        if view.result is None or view.result.text != intent.prompt:
            yield "the answer is not the one to this prompt"
        if intent.shown is not None and intent.shown != intent.prompt:
            yield f"its client was shown {intent.shown[:80]!r}"
        if not view.settled or int(view.charge_wei) == 0:
            yield f"completed, but charged {view.charge_wei} wei, settled: {view.settled}"
    elif int(view.charge_wei):
        yield f"{view.state}, but charged {view.charge_wei} wei"
    elif intent.state == "completed":
        yield f"its client was told completed, the coordinator says {view.state}"
    elif intent.shape != "leaves":
        yield f"{view.state} ({view.reason}), though its client stayed"


def receipt_faults(intent: Intent, view: RequestView, receipt: receipts.Receipt, signer: str) -> Iterable[str]:
    assert view.result is not None
    finish: Any = view.result.finish_reason
    result = work.ResultContent(text=view.result.text, finish_reason=finish)
    checks = receipts.verify(
        receipt, payload=canonical.encode(intent.payload), result=canonical.encode(result), coordinator=signer
    )
    if receipt.batch is None:
        yield "names no batch"
    for name, holds, meaning in checks:
        if not holds:
            yield f"{name}: it does not hold that {meaning}"


async def bounded(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them, `CHECKS_AT_ONCE` at a time."""
    gate = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def one(call: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))


# Controls -----------------------------------------------------------------------------------------------------------

FAULTS: dict[str, str] = {
    "a charge posted twice": """
        INSERT INTO transfers SELECT 'again:' || transfer_id, debit_account, credit_account, amount_wei, request_id, at
        FROM transfers WHERE transfer_id LIKE 'charge:%' LIMIT 1""",
    "two requests for one Idempotency-Key": """
        UPDATE requests SET idempotency_key = (SELECT min(idempotency_key) FROM requests)
        WHERE request_id = (SELECT request_id FROM requests ORDER BY idempotency_key DESC LIMIT 1)""",
    "a request that is gone": """
        DELETE FROM requests WHERE request_id = (SELECT request_id FROM requests WHERE state = 'completed' LIMIT 1)""",
    "a request that never ends": """
        UPDATE requests SET state = 'running' WHERE request_id = (SELECT min(request_id) FROM requests)""",
    "a result that is gone": "DELETE FROM results WHERE request_id = (SELECT min(request_id) FROM results)",
    "a record that is gone": "DELETE FROM records WHERE sequence = (SELECT max(sequence) / 2 FROM records)",
    "the last record gone": "DELETE FROM records WHERE sequence = (SELECT max(sequence) FROM records)",
    "an edited record": """
        UPDATE records SET body = CAST(replace(CAST(body AS TEXT), '"epoch":', '"epoch":1') AS BLOB)
        WHERE sequence = (SELECT min(sequence) FROM records WHERE CAST(body AS TEXT) LIKE '%"epoch":%')""",
    "an audit that never ends": """
        UPDATE audits SET verdict = '' WHERE audit_id = (SELECT min(audit_id) FROM audits)""",
    "another verdict than the chain's": """
        UPDATE audits SET verdict = 'disagree' WHERE audit_id = (SELECT min(audit_id) FROM audits
        WHERE prepared_from = '' AND verdict = 'agree')""",
    "a claim that is kept": """
        INSERT INTO claims SELECT audit_id, x'00', x'00' FROM audits LIMIT 1""",
    "a hold that is never released": """
        DELETE FROM transfers WHERE transfer_id = (SELECT min(transfer_id) FROM transfers WHERE transfer_id
        LIKE 'release:%')""",
    "a balance that no transfer explains": """
        UPDATE balances SET balance_wei = '1' || balance_wei WHERE account LIKE 'available:%'""",
}
"""What somebody, or a bug, could do to a store. The audit must notice each one."""
WHERE_FOUND: dict[str, str] = {
    "a charge posted twice": "charged_twice",
    "two requests for one Idempotency-Key": "charged_twice",
    "a request that is gone": "lost",
    "a request that never ends": "lost",
}
"""Else among what is broken."""


def store_controls(run: Run, folder: Path) -> list[tuple[str, bool]]:
    controls: list[tuple[str, bool]] = []
    for number, (name, fault) in enumerate(FAULTS.items()):
        store = copied(run.store, folder / f"fault{number}")
        with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as connection:
            assert connection.execute(fault).rowcount >= 1, name
        found = audit(read_books(f"sqlite:///{store}"), run.acknowledged)
        controls.append((name, bool(getattr(found, WHERE_FOUND.get(name, "broken")))))
    return controls


async def hasty_is_caught(folder: Path, rate: float, seed: int) -> bool:
    """Whether the loss is noticed that a coordinator causes when it answers before its commit."""
    async with stage(folder, rate, seed, coordinator="bench.hasty_coordinator") as (network, clients):
        clients.start()
        async with asyncio.timeout(REST_SECONDS):
            while len(clients.acknowledged()) < HASTY_ACKNOWLEDGED:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        network.kill_coordinator()
        told = clients.acknowledged()
        await network.start_coordinator()
        return bool(await missing(clients, told, set()))


def copied(store: Path, folder: Path) -> Path:
    """The store with its log, which holds the newest commits."""
    folder.mkdir(parents=True)
    for path in store.parent.glob(f"{store.name}*"):
        shutil.copy2(path, folder / path.name)
    return folder / store.name


# Report -------------------------------------------------------------------------------------------------------------


def results_of(run: Run) -> dict[str, Any]:
    return {
        "cycles": run.cycles,
        "acknowledged": len(run.acknowledged),
        "lost": len(run.findings.lost),
        "charged_twice": len(run.findings.charged_twice),
        "requests_per_second": round(run.requests_per_second, 1),
        "broken": len(run.findings.broken),
        "met_open": run.met_open,
        "seconds": round(run.seconds, 1),
        "shapes": run.shapes,
        "states": run.states,
        "receipts_verified": run.receipts_verified,
        "findings": msgspec.to_builtins(run.findings),
    }


def print_summary(results: dict[str, Any], controls: Sequence[tuple[str, bool]]) -> None:
    for name, value in results.items():
        if name != "findings":
            print(f"{name:24} {value}")
    for kind, found in results["findings"].items():
        for each in found[:SHOWN_MAX]:
            print(f"{kind}: {each}")
    for name, caught in controls:
        print(f"control {'caught' if caught else 'MISSED'}: {name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
