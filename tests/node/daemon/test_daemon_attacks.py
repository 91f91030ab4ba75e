"""What a coordinator at fault, or a liar in its place, can do to a node, and what the node's own machine can.

None of it may end the daemon, fill the machine or reach the operator's terminal: once the coordinator is itself again,
the node serves.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path

import msgspec
import pytest
from running_daemon import StartDaemon
from scripted_coordinator import Lie, ScriptedCoordinator
from scripted_runtime import MODEL, ScriptedRuntime

from parallelix.node.backoff import Backoff
from parallelix.protocol import messages
from parallelix.protocol.work import Message, Payload, Sampling

NUMBER_OF_400_DIGITS = int("9" * 400)


def chat() -> Payload:
    return Payload(
        kind="chat", model=MODEL, messages=(Message(role="user", content="hello"),), sampling=Sampling(max_tokens=64)
    )


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallelix.node.backoff.WAIT_SECONDS_MAX", 0.02)
    monkeypatch.setattr("parallelix.node.backoff.FIRST_SECONDS", 0.02)


async def serves(coordinator: ScriptedCoordinator) -> bool:
    result = await coordinator.returned(await coordinator.hand_out(chat()))
    return result.outcome == "completed"


def refusal(status: int, code: str, **headers: str) -> Lie:
    body = json.dumps({"error": code, "message": "no"}).encode()
    return Lie(body=body, status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


GARBAGE = [
    Lie(body=b""),
    Lie(body=b"\x00\xff\xfe"),
    Lie(body=b"{"),
    Lie(body=b"[]"),
    Lie(body=b'{"error": 5}', status=403),
    Lie(body=b"<html>log in</html>", status=403),
    Lie(body=b"[" * 100_000),
    Lie(body=b'{"a":' * 100_000),
    Lie(body=b"0" * (messages.OPERATOR_BODY_BYTES_MAX + 1)),
    Lie(body=b"{}", status=302, headers={"Location": "http://127.0.0.1:9/"}),
    Lie(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
    Lie(body=b"", status=204),
    Lie(body=b"late", status=429, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 +99999999999999"}),
    refusal(429, "rate_limited", Retry_After="-1"),
    refusal(503, "stopping", Retry_After="\u0663"),
    refusal(401, "stale_time", X_ParalleliX_Time="9" * 15),
    refusal(401, "stale_time", X_ParalleliX_Time="soon"),
]


@pytest.mark.parametrize("call", ["attach", "inbox", "ack", "result", "heartbeat"])
async def test_garbage_is_asked_again_until_it_is_an_answer(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime, call: str
) -> None:
    coordinator.lies[call].extend(GARBAGE)
    script = runtime.will_say("one two three", gate_at=0)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat())
        await coordinator.until(script.reached.is_set)
        if call != "result":
            await coordinator.until(lambda: not coordinator.lies[call])
        script.gate.set()
        assert (await coordinator.returned(handed)).outcome == "completed"
        assert not coordinator.lies[call]
        assert await serves(coordinator)
        assert not daemon.task.done()
    assert handed.content is not None and handed.content.text == "one two three"


async def test_a_stream_that_is_answered_with_garbage_is_opened_again(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    coordinator.lies["stream"].extend(GARBAGE)
    runtime.will_say(" ".join("word" for _ in range(5000)), pause_seconds=0.01)
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: not coordinator.lies["stream"] and handed.frames > 1)
        await coordinator.cancel(handed, partial=True)
        assert (await coordinator.returned(handed)).outcome == "cancelled"
        assert await serves(coordinator)
    assert handed.content is not None and handed.content.text.startswith("word word")


ATTACHED = {
    "session": "0" * 32,
    "chain_id": 31337,
    "coordinator": "0x" + "0" * 40,
    "server_time": 1,
    "heartbeat_seconds": 0.2,
    "poll_seconds": 1.0,
    "acknowledge_seconds": 10.0,
    "offline_seconds": 30.0,
}
RECEIPT = {
    "node_id": "4217",
    "session": "0" * 32,
    "unix_ms": 1,
    "slot": 1,
    "credited": True,
    "server_time": 1,
    "signature": "0x" + "00" * 65,
}


@pytest.mark.parametrize(
    ("call", "answer", "field", "value"),
    [
        ("attach", ATTACHED, "server_time", NUMBER_OF_400_DIGITS),
        ("attach", ATTACHED, "server_time", -1),
        ("attach", ATTACHED, "heartbeat_seconds", 0),
        ("attach", ATTACHED, "heartbeat_seconds", 1e300),
        ("attach", ATTACHED, "poll_seconds", -1e300),
        ("attach", ATTACHED, "session", "x" * 100_000),
        ("heartbeat", RECEIPT, "server_time", NUMBER_OF_400_DIGITS),
        ("heartbeat", RECEIPT, "slot", NUMBER_OF_400_DIGITS),
        ("heartbeat", RECEIPT, "unix_ms", -NUMBER_OF_400_DIGITS),
        ("heartbeat", RECEIPT, "session", "\ud800"),
        ("heartbeat", RECEIPT, "signature", "0x" + "zz" * 65),
        ("inbox", {"server_time": 1}, "server_time", NUMBER_OF_400_DIGITS),
    ],
)
async def test_numbers_and_texts_beyond_every_bound_are_no_answer(
    coordinator: ScriptedCoordinator,
    start_daemon: StartDaemon,
    call: str,
    answer: dict[str, object],
    field: str,
    value: object,
) -> None:
    coordinator.lies[call].append(Lie(body=json.dumps(answer | {field: value}).encode()))
    async with start_daemon() as daemon:
        await coordinator.until(lambda: not coordinator.lies[call])
        assert await serves(coordinator)
        assert not daemon.task.done()


@pytest.mark.parametrize("server_time", [0, 2**53 - 1])
async def test_a_wrong_time_in_an_answer_is_put_right_by_the_next(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, server_time: int
) -> None:
    async with start_daemon():
        coordinator.lies["heartbeat"].append(Lie(body=json.dumps(RECEIPT | {"server_time": server_time}).encode()))
        await coordinator.until(lambda: not coordinator.lies["heartbeat"])
        assert await serves(coordinator)
        beats = len(coordinator.heartbeats)
        await coordinator.until(lambda: len(coordinator.heartbeats) > beats + 1)


async def test_more_work_than_anybody_hands_out_is_left_alone(
    coordinator: ScriptedCoordinator,
    start_daemon: StartDaemon,
    runtime: ScriptedRuntime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("parallelix.node.desk.OPEN_MAX", 8)
    script = runtime.will_say("one two", gate_at=0)
    async with start_daemon(slots=1) as daemon:
        first = await coordinator.hand_out(chat())
        await coordinator.until(script.reached.is_set)
        coordinator.fail("result", "503", times=10_000)
        await coordinator.until(lambda: 0 in coordinator.polls)
        flood = [first.work] + [(await coordinator.hand_out(chat())).work for _ in range(40)]
        inbox = messages.Inbox(work=tuple(flood), server_time=coordinator.now_ms())
        coordinator.lies["inbox"].append(Lie(body=msgspec.json.encode(inbox)))
        await coordinator.until(lambda: not coordinator.lies["inbox"] and coordinator.calls.count("result") > 8)
        assert len(daemon.named("taken")) == 1
        coordinator.forget_faults()
        script.gate.set()
        assert (await coordinator.returned(first)).outcome == "completed"
        await coordinator.until(lambda: sum(handed.answered for handed in coordinator.attempts.values()) >= 8)
        declined = [handed for handed in coordinator.attempts.values() if handed.result and handed.result.code]
        assert {handed.result.code for handed in declined if handed.result} == {"node.busy"}


async def test_a_coordinator_that_answers_at_once_with_nothing_new_is_not_asked_without_pause(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallelix.node.desk.NOTHING_NEW_PAUSE_SECONDS", 3600.0)
    coordinator.poll_seconds = 60.0
    async with start_daemon():
        first = await coordinator.hand_out(chat())
        await coordinator.returned(first)
        await coordinator.until(lambda: len(coordinator.polls) == 2)
        replayed = messages.Inbox(work=(first.work, first.work), server_time=coordinator.now_ms())
        coordinator.lies["inbox"].append(Lie(body=msgspec.json.encode(replayed)))
        assert await serves(coordinator)
        await coordinator.until(lambda: not coordinator.lies["inbox"])
        polls, beats = coordinator.calls.count("inbox"), len(coordinator.heartbeats)
        await coordinator.until(lambda: len(coordinator.heartbeats) > beats + 3)
        assert coordinator.calls.count("inbox") == polls


async def test_a_coordinator_that_forgets_every_session_at_once_is_not_attached_to_without_pause(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def for_ever(_backoff: Backoff, _retry_after_seconds: float = 0.0) -> float:
        return 3600.0

    monkeypatch.setattr(Backoff, "next_seconds", for_ever)
    coordinator.poll_seconds = 60.0
    coordinator.lies["heartbeat"].extend(refusal(401, "unknown_session") for _ in range(1000))
    async with start_daemon():
        await coordinator.until(lambda: coordinator.calls.count("heartbeat") == 2)
        assert await serves(coordinator)
        assert await serves(coordinator)
        assert (coordinator.calls.count("attach"), coordinator.calls.count("heartbeat")) == (2, 2)


async def test_a_replayed_unit_is_not_run_again(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        await coordinator.returned(handed)
        for _ in range(3):
            await coordinator.deliver(handed.work)
        assert await serves(coordinator)
    assert len(runtime.asked) == 2 and len(handed.bodies) == 1


@pytest.mark.parametrize("deadline_seconds", [-1e300, 0.0, 1e300])
async def test_a_deadline_beyond_all_reason_is_a_deadline(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime, deadline_seconds: float
) -> None:
    runtime.will_say("one two", gate_at=None if deadline_seconds > 0 else 1)
    async with start_daemon():
        result = await coordinator.returned(await coordinator.hand_out(chat(), deadline_seconds=deadline_seconds))
        assert result.code == (None if deadline_seconds > 0 else "node.deadline_exceeded")
        assert await serves(coordinator)


@pytest.mark.parametrize("envelope", ["", "....", "a.b.c.d.e", "\u0000", "x" * 100_000])
async def test_what_is_no_envelope_is_refused_unopened(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, envelope: str
) -> None:
    async with start_daemon():
        handed = await coordinator.hand_out(
            chat(), tamper=lambda work: msgspec.structs.replace(work, envelope=envelope)
        )
        result = await coordinator.returned(handed)
        assert (result.outcome, result.code) == ("failed", "node.bad_envelope")
        assert await serves(coordinator)


# The node's own machine


async def test_a_terminal_that_is_gone_takes_no_node_with_it(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    async with start_daemon() as daemon:
        daemon.listener_error = BrokenPipeError()
        assert await serves(coordinator)
        beats = len(coordinator.heartbeats)
        await coordinator.until(lambda: len(coordinator.heartbeats) > beats + 1)
        assert not daemon.task.done()


async def test_a_terminal_that_closes_drains_the_node(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("one two", gate_at=1)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.text == "one")
        os.kill(os.getpid(), signal.SIGHUP)
        await daemon.until_told("draining")
        script.gate.set()
        assert (await daemon.exit()).exit_code == 0
    assert handed.result is not None and handed.result.outcome == "completed"


async def test_a_full_disk_costs_lines_of_the_log_and_never_the_node(
    coordinator: ScriptedCoordinator, home: Path
) -> None:
    """No file may grow beyond 100 bytes: log, state and receipts are all refused in mid-line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        Path(__file__).with_name("node_program.py"),
        home,
        coordinator.url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    try:
        await coordinator.attached()
        assert await serves(coordinator)
        await coordinator.until(lambda: len(coordinator.heartbeats) > 2)
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    assert err == b""
    assert b"state.lost" in out and b"receipt.lost" in out and b"served" in out
