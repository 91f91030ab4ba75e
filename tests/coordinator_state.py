"""All that a call to a coordinator could change, to compare before and after a call that must change nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from parallelix.coordinator.service import Coordinator

_WRITTEN_BY_TIME_ALONE = ("leader", "uptime")


async def everything(coordinator: Coordinator) -> dict[str, Any]:
    """Every row of the store (SQLite), every balance, node, request and attempt, and the text that was shown."""
    await coordinator.journal.flushed()
    engine = coordinator.engine
    attempts = [attempt for request in engine.requests.values() for attempt in request.attempts]
    lives = [coordinator.live_attempt(attempt.attempt_id) for attempt in attempts]
    return {
        **_rows(coordinator.settings.database_url.removeprefix("sqlite:///")),
        "balances in memory": engine.ledger.accounts(),
        "nodes": {
            node.node_id: (node.session, node.online, node.paused, node.slots_free, len(node.rejections))
            for node in engine.pool.nodes.values()
        },
        "requests": {
            request.request_id: (request.state, [attempt.state for attempt in request.attempts])
            for request in engine.requests.values()
        },
        "text": {live.attempt_id: live.received_bytes for live in lives if live is not None},
        "chain": (engine.recorder.sequence, engine.recorder.head_hash),
    }


def _rows(path: str) -> dict[str, list[str]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        names = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            f"table {name}": sorted(map(repr, store.execute(f"SELECT * FROM {name}")))
            for name in names
            if name not in _WRITTEN_BY_TIME_ALONE
        }
