"""What a node's waiting calls do when its coordinator is back."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from parallelix.node.backoff import Backoff
from parallelix.node.clock import CoordinatorClock
from parallelix.node.events import DaemonEvent, Reporter
from parallelix.node.link import Link, Unavailable
from parallelix.node.session import Session
from parallelix.protocol import signing

HOURS = 10_000.0
HANG_SECONDS = 20


class Call:
    """Fails while it must; counts how often it was made."""

    def __init__(self, *, retry_after_seconds: float = 0.0) -> None:
        self.works = False
        self.times = 0
        self._retry_after_seconds = retry_after_seconds

    async def __call__(self) -> str:
        self.times += 1
        if not self.works:
            raise Unavailable("away", retry_after_seconds=self._retry_after_seconds)
        return "answered"


def unused(*_: object) -> NoReturn:
    raise AssertionError("nothing attaches here")


def waiting_session(told: list[str]) -> Session:
    """Whose every wait would last for hours."""

    def listen(event: DaemonEvent) -> None:
        told.append(event.name)

    key, clock = signing.NodeKey.generate(), CoordinatorClock()
    link = Link("http://nowhere", chain_id=1, node_id=1, key=key, clock=clock, version="test")
    return Session(
        link,
        build_manifest=unused,
        on_attached=unused,
        reporter=Reporter(structlog.get_logger(), listen),
        new_backoff=lambda: Backoff(uniform=lambda low, high: HOURS),
    )


async def test_as_soon_as_one_call_gets_through_the_others_try_too() -> None:
    told: list[str] = []
    session, result, heartbeat = waiting_session(told), Call(), Call()
    waiting = asyncio.create_task(session.until_answered(result))
    while not told:
        await asyncio.sleep(0)
    result.works = heartbeat.works = True
    await session.until_answered(heartbeat)
    async with asyncio.timeout(HANG_SECONDS):
        assert await waiting == "answered"
    assert (result.times, told) == (2, ["link.down", "link.up"])


async def test_a_call_that_was_told_how_long_to_wait_is_not_hurried_by_another() -> None:
    told: list[str] = []
    session, limited, heartbeat = waiting_session(told), Call(retry_after_seconds=60.0), Call()
    waiting = asyncio.create_task(session.until_answered(limited))
    while not told:
        await asyncio.sleep(0)
    limited.works = heartbeat.works = True
    await session.until_answered(heartbeat)
    done, _ = await asyncio.wait([waiting], timeout=0.5)
    waiting.cancel()
    assert (done, limited.times) == (set(), 1)
