"""kill -9 and SIGTERM of a node in the middle of its work."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
from real_processes import Scene, logged, scene, words

from bench.echo_node import echo_node
from parallelix.devnet.network import Seat

PROMPT = words(40)
SLOW, QUICK = 1, 2
PACE_SECONDS = {SLOW: 1.0, QUICK: 0.03}


def at_its_pace(seat: Seat) -> Sequence[str]:
    return echo_node(pause_seconds=PACE_SECONDS[seat.number])(seat)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("nodes")
    async with scene(folder, nodes=2, started=1, command=at_its_pace, offline_seconds=3.0) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_killed_node_had_goes_to_another(on: Scene) -> None:
    client = on.client
    native, unseen = await client.create(PROMPT), await client.create(PROMPT)
    async with client.events(native) as events, client.openai_stream(PROMPT) as openai:
        for stream in (events, openai):
            await stream.until(lambda stream=stream: len(stream.text) > 5)
        on.network.start_node(QUICK)
        await on.network.online(2)
        on.network.kill_node(SLOW)
        await events.to_end()
        await openai.to_end()
    # A native client is told to discard what it has. An OpenAI client cannot be, so its stream ends uncharged.
    assert "attempt.restarted" in events.names
    assert events.text == PROMPT
    assert (openai.error, openai.done) == ("attempt_restarted", False)
    abandoned = await client.ended(openai.request_id)
    assert (abandoned.state, abandoned.reason, abandoned.charge_wei) == ("cancelled", "attempt_restarted", "0")
    for request_id in (native, unseen):
        view = await client.ended(request_id)
        assert (view.state, view.attempts, view.result and view.result.text) == ("completed", 2, PROMPT)
    redispatched = logged(on.network, "attempt.redispatched")
    assert {each["request_id"] for each in redispatched} == {native, unseen, openai.request_id}
    assert {each["reason"] for each in redispatched} == {"node_offline"}


@pytest.mark.asyncio(loop_scope="module")
async def test_sigterm_lets_a_node_finish_what_it_runs(on: Scene) -> None:
    request_id = await on.client.create(PROMPT)
    async with on.client.events(request_id) as events:
        await events.until(lambda: len(events.text) > 20)
        on.network.nodes[QUICK].send(signal.SIGTERM)
        await events.to_end()
    view = await on.client.ended(request_id)
    assert (view.state, view.attempts, events.text) == ("completed", 1, PROMPT)
    assert await on.network.nodes[QUICK].stopped() == 0
