"""What a node signed for one coordinator process is worth nothing to the next one; its session goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import httpx
from hand_driven import scene

from parallelix.coordinator import app, operator
from parallelix.coordinator.operator import OperatorApp


def fatal(error: BaseException) -> NoReturn:
    raise AssertionError("the coordinator cannot go on") from error


async def test_a_call_that_was_accepted_is_not_accepted_again_after_a_restart(tmp_path: Path) -> None:
    async with scene(tmp_path) as before:
        node = before.first
        # As far ahead as it may be: the worst case for a successor that knows nothing of it.
        as_late_as_can_be = str(node.now() + operator.CLOCK_AHEAD_MS - 50)
        headers = node.headers("heartbeat", time=as_late_as_can_be)
        assert (await node.post("heartbeat", b"", headers)).status_code == 200

    def log(name: str, fields: dict[str, Any]) -> None:
        assert name != "http.unexpected", fields

    async with (
        app.running(before.coordinator.settings, log=log, on_fatal=fatal) as after,
        httpx.AsyncClient(transport=httpx.ASGITransport(OperatorApp(after)), base_url="http://coordinator") as client,
    ):
        node.http = client
        replayed = await node.post("heartbeat", b"", headers)
        assert (replayed.status_code, replayed.json()["error"]) == (401, "stale_time")
        assert (await node.post("heartbeat", b"", node.headers("heartbeat"))).status_code == 200
