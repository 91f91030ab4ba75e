"""What waits for time, soonest first.

A timer is never taken back: what it was for may be over when it comes, and then it does nothing. So that such timers do
not pile up (each request sets one for half a day), those without a purpose are swept out whenever they may be half.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, TypeAlias

Timer: TypeAlias = tuple[int, int, str, Any]
"""(due at, number, kind, subject). Of two for the same moment the one that was set first comes first."""


class Timers:
    """`purposeful` says whether a timer still has something to do. Fewer than `sweep_min` are never swept."""

    def __init__(self, purposeful: Callable[[Timer], bool], *, sweep_min: int) -> None:
        self._purposeful = purposeful
        self._heap: list[Timer] = []
        self._count = 0
        self._sweep_min = self._sweep_at = sweep_min

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, at: int, kind: str, subject: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, kind, subject))
        if len(self._heap) >= self._sweep_at:
            self._sweep()

    def next_at(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: int) -> Timer | None:
        """The next that is due at `now`, which it gives once."""
        if not self._heap or self._heap[0][0] > now:
            return None
        return heapq.heappop(self._heap)

    def _sweep(self) -> None:
        """Linear, and at most every doubling: constant for each timer set."""
        self._heap = [timer for timer in self._heap if self._purposeful(timer)]
        heapq.heapify(self._heap)
        self._sweep_at = max(self._sweep_min, 2 * len(self._heap))
