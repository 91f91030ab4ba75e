"""The fourteen steps of a request as they happen, for whoever wants to watch: one `request.step` line in the log each.

Off unless the settings say `log_steps`. A line names the request, its attempt, the step and the moment, never the node:
a log that is shown to a requester must not link the two. Steps 8 and 14 have no line: the proof is made on the node,
and the settlement is a posting in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

LogEvent: TypeAlias = Callable[[str, dict[str, Any]], None]

STEPS = (
    "Request",
    "Admit",
    "Match",
    "Encrypt",
    "Dispatch",
    "Decrypt",
    "Execute",
    "PoE",
    "Return",
    "Verify sig",
    "Sample",
    "Anchor",
    "Return result",
    "Settle",
)
"""In order; step n is `STEPS[n - 1]`."""
EVENT = "request.step"


class StepLog:
    """`mark` costs one comparison while it is off."""

    def __init__(self, log: LogEvent, *, enabled: bool) -> None:
        self._log = log
        self.enabled = enabled

    def mark(self, step: int, request_id: str, attempt_number: int = 0, *, at_ms: float | None = None) -> None:
        """`at_ms` is the moment in Unix milliseconds, now by default; 0 for no attempt in particular."""
        if self.enabled:
            fields = {"n": step, "name": STEPS[step - 1], "attempt_number": attempt_number}
            self._log(EVENT, {"request_id": request_id, **fields, "at_ms": now_ms() if at_ms is None else at_ms})


def now_ms() -> float:
    """Unix milliseconds, to the microsecond."""
    return time.time_ns() // 1000 / 1000
