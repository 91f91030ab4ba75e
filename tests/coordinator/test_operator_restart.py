"""What a node signed for one coordinator process is worth nothing to the next one; its session goes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx
import msgspec
from hand_driven import Scene, scene

from parallelix.coordinator import app, operator
from parallelix.coordinator.operator import OperatorApp
from parallelix.coordinator.service import Coordinator
from parallelix.protocol import messages


@asynccontextmanager
async def successor(before: Scene) -> AsyncGenerator[tuple[Coordinator, httpx.AsyncClient]]:
    """The next coordinator over the same store."""

    def log(name: str, fields: dict[str, Any]) -> None:
        assert name != "http.unexpected", fields

    async with (
        app.running(before.coordinator.settings, log=log, on_fatal=fatal) as after,
        httpx.AsyncClient(transport=httpx.ASGITransport(OperatorApp(after)), base_url="http://coordinator") as client,
    ):
        yield after, client


def fatal(error: BaseException) -> NoReturn:
    raise AssertionError("the coordinator cannot go on") from error


async def test_a_call_that_was_accepted_is_not_accepted_again_after_a_restart(tmp_path: Path) -> None:
    async with scene(tmp_path) as before:
        node = before.first
        # As far ahead as it may be: the worst case for a successor that knows nothing of it.
        as_late_as_can_be = str(node.now() + operator.CLOCK_AHEAD_MS - 50)
        headers = node.headers("heartbeat", time=as_late_as_can_be)
        assert (await node.post("heartbeat", b"", headers)).status_code == 200

    async with successor(before) as (_, client):
        node.http = client
        replayed = await node.post("heartbeat", b"", headers)
        assert (replayed.status_code, replayed.json()["error"]) == (401, "stale_time")
        assert (await node.post("heartbeat", b"", node.headers("heartbeat"))).status_code == 200


async def test_slots_that_died_with_a_coordinator_are_restored_once_by_the_receipts_it_gave(tmp_path: Path) -> None:
    async with scene(tmp_path) as before:
        node = before.first
        answer = await node.post("heartbeat", b"", node.headers("heartbeat"))
        receipt = msgspec.json.decode(answer.content, type=messages.UptimeReceipt)
        assert before.coordinator.engine.uptime.counted(node.node_id, receipt.slot // 360) == 1
        # What is credited is written each minute; a kill before that takes it along.
        before.coordinator.engine.uptime.take_rows(node.now())
    async with successor(before) as (after, client):
        node.http = client
        uptime = after.engine.uptime
        assert uptime.counted(node.node_id, receipt.slot // 360) == 0
        proof = messages.UptimeProof(session=receipt.session, unix_ms=receipt.unix_ms, signature=receipt.signature)
        again = messages.RestoreUptime(proofs=(proof, proof))
        assert after.started_at > receipt.started_at

        credited = [(await node.post("uptime", again, node.headers("uptime"))).json()["credited"] for _ in range(2)]

        assert credited == [1, 0]
        assert uptime.counted(node.node_id, receipt.slot // 360) == 1


async def test_a_receipt_never_brings_back_a_voided_slot(tmp_path: Path) -> None:
    async with scene(tmp_path) as before:
        node = before.first
        answer = await node.post("heartbeat", b"", node.headers("heartbeat"))
        receipt = msgspec.json.decode(answer.content, type=messages.UptimeReceipt)
        uptime = before.coordinator.engine.uptime
        uptime.take_rows(node.now())
    async with successor(before) as (after, client):
        node.http = client
        after.engine.uptime.void(node.node_id, receipt.unix_ms, receipt.unix_ms)
        proof = messages.UptimeProof(session=receipt.session, unix_ms=receipt.unix_ms, signature=receipt.signature)
        sent = await node.post("uptime", messages.RestoreUptime(proofs=(proof,)), node.headers("uptime"))
        assert (sent.status_code, sent.json()["credited"]) == (200, 0)
        assert after.engine.uptime.counted(node.node_id, receipt.slot // 360) == 0
