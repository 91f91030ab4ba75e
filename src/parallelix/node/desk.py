"""Where work comes in: the two long polls, the slots, and the attempts under way.

There is always a poll outstanding, and one that offers slots whenever there are any. A unit that comes without a free
slot, while paused or while draining is declined, which is no fault.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from parallelix.node.backoff import Backoff
from parallelix.node.events import DaemonEvent, Level, Reporter, short
from parallelix.node.executor import Attempt, Ended, Stop, Workplace
from parallelix.node.life import Life
from parallelix.node.link import NotBacked, Refused
from parallelix.protocol import ids, messages

FULL_POLL_DELAY_SECONDS = 0.2
"""Most units that fill the last slot are either longer than this or gone by then, and the poll with them."""
SEEN_MAX = 4096
"""Work is delivered again only until it is acknowledged, at most ten seconds: 400 attempts a second fit."""
RETURNING_MAX = messages.SLOTS_MAX
"""Results waiting for a coordinator that takes none. Beyond that no new work is begun: each can hold 32 MiB."""
OPEN_MAX = RETURNING_MAX + 2 * messages.SLOTS_MAX
"""Attempts that compute, return or are being declined. Work beyond it can only come from a coordinator at fault, and is
left alone: what nobody acknowledges goes elsewhere in ten seconds."""
RETURN_SECONDS = 60.0
"""After the last unit is done: long enough for a coordinator's restart, shorter than an operator's patience."""
REFUSED_PAUSE_SECONDS = 1.0
NOTHING_NEW_PAUSE_SECONDS = 0.1
"""From a poll that brought no news to the next: a coordinator that answers at once must not keep a node busy."""
_RUNTIME_TROUBLE = frozenset({"node.runtime_failed", "node.deadline_exceeded", "node.unsupported"})
"""Perhaps it is down, hangs, or has lost a model: that is looked at now, before more requests find out."""
HURRY_SECONDS = 3.0
"""For one try to tell the coordinator, and a runtime's moment to stop."""


class Desk:
    """`pause` is why no new work is taken, or empty; it and `draining` are changed by the methods below only."""

    def __init__(
        self,
        place: Workplace,
        *,
        slots: int,
        life: Life,
        reporter: Reporter,
        on_runtime_trouble: Callable[[], None],
    ) -> None:
        self.pause = ""
        self.draining = False
        self.dropped = 0
        self._place = place
        self._slots = slots
        self._life = life
        self._reporter = reporter
        self._on_runtime_trouble = on_runtime_trouble
        self._loop = asyncio.get_running_loop()
        self._attempts: dict[str, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._taken = 0
        self._room = asyncio.Event()
        self._no_room = asyncio.Event()
        self._nothing_runs = asyncio.Event()
        self._nothing_runs.set()
        self._open_gates()

    @property
    def running(self) -> int:
        return self._taken

    @property
    def returning(self) -> int:
        return len(self._attempts) - self._taken

    def free_slots(self) -> int:
        if self.draining or self.pause or self.returning >= RETURNING_MAX:
            return 0
        return max(0, self._slots - self._taken)

    def set_pause(self, reason: str) -> None:
        self.pause = reason
        self._open_gates()

    def begin_draining(self) -> None:
        self.draining = True
        self._open_gates()

    async def poll(self) -> None:
        """Asks for work while there is a free slot. For ever; raises `NotBacked`."""
        while True:
            await self._room.wait()
            await self._ask(self.free_slots)

    async def poll_full(self) -> None:
        """Asks for cancellations and refusals while there is none. For ever; raises `NotBacked`."""
        while True:
            await self._no_room.wait()
            await asyncio.sleep(FULL_POLL_DELAY_SECONDS)
            if self._no_room.is_set():
                await self._ask(lambda: 0)

    async def finish(self) -> None:
        """Until every attempt has ended; once none is computing any more, for a minute at most."""
        await self._nothing_runs.wait()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=RETURN_SECONDS)

    def hurry(self) -> None:
        """Ends what runs as declined, and whatever is not answered in a few seconds as dropped."""
        for attempt in list(self._attempts.values()):
            attempt.stop(Stop.DRAINING)
        for task in self._tasks:
            self._loop.call_later(HURRY_SECONDS, task.cancel)

    async def drop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, slots: Callable[[], int]) -> None:
        link, session = self._place.link, self._place.session
        asked_at = self._loop.time()
        try:
            inbox = await session.until_answered(lambda: link.inbox(slots(), poll_seconds=session.facts.poll_seconds))
        except NotBacked:
            raise
        except Refused as error:
            self._reporter.tell("inbox.refused", level="warning", reason=str(error))
            await asyncio.sleep(Backoff().next_seconds(REFUSED_PAUSE_SECONDS))
        else:
            if not self._take_in(inbox):
                await asyncio.sleep(asked_at + NOTHING_NEW_PAUSE_SECONDS - self._loop.time())

    def _take_in(self, inbox: messages.Inbox) -> bool:
        """Whether there was any news in it."""
        for cancellation in inbox.cancellations:
            self._cancel(cancellation)
        for rejection in inbox.rejections:
            unit = short(rejection.unit_id[:80])
            self._reporter.tell("rejected", subject=unit, level="warning", reason=rejection.reason[:300])
        taken = [self._take(work) for work in inbox.work]
        return any(taken)

    def _cancel(self, cancellation: messages.Cancellation) -> None:
        attempt = self._attempts.get(cancellation.attempt_id)
        if attempt is not None:
            unit = short(attempt.sealed.unit_id)
            self._reporter.tell("cancelling", subject=unit, reason=cancellation.reason[:300])
            attempt.stop(Stop.PARTIAL if cancellation.partial else Stop.CLOSED)

    def _take(self, work: messages.Work) -> bool:
        """Whether it was not known before."""
        if not ids.is_attempt_id(work.attempt_id) or not ids.is_unit_id(work.unit_id):
            self._reporter.tell("work.refused", level="warning", reason="its ids are in no known form")
            return False
        if work.attempt_id in self._seen or len(self._attempts) >= OPEN_MAX:
            return False
        self._seen[work.attempt_id] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        refusal = self._why_not()
        attempt = Attempt(work, place=self._place, on_slot_free=self._free_slot)
        self._attempts[work.attempt_id] = attempt
        if refusal is None:
            self._reporter.tell(
                "taken",
                subject=short(work.unit_id),
                model=work.model[:128],
                deadline_seconds=work.deadline_seconds,
            )
            self._taken += 1
            self._nothing_runs.clear()
            self._life.working(self._taken)
        job = attempt.run() if refusal is None else attempt.decline(*refusal)
        task = asyncio.create_task(self._see_through(attempt, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open_gates()
        return True

    def _why_not(self) -> tuple[messages.FailureCode, str] | None:
        if self.draining:
            return "node.draining", "this node is stopping"
        if self.pause:
            return "node.paused", self.pause
        if self.free_slots() == 0:
            return "node.busy", f"all {self._slots} slots are taken"
        return None

    def _free_slot(self) -> None:
        self._taken -= 1
        if self._taken == 0:
            self._nothing_runs.set()
        self._life.working(self._taken)
        self._open_gates()

    def _open_gates(self) -> None:
        if self.free_slots() > 0:
            self._room.set()
            self._no_room.clear()
        else:
            self._room.clear()
            self._no_room.set()

    async def _see_through(self, attempt: Attempt, job: Coroutine[Any, Any, Ended]) -> None:
        unit = short(attempt.sealed.unit_id)
        try:
            ended = await job
        except asyncio.CancelledError:
            self.dropped += 1
            self._reporter.tell("attempt.dropped", subject=unit, level="warning", reason="the node was stopped")
            raise
        except Exception as error:
            self.dropped += 1
            self._reporter.tell("attempt.dropped", subject=unit, level="error", reason=type(error).__name__)
            return
        finally:
            del self._attempts[attempt.attempt_id]
            self._open_gates()
        if ended.code in _RUNTIME_TROUBLE:
            self._on_runtime_trouble()
        self._tell_ended(unit, attempt.sealed.model[:128], ended)

    def _tell_ended(self, unit: str, model: str, ended: Ended) -> None:
        tell = self._reporter.tell
        if ended.lost:
            self.dropped += 1
            tell("result.lost", subject=unit, level="error", model=model, reason=ended.reason)
        elif ended.outcome in ("completed", "cancelled") and not ended.accepted:
            tell("result.refused", subject=unit, level="warning", model=model, reason=ended.reason)
        elif ended.outcome in ("completed", "cancelled"):
            if not ended.audit:
                self._life.served += 1
            name = "audited" if ended.audit else "served" if ended.outcome == "completed" else "cancelled"
            self._reporter.report(DaemonEvent(name=name, subject=unit, fields={"model": model, **ended.fields}))
        else:
            level: Level = "warning" if ended.outcome == "failed" else "info"
            code = {"code": ended.code} if ended.code else {}
            tell(f"attempt.{ended.outcome}", subject=unit, level=level, model=model, reason=ended.reason, **code)
