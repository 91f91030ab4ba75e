"""When a node takes work: windows of local time such as `22:00-06:00` or `00:00-08:00,18:00-24:00`.

Local time is what an operator means by "at night"; no dates and no weekdays, which a cron job and `pause` can do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time

from parallelix.node.errors import ConfigRefused

WINDOWS_MAX = 24
"""One an hour; more is a mistake."""
MINUTES_A_DAY = 24 * 60

_WINDOW = re.compile(r"(\d{2}):(\d{2})-(\d{2}):(\d{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Minutes after midnight, `start` included, `end` not. An end before the start lies on the next day."""

    start: int
    end: int

    def holds(self, minute: int) -> bool:
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


def parse_hours(text: str) -> tuple[Window, ...]:
    """No window at all means always. Raises `ConfigRefused`."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if len(parts) > WINDOWS_MAX:
        raise ConfigRefused(f"hours: {len(parts)} windows, at most {WINDOWS_MAX}; join some of them")
    return tuple(_window(part) for part in parts)


def is_open(windows: tuple[Window, ...], now: time) -> bool:
    minute = now.hour * 60 + now.minute
    return not windows or any(window.holds(minute) for window in windows)


def _window(text: str) -> Window:
    match = _WINDOW.fullmatch(text)
    refused = ConfigRefused(f"hours {text[:40]!r}: expected HH:MM-HH:MM in local time, such as 22:00-06:00")
    if match is None:
        raise refused
    start_hour, start_minute, end_hour, end_minute = map(int, match.groups())
    start, end = start_hour * 60 + start_minute, end_hour * 60 + end_minute
    if start_minute > 59 or end_minute > 59 or start >= MINUTES_A_DAY or end > MINUTES_A_DAY or start == end:
        raise refused
    return Window(start=start, end=end)
