"""Audits: units that ask what comes next at places of an answer, and have nothing generated."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest
from running_daemon import StartDaemon
from scripted_coordinator import ScriptedCoordinator
from scripted_runtime import MODEL, Script, ScriptedRuntime, words

from parallelix.node.runtimes import base
from parallelix.protocol.work import ENTRY_TOP, Message, Payload, Probes, Sampling

CANARY = "the heron nests at 51.4779 north, tell nobody"


def audit(text: str = "ñ is a letter", *positions: int) -> Payload:
    return Payload(
        kind="chat",
        model=MODEL,
        messages=(Message(role="user", content="what is that?"),),
        sampling=Sampling(max_tokens=1, top_logprobs=20),
        probes=Probes(text=text, positions=positions or (0, 2, len(text.encode()))),
    )


async def test_an_audit_comes_back_with_an_entry_and_a_count_for_each_position(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    runtime.will_say("what comes next", pause_seconds=0.03)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(audit())
        result = await coordinator.returned(handed)
        audited = await daemon.until_told("audited")
        os.kill(os.getpid(), signal.SIGTERM)
        await daemon.exit()
    assert result.outcome == "completed"
    assert handed.content is not None
    assert handed.content.text == ""
    assert handed.content.finish_reason == "stop"
    assert handed.content.probe_prompt_tokens == (7, 9, 21)
    assert [entry.text for entry in handed.entries] == ["what", " comes", " next"]
    assert handed.entries[1].top == ((" comes", -0.5), ("other", -1.5))
    assert handed.usage is not None
    assert (handed.usage.prompt_tokens, handed.usage.completion_tokens) == (7, 3)
    assert "stream" not in coordinator.calls
    assert audited.fields["model"] == MODEL
    assert "served" not in [event.name for event in daemon.events]
    assert daemon.named("stop")[0].fields["served"] == 0


async def test_an_audit_takes_a_slot_and_is_acknowledged_like_any_work(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("what comes next", gate_at=1)
    async with start_daemon(slots=1):
        handed = await coordinator.hand_out(audit())
        await coordinator.until(lambda: handed.acknowledged)
        other = await coordinator.hand_out(audit())
        assert len(runtime.asked) == 1
        script.gate.set()
        assert (await coordinator.returned(handed)).outcome == "completed"
        runtime.will_say("what comes next")
        await coordinator.returned(other)


@pytest.mark.parametrize("partial", [False, True])
async def test_a_cancelled_audit_stops_and_returns_nothing(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime, partial: bool
) -> None:
    script = runtime.will_say("what comes next", gate_at=1)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(audit())
        await coordinator.until(script.reached.is_set)
        await coordinator.cancel(handed, partial=partial)
        await asyncio.wait_for(script.stopped.wait(), 30)
        await daemon.until_told("attempt.dropped")
    assert handed.result is None


async def test_an_audit_that_takes_too_long_is_ended_and_told(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("what comes next", gate_at=1)
    async with start_daemon():
        handed = await coordinator.hand_out(audit(), deadline_seconds=0.3)
        result = await coordinator.returned(handed)
        await asyncio.wait_for(script.stopped.wait(), 30)
    assert (result.outcome, result.code) == ("failed", "node.deadline_exceeded")
    assert "0 places were predicted" in result.message


async def test_a_node_that_stops_in_a_hurry_declines_an_audit_under_way(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("what comes next", gate_at=1)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(audit())
        await coordinator.until(script.reached.is_set)
        os.kill(os.getpid(), signal.SIGINT)
        await daemon.until_told("draining")
        os.kill(os.getpid(), signal.SIGINT)
        result = await coordinator.returned(handed)
        await daemon.exit()
    assert (result.outcome, result.code) == ("declined", "node.draining")


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (base.RuntimeFailed("out of memory: 5.6 GiB needed"), "failed", "node.runtime_failed"),
        (base.RuntimeUnsupported("scripted has no probe"), "declined", "node.unsupported"),
    ],
)
async def test_a_runtime_that_cannot_probe_is_told_of(
    coordinator: ScriptedCoordinator,
    start_daemon: StartDaemon,
    runtime: ScriptedRuntime,
    error: Exception,
    outcome: str,
    code: str,
) -> None:
    runtime.scripts.append(Script(entries=words("what"), error=error))
    async with start_daemon():
        handed = await coordinator.hand_out(audit())
        result = await coordinator.returned(handed)
    assert (result.outcome, result.code, result.message) == (outcome, code, str(error))


async def test_a_runtime_that_leaves_a_position_out_has_failed(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    runtime.will_say("too few")
    async with start_daemon():
        result = await coordinator.returned(await coordinator.hand_out(audit()))
    assert (result.outcome, result.code) == ("failed", "node.runtime_failed")
    assert "2 of 3 places" in result.message


@pytest.mark.parametrize(
    ("payload", "words_of_it"),
    [
        (audit("ñabc", 0, 1, 5), "inside a character"),
        (audit("ñabc", 0, 2, 9), "expected from 0 to the text's end at 5"),
        (audit("ñabc", 0, 2), "expected from 0 to the text's end at 5"),
        (audit("ñabc", 2, 5), "expected from 0 to the text's end at 5"),
        (audit("ñabc", 0, 3, 2, 5), "do not rise"),
        (audit("ñabc", 0, 2, 2, 5), "do not rise"),
        (msgspec.structs.replace(audit(), kind="embedding", messages=(), inputs=("x",)), "embedding"),
    ],
    ids=["in a character", "beyond", "short of the end", "not from 0", "falling", "twice", "embedding"],
)
async def test_positions_that_are_none_make_a_bad_envelope(
    coordinator: ScriptedCoordinator,
    start_daemon: StartDaemon,
    runtime: ScriptedRuntime,
    payload: Payload,
    words_of_it: str,
) -> None:
    async with start_daemon():
        result = await coordinator.returned(await coordinator.hand_out(payload))
    assert (result.outcome, result.code) == ("failed", "node.bad_envelope")
    assert words_of_it in result.message
    assert runtime.asked == []


async def test_nothing_of_an_audit_is_told(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime, tmp_path: Path
) -> None:
    runtime.scripts.append(Script(entries=words("what"), error=base.RuntimeFailed(f"cannot continue {CANARY!r}")))
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(audit(CANARY, 0, len(CANARY)))
        result = await coordinator.returned(handed)
        await daemon.until_told("attempt.failed")
    assert "withheld" in result.message
    assert CANARY not in str(daemon.events)


async def test_five_alternatives_are_returned_whatever_was_asked(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    asked = Payload(kind="completion", model=MODEL, prompt="once", sampling=Sampling(max_tokens=8))
    more = msgspec.structs.replace(asked, sampling=Sampling(max_tokens=8, top_logprobs=9))
    async with start_daemon():
        for payload in (asked, more):
            await coordinator.returned(await coordinator.hand_out(payload))
    assert [each.sampling.top_logprobs for each in runtime.asked] == [ENTRY_TOP, 9]
