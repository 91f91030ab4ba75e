"""`make demo`: a whole network on this machine, asked 24 things at once while one node is killed and two others cheat.

One cheat changes an answer after proving it: verification sees that at once. The other runs a smaller promise: another
model than it says, with every proof in order. Only audits can tell; it is asked on until they have removed it.

It stands on a chain of its own: the requester's deposit pays, records are anchored, nodes are staked for and earn, and
in the end everybody gets out what is theirs (circle.py). It prints the fourteen steps of one request, all requests, and
what a sceptic finds; it fails when anything was lost, charged twice, or cannot be verified, and when its own checks
miss a fault that is made on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from parallelix.chain import rewards_print
from parallelix.chain.errors import ChainError
from parallelix.chain.rewards_table import RewardsTable
from parallelix.coordinator.steps import EVENT
from parallelix.devnet import evidence, gathering, network
from parallelix.devnet.anvil import ChainMissing, find_anvil, find_sablier
from parallelix.devnet.chain import ChainPlan
from parallelix.devnet.circle import Circle, CircleBroken, Claim, circle
from parallelix.devnet.evidence import Evidence, Findings
from parallelix.devnet.faults import Fault, faulty_node
from parallelix.devnet.gathering import Requester, Store
from parallelix.devnet.model import MODEL, demonstration_catalogue, demonstration_model
from parallelix.devnet.network import Network, Plan
from parallelix.devnet.processes import ProcessError
from parallelix.devnet.report import Report
from parallelix.devnet.wallet_calls import CallRefused
from parallelix.engine.lifecycle import FINAL_REQUEST_STATES, AttemptState
from parallelix.engine.rows import AttemptRow
from parallelix.protocol.registry import MINIMUM_STAKE_WEI
from parallelix.protocol.requests import ChatMessage, CreateRequest, RequestView
from parallelix.terminal import Console

PROMPTS = 24
PROMPTS_MIN = 12
"""As many as there are slots, so that every node gets work, the cheat too."""
SEED = 1
NODES = 5
CHEAT = 3
"""The number of the node that changes answers after proving them."""
SUBSTITUTE = 4
"""The number of the node that runs another model than it says."""
SLOTS = 4
SETTINGS = {
    "log_steps": True,
    "batch_seconds": 5.0,
    "confirmations": 1,
    "chain_poll_seconds": 0.25,
    "settle_seconds": 5.0,
    "liveness_seconds": 3.0,
    "online_after_slots": 1,
    "reconcile_seconds": 10.0,
    "heartbeat_seconds": 1.0,
    # Long beside a heartbeat, so that a busy machine does not take a slow node for a dead one.
    "offline_seconds": 8.0,
    "acknowledge_seconds": 30.0,
    # Short, so that their secrets are shown and every draw can be checked before the end.
    "audits": True,
    "epoch_seconds": 10.0,
    "audit_queue_seconds": 60.0,
}
BLOCK_SECONDS = 1
DEADLINE_SECONDS = 120.0
QUEUE_SECONDS = 300.0
END_SECONDS = 300.0
"""For all requests together; two idle cores take fifteen."""
SETTLE_SECONDS = 120.0
FREEZE_SECONDS = 0.5
"""How long the node to be killed stands still first: what it sent before has arrived by then."""
WAVE = 8
"""Questions at a time, once the first ones have their answers, until the audits have removed the second cheat."""
AUDITED_REQUESTS_MAX = 90
"""As many of its own requests as it may have served by then."""
REMOVED_SECONDS = 180.0
LOOK_SECONDS = 0.02
SHOW_SECONDS = 0.25
ANSWERS_SHOWN = 4
ROWS_MAX = PROMPTS
ANSWER_CHARACTERS = 230
ROUNDING_MS = 2.0
"""Step 8 comes from another process's log, which counts whole milliseconds."""

QUESTIONS = (
    "How many days does the cooldown of a node last?",
    "Which hash is used for the Proof-of-Execution?",
    "Can my stake be slashed?",
    "What is the work of the coordinator?",
    "How much PRLX must I stake to run one node?",
    "How often must a node send its heartbeat?",
    "On which blockchain are the stakes kept?",
    "What is ParalleliX, in one sentence?",
)
STORIES = ("Tell me a story about a heron.", "Tell me a story about a clock.", "Tell me a story about a boat.")
QUESTION_TOKENS = 120
LONG = "Tell me everything that you know about ParalleliX."
LONG_FORMAT = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "minLength": 1200}}}
"""It may not end before 1,200 characters: long enough to be killed in the middle."""


class DemoFailed(Exception):
    """The demonstration could not be carried out. The message says what was waited for."""


FAILURES = (DemoFailed, CircleBroken, ProcessError, ChainMissing, ChainError, CallRefused, httpx.HTTPError)
"""What can keep it from going on, with a message that says what."""


@dataclass(frozen=True, kw_only=True)
class Killed:
    """The node that was killed, and the request in whose middle it was."""

    number: int
    node_id: str
    request_id: str
    attempt_id: str


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What audits found out. `served` counts the requests that the second cheat had answered when it was removed."""

    removed: bool
    served: int
    opened: int
    verdicts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that is left when the network has stopped."""

    evidence: Evidence
    attempts: list[AttemptRow]
    steps: dict[str, dict[int, float]]
    killed: Killed
    seconds: float
    audited: Audited
    claims: tuple[Claim, ...] = ()
    """What was found in the contracts, act by act."""
    controls: tuple[tuple[str, bool], ...] = ()
    """Faults that were made on purpose on the way, and whether each was refused or noticed."""
    table: RewardsTable | None = None
    """What the nodes had earned by the time of the claim."""


def prompts(count: int) -> list[CreateRequest]:
    """`count` different requests: a third of them questions, a third stories, a third long."""
    return [_prompt(index) for index in range(count)]


def _prompt(index: int) -> CreateRequest:
    turn, kind = divmod(index, 3)
    if kind == 1:
        return _chat(QUESTIONS[turn % len(QUESTIONS)], index, max_tokens=QUESTION_TOKENS, temperature=0)
    if kind == 2:
        return _chat(STORIES[turn % len(STORIES)], index, max_tokens=200)
    return _chat(LONG, index, max_tokens=400, response_format=LONG_FORMAT)


def _chat(text: str, index: int, **options: Any) -> CreateRequest:
    return CreateRequest(
        model=MODEL,
        messages=(ChatMessage(role="user", content=text),),
        seed=SEED + index,
        deadline_seconds=DEADLINE_SECONDS,
        queue_seconds=QUEUE_SECONDS,
        **options,
    )


# The play -------------------------------------------------------------------------------------------------------------


async def play(console: Console, folder: Path, count: int) -> Outcome:
    """Raises `DemoFailed` or `ProcessError`."""
    gguf = demonstration_model()
    plan = Plan(
        folder=folder,
        catalogue=demonstration_catalogue(),
        node_command=network.real_node(gguf, slots=SLOTS),
        node_count=NODES,
        settings=SETTINGS,
        chain=_chain_plan(),
    )
    net = Network(plan)
    console.live("making keys")
    await asyncio.to_thread(net.prepare)
    try:
        await net.start_chain(console.live)
        _tell_chain(console, net)
        console.live(f"starting a coordinator and {NODES} nodes")
        await net.start_coordinator()
        faults = {CHEAT: Fault.TAMPERED, SUBSTITUTE: Fault.SUBSTITUTED}
        for number in net.seats:
            fault = faults.get(number)
            net.start_node(number, faulty_node(fault, gguf, slots=SLOTS) if fault is not None else None)
        await net.online(NODES)
        console.done(f"coordinator at {net.url}, {NODES} nodes online")
        console.plain("  each is a process of its own; the model is a real one, and very small")
        console.plain(f"  node {CHEAT} is a cheat: it changes the text of an answer after proving it")
        console.plain(f"  node {SUBSTITUTE} is another: it runs a different model, and proves that well")
        async with circle(console, net) as acts:
            return await _whole_circle(console, net, acts, count)
    finally:
        console.clear_live()
        await net.stop()


def _chain_plan() -> ChainPlan:
    sablier = find_sablier(os.environ)
    if sablier is None:
        raise ChainMissing("Sablier's compiled contracts, which stream the rewards, are not here: run make setup-chain")
    return ChainPlan(anvil=find_anvil(os.environ), sablier=sablier, block_seconds=BLOCK_SECONDS)


def _tell_chain(console: Console, net: Network) -> None:
    assert net.chain is not None
    stake = f"{MINIMUM_STAKE_WEI // 10**18:,} PRLX"
    console.done(f"a chain at {net.chain.url}: five contracts, a stream of rewards")
    console.done(f"{len(net.stakes)} nodes registered by staking {stake} each")


async def _whole_circle(console: Console, net: Network, acts: Circle, count: int) -> Outcome:
    bodies = prompts(count)
    requester = Requester(net.url, await acts.begins(network.CREDITS_WEI))
    try:
        with Store(net) as store:
            outcome = await _ask_and_kill(console, net, requester, store, bodies)
            stays = outcome.killed.number
            leaves = next(number for number in net.seats if number not in (stays, CHEAT, SUBSTITUTE))
            await acts.ends(outcome.evidence, stays=stays, leaves=leaves, removed=SUBSTITUTE)
            # With all that the way out has posted.
            found = replace(outcome.evidence, transfers=tuple(store.transfers()))
            return replace(
                outcome,
                evidence=found,
                claims=tuple(acts.claims),
                controls=tuple(acts.controls),
                table=acts.table,
            )
    finally:
        await requester.close()


async def _ask_and_kill(
    console: Console, net: Network, requester: Requester, store: Store, bodies: list[CreateRequest]
) -> Outcome:
    started, count = time.monotonic(), len(bodies)
    watching = asyncio.create_task(_kill_one(console, net, store))
    news = News(console, net)
    try:
        ids = await asyncio.gather(*map(requester.create, bodies))
        console.done(f"{count} prompts sent at once, all {len(set(ids))} acknowledged")
        await _until_ended(news, net, requester, ids)
        # Every answer is there, so a node that has not been killed by now will not be.
        watching.cancel()
        killed = await _killed(watching)
        seconds = time.monotonic() - started
        console.done(f"all {count} have their answers after {seconds:.1f} s; node {killed.number} is started again")
        net.start_node(killed.number)
        asked = dict(zip(ids, bodies, strict=True))
        asked |= await _ask_until_removed(console, news, net, requester, store)
        await _until_settled(console, requester, store, list(asked))
        audited = _audited(net, store)
        found = await gathering.gather(net, requester, store, asked)
        steps = gathering.steps(net, found.transfers)
        return Outcome(
            evidence=found,
            attempts=store.attempts(),
            steps=steps,
            killed=killed,
            seconds=seconds,
            audited=audited,
        )
    finally:
        watching.cancel()


async def _ask_until_removed(
    console: Console, news: News, net: Network, requester: Requester, store: Store
) -> dict[str, CreateRequest]:
    """Asks on, a few at a time, until the cheat that only audits can find is gone. What was asked, by id."""
    asked: dict[str, CreateRequest] = {}
    indices = itertools.count(PROMPTS)
    try:
        async with asyncio.timeout(REMOVED_SECONDS):
            while not _is_removed(net) and _served(net, store) < AUDITED_REQUESTS_MAX:
                bodies = [_prompt(3 * next(indices) + 2) for _ in range(WAVE)]
                ids = await asyncio.gather(*map(requester.create, bodies))
                asked |= dict(zip(ids, bodies, strict=True))
                await _until_ended(news, net, requester, list(ids))
    except TimeoutError as error:
        raise DemoFailed(f"after {REMOVED_SECONDS:g} s audits have not removed node {SUBSTITUTE}") from error
    if asked:
        console.done(f"{len(asked)} more asked meanwhile; {_served(net, store)} answers came from node {SUBSTITUTE}")
    return asked


def _is_removed(net: Network) -> bool:
    node_id = str(net.seats[SUBSTITUTE].node_id)
    return any(line["event"] == "node.convicted" and line["node_id"] == node_id for line in gathering.logged(net))


def _served(net: Network, store: Store) -> int:
    """How many results of the second cheat were taken."""
    node_id = str(net.seats[SUBSTITUTE].node_id)
    return sum(each.node_id == node_id and each.state == AttemptState.COMPLETED for each in store.attempts())


def _audited(net: Network, store: Store) -> Audited:
    ended = [line for line in gathering.logged(net) if line["event"] == "audit.ended" and not line["prepared"]]
    return Audited(
        removed=_is_removed(net),
        served=_served(net, store),
        opened=len(ended),
        verdicts=Counter(line["verdict"] for line in ended),
    )


async def _kill_one(console: Console, net: Network, store: Store) -> Killed:
    """Kills an honest node while it streams an answer: frozen first, so that it cannot finish while we look twice."""
    while True:
        for attempt in _streaming(net, store):
            number = net.number_of(attempt.node_id)
            net.nodes[number].send(signal.SIGSTOP)
            await asyncio.sleep(FREEZE_SECONDS)
            if attempt.attempt_id in {each.attempt_id for each in _streaming(net, store)}:
                net.kill_node(number)
                console.warn(f"node {number} killed (SIGKILL) while it streams {_short(attempt.request_id)}")
                console.plain(f"  the network waits {SETTINGS['offline_seconds']:g} s for a sign of life")
                return Killed(
                    number=number,
                    node_id=attempt.node_id,
                    request_id=attempt.request_id,
                    attempt_id=attempt.attempt_id,
                )
            net.nodes[number].send(signal.SIGCONT)
        await asyncio.sleep(LOOK_SECONDS)


def _streaming(net: Network, store: Store) -> list[AttemptRow]:
    """Attempts of honest nodes whose first words have arrived and whose result has not."""
    cheats = {str(net.seats[number].node_id) for number in (CHEAT, SUBSTITUTE)}
    begun = {
        (line["request_id"], line["attempt_number"])
        for line in gathering.logged(net)
        if line["event"] == EVENT and line["n"] == 7
    }
    return [
        each
        for each in store.attempts()
        if each.state == AttemptState.RUNNING and each.node_id not in cheats and (each.request_id, each.number) in begun
    ]


async def _killed(watching: asyncio.Task[Killed]) -> Killed:
    try:
        return await watching
    except asyncio.CancelledError as error:
        raise DemoFailed("every answer was there before a node could be killed in the middle of one") from error


async def _until_ended(news: News, net: Network, requester: Requester, ids: list[str]) -> None:
    try:
        async with asyncio.timeout(END_SECONDS):
            while True:
                views = await requester.views()
                news.tell(gathering.logged(net))
                counts = Counter(views[request_id].state for request_id in ids if request_id in views)
                news.count(counts)
                if sum(counts[state] for state in FINAL_REQUEST_STATES) == len(ids):
                    return
                await asyncio.sleep(SHOW_SECONDS)
    except TimeoutError as error:
        raise DemoFailed(f"after {END_SECONDS:g} s not every request has ended") from error


async def _until_settled(console: Console, requester: Requester, store: Store, ids: list[str]) -> None:
    console.live("waiting for the last batch of records")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                views = await requester.views()
                # An audit's record may stand in a later batch than what it is about.
                if all(view.settled for view in views.values() if view.id in ids) and store.is_anchored():
                    return
                await asyncio.sleep(SHOW_SECONDS)


class News:
    """Tells once what happened, from the coordinator's log, and how far everything is."""

    def __init__(self, console: Console, net: Network) -> None:
        self._console = console
        self._net = net
        self._told = 0
        self._counts: Counter[str] = Counter()

    def tell(self, log: list[dict[str, Any]]) -> None:
        for line in log[self._told :]:
            sentence = _sentence(self._net, line)
            if sentence:
                self._console.warn(sentence)
        self._told = len(log)

    def count(self, counts: Counter[str]) -> None:
        text = " · ".join(f"{state} {counts[state]}" for state in sorted(counts, reverse=True))
        self._console.live(text)
        if counts != self._counts and not self._console.interactive and counts["completed"] > self._counts["completed"]:
            self._console.plain(f"  {text}")
            self._counts = counts


def _sentence(net: Network, line: Mapping[str, Any]) -> str:
    match line["event"]:
        case "attempt.rejected":
            return f"attempt.rejected {_short(line['request_id'])}: {line['reason']}; it goes to another node"
        case "attempt.redispatched" if line["reason"] != "poe_mismatch":
            return f"attempt.redispatched {_short(line['request_id'])}: {line['reason']}"
        case "audit.ended" if line["verdict"] == "disagree" and not line["prepared"]:
            return f"audit.disagree: node {net.number_of(line['node_id'])}, {line['reason']}; the requester is refunded"
        case "node.convicted":
            return f"node.convicted: node {net.number_of(line['node_id'])}, by what its audits found as {line['role']}"
        case "node.removed":
            return f"node.removed: node {net.number_of(line['node_id'])} gets no more work, and earns nothing"
        case "node.offline":
            return f"node.offline: node {net.number_of(line['node_id'])} gives no sign of life"
        case "request.failed":
            return f"request.failed {_short(line['request_id'])}: {line['reason']}"
        case _:
            return ""


# What is shown --------------------------------------------------------------------------------------------------------


def show(console: Console, outcome: Outcome) -> None:
    found = outcome.evidence
    states = Counter(view.state for view in found.views.values())
    console.done(f"{states['completed']} of {len(found.asked)} completed after {outcome.seconds:.1f} s")
    shown = request_to_show(outcome)
    if shown:
        console.plain("")
        console.heading(f"the 14 steps of {_short(shown)}")
        for line in step_lines(found.views[shown], outcome.steps[shown]):
            console.plain(line)
    console.plain("")
    console.heading("some answers, as this very small model gives them")
    for view in _answers(found):
        for line in _answer_lines(found.asked[view.id], view, columns=min(console.columns, 80)):
            console.plain(line)
    console.plain("")
    console.heading("all requests")
    for line in table(found):
        console.plain(line)
    if len(found.asked) > ROWS_MAX:
        console.plain(f"  … and {len(found.asked) - ROWS_MAX} more, asked until audits had removed node {SUBSTITUTE}")
    if outcome.table is not None:
        console.plain("")
        rewards_print.show(console, outcome.table)


def request_to_show(outcome: Outcome) -> str:
    """One whose steps are all known; best one that had to be dispatched once only."""
    whole = [request_id for request_id, steps in outcome.steps.items() if steps_in_order(steps)]
    views = outcome.evidence.views
    return min(whole, key=lambda request_id: views[request_id].attempts, default="")


def steps_in_order(steps: Mapping[int, float]) -> bool:
    """Whether all fourteen are there, each after the one before."""
    times = [steps[number] for number in sorted(steps)]
    return sorted(steps) == list(range(1, 15)) and all(
        later >= earlier - ROUNDING_MS for earlier, later in itertools.pairwise(times)
    )


def step_lines(view: RequestView, steps: Mapping[int, float]) -> list[str]:
    notes = {
        2: f"hold {_prlx(view.hold_wei)}",
        7: "the first words arrive",
        8: "made on the node",
        11: "drawn by the epoch's secret" if view.audit != "not_drawn" else "not drawn",
        12: f"durable as record {_short(view.record_hash or '')}",
        14: f"charged {_prlx(view.charge_wei)}, the rest released",
    }
    return [
        f"  {number:2}  {gathering.step_name(number):<14}{at_ms - steps[1]:9.1f} ms   {notes.get(number, '')}".rstrip()
        for number, at_ms in steps.items()
    ]


def table(found: Evidence) -> list[str]:
    lines = ["  request        state      re-disp.      tokens     ms  record hash"]
    for view in sorted(found.views.values(), key=lambda view: (view.created_at, view.id))[:ROWS_MAX]:
        tokens = f"{view.usage.prompt_tokens} + {view.usage.completion_tokens}" if view.usage else "-"
        redispatches = str(view.attempts - 1) if view.attempts > 1 else "-"
        lines.append(
            f"  {_short(view.id)}  {view.state:<9}  {redispatches:>8}  {tokens:>10}  {_ms(view):>5}"
            f"  {(view.record_hash or '-')[:18]}…"
        )
    return lines


def _answers(found: Evidence) -> list[RequestView]:
    asked = [found.views[request_id] for request_id, body in found.asked.items() if body.max_tokens == QUESTION_TOKENS]
    return [view for view in asked if view.result is not None][:ANSWERS_SHOWN]


def _answer_lines(body: CreateRequest, view: RequestView, *, columns: int) -> list[str]:
    assert body.messages is not None and view.result is not None
    answer = textwrap.shorten(view.result.text, ANSWER_CHARACTERS, placeholder=" …")
    return [
        f"  {body.messages[0].content}",
        *textwrap.wrap(answer, columns - 2, initial_indent="    ", subsequent_indent="    "),
    ]


# What is checked ------------------------------------------------------------------------------------------------------


def results(outcome: Outcome, findings: Findings) -> dict[str, Any]:
    found = outcome.evidence
    return {
        "requests": [
            {
                "id": view.id,
                "state": view.state,
                "steps": _relative(outcome.steps.get(view.id, {})),
                "attempts": view.attempts,
                "tokens": view.usage,
                "ms": _ms(view),
                "record_hash": view.record_hash,
                "charge_wei": view.charge_wei,
                "hold_wei": view.hold_wei,
            }
            for view in found.views.values()
        ],
        "lost": len(findings.lost),
        "charged_twice": len(findings.charged_twice),
        "chain_valid": not findings.chain,
        "ledger_valid": not findings.ledger,
        "findings": findings.all(),
        "records": len(found.chain),
        "head_hash": found.head_hash,
        "killed_in_mid_request": outcome.killed.request_id,
        "attempts_lost_with_the_killed_node": len(_lost_with_the_node(outcome)),
        "attempts_rejected": len(_rejected(outcome)),
        "seconds": round(outcome.seconds, 1),
        "audits": {
            "opened": outcome.audited.opened,
            "verdicts": dict(outcome.audited.verdicts),
            "cheat_removed": outcome.audited.removed,
            "cheat_requests_until_removed": outcome.audited.served,
            "refunded": sum(view.audit == "disagree" for view in found.views.values()),
        },
        "circle": outcome.claims,
    }


def happened(outcome: Outcome) -> list[str]:
    """What the demonstration must have shown, as it did not happen: empty when all of it did."""
    missing: list[str] = []
    if outcome.killed.attempt_id not in {attempt.attempt_id for attempt in _lost_with_the_node(outcome)}:
        missing.append("the killed node took no request with it")
    if not _rejected(outcome):
        missing.append("no tampered result was rejected")
    if not outcome.audited.removed:
        missing.append(f"audits did not remove node {SUBSTITUTE}, which runs another model than it says")
    if not request_to_show(outcome):
        missing.append("of no request all fourteen steps are known in their order")
    return missing


def _lost_with_the_node(outcome: Outcome) -> list[AttemptRow]:
    killed = outcome.killed
    return [each for each in outcome.attempts if each.state == AttemptState.LOST and each.node_id == killed.node_id]


def _rejected(outcome: Outcome) -> list[AttemptRow]:
    return [each for each in outcome.attempts if each.state == AttemptState.REJECTED]


def conclude(console: Console, outcome: Outcome, path: Path, report: Report) -> int:
    """Prints the checks, writes the report, and gives the exit code."""
    found, findings = outcome.evidence, evidence.judge(outcome.evidence)
    missing = happened(outcome)
    for name, caught in (*evidence.controls(found), *outcome.controls):
        report.control(name, caught)
    console.plain("")
    console.heading("checked by arithmetic, from what anyone or the requester may read")
    _verdict(console, f"lost: {len(findings.lost)} of {len(found.asked)}", findings.lost)
    _verdict(console, f"charged twice: {len(findings.charged_twice)}", findings.charged_twice)
    chain = f"chain: {len(found.chain)} records up to {_short(found.head_hash)}, {len(found.receipts)} receipts"
    _verdict(console, f"{chain} {'verified' if not findings.chain else 'NOT verified'}", findings.chain)
    _verdict(console, f"ledger: {len(found.transfers)} postings, each hold charged or released", findings.ledger)
    rejected, lost = len(_rejected(outcome)), len(_lost_with_the_node(outcome))
    _verdict(console, f"{rejected} tampered results rejected, {lost} attempts died with the killed node", missing)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(outcome.audited.verdicts.items()))
    _verdict(console, f"audits: {outcome.audited.opened} ({verdicts}); the cheat served {outcome.audited.served}", [])
    broken = [f"{claim.name}: {fault}" for claim in outcome.claims for fault in claim.faults]
    _verdict(console, f"contracts: {len(outcome.claims)} claims hold, from the deposit to the last withdrawal", broken)
    missed = [control.name for control in report.controls if not control.caught]
    caught = len(report.controls) - len(missed)
    _verdict(console, f"controls: {caught} of {len(report.controls)} faults made on purpose were noticed", missed)
    code = report.write(path, results(outcome, findings), passed=not (findings.all() or missing or broken))
    console.plain("")
    (console.done if code == 0 else console.cross)(f"{'passed' if code == 0 else 'FAILED'}; all of it is in {path}")
    return code


def _verdict(console: Console, claim: str, faults: list[str]) -> None:
    (console.cross if faults else console.done)(claim)
    for fault in faults:
        console.plain(f"    {fault}")


def _relative(steps: Mapping[int, float]) -> list[dict[str, Any]]:
    return [
        {"n": number, "name": gathering.step_name(number), "at_ms": round(at_ms - steps[1], 1)}
        for number, at_ms in steps.items()
    ]


def _ms(view: RequestView) -> int:
    return (view.finished_at or view.created_at) - view.created_at


def _prlx(wei: str) -> str:
    return f"{int(wei) / 10**18:.6f} PRLX"


def _short(text: str) -> str:
    """An id by its end, because ids begin with the time; a hash by its beginning."""
    return f"{text[:10]}…" if text.startswith("0x") else f"{text[:4]}…{text[-8:]}"


def main(
    report: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path("reports/demo.json"),
    requests: Annotated[int, typer.Option(min=PROMPTS_MIN, help="Prompts sent at once.")] = PROMPTS,
) -> None:
    """A whole network on this machine: prompts at once, a killed node, two cheating ones, and everything checked."""
    console = Console.standard(json=False)
    written = Report("demo", f"python -m parallelix.devnet.demo --requests {requests} --report {report}", seed=SEED)
    console.heading(f"ParalleliX: {requests} prompts at once, one node killed, two cheating")
    with tempfile.TemporaryDirectory(prefix="parallelix-demo-") as folder:
        try:
            outcome = asyncio.run(play(console, Path(folder), requests))
        except FAILURES as error:
            reason = str(error) or type(error).__name__
            console.error("demo.failed", reason)
            sys.exit(written.write(report, {"failed": reason}, passed=False))
    show(console, outcome)
    sys.exit(conclude(console, outcome, report, written))


if __name__ == "__main__":
    typer.run(main)
