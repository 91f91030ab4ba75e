"""Challenges through a real coordinator: what a node is sent, and what becomes of one that only heartbeats."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from hand_driven import CATALOGUE, MODEL, HandNode, Opened, Scene, scene

from parallelix.engine import challenges
from parallelix.engine.entities import Request
from parallelix.protocol import messages, work

FLOORED = f'{CATALOGUE}\nspeed_floors = {{"2" = 0.01}}\n'
"""The nodes are registered for tier 2; so low that whatever comes within minutes is fast enough."""
SOON = {"challenge_lead_seconds": 0.1, "challenge_retry_seconds": 0.1, "challenge_again_seconds": 0.1}
LONG_CONTENT = work.ResultContent(text=" ok" * 16, finish_reason="stop")
LONG_ENTRIES = work.encode_entries(tuple(work.Entry(" ok", -0.25) for _ in range(16)))
LONG_USAGE = work.Usage(prompt_tokens=9, completion_tokens=16)


async def beat(node: HandNode) -> messages.UptimeReceipt:
    answer = await node.post("heartbeat", messages.Heartbeat(slots_free=1), node.headers("heartbeat"))
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=messages.UptimeReceipt)


async def notice(node: HandNode) -> messages.Notice:
    told = (await beat(node)).notice
    assert told is not None
    return told


async def until_benched(node: HandNode) -> messages.Notice:
    async with asyncio.timeout(30):
        while not (told := await notice(node)).benched:
            await asyncio.sleep(0.05)
    return told


def posed(scene: Scene, node: HandNode) -> list[Request]:
    """Open challenges."""
    return [request for request in scene.coordinator.engine.requests.values() if request.only_node == node.node_id]


async def challenged(scene: Scene, node: HandNode) -> Opened:
    async with asyncio.timeout(30):
        while not posed(scene, node):
            await asyncio.sleep(0.02)
    await scene.coordinator.journal.flushed()
    return await node.take()


async def test_a_challenge_looks_like_any_request_and_an_answer_in_time_proves_the_node(tmp_path: Path) -> None:
    async with scene(tmp_path, catalogue=FLOORED, **SOON) as running:
        node, coordinator = running.first, running.coordinator
        told = await notice(node)
        assert (told.proven_at, told.floor) == (0, f"tokens per second: 0.01 of {MODEL}")
        unit = await challenged(running, node)
        payload = msgspec.json.decode(unit.payload, type=work.Payload)
        assert (payload.kind, payload.model, payload.probes) == ("chat", MODEL, None)
        assert payload.messages[-1].role == "user" and payload.sampling.max_tokens >= 64
        (request,) = posed(running, node)
        paid = await running.create()
        for attempt in (*request.attempts, *coordinator.engine.requests[paid].attempts):
            assert attempt.number == 1
        assert unit.unit.deadline_seconds == coordinator.settings.deadline_seconds

        await node.acknowledge(unit)
        result = node.result(unit, content=LONG_CONTENT, entries=LONG_ENTRIES, usage=LONG_USAGE)
        answer = await node.return_(result)
        assert answer.json()["accepted"] is True, answer.text
        told = await notice(node)
        assert told.proven_at > 0 and told.prove_until == told.proven_at + 6 * 3600 * 1000 and not told.benched

        row = await coordinator.readers.request(request.request_id)
        assert row is not None
        assert (row.account, row.key_id, row.charge_wei, row.state) == (challenges.ACCOUNT, "", "0", "completed")
        assert row.record_sequence >= 0, "it stands in the chain"
        held = [account for account in coordinator.engine.ledger.accounts() if challenges.ACCOUNT in account]
        assert held == [], "and costs nobody anything"


async def test_a_cheap_machine_that_only_heartbeats_earns_nothing_after_its_first_window(tmp_path: Path) -> None:
    async with scene(tmp_path, catalogue=FLOORED, acknowledge_seconds=0.1, **SOON) as running:
        node = running.first
        assert (await beat(node)).credited
        told = await until_benched(node)
        assert told.benched.startswith("not_acknowledged: ") and told.strikes >= 3 and told.proven_at == 0
        await node.attach()
        assert (await notice(node)).benched == told.benched
        receipt = await beat(node)
        assert not receipt.credited
        engine = running.coordinator.engine
        slot = running.coordinator.clock() // 10_000
        assert not engine.uptime.is_open(node.node_id, slot)
        assert engine.pool.nodes[node.node_id].penalised
        await until_benched(running.second)
        assert (await running.coordinator.network()).nodes_online == 0


async def test_a_node_that_takes_too_long_is_told_so(tmp_path: Path) -> None:
    slow = f'{CATALOGUE}\nspeed_floors = {{"2" = 100000.0}}\n'
    async with scene(tmp_path, catalogue=slow, **SOON) as running:
        node = running.first
        for _ in range(challenges.SLOW_ANSWERS_TO_FAIL):
            assert not (await notice(node)).benched
            unit = await challenged(running, node)
            await node.acknowledge(unit)
            result = node.result(unit, content=LONG_CONTENT, entries=LONG_ENTRIES, usage=LONG_USAGE)
            assert (await node.return_(result)).json()["accepted"] is True
        told = await until_benched(node)
        assert told.benched.startswith("too_slow: ") and told.benched.endswith(" of 100000 tokens per second")
