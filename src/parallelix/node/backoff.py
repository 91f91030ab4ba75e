"""How long to wait before trying again: exponential, full jitter, never shorter than the server asked for."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_SECONDS = 0.25
WAIT_SECONDS_MAX = 8.0
"""A node counts as offline after 30 s without a heartbeat; one that waits at most 8 s is back before that."""
RETRY_AFTER_SECONDS_MAX = 300.0
"""An operator's machine stays reachable within five minutes, whatever a proxy on the way asks for."""


class Backoff:
    """One series of tries. `uniform` is the randomness, as `random.uniform`."""

    def __init__(self, *, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._ceiling_seconds = FIRST_SECONDS

    def reset(self) -> None:
        self._ceiling_seconds = FIRST_SECONDS

    def next_seconds(self, retry_after_seconds: float = 0.0) -> float:
        wait = self._uniform(0.0, self._ceiling_seconds)
        self._ceiling_seconds = min(WAIT_SECONDS_MAX, self._ceiling_seconds * 2)
        return min(retry_after_seconds, RETRY_AFTER_SECONDS_MAX) + wait
