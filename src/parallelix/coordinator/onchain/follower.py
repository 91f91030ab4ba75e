"""Brings what the contracts say to the engine: confirmed blocks once and in order, withdrawal requests at once.

Each turn asks the watcher what is new. A span is first held against our books (does each log follow from those before
it?) and, with its facts taken in, against the contracts' views at its last block. Only then does the engine hear of it,
and the next span is not read before this one is durable. So a log that was lost, doubled, changed or invented by an
endpoint that cannot also answer for it is found before anything is credited, and read again from whoever answers next.

Where that fails nothing of the span is believed: what depends on the doubted part halts, the engine is told why, and
the same blocks are tried again, ever more slowly up to once a minute. An endpoint that only lagged heals it by itself.
An endpoint that does not answer halts nothing; the engine sees by the clock that it has heard nothing for too long.

Spans cannot show everything, since some events change no total. So every `reconcile_seconds` a round compares every
node and every account with a balance, a slice a turn, each against the views at the block that we are at then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Literal, NoReturn, Protocol, TypeAlias

from parallelix.chain.abi import Address
from parallelix.chain.errors import ChainDoubted, ChainError, LogsDiffer, Part, StateMissing
from parallelix.chain.watcher import Poll, Span, Watcher
from parallelix.coordinator.onchain import decoding, expecting
from parallelix.engine import effects, events
from parallelix.engine.core import Engine
from parallelix.points import reached

RETRY_SECONDS_MAX = 60.0
"""Between tries while something is wrong: five blocks of Ethereum."""
STILL_SECONDS = 180.0
"""Fifteen blocks of Ethereum; one that shows none for so long has probably lost its peers."""
SLICE_ENTRIES = 100
"""Accounts and nodes that a turn compares: at most 300 questions, some seconds for a hosted endpoint."""
Source: TypeAlias = Literal["span", "books"]
LogEvent: TypeAlias = Callable[[str, dict[str, Any]], None]


class Settles(Protocol):
    """What the follower needs of a coordinator."""

    @property
    def engine(self) -> Engine: ...

    @property
    def log(self) -> LogEvent: ...

    async def settle(self, event: events.Event) -> effects.Answer:
        """Steps the engine and returns its answer once what it says is durable."""
        ...


class Follower:
    """One watcher's way into one engine. `run` never ends; whatever the endpoint does, the coordinator goes on."""

    def __init__(
        self,
        coordinator: Settles,
        watcher: Watcher,
        *,
        poll_seconds: float,
        reconcile_seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._coordinator = coordinator
        self._watcher = watcher
        self._poll_seconds = poll_seconds
        self._reconcile_seconds = reconcile_seconds
        self._clock = clock
        self._whole = False
        """The state of old blocks is gone: the next span has to reach up to a block that can be checked."""
        self._failures = 0
        self._failed = ""
        self._behind = False
        self._head = -1
        self._head_since = 0.0
        self._still = False
        self._doubts: dict[Source, ChainDoubted] = {}
        self._told: set[Part] = set()
        self._round: deque[Address | int] = deque()
        """Accounts and node ids that the present round has still to compare."""
        self._round_due_at = 0.0
        self._look_again_at = 0.0

    async def run(self) -> NoReturn:
        while True:
            pause_seconds = await self.turn()
            await asyncio.sleep(pause_seconds)

    async def turn(self) -> float:
        """Takes in what is new, and gives the seconds until the next look."""
        try:
            more = await self._advance()
        except ChainError as error:
            return await self._go_on_without(error)
        if self._failures:
            self._coordinator.log("chain.recovered", {"after_failures": self._failures})
        self._failures, self._failed = 0, ""
        return 0.0 if more else self._poll_seconds

    async def _advance(self) -> bool:
        """Whether there is more to read at once."""
        poll = await self._watcher.poll(whole=self._whole)
        self._note_still(poll)
        if poll.span is not None and not await self._took(poll, poll.span):
            return True
        if poll.span is None and not poll.current:
            self._note_behind(poll)
            return False
        await self._believe("span")
        self._behind = False
        if not poll.current:
            return True
        await self._coordinator.settle(decoding.chain_provisional(poll.head, poll.provisional, time=poll.head_time))
        await self._compare_slice()
        return False

    async def _took(self, poll: Poll, span: Span) -> bool:
        """False where the span has to be read anew, as a part of a longer one."""
        reached("follower.span_read")
        event = decoding.chain_span(span)
        expected = expecting.after(self._coordinator.engine, event.facts)
        try:
            await self._watcher.compare(expected, block=span.last.number)
        except StateMissing:
            if poll.current or self._whole:
                raise
            self._whole = True
            return False
        answer = await self._coordinator.settle(event)
        if isinstance(answer, effects.SpanRefused):
            raise LogsDiffer(answer.part, answer.reason)
        self._watcher.applied(span)
        reached("follower.span_applied")
        self._whole = False
        if event.facts:
            self._coordinator.log(
                "chain.span", {"first": span.first_block, "last": span.last.number, "facts": len(event.facts)}
            )
        return True

    async def _compare_slice(self) -> None:
        """Compares the next entries of the round, which begins when it is due. What differs stays first in line."""
        cursor = self._watcher.cursor
        if cursor is None or self._clock() < self._look_again_at:
            return
        engine = self._coordinator.engine
        if not self._round:
            if self._clock() < self._round_due_at:
                return
            self._round_due_at = self._clock() + self._reconcile_seconds
            self._round.extend(each for each, books in engine.mirror.accounts.items() if books.deposit_wei)
            self._round.extend(engine.registrations)
        entries = [self._round[at] for at in range(min(SLICE_ENTRIES, len(self._round)))]
        expected = expecting.now(
            engine,
            accounts=[each for each in entries if isinstance(each, str)],
            node_ids=[each for each in entries if isinstance(each, int)],
        )
        try:
            await self._watcher.compare(expected, block=cursor.block)
        except ChainDoubted as doubt:
            # Spans go on meanwhile: what is wrong lies behind them.
            self._look_again_at = self._clock() + RETRY_SECONDS_MAX
            await self._doubt("books", doubt)
            return
        for _ in entries:
            self._round.popleft()
        await self._believe("books")

    def _note_behind(self, poll: Poll) -> None:
        """Once: it is common behind a load balancer, and the engine notices by the clock when it lasts."""
        if not self._behind:
            self._behind = True
            self._coordinator.log("chain.behind", {"head": poll.head, "next": self._watcher.next_block})

    def _note_still(self, poll: Poll) -> None:
        """Once: the engine believes no block to be the newest that is long past, and somebody should know why."""
        now = self._clock()
        if poll.head != self._head:
            self._head, self._head_since, self._still = poll.head, now, False
        elif not self._still and now - self._head_since >= STILL_SECONDS:
            self._still = True
            self._coordinator.log("chain.still", {"head": poll.head, "seconds": round(now - self._head_since)})

    # What cannot be believed ------------------------------------------------------------------------------------------

    async def _go_on_without(self, error: ChainError) -> float:
        if isinstance(error, ChainDoubted):
            await self._doubt("span", error)
        self._failures += 1
        seconds = min(self._poll_seconds * 2 ** min(self._failures - 1, 20), max(RETRY_SECONDS_MAX, self._poll_seconds))
        if error.message != self._failed:
            self._failed = error.message
            self._coordinator.log(
                "chain.failed", {"code": error.code, "error": error.message, "retry_seconds": round(seconds, 3)}
            )
        return seconds

    async def _doubt(self, source: Source, doubt: ChainDoubted) -> None:
        self._doubts[source] = doubt
        await self._tell()

    async def _believe(self, source: Source) -> None:
        if self._doubts.pop(source, None) is not None:
            await self._tell()

    async def _tell(self) -> None:
        """Lets the engine know which parts are halted now, and why."""
        halted: dict[Part, str] = {}
        for doubt in self._doubts.values():
            # The anchor is halted by the engine alone, for good: a batch that is not ours. Only a person ends that.
            halted["chain" if doubt.part == "anchor" else doubt.part] = doubt.message
        for part in self._told - halted.keys():
            await self._coordinator.settle(events.ChainHalted(part=part, reason=""))
        for part, reason in halted.items():
            await self._coordinator.settle(events.ChainHalted(part=part, reason=reason))
        self._told = set(halted)
