"""kill -9 and SIGTERM of the coordinator with open streams, and the way back for every kind of client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from real_processes import Scene, Stream, logged, scene, words

PROMPT = words(40)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(tmp_path_factory.mktemp("crash")) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
async def test_every_open_request_outlives_a_kill(on: Scene) -> None:
    client = on.client
    native = await client.create(PROMPT, key="native")
    async with (
        client.events(native) as events,
        client.openai_stream(PROMPT, key="resumed") as resumed,
        client.openai_stream("hold " + PROMPT, key="left") as left,
    ):
        for stream in (events, resumed, left):
            await stream.until(lambda stream=stream: len(stream.text) > 40)
        on.network.kill_coordinator()
        for stream in (events, resumed, left):
            with pytest.raises(aiohttp.ClientError):
                await stream.to_end()
    await on.network.start_coordinator()

    async with (
        client.events(native, after=events.last_id) as again,
        client.openai_stream(PROMPT, key="resumed") as second,
    ):
        await asyncio.gather(again.to_end(), second.to_end())
    # A native stream goes on after the last event that it had, without a word twice.
    assert again.names[-1] == "completed"
    assert events.text + again.text == PROMPT
    assert again.offsets[0] == len(events.text.encode())
    # The same Idempotency-Key finds the same requests, and an OpenAI stream shows its text from the beginning.
    assert (second.request_id, second.text, second.done) == (resumed.request_id, PROMPT, True)
    assert await client.create(PROMPT, key="native") == native

    # Nobody came back for the third: it is cancelled, and costs nothing.
    lost = await client.ended(left.request_id)
    assert (lost.state, lost.reason, lost.charge_wei) == ("cancelled", "client_lost", "0")
    for request_id in (native, resumed.request_id):
        view = await client.view(request_id)
        assert (view.state, view.attempts, view.result and view.result.text) == ("completed", 1, PROMPT)


@pytest.mark.asyncio(loop_scope="module")
async def test_sigterm_ends_streams_cleanly_and_loses_nothing(on: Scene) -> None:
    client, coordinator = on.client, on.network.coordinator
    assert coordinator is not None
    native = await client.create("hold " + PROMPT, key="held")
    async with client.events(native, detached=False) as events, client.openai_stream("hold " + PROMPT) as openai:
        for stream in (events, openai):
            await stream.until(lambda stream=stream: len(stream.text) > 40)
        stopping = asyncio.create_task(coordinator.stopped())
        # Neither is cut off: a native stream just ends, and OpenAI's says that it is no whole answer.
        await asyncio.gather(events.to_end(), openai.to_end())
        assert await stopping == 0
    assert (openai.error, openai.done) == ("stopping", False)
    assert (events.names[-1], events.error) == ("delta", "")
    assert "Traceback" not in on.network.coordinator_log.read_text()
    assert len(logged(on.network, "coordinator.stopped")) == 1

    await on.network.start_coordinator()
    assert await client.create("hold " + PROMPT, key="held") == native
    async with client.events(native, after=events.last_id) as again:
        await cancelled_with_a_partial_result(on, native, again)
    lost = await client.ended(openai.request_id)
    assert (lost.state, lost.reason, lost.charge_wei) == ("cancelled", "client_lost", "0")


async def cancelled_with_a_partial_result(on: Scene, request_id: str, stream: Stream) -> None:
    """What the node said until then is signed, recorded and charged."""
    await on.client.cancel(request_id)
    await stream.to_end()
    view = await on.client.ended(request_id)
    assert (view.state, view.reason, stream.names[-1]) == ("cancelled", "requester", "cancelled")
    assert view.record_hash is not None and 0 < int(view.charge_wei) < int(view.hold_wei)


@pytest.mark.asyncio(loop_scope="module")
async def test_closing_a_stream_cancels_its_work(on: Scene) -> None:
    async with on.client.openai_stream("hold " + PROMPT) as openai:
        await openai.until(lambda: len(openai.text) > 40)
        openai.close()
    native = await on.client.create("hold " + PROMPT)
    async with on.client.events(native, detached=False) as events:
        await events.until(lambda: len(events.text) > 40)
        events.close()
    for request_id in (openai.request_id, native):
        view = await on.client.ended(request_id)
        assert (view.state, view.reason) == ("cancelled", "client_left")
        assert view.result is not None and view.result.text.startswith("hold word0 word1")
        assert int(view.charge_wei) < int(view.hold_wei)
