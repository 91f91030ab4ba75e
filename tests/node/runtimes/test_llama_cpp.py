"""llama.cpp in its worker processes: when they start, what ends them, and what they give back."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from parallelix.node.runtimes.base import (
    Finished,
    Generation,
    RuntimeFailed,
    RuntimeUnsupported,
    Sampling,
    TokenEntry,
)
from parallelix.node.runtimes.llama_cpp import LlamaCpp

POLL_SECONDS = 0.02
PATIENCE_SECONDS = 30
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def runtime(tiny_models: dict[str, Path]) -> AsyncIterator[LlamaCpp]:
    llama_cpp = LlamaCpp([tiny_models[name] for name in ("words", "long", "thinks")], 2, threads=1, models_loaded_max=1)
    yield llama_cpp
    await llama_cpp.aclose()


def workers(of: int | None = None) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(of).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and any("llama_worker" in part for part in child.cmdline())
    ]


def completion(model: str = "words", max_tokens: int = 3) -> Generation:
    return Generation(model=model, prompt="hello", sampling=Sampling(max_tokens=max_tokens))


async def answer(runtime: LlamaCpp, work: Generation) -> list[TokenEntry | Finished]:
    return [item async for item in runtime.generate(work)]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():
            await asyncio.sleep(POLL_SECONDS)


async def test_nothing_is_loaded_before_the_first_request(runtime: LlamaCpp) -> None:
    await runtime.models()
    assert workers() == []

    await answer(runtime, completion())

    assert len(workers()) == 1


async def test_the_worker_listens_on_no_port_and_tells_nothing_to_strangers(runtime: LlamaCpp) -> None:
    await answer(runtime, completion())
    (worker,) = workers()

    assert not worker.net_connections("inet")
    socket_paths = [Path(str(connection.laddr)) for connection in worker.net_connections("unix") if connection.laddr]
    (socket_path,) = {path for path in socket_paths if path.name == "llama.sock"}
    assert socket_path.parent.stat().st_mode & 0o777 == 0o700
    reader, writer = await asyncio.open_unix_connection(str(socket_path))
    writer.write(b"GET /slots HTTP/1.1\r\nHost: llama\r\n\r\n")
    assert b" 401 " in await reader.readline()
    writer.close()


async def test_cancelling_frees_the_slot_long_before_the_end(runtime: LlamaCpp) -> None:
    async with aclosing(runtime.generate(completion("long", 8000))) as items:
        await anext(items)
        assert await runtime.slots_busy("long") == 1

    async def free() -> bool:
        return await runtime.slots_busy("long") == 0

    await until(free)


async def test_cancelling_one_of_two_leaves_the_other_running(runtime: LlamaCpp) -> None:
    async with aclosing(runtime.generate(completion("long", 8000))) as kept:
        await anext(kept)
        async with aclosing(runtime.generate(completion("long", 8000))) as cancelled:
            await anext(cancelled)
            assert await runtime.slots_busy("long") == 2

        async def one_is_free() -> bool:
            return await runtime.slots_busy("long") == 1

        await until(one_is_free)
        assert all([isinstance(await anext(kept), TokenEntry) for _ in range(200)])


async def test_a_worker_that_dies_fails_its_requests_and_is_replaced(runtime: LlamaCpp) -> None:
    async with aclosing(runtime.generate(completion("long", 8000))) as items:
        await anext(items)
        workers()[0].kill()
        with pytest.raises(RuntimeFailed):
            async for _ in items:
                pass

    async def served_again() -> bool:
        try:
            return len(await answer(runtime, completion("long"))) == 4
        except RuntimeFailed:
            return False

    await until(served_again)


async def test_a_worker_that_hangs_is_ended_when_it_is_looked_at(
    runtime: LlamaCpp, monkeypatch: pytest.MonkeyPatch
) -> None:
    await answer(runtime, completion())
    (hanging,) = workers()
    await runtime.version()
    assert [worker.pid for worker in workers()] == [hanging.pid]

    hanging.suspend()
    monkeypatch.setattr("parallelix.node.runtimes.llama_cpp._HANGS_SECONDS", 0.2)
    monkeypatch.setattr("parallelix.node.runtimes.llama_cpp._STOP_SECONDS_MAX", 0.2)
    await runtime.version()

    assert workers() == []
    assert len(await answer(runtime, completion())) == 4


async def test_another_model_takes_the_place_of_an_idle_one(runtime: LlamaCpp) -> None:
    await answer(runtime, completion("words"))
    (first,) = workers()

    await answer(runtime, completion("long"))

    (second,) = workers()
    assert first.pid != second.pid


async def test_another_model_waits_while_the_only_place_is_in_use(runtime: LlamaCpp) -> None:
    async with aclosing(runtime.generate(completion("long", 8000))) as items:
        await anext(items)
        other = asyncio.create_task(answer(runtime, completion("words")))
        for _ in range(20):
            await anext(items)
        assert not other.done()
        assert len(workers()) == 1

    assert len(await other) == 4


async def test_closing_ends_the_workers_and_removes_their_folders(runtime: LlamaCpp) -> None:
    await answer(runtime, completion())
    (worker,) = workers()
    sockets = [Path(str(connection.laddr)) for connection in worker.net_connections("unix") if connection.laddr]

    await runtime.aclose()

    assert workers() == []
    assert not any(path.exists() for path in sockets if path.name == "llama.sock")


NODE = """
import asyncio, sys
from pathlib import Path
from parallelix.node.runtimes.base import Generation, Sampling
from parallelix.node.runtimes.llama_cpp import LlamaCpp

async def main():
    runtime = LlamaCpp([Path(sys.argv[1])], 1)
    async for item in runtime.generate(Generation(model="long", prompt="hello", sampling=Sampling(max_tokens=8000))):
        print("token", flush=True)

asyncio.run(main())
"""


async def test_a_worker_outlives_no_node_that_is_killed_and_no_signal_to_the_group_before(
    tiny_models: dict[str, Path],
) -> None:
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NODE, str(tiny_models["long"]), stdout=asyncio.subprocess.PIPE
    )
    assert node.stdout is not None
    assert await node.stdout.readline() == b"token\n"
    (worker,) = workers(node.pid)

    for stop in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, stop)
    assert await node.stdout.readline() == b"token\n"
    node.kill()
    await node.wait()

    async def gone() -> bool:
        return not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE

    await until(gone)


async def test_a_file_that_changes_has_another_digest_and_is_loaded_anew(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_models["words"].read_bytes())
    runtime = LlamaCpp([path], 1)
    (before,) = await runtime.models()
    await answer(runtime, completion("model"))

    path.unlink()
    path.write_bytes(tiny_models["bytes"].read_bytes())
    (after,) = await runtime.models()

    assert before.digest != after.digest
    assert isinstance((await answer(runtime, completion(after.digest)))[-1], Finished)
    assert len(workers()) == 1
    await runtime.aclose()


async def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")

    with pytest.raises(RuntimeFailed, match=r"notes\.gguf"):
        await LlamaCpp([path], 1).models()


async def test_a_damaged_model_fails_with_llama_cpp_s_own_words(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(tiny_models["words"].read_bytes()[:-5000])
    runtime = LlamaCpp([path], 1)

    with pytest.raises(RuntimeFailed, match=r"cannot load .*damaged\.gguf.*check the file") as caught:
        await answer(runtime, completion("damaged"))

    assert "not within the file bounds" in str(caught.value)
    assert workers() == []
    await runtime.aclose()


async def test_without_the_extra_the_way_out_is_told(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    runtime = LlamaCpp([tiny_models["words"]], 1)

    with pytest.raises(RuntimeFailed, match=r"parallelix\[embedded\]"):
        await answer(runtime, completion())


async def test_thoughts_are_no_part_of_the_text(runtime: LlamaCpp) -> None:
    work = Generation(model="thinks", messages=HELLO, sampling=Sampling(max_tokens=40))

    *entries, finished = await answer(runtime, work)

    assert "".join(entry.text for entry in entries if isinstance(entry, TokenEntry)) == "Good morning."
    assert isinstance(finished, Finished)
    assert finished.finish == "stop"


async def test_a_model_that_cannot_but_think_is_not_probed(runtime: LlamaCpp) -> None:
    features = {model.name: model.features for model in await runtime.models()}
    work = Generation(model="thinks", messages=HELLO, sampling=Sampling(max_tokens=40))

    assert "logprobs" in features["thinks"]
    assert "probe" not in features["thinks"]
    with pytest.raises(RuntimeUnsupported, match="probe"):
        await anext(runtime.probe(work, "Good morning.", (0,)))


async def test_llama_cpp_writes_nothing_to_the_node_s_output(
    runtime: LlamaCpp, capfd: pytest.CaptureFixture[str]
) -> None:
    await answer(runtime, completion())
    await runtime.aclose()

    assert capfd.readouterr() == ("", "")
