"""How often to try again, and how long to wait: exponential, full jitter, never shorter than the coordinator asked."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

_CHANCE = secrets.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """`tries_max` counts the first try. With these defaults a call gives up after half a minute of silence."""

    tries_max: int = 9
    first_seconds: float = 0.25
    wait_seconds_max: float = 8.0
    retry_after_seconds_max: float = 60.0
    """A coordinator that asks for more is taken at its word: the call fails at once and says so."""

    def series(self) -> Series:
        return Series(self)


class Series:
    """One series of tries. `uniform` is the randomness, as `random.uniform`."""

    def __init__(self, retry: Retry, *, uniform: Callable[[float, float], float] = _CHANCE.uniform) -> None:
        self._retry = retry
        self._uniform = uniform
        self.reset()

    def reset(self) -> None:
        """After a success the next failure counts as the first."""
        self.failures = 0
        self._ceiling_seconds = self._retry.first_seconds

    def next_seconds(self, retry_after_seconds: float = 0.0) -> float | None:
        """How long to wait before the next try; None when there is none left, or the wait asked for is too long."""
        self.failures += 1
        if self.failures >= self._retry.tries_max or retry_after_seconds > self._retry.retry_after_seconds_max:
            return None
        wait = self._uniform(0.0, self._ceiling_seconds)
        self._ceiling_seconds = min(self._retry.wait_seconds_max, self._ceiling_seconds * 2)
        return retry_after_seconds + wait
