"""What a new API key is called, and how far it reaches."""

from __future__ import annotations

import time
from dataclasses import dataclass

from parallelix.client import amounts
from parallelix.client.errors import ConfigRefused
from parallelix.protocol.accounts import LIMIT_MAX, NAME_CHARACTERS_MAX

DAYS_MAX = 3650
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """0, and an empty budget, mean none."""

    requests_per_minute: int = 0
    concurrency: int = 0
    budget: str = ""
    days: int = 0

    def require(self) -> None:
        """Raises `ConfigRefused` for what no key can have."""
        for name, value, most in (
            ("--requests-per-minute", self.requests_per_minute, LIMIT_MAX),
            ("--concurrency", self.concurrency, LIMIT_MAX),
            ("--days", self.days, DAYS_MAX),
        ):
            if not 0 <= value <= most:
                raise ConfigRefused(f"{name} {value}: expected 0 (none) to {most}")

    @property
    def budget_wei(self) -> int:
        """Raises `ConfigRefused`."""
        return amounts.read(self.budget, name="budget") if self.budget else 0

    @property
    def expires_at(self) -> int | None:
        """Unix milliseconds."""
        return time.time_ns() // 1_000_000 + self.days * DAY_MS if self.days else None


def require_name(text: str, what: str) -> None:
    if not text or len(text) > NAME_CHARACTERS_MAX or not text.isprintable() or text != text.strip():
        raise ConfigRefused(
            f"{what} {text[:40]!r}: expected 1 to {NAME_CHARACTERS_MAX} printable characters, such as a name"
        )
