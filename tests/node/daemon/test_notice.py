"""What the coordinator thinks of a node: told when it changes, and kept for `status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from running_daemon import StartDaemon
from scripted_coordinator import ScriptedCoordinator

from parallelix.node import state
from parallelix.node.home import Home
from parallelix.node.notice import news
from parallelix.protocol.messages import Notice

GOOD = Notice(rate_percent=20, audited=30, proven_at=5_000, prove_until=9_000, floor="12 tokens per second of m")
SLOW = "too_slow: 3.1 of 12 tokens per second"


def changed(**fields: Any) -> Notice:
    return msgspec.structs.replace(GOOD, **fields)


CASES: list[tuple[Notice | None, Notice, dict[str, dict[str, Any]]]] = [
    (GOOD, changed(audited=31, proven_at=6_000, prove_until=10_000), {}),
    (GOOD, changed(benched=SLOW), {"benched": {"reason": SLOW}}),
    (changed(benched=SLOW), changed(benched="missed: x"), {"benched": {"reason": "missed: x"}}),
    (changed(benched=SLOW), GOOD, {"unbenched": {}}),
    (GOOD, changed(strikes=2), {"unacknowledged": {"count": 2}}),
    (changed(strikes=2), GOOD, {}),
    (GOOD, changed(disagreed=1), {"audit.disagreed": {"count": 1}}),
    (GOOD, changed(rate_percent=100), {"sampling": {"rate_percent": 100}}),
    (GOOD, changed(removed_until=1_795_852_800_000), {"removed": {"until": "2026-11-28 08:00 UTC"}}),
    (changed(removed_until=1), GOOD, {"readmitted": {}}),
    (None, GOOD, {}),
    (None, changed(benched=SLOW, strikes=3), {"benched": {"reason": SLOW}, "unacknowledged": {"count": 3}}),
]


@pytest.mark.parametrize(("before", "after", "told"), CASES)
def test_each_change_is_one_line(before: Notice | None, after: Notice, told: dict[str, dict[str, Any]]) -> None:
    assert {event.name: event.fields for event in news(before, after)} == told


async def test_the_log_says_once_why_a_node_is_benched_and_status_finds_it(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, home: Path
) -> None:
    async with start_daemon() as daemon:
        coordinator.notice = changed(benched=SLOW)
        benched = await daemon.until_told("benched")
        assert (benched.level, benched.fields) == ("warning", {"reason": SLOW})
        await coordinator.until(lambda: _stored(home) == coordinator.notice)
        beats = len(coordinator.heartbeats)
        await coordinator.until(lambda: len(coordinator.heartbeats) > beats + 2)

        coordinator.notice = GOOD
        await daemon.until_told("unbenched")
        assert len(daemon.named("benched")) == 1
        assert f'benched reason="{SLOW}" level=warning' in daemon.log()


async def test_what_was_told_before_a_restart_is_no_news(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, home: Path
) -> None:
    coordinator.notice = changed(benched=SLOW)
    async with start_daemon() as daemon:
        await daemon.until_told("benched")
        await coordinator.until(lambda: _stored(home) == coordinator.notice)
    beats = len(coordinator.heartbeats)
    async with start_daemon() as daemon:
        await coordinator.until(lambda: len(coordinator.heartbeats) > beats + 1)
        assert daemon.named("benched") == []


async def test_a_coordinator_that_tells_nothing_is_served_all_the_same(
    coordinator: ScriptedCoordinator, start_daemon: StartDaemon, home: Path
) -> None:
    async with start_daemon():
        await coordinator.until(lambda: len(coordinator.heartbeats) > 1)
        assert _stored(home) is None


def _stored(home: Path) -> Notice | None:
    return state.read(Home(home)).notice
