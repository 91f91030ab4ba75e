"""What the network and the coordinator can do to a node that goes on working."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import msgspec
import pytest
from running_daemon import StartDaemon
from scripted_coordinator import CHAIN_ID, Handed, Lie, ScriptedCoordinator
from scripted_runtime import MODEL, ScriptedRuntime

from parallelix.node.runtimes import base
from parallelix.protocol import messages, signing
from parallelix.protocol.encoding import from_hex
from parallelix.protocol.work import Message, Payload, Sampling

CALLS = ("attach", "inbox", "ack", "stream", "result", "heartbeat")


def chat() -> Payload:
    return Payload(
        kind="chat", model=MODEL, messages=(Message(role="user", content="hello"),), sampling=Sampling(max_tokens=64)
    )


async def slow_unit(coordinator: ScriptedCoordinator, runtime: ScriptedRuntime) -> Handed:
    """One that makes every call there is: silent long enough to be acknowledged, then streamed."""
    script = runtime.will_say("one two three four five six seven eight", gate_at=0, pause_seconds=0.03)
    handed = await coordinator.hand_out(chat())
    await coordinator.until(script.reached.is_set)
    asyncio.get_running_loop().call_later(0.15, script.gate.set)
    return handed


@pytest.mark.parametrize("kind", ["503", "429", "cut", "cut_after"])
async def test_every_call_survives_refusals_and_cuts(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime, kind: str
) -> None:
    for call in CALLS:
        coordinator.fail(call, kind, times=2)
    async with start_daemon() as daemon:
        handed = await slow_unit(coordinator, runtime)
        assert (await coordinator.returned(handed)).outcome == "completed"
        await coordinator.until(lambda: len(coordinator.heartbeats) > 2)
        await daemon.until_told("link.up")
        await daemon.until_told("served")
    assert handed.content is not None and handed.content.text == "one two three four five six seven eight"
    assert handed.content.text.startswith(handed.text)
    assert len(runtime.asked) == 1 and len(set(handed.bodies)) == 1
    assert [event.name for event in daemon.events].count("served") == 1


async def test_a_stream_that_breaks_goes_on_where_the_coordinator_says(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    runtime.will_say("ein Büschel Übermut, größer als gedacht, und mehr", pause_seconds=0.05)
    coordinator.stream_bytes_max = 15
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        await coordinator.returned(handed)
    assert handed.content is not None
    assert handed.text == handed.content.text == "ein Büschel Übermut, größer als gedacht, und mehr"
    assert handed.entries_streamed == len(handed.entries)
    assert handed.connections == sorted(set(handed.connections)) and len(handed.connections) >= 2


async def test_a_stream_that_never_works_loses_nothing(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    coordinator.fail("stream", "503", times=1000)
    runtime.will_say("one two three", pause_seconds=0.05)
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        assert (await coordinator.returned(handed)).outcome == "completed"
    assert handed.text == "" and handed.content is not None and handed.content.text == "one two three"


async def test_a_restart_in_mid_stream_is_attached_to_anew_and_the_stream_goes_on(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("one two three four five six", gate_at=3)
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.text == "one two three")
        first = coordinator.session
        await coordinator.restart()
        await coordinator.until(lambda: coordinator.session not in ("", first))
        script.gate.set()
        assert (await coordinator.returned(handed)).outcome == "completed"
    assert handed.text == "one two three four five six" and handed.connections[-1] > 0
    assert len(runtime.asked) == 1


async def test_a_result_is_sent_until_a_restarted_coordinator_takes_it_always_the_same_bytes(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    coordinator.fail("result", "cut_after", times=1)
    script = runtime.will_say("one two", gate_at=2)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat())
        await coordinator.until(script.reached.is_set)
        await coordinator.stop()
        script.gate.set()
        await daemon.until_told("link.down")
        await coordinator.start()
        coordinator.session = ""
        await daemon.until_told("served")
    assert len(handed.bodies) >= 2 and len(set(handed.bodies)) == 1


async def test_a_result_that_nobody_waits_for_is_forgotten(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("one two", gate_at=0)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.acknowledged)
        handed.closed = True
        coordinator.fail("stream", "503", times=100)
        script.gate.set()
        told = await daemon.until_told("result.refused")
        assert "attempt_closed" in str(told.fields["reason"])
        assert (await coordinator.returned(await coordinator.hand_out(chat()))).outcome == "completed"


async def test_a_result_is_given_up_some_time_after_its_deadline_and_logged_as_lost(
    coordinator: ScriptedCoordinator,
    start_daemon: StartDaemon,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("parallelix.node.executor.RETURN_SECONDS", 0.2)
    coordinator.fail("result", "503", times=1000)
    async with start_daemon() as daemon:
        await coordinator.hand_out(chat(), deadline_seconds=0.2)
        await daemon.until_told("result.lost")
        assert "result.lost" in daemon.log()


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_an_hour_off_is_corrected_by_the_coordinator(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, hours: int
) -> None:
    coordinator.skew_ms = hours * 3_600_000
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        assert (await coordinator.returned(handed)).outcome == "completed"
        await coordinator.until(lambda: len(coordinator.heartbeats) > 2)
    assert coordinator.refusals[0] == "attach:stale_time"


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_jumps_while_attached_is_corrected_without_a_new_session(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, hours: int
) -> None:
    async with start_daemon():
        session = coordinator.session
        coordinator.skew_ms = hours * 3_600_000
        coordinator._last_times.clear()  # pyright: ignore[reportPrivateUsage]
        beats = len(coordinator.heartbeats)
        await coordinator.until(lambda: len(coordinator.heartbeats) > beats + 2)
        assert (await coordinator.returned(await coordinator.hand_out(chat()))).outcome == "completed"
        assert coordinator.session == session
        assert "heartbeat:stale_time" in coordinator.refusals or "inbox:stale_time" in coordinator.refusals


@pytest.mark.parametrize(
    ("code", "state"), [("in_cooldown", "COOLING"), ("not_staked", "RETIRED"), ("key_mismatch", "ACTIVE.idle")]
)
async def test_a_403_while_serving_ends_the_node_cleanly(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, code: str, state: str
) -> None:
    async with start_daemon() as daemon:
        await coordinator.returned(await coordinator.hand_out(chat()))
        coordinator.refuse = (403, code)
        ended = await daemon.exit()
        assert (ended.reason, ended.exit_code) == (code, 0)
        assert msgspec.json.decode((daemon.home / "state.json").read_bytes())["state"] == state


async def test_work_handed_out_before_a_403_is_still_finished_and_returned(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("one two three", gate_at=1)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.text == "one")
        coordinator.refuse = (403, "in_cooldown")
        await coordinator.until(lambda: bool(coordinator.refusals))
        script.gate.set()
        assert (await daemon.exit()).reason == "in_cooldown"
    assert handed.content is not None and handed.content.text == "one two three"


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(403, "not_staked", 0), (409, "tier_mismatch", 6), (401, "bad_signature", 1), (400, "malformed", 1)],
)
async def test_a_refused_attach_ends_the_node_with_the_reason(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, status: int, code: str, exit_code: int
) -> None:
    coordinator.refuse = (status, code)
    async with start_daemon(attached=False) as daemon:
        ended = await daemon.exit()
    assert (ended.reason, ended.exit_code) == (code, exit_code)


async def test_a_forgotten_session_is_replaced(coordinator: ScriptedCoordinator, start_daemon: StartDaemon) -> None:
    async with start_daemon() as daemon:
        coordinator.session = "0" * 32
        await coordinator.until(lambda: coordinator.session != "0" * 32)
        assert (await coordinator.returned(await coordinator.hand_out(chat()))).outcome == "completed"
        assert len(daemon.named("attached")) == 2


async def test_heartbeats_go_on_beside_work_and_each_leaves_a_receipt(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("one two", gate_at=1)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat())
        await coordinator.until(script.reached.is_set)
        beats = len(coordinator.heartbeats)
        await coordinator.until(lambda: len(coordinator.heartbeats) > beats + 3)
        assert coordinator.heartbeats[-1] == messages.Heartbeat(slots_free=1)
        script.gate.set()
        await coordinator.returned(handed)
        lines = (daemon.home / "receipts.jsonl").read_bytes().splitlines()
        assert len(daemon.named("heartbeat")) == len(lines)
        receipts = [msgspec.json.decode(line, type=messages.UptimeReceipt) for line in lines]
    assert len(receipts) > 3
    for receipt in receipts:
        text = signing.receipt_text(CHAIN_ID, coordinator.node_id, receipt.session, receipt.unix_ms)
        signature = from_hex(receipt.signature, name="signature", length_bytes=65)
        signing.require_signer(text, signature, coordinator.key.public_key)


async def test_a_coordinator_that_started_anew_is_sent_the_last_receipts_once(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    async with start_daemon() as daemon:
        await coordinator.until(lambda: len(coordinator.heartbeats) > 2)
        (first,) = coordinator.restored
        sent = {(proof.session, proof.unix_ms // 10_000) for proof in first}
        assert len(sent) == len(first) > 0, "one for each slot"
        await coordinator.restart()
        beats = len(coordinator.heartbeats)
        await coordinator.until(lambda: len(coordinator.heartbeats) > beats + 2)
        _, again = coordinator.restored
        assert {proof.unix_ms // 10_000 for proof in again} >= {proof.unix_ms // 10_000 for proof in first}
        assert daemon.named("receipts.restored")


async def test_a_coordinator_that_takes_no_receipts_is_asked_once_and_the_node_serves_on(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    refusal = Lie(body=b'{"error":"not_found","message":"there is no such call"}', status=404)
    coordinator.lies["uptime"].append(refusal)
    async with start_daemon() as daemon:
        await coordinator.until(lambda: len(coordinator.heartbeats) > 3)
        assert len(daemon.named("receipts.refused")) == 1 and coordinator.restored == []


async def test_receipts_that_did_not_get_through_are_sent_with_the_next_heartbeat(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    coordinator.fail("uptime", "503")
    coordinator.fail("uptime", "cut")
    async with start_daemon():
        await coordinator.until(lambda: bool(coordinator.restored))


async def test_a_receipt_that_the_coordinator_did_not_sign_is_not_kept(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    async with start_daemon() as daemon:
        await coordinator.until(lambda: len(coordinator.heartbeats) > 1)
        coordinator.key = signing.NodeKey.generate()
        await daemon.until_told("receipt.refused")
        kept = len((daemon.home / "receipts.jsonl").read_bytes().splitlines())
        beats = len(coordinator.heartbeats)
        await coordinator.until(lambda: len(coordinator.heartbeats) > beats + 2)
        assert len((daemon.home / "receipts.jsonl").read_bytes().splitlines()) == kept


async def test_a_pause_in_the_configuration_declines_work_and_is_told_until_it_is_lifted(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    async with start_daemon() as daemon:
        config = daemon.home / "config.toml"
        config.touch(mode=0o600)
        config.write_text('pause = "new fans until noon"\n')
        await coordinator.until(lambda: bool(coordinator.heartbeats) and coordinator.heartbeats[-1].paused)
        assert coordinator.heartbeats[-1].message == "new fans until noon"
        await coordinator.until(lambda: 0 in coordinator.polls)
        beats = len(coordinator.heartbeats)
        config.write_text("")
        await coordinator.until(lambda: not coordinator.heartbeats[-1].paused and len(coordinator.heartbeats) > beats)
        assert (await coordinator.returned(await coordinator.hand_out(chat()))).outcome == "completed"


async def test_work_on_its_way_when_the_pause_began_is_declined_without_fault(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    coordinator.poll_seconds = 30.0
    async with start_daemon() as daemon:
        await coordinator.until(lambda: coordinator.polls == [2])
        config = daemon.home / "config.toml"
        config.touch(mode=0o600)
        config.write_text('pause = "maintenance"\n')
        await daemon.until_told("paused")
        result = await coordinator.returned(await coordinator.hand_out(chat()))
        assert (result.outcome, result.code, result.message) == ("declined", "node.paused", "maintenance")


async def test_a_first_signal_drains_and_declines_what_comes_after_it(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    coordinator.poll_seconds = 30.0
    script = runtime.will_say("one two three", gate_at=1)
    async with start_daemon(slots=2) as daemon:
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.text == "one" and coordinator.polls == [2, 1])
        os.kill(os.getpid(), signal.SIGTERM)
        await coordinator.until(lambda: coordinator.heartbeats[-1].message == "draining")
        late = await coordinator.returned(await coordinator.hand_out(chat()))
        assert (late.outcome, late.code) == ("declined", "node.draining")
        script.gate.set()
        ended = await daemon.exit()
        assert (ended.reason, ended.exit_code) == ("stopped", 0)
    assert handed.result is not None and handed.result.outcome == "completed"


async def test_a_second_signal_gives_the_work_back_at_once(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("one two three", gate_at=1)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.text == "one")
        os.kill(os.getpid(), signal.SIGINT)
        await daemon.until_told("draining")
        os.kill(os.getpid(), signal.SIGINT)
        assert (await daemon.exit()).exit_code == 0
        assert script.stopped.is_set()
    assert handed.result is not None and handed.result.code == "node.draining"


async def test_an_answer_that_is_nobodys_is_not_believed(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    """A captive portal or a proxy may say 403 or 200 with a page of its own: neither stops a node."""
    answers = [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nlogin",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ]
    port, connections = coordinator.port, 0

    async def portal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answers[connections % 2])
            connections += 1
            await writer.drain()
            writer.close()

    async with start_daemon() as daemon:
        await coordinator.stop()
        server = await asyncio.start_server(portal, "127.0.0.1", port)
        async with asyncio.timeout(30):
            while connections < 6:
                await asyncio.sleep(0.05)
        server.close()
        await server.wait_closed()
        assert not daemon.task.done()
        await coordinator.start()
        assert (await coordinator.returned(await coordinator.hand_out(chat()))).outcome == "completed"


@pytest.mark.parametrize("deadline_seconds", [60.0, 0.1])
async def test_a_failed_attempt_makes_the_node_look_at_its_runtime(
    coordinator: ScriptedCoordinator,
    start_daemon: StartDaemon,
    runtime: ScriptedRuntime,
    monkeypatch: pytest.MonkeyPatch,
    deadline_seconds: float,
) -> None:
    runtime.will_say("one two", gate_at=2 if deadline_seconds < 1 else None, error=base.RuntimeFailed("it is gone"))

    async def version() -> str:
        raise base.RuntimeFailed("connection refused")

    async with start_daemon() as daemon:
        monkeypatch.setattr(runtime, "version", version)
        await coordinator.returned(await coordinator.hand_out(chat(), deadline_seconds=deadline_seconds))
        assert (await daemon.until_told("runtime.down")).fields["reason"] == "connection refused"
        await coordinator.until(lambda: bool(coordinator.heartbeats) and coordinator.heartbeats[-1].paused)


async def test_a_runtime_that_goes_down_pauses_the_node_and_its_return_resumes_it(
    coordinator: ScriptedCoordinator,
    start_daemon: StartDaemon,
    runtime: ScriptedRuntime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("parallelix.node.offer.LOOK_SECONDS", 0.1)
    monkeypatch.setattr("parallelix.node.offer.LOOK_SECONDS_DOWN", 0.1)
    down = True

    async def version() -> str:
        if down:
            raise base.RuntimeFailed("connection refused")
        return "1.0"

    async with start_daemon() as daemon:
        monkeypatch.setattr(runtime, "version", version)
        await coordinator.until(lambda: bool(coordinator.heartbeats) and coordinator.heartbeats[-1].paused)
        await daemon.until_told("runtime.down")
        down = False
        await daemon.until_told("runtime.up")
        assert (await coordinator.returned(await coordinator.hand_out(chat()))).outcome == "completed"
