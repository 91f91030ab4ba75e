"""The coordinator's clock, as seen from here: what signed calls are stamped with.

It runs on the monotonic clock, so a step of the machine's own time (NTP, an operator, a time zone) moves nothing; only
what the coordinator says corrects it.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class CoordinatorClock:
    """Unix milliseconds by the coordinator's clock; until it has spoken, by this machine's."""

    def __init__(
        self, *, wall_seconds: Callable[[], float] = time.time, monotonic_seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic_seconds = monotonic_seconds
        self._offset_ms = (wall_seconds() - monotonic_seconds()) * 1000
        self._last_ms: dict[str, int] = {}

    def now_ms(self) -> int:
        return int(self._monotonic_seconds() * 1000 + self._offset_ms)

    def learn(self, server_time_ms: int, *, round_trip_ms: float = 0.0) -> None:
        """Takes over what the coordinator's clock showed in the middle of a call that ended just now."""
        self._offset_ms = server_time_ms + round_trip_ms / 2 - self._monotonic_seconds() * 1000

    def correct(self, server_time_ms: int) -> None:
        """After a refused time: nothing stamped so far was accepted, so stamps may go down again."""
        self.learn(server_time_ms)
        self._last_ms.clear()

    def stamp_ms(self, purpose: str) -> int:
        """The time to sign with. Of one purpose, no two are equal and each is later than the one before."""
        stamp = max(self.now_ms(), self._last_ms.get(purpose, 0) + 1)
        self._last_ms[purpose] = stamp
        return stamp
