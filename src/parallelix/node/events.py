"""What the daemon tells its operator: one event, one line of the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

Level: TypeAlias = Literal["info", "warning", "error"]
Value: TypeAlias = str | int | float | bool

SHORT_DIGITS = 8
"""Enough of an id or a hash to find it again among a node's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonEvent:
    """`name` is stable (`served`, `attempt.failed`, `link.down`, `state.transition`, …). Fields never hold a prompt, an
    answer or a secret; `subject` is what the event is about, such as a short unit id."""

    name: str
    subject: str = ""
    level: Level = "info"
    fields: Mapping[str, Value] = field(default_factory=dict[str, Value])


class Reporter:
    """Writes each event to the node's log and hands it to one listener."""

    def __init__(self, log: BoundLogger, listener: Callable[[DaemonEvent], None]) -> None:
        self.log = log
        self._listener = listener

    def tell(self, name: str, *, subject: str = "", level: Level = "info", **fields: Value) -> None:
        self.report(DaemonEvent(name=name, subject=subject, level=level, fields=fields))

    def report(self, event: DaemonEvent) -> None:
        about = {"subject": event.subject} if event.subject else {}
        self.log.log(getattr(logging, event.level.upper()), event.name, **about, **event.fields)
        self.report_unlogged(event)

    def report_unlogged(self, event: DaemonEvent) -> None:
        """For an event that is in the log already, or would fill it."""
        # The terminal or pipe of whoever started the node may be gone, which is no reason to stop serving.
        with suppress(OSError):
            self._listener(event)


def short(identifier: str) -> str:
    """`req_…a3f1c2d4`, `0x9f86d081…`: an id by its end, because ids begin with the time and neighbours look alike."""
    separator = "_" if "_" in identifier else "0x"
    before, found, rest = identifier.partition(separator)
    if len(rest) <= SHORT_DIGITS:
        return identifier
    return f"{before}_…{rest[-SHORT_DIGITS:]}" if found == "_" else f"{before}{found}{rest[:SHORT_DIGITS]}…"
