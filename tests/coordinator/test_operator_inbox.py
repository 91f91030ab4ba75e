"""A node that loses a connection, or starts anew, has its work at once and not only at its next poll."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from hand_driven import HandNode, Scene, scene

from parallelix.coordinator import mailbox
from parallelix.protocol import messages

LONG_SECONDS = 100.0
"""No poll of these tests may last that long."""


def poll(node: HandNode) -> asyncio.Task[httpx.Response]:
    url = f"/operator/inbox?nodeId={node.node_id}&slots=1"
    return asyncio.create_task(node.http.get(url, headers=node.headers("inbox")))


async def pause(node: HandNode) -> None:
    paused = messages.Heartbeat(slots_free=0, paused=True)
    assert (await node.post("heartbeat", paused, node.headers("heartbeat"))).status_code == 200


async def taken(node: HandNode, on: Scene) -> str:
    async with asyncio.timeout(20):
        work = await node.take()
    assert (await node.acknowledge(work)).status_code == 200
    await on.clear()
    return work.unit.unit_id


async def test_the_poll_of_an_earlier_session_takes_nothing_from_the_node_that_came_back(tmp_path: Path) -> None:
    async with scene(tmp_path, poll_seconds=LONG_SECONDS) as on:
        await pause(on.second)
        left_behind = poll(on.first)
        await asyncio.sleep(0.1)
        await on.first.attach()

        request_id = await on.create()
        answer = await left_behind

        assert (answer.status_code, answer.json()["error"]) == (401, "unknown_session")
        assert await taken(on.first, on) == request_id


async def test_work_whose_answer_was_lost_comes_again_while_the_next_poll_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "REDELIVERY_MS", 300)
    async with scene(tmp_path, poll_seconds=LONG_SECONDS) as on:
        await pause(on.second)
        request_id = await on.create()
        lost = await poll(on.first)
        assert len(lost.json()["work"]) == 1

        assert await taken(on.first, on) == request_id


async def test_work_that_was_acknowledged_ends_no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "REDELIVERY_MS", 20)
    box = mailbox.Mailbox()
    work = messages.Work(
        attempt_id="att_" + "1" * 32, attempt_number=1, unit_id="req_" + "1" * 64, workload_class="ai.inference",
        model="m", model_digest="0" * 64, deadline_seconds=10.0, payload="p", envelope="e",
    )  # fmt: skip
    box.put_work(work)
    assert box.take(1, 1000) is not None
    waiting = asyncio.create_task(box.wait(LONG_SECONDS, slots=1))
    await asyncio.sleep(0)
    box.drop_work(work.attempt_id)

    assert await asyncio.wait({waiting}, timeout=0.1) == (set(), {waiting})
    box.wake()
    await waiting
