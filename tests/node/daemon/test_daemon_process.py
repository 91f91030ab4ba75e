"""The daemon as a process that is told to stop, and one that is killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from node_program import TEXT
from running_daemon import StartDaemon
from scripted_coordinator import ScriptedCoordinator
from scripted_runtime import MODEL

from parallelix.node.runtimes.llama_cpp import LlamaCpp
from parallelix.protocol import messages
from parallelix.protocol.work import Message, Payload, Sampling

PROGRAM = Path(__file__).with_name("node_program.py")
DEMONSTRATION_MODEL = Path(__file__).parents[3] / "models" / "parallelix-demo.gguf"


def chat(model: str = MODEL) -> Payload:
    messages_ = (Message(role="user", content="What is ParalleliX?"),)
    return Payload(kind="chat", model=model, messages=messages_, sampling=Sampling(max_tokens=24, top_logprobs=3))


@asynccontextmanager
async def node_process(home: Path, coordinator: ScriptedCoordinator) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), str(home), coordinator.url, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_sigterm_finishes_and_returns_what_runs_then_exits_0(
    coordinator: ScriptedCoordinator, home: Path
) -> None:
    async with node_process(home, coordinator) as process:
        await coordinator.attached()
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.frames > 2)
        process.send_signal(signal.SIGTERM)
        await coordinator.until(lambda: coordinator.heartbeats[-1].message == "draining")
        assert (await coordinator.returned(handed)).outcome == "completed"
        assert await asyncio.wait_for(process.wait(), 30) == 0
        assert process.stdout is not None
        printed = (await process.stdout.read()).decode()
    assert handed.text == TEXT and handed.content is not None and handed.content.text == TEXT
    assert "draining" in printed and printed.rstrip().endswith("stop")
    assert msgspec.json.decode((home / "state.json").read_bytes())["state"] == "ACTIVE.idle"


async def test_a_killed_node_starts_again_and_serves(coordinator: ScriptedCoordinator, home: Path) -> None:
    async with node_process(home, coordinator) as process:
        await coordinator.attached()
        handed = await coordinator.hand_out(chat())
        await coordinator.until(lambda: handed.frames > 2 and len(coordinator.heartbeats) > 1)
        process.kill()
        await process.wait()
    first = coordinator.session
    receipts = home / "receipts.jsonl"
    whole_lines = receipts.read_bytes().count(b"\n")
    # A crash of the machine can leave any part of a line, or of a file that is replaced as a whole.
    with receipts.open("ab") as file:
        file.write(b'{"node_id":"42')
    (home / ".state.json.0123456789abcdef.new").write_bytes(b'{"sta')
    (home / "state.json").write_bytes(b"")
    async with node_process(home, coordinator) as process:
        await coordinator.until(lambda: coordinator.session not in ("", first))
        again = await coordinator.hand_out(chat())
        assert (await coordinator.returned(again)).outcome == "completed"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    lines = receipts.read_bytes().splitlines()
    assert len(lines) > whole_lines + 1
    torn = [index for index, line in enumerate(lines) if not line.endswith(b"}")]
    assert torn == [whole_lines]
    msgspec.json.decode(lines[-1], type=messages.UptimeReceipt)


async def test_a_real_model_is_served_with_every_proof(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon
) -> None:
    """llama.cpp itself, with the demonstration model."""
    runtime = LlamaCpp([DEMONSTRATION_MODEL], slots=2)
    try:
        async with start_daemon(runtime=runtime):
            model = (await coordinator.attached()).models[0]
            handed = [await coordinator.hand_out(chat(model.name), model_digest=model.digest) for _ in range(3)]
            for each in handed:
                await coordinator.until(lambda each=each: each.answered, seconds=90)
                assert each.result is not None and each.result.outcome == "completed"
                assert each.content is not None and each.content.text
                assert each.text in ("", each.content.text)
                assert each.usage is not None and each.usage.completion_tokens >= len(each.entries) > 0
                assert each.entries[0].logprob is not None and each.entries[0].logprob <= 0 and each.entries[0].top
    finally:
        await runtime.aclose()
