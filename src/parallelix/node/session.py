"""Keeps the node attached: a call that finds its session forgotten attaches again and is made once more, and a
coordinator that is away is asked until it is back: as soon as one call gets through, all the others try too."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from parallelix.node.backoff import FIRST_SECONDS, Backoff
from parallelix.node.events import Reporter
from parallelix.node.link import Link, SessionUnknown, StaleTime, Unavailable
from parallelix.protocol import messages

T = TypeVar("T")

SESSION_DIGITS = 32


class Session:
    """`build_manifest` is given the time of issue, Unix milliseconds. `on_attached` hears of each new session.

    `new_backoff` begins a series of tries.
    """

    def __init__(
        self,
        link: Link,
        *,
        build_manifest: Callable[[int], messages.Manifest],
        on_attached: Callable[[messages.Attached], None],
        reporter: Reporter,
        new_backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._link = link
        self._build_manifest = build_manifest
        self._on_attached = on_attached
        self._reporter = reporter
        self._new_backoff = new_backoff
        self._attaching = asyncio.Lock()
        self._up = asyncio.Event()
        self._up.set()
        self._facts: messages.Attached | None = None

    @property
    def name(self) -> str:
        """Empty before the first attach."""
        return self._link.session

    @property
    def attached(self) -> bool:
        return self._facts is not None

    @property
    def facts(self) -> messages.Attached:
        assert self._facts is not None, "nothing is asked of a coordinator before it is attached to"
        return self._facts

    async def renew(self, stale: str) -> None:
        """Attaches unless somebody else already replaced the session `stale`. Raises `Refused`."""
        async with self._attaching:
            if self._link.session == stale:
                await self._attach()

    async def until_answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of `call`, however long it takes. Raises `Refused`."""
        backoff, renewed = self._new_backoff(), False
        while True:
            session = self._link.session
            try:
                answer = await call()
            except SessionUnknown:
                if renewed:
                    # It attaches nodes and does not know them: asking faster helps neither side.
                    await asyncio.sleep(backoff.next_seconds())
                await self.renew(session)
                renewed = True
            except StaleTime as error:
                await self._wait(backoff, Unavailable(str(error)))
            except Unavailable as error:
                await self._wait(backoff, error)
            else:
                self._note_up()
                return answer

    async def _attach(self) -> None:
        backoff = self._new_backoff()
        while True:
            manifest = msgspec.json.encode(self._build_manifest(self._link.clock.stamp_ms("attach")))
            session = hashlib.sha256(manifest).hexdigest()[:SESSION_DIGITS]
            try:
                attached = await self._link.attach(manifest)
                if attached.session != session:
                    raise Unavailable("attach: answered for another session")
            except StaleTime as error:
                await self._wait(backoff, Unavailable(str(error)))
            except Unavailable as error:
                await self._wait(backoff, error)
            else:
                self._link.session = session
                self._facts = attached
                self._note_up()
                self._on_attached(attached)
                return

    async def _wait(self, backoff: Backoff, error: Unavailable) -> None:
        if self._up.is_set():
            self._up.clear()
            self._reporter.tell("link.down", level="warning", reason=str(error))
        wait_seconds = backoff.next_seconds(error.retry_after_seconds)
        # Others get through while this call fails, perhaps: then their success must not make it hurry.
        patience_seconds = max(error.retry_after_seconds, FIRST_SECONDS)
        await asyncio.sleep(min(wait_seconds, patience_seconds))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), max(0.0, wait_seconds - patience_seconds))

    def _note_up(self) -> None:
        if not self._up.is_set():
            self._up.set()
            self._reporter.tell("link.up")
