"""One node's inbox: what the next answer to its long poll will carry.

Work stays until it is acknowledged or withdrawn and is delivered again to a node that asks again: an answer lost on the
way loses nothing, and the node drops what it has already.
"""

from __future__ import annotations

import asyncio
from collections import deque

from parallelix.protocol.messages import Cancellation, Inbox, Rejection, Work

REDELIVERY_MS = 3_000
"""Longer than a slow answer takes, and well inside the ten seconds a node has to acknowledge."""
NOTICES_MAX = 256
"""Cancellations and rejections kept for a node that does not poll; older ones are dropped, deadlines still hold."""


class Mailbox:
    def __init__(self) -> None:
        self._work: dict[str, Work] = {}
        self._delivered_at: dict[str, int] = {}
        self._cancellations: deque[Cancellation] = deque(maxlen=NOTICES_MAX)
        self._rejections: deque[Rejection] = deque(maxlen=NOTICES_MAX)
        self._waiter: asyncio.Future[None] | None = None

    def put_work(self, work: Work) -> None:
        self._work[work.attempt_id] = work
        self._delivered_at[work.attempt_id] = 0
        self.wake()

    def drop_work(self, attempt_id: str) -> None:
        self._work.pop(attempt_id, None)
        self._delivered_at.pop(attempt_id, None)

    def cancel(self, cancellation: Cancellation) -> None:
        if self._delivered_at.get(cancellation.attempt_id) == 0:
            self.drop_work(cancellation.attempt_id)
            return
        self.drop_work(cancellation.attempt_id)
        self._cancellations.append(cancellation)
        self.wake()

    def tell(self, rejection: Rejection) -> None:
        self._rejections.append(rejection)
        self.wake()

    def wake(self) -> None:
        """Answers a waiting poll now."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self, slots: int, now: int) -> Inbox | None:
        """What there is to deliver, at most `slots` units of work; None when nothing is."""
        work: list[Work] = []
        for attempt_id, each in self._work.items():
            if len(work) >= slots:
                break
            delivered_at = self._delivered_at[attempt_id]
            if not delivered_at or delivered_at + REDELIVERY_MS <= now:
                work.append(each)
                self._delivered_at[attempt_id] = now
        if not (work or self._cancellations or self._rejections):
            return None
        inbox = Inbox(
            work=tuple(work),
            cancellations=tuple(self._cancellations),
            rejections=tuple(self._rejections),
            server_time=now,
        )
        self._cancellations.clear()
        self._rejections.clear()
        return inbox

    async def wait(self, seconds: float, *, slots: int = 0) -> None:
        """Returns after `seconds`, or as soon as something may be there: also work that is due again, where the poll
        has `slots` for it. A second poll ends the first one's wait."""
        self.wake()
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiter = waiter
        timers = [loop.call_later(seconds, _release, waiter)]
        if slots and self._work:
            timers.append(loop.call_later(REDELIVERY_MS / 1000, self._wake_for_unacknowledged))
        try:
            await waiter
        finally:
            for timer in timers:
                timer.cancel()

    def _wake_for_unacknowledged(self) -> None:
        if self._work:
            self.wake()


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
