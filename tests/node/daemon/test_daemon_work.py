"""Units of work, from the inbox to an answered result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from running_daemon import StartDaemon
from scripted_coordinator import ScriptedCoordinator
from scripted_runtime import MODEL, Script, ScriptedRuntime, words

from parallelix.node.runtimes import base
from parallelix.protocol import envelope, messages
from parallelix.protocol.encoding import from_base64url, to_base64url
from parallelix.protocol.work import Message, Payload, Sampling, ToolCall, unpack_vector

CANARY = "the heron nests at 51.4779 north, tell nobody"


def chat(text: str = "hello there", *, tools: str = "") -> Payload:
    sampling = Sampling(max_tokens=64, temperature="0.7", stop=("\n\n",), top_logprobs=1)
    asked = (Message(role="user", content=text),)
    return Payload(kind="chat", model=MODEL, messages=asked, sampling=sampling, tools=tools)


async def test_a_unit_comes_back_proven_and_the_stream_is_its_text(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    runtime.will_say("a grey heron stands in the reeds", pause_seconds=0.03)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat("what stands there?"))
        result = await coordinator.returned(handed)
        assert result.outcome == "completed"
        assert handed.content is not None and handed.content.text == "a grey heron stands in the reeds"
        assert handed.content.finish_reason == "stop"
        assert handed.text == handed.content.text and handed.stream_ended
        assert handed.entries_streamed == len(handed.entries) == 7
        assert handed.entries[1].text == " grey" and handed.entries[1].top[1] == ("other", -1.5)
        assert handed.usage is not None and handed.usage.prompt_tokens == 7
        served = await daemon.until_told("served")
        assert served.subject == "req_…" + handed.work.unit_id[-8:]
        assert served.fields["model"] == MODEL and str(served.fields["poe"]).startswith("0x")
        assert {"ms", "return_ms"} <= served.fields.keys()
    asked = runtime.asked[0]
    assert asked.messages == [{"role": "user", "content": "what stands there?"}] and asked.prompt is None
    assert asked.sampling.temperature == 0.7 and asked.sampling.stop == ("\n\n",) and asked.sampling.max_tokens == 64


async def test_an_answer_given_in_one_go_needs_no_stream_and_no_acknowledgement(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        await coordinator.returned(handed)
    assert handed.content is not None and handed.content.text == "a plain answer"
    assert not {"stream", "ack"} & set(coordinator.calls)


async def test_a_silent_start_is_acknowledged_before_the_first_token(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("late", gate_at=0)
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.acknowledged)
        assert not handed.frames
        script.gate.set()
        await coordinator.returned(handed)


async def test_a_completion_has_a_prompt_and_no_messages(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    async with start_daemon():
        payload = Payload(kind="completion", model=MODEL, prompt="once upon", sampling=Sampling(max_tokens=8))
        await coordinator.returned(await coordinator.hand_out(payload))
    assert runtime.asked[0].prompt == "once upon" and runtime.asked[0].messages is None


async def test_embeddings_come_back_as_packed_vectors_without_a_stream(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    async with start_daemon():
        payload = Payload(kind="embedding", model=MODEL, inputs=("one", "two words"), sampling=Sampling(max_tokens=0))
        handed = await coordinator.hand_out(payload)
        await coordinator.returned(handed)
    assert handed.content is not None
    assert [unpack_vector(each) for each in handed.content.embeddings] == [[3.0, 0.5], [9.0, 0.5]]
    assert handed.entries == () and "stream" not in coordinator.calls


async def test_tool_calls_travel_beside_the_text_that_was_streamed(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Kyiv"}'}}
    finished = base.Finished(finish="tool_calls", prompt_tokens=9, completion_tokens=4, tool_calls=(call,))
    runtime.scripts.append(Script(entries=words("let me look"), finished=finished))
    tools = '[{"type":"function","function":{"name":"weather","parameters":{}}}]'
    async with start_daemon():
        earlier = Message(role="assistant", tool_calls=(ToolCall(id="call_0", name="clock", arguments="{}"),))
        payload = msgspec.structs.replace(chat("?", tools=tools), messages=(earlier,))
        handed = await coordinator.hand_out(payload)
        await coordinator.returned(handed)
    assert handed.content is not None and handed.content.finish_reason == "tool_calls"
    assert handed.content.text == "let me look"
    assert handed.content.tool_calls == (ToolCall(id="call_1", name="weather", arguments='{"city":"Kyiv"}'),)
    assert runtime.asked[0].tools == [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    assert runtime.asked[0].messages is not None
    assert runtime.asked[0].messages[0]["tool_calls"][0]["function"] == {"name": "clock", "arguments": "{}"}


async def test_impossible_alternatives_do_not_spoil_the_json(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    entry = base.TokenEntry(text="x", logprob=float("-inf"), top=(("x", -0.1), ("y", float("-inf"))))
    runtime.scripts.append(Script(entries=[entry]))
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        await coordinator.returned(handed)
    assert handed.entries[0].logprob is None and handed.entries[0].top == (("x", -0.1),)


async def test_a_unit_delivered_twice_runs_once(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("only once", gate_at=1)
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        await coordinator.deliver(handed.work)
        await coordinator.until(script.reached.is_set)
        await coordinator.deliver(handed.work)
        script.gate.set()
        await coordinator.returned(handed)
        await coordinator.deliver(handed.work)
        other = await coordinator.hand_out(chat())
        await coordinator.returned(other)
    assert len(runtime.asked) == 2 and len(handed.bodies) == 1


async def test_a_full_node_keeps_polling_without_slots_and_takes_work_again_when_one_is_free(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    scripts = [runtime.will_say("one two", gate_at=1) for _ in range(3)]
    async with start_daemon(slots=2):
        handed = [await coordinator.hand_out(chat()) for _ in range(3)]
        await coordinator.until(lambda: 0 in coordinator.polls and runtime.under_way == 2)
        assert coordinator.polls[0] == 2 and len(runtime.asked) == 2
        scripts[0].gate.set()
        await coordinator.until(lambda: len(runtime.asked) == 3)
        for script in scripts:
            script.gate.set()
        for each in handed:
            assert (await coordinator.returned(each)).outcome == "completed"
    assert runtime.most_under_way == 2


async def test_work_beyond_the_slots_is_declined_as_busy(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("one two", gate_at=1)
    async with start_daemon(slots=1):
        first = await coordinator.hand_out(chat())
        await coordinator.until(script.reached.is_set)
        second = await coordinator.hand_out(chat())
        # Only a coordinator that errs gives work to a poll that offered no slot.
        taken = coordinator._queue.popleft()  # pyright: ignore[reportPrivateUsage]
        give_to_any_poll(coordinator, taken)
        result = await coordinator.returned(second)
        assert (result.outcome, result.code) == ("declined", "node.busy")
        script.gate.set()
        await coordinator.returned(first)


def give_to_any_poll(coordinator: ScriptedCoordinator, unit: messages.Work) -> None:
    take = coordinator._take  # pyright: ignore[reportPrivateUsage]

    def once(slots: int) -> messages.Inbox | None:
        coordinator._take = take  # pyright: ignore[reportPrivateUsage]
        return messages.Inbox(work=(unit,), server_time=coordinator.now_ms())

    coordinator._take = once  # pyright: ignore[reportPrivateUsage]


async def test_a_cancelled_unit_returns_what_there_is_with_its_proof(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("one two three four", gate_at=3)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.text == "one two three")
        await coordinator.cancel(handed, partial=True)
        result = await coordinator.returned(handed)
        assert result.outcome == "cancelled"
        assert handed.content is not None and handed.content.text == "one two three"
        assert handed.content.finish_reason == "cancelled"
        assert handed.usage is not None and handed.usage.completion_tokens == 3
        await asyncio.wait_for(script.stopped.wait(), 30)
        await daemon.until_told("cancelled")


async def test_a_cancellation_that_wants_nothing_gets_nothing(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("one two", gate_at=1)
    async with start_daemon(slots=1):
        handed = await coordinator.hand_out(chat())
        await coordinator.until(script.reached.is_set)
        await coordinator.cancel(handed, partial=False)
        await asyncio.wait_for(script.stopped.wait(), 30)
        other = await coordinator.hand_out(chat())
        assert (await coordinator.returned(other)).outcome == "completed"
    assert handed.result is None and not handed.bodies


async def test_a_stream_refused_as_closed_stops_the_runtime_but_a_late_wish_for_the_partial_is_met(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("word " * 1000, pause_seconds=0.02)
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.frames > 0)
        handed.closed = True
        await asyncio.wait_for(script.stopped.wait(), 30)
        handed.closed = False
        await coordinator.cancel(handed, partial=True)
        assert (await coordinator.returned(handed)).outcome == "cancelled"


async def test_a_missed_deadline_stops_the_runtime_and_is_told(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    script = runtime.will_say("one two", gate_at=1)
    async with start_daemon():
        handed = await coordinator.hand_out(chat(), deadline_seconds=0.3)
        result = await coordinator.returned(handed)
        assert (result.outcome, result.code) == ("failed", "node.deadline_exceeded")
        await asyncio.wait_for(script.stopped.wait(), 30)


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (base.RuntimeFailed("out of memory: 5.6 GiB needed"), "failed", "node.runtime_failed"),
        (base.RuntimeUnsupported("no grammar here"), "declined", "node.unsupported"),
        (base.ModelMissing("gone"), "declined", "node.unsupported"),
        (RuntimeError("a bug"), "failed", "node.runtime_failed"),
    ],
)
async def test_trouble_in_the_runtime_has_its_code(
    coordinator: ScriptedCoordinator,
    start_daemon: StartDaemon,
    runtime: ScriptedRuntime,
    error: Exception,
    outcome: str,
    code: str,
) -> None:
    runtime.will_say("one two", error=error)
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        result = await coordinator.returned(handed)
        assert (result.outcome, result.code) == (outcome, code)
        assert str(error) in result.message
        assert (await coordinator.returned(await coordinator.hand_out(chat()))).outcome == "completed"


async def test_a_runtime_error_that_quotes_the_prompt_is_withheld_from_coordinator_and_log(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    runtime.will_say("", error=base.RuntimeFailed(f'bad request: {{"content": "{CANARY}"}}'))
    async with start_daemon() as daemon:
        result = await coordinator.returned(await coordinator.hand_out(chat(f"Remember: {CANARY}")))
        assert result.code == "node.runtime_failed" and "withheld" in result.message
        await daemon.until_told("attempt.failed")
        assert "heron" not in daemon.log() and "heron" not in result.message


async def test_no_prompt_answer_or_secret_reaches_the_log_or_the_disk(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime, home: Path
) -> None:
    runtime.will_say("the answer is a bittern", pause_seconds=0.03)
    before = files_below(home)
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat(CANARY))
        await coordinator.returned(handed)
        await daemon.until_told("served")
        runtime.will_say("bittern again", error=RuntimeError(CANARY))
        await coordinator.returned(await coordinator.hand_out(chat(CANARY)))
        told = repr(daemon.events)
    new_files = files_below(home) - before
    assert home / "node.log" in new_files and home / "receipts.jsonl" in new_files
    written = b"".join(path.read_bytes() for path in new_files)
    for secret in ("heron", "bittern", to_base64url(handed.channel_secret), handed.channel_secret.hex()):
        assert secret not in told and secret.encode() not in written
    assert handed.channel_secret not in written


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def altered_payload(work: messages.Work) -> messages.Work:
    sealed = bytearray(from_base64url(work.payload, name="payload"))
    sealed[-1] ^= 1
    return msgspec.structs.replace(work, payload=to_base64url(bytes(sealed)))


def altered_envelope(work: messages.Work) -> messages.Work:
    *parts, tag = work.envelope.split(".")
    raw = bytearray(from_base64url(tag, name="tag"))
    raw[0] ^= 1
    return msgspec.structs.replace(work, envelope=".".join([*parts, to_base64url(bytes(raw))]))


def other_unit(work: messages.Work) -> messages.Work:
    return msgspec.structs.replace(work, unit_id="req_" + "5" * 64)


def no_envelope(work: messages.Work) -> messages.Work:
    return msgspec.structs.replace(work, envelope="not.an.envelope")


def huge_payload(work: messages.Work) -> messages.Work:
    return msgspec.structs.replace(work, payload="A" * (6 * 1024 * 1024))


@pytest.mark.parametrize("tamper", [altered_payload, altered_envelope, other_unit, no_envelope, huge_payload])
async def test_an_envelope_that_was_altered_or_moved_is_refused_unopened(
    coordinator: ScriptedCoordinator,
    start_daemon: StartDaemon,
    runtime: ScriptedRuntime,
    tamper: Callable[[messages.Work], messages.Work],
) -> None:
    async with start_daemon():
        result = await coordinator.returned(await coordinator.hand_out(chat(), tamper=tamper))
        assert (result.outcome, result.code) == ("failed", "node.bad_envelope")
        assert not runtime.asked
        assert (await coordinator.returned(await coordinator.hand_out(chat()))).outcome == "completed"


async def test_an_envelope_for_another_node_or_attempt_is_refused(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    async with start_daemon():
        first = await coordinator.hand_out(chat())
        await coordinator.returned(first)
        foreign = await coordinator.hand_out(chat(), node_id=4218)
        assert (await coordinator.returned(foreign)).code == "node.bad_envelope"
        moved = await coordinator.hand_out(
            chat(), tamper=lambda work: msgspec.structs.replace(work, envelope=first.work.envelope)
        )
        assert (await coordinator.returned(moved)).code == "node.bad_envelope"
    assert len(runtime.asked) == 1


async def test_work_in_no_known_form_is_left_alone(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    async with start_daemon() as daemon:
        await coordinator.hand_out(
            chat(), tamper=lambda work: msgspec.structs.replace(work, attempt_id="../../heartbeat")
        )
        await daemon.until_told("work.refused")
        assert (await coordinator.returned(await coordinator.hand_out(chat()))).outcome == "completed"
    assert len(runtime.asked) == 1


async def test_a_sampling_number_that_is_none_is_a_bad_envelope(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    async with start_daemon():
        payload = msgspec.structs.replace(chat(), sampling=Sampling(max_tokens=1, temperature="nan"))
        result = await coordinator.returned(await coordinator.hand_out(payload))
        assert result.code == "node.bad_envelope" and "temperature" in result.message


async def test_a_model_with_other_weights_is_declined_and_looked_at_again(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    async with start_daemon():
        handed = await coordinator.hand_out(chat(), model_digest="cd" * 32)
        assert (await coordinator.returned(handed)).code == "node.unsupported"
    assert not runtime.asked


async def test_a_model_that_is_gone_leads_to_a_new_session_without_it(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    second = base.Model(
        name="second", digest="ef" * 32, context_tokens=64, size_bytes=1, embeds=False, features=("chat",)
    )
    runtime.installed.append(second)
    runtime.will_say("", error=base.ModelMissing("model second not found"))
    async with start_daemon():
        first_session = coordinator.session
        payload = msgspec.structs.replace(chat(), model="second")
        del runtime.installed[1]
        handed = await coordinator.hand_out(payload, model_digest="ef" * 32)
        assert (await coordinator.returned(handed)).code == "node.unsupported"
        await coordinator.until(lambda: coordinator.session != first_session)
        assert coordinator.manifest is not None
        assert [model.name for model in coordinator.manifest.models] == [MODEL]


async def test_a_model_is_run_by_its_name_here_whatever_the_catalogue_calls_it(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    async with start_daemon():
        handed = await coordinator.hand_out(
            msgspec.structs.replace(chat(), model="oss-chat-v1"),
            tamper=lambda work: msgspec.structs.replace(work, model=MODEL),
        )
        assert (await coordinator.returned(handed)).outcome == "completed"
    assert [asked.model for asked in runtime.asked] == [MODEL]


async def test_only_allowed_models_are_offered(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, runtime: ScriptedRuntime
) -> None:
    runtime.installed.append(
        base.Model(name="private", digest="ef" * 32, context_tokens=64, size_bytes=1, embeds=False, features=())
    )
    async with start_daemon(models=(MODEL,)):
        manifest = await coordinator.attached()
        assert [(model.name, model.digest) for model in manifest.models] == [(MODEL, "ab" * 32)]
        assert envelope.load_rsa_public_key(manifest.envelope_key) is not None


async def test_a_rejection_is_told_to_the_operator(coordinator: ScriptedCoordinator, start_daemon: StartDaemon) -> None:
    async with start_daemon() as daemon:
        handed = await coordinator.hand_out(chat())
        await coordinator.returned(handed)
        await coordinator.reject(handed, "poe_mismatch: not the hash of what was returned")
        told = await daemon.until_told("rejected")
        assert "poe_mismatch" in str(told.fields["reason"])
        assert "rejected req_" in daemon.log() and "poe_mismatch" in daemon.log()


async def test_an_output_beyond_what_a_result_carries_ends_by_its_length(
    coordinator: ScriptedCoordinator,
    start_daemon: StartDaemon,
    runtime: ScriptedRuntime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("parallelix.node.output.OUTPUT_BYTES_MAX", 300)
    runtime.will_say("word " * 100)
    async with start_daemon():
        handed = await coordinator.hand_out(chat())
        assert (await coordinator.returned(handed)).outcome == "completed"
    assert handed.content is not None and handed.content.finish_reason == "length"
    assert 0 < len(handed.entries) < 10
