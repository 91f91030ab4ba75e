"""The coordinator's log: one JSON object a line, to a stream. Never a prompt, an answer or a key."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TextIO

import structlog

LogEvent = Callable[[str, dict[str, Any]], None]

_WARNINGS = frozenset(
    {
        "anchor.failed",
        "anchor.halted",
        "anchor.refused",
        "attempt.rejected",
        "chain.failed",
        "chain.halted",
        "intent.failing",
        "intent.nonce_taken",
        "intent.refused",
        "intent.stuck",
        "intent.too_dear",
        "liveness.refused",
        "node.benched",
        "node.flagged",
        "node.removed",
        "registry.unreadable",
        "request.failed",
        "sampling.foreign",
        "settle.refused",
        "settle.short",
    }
)


def make_log(stream: TextIO) -> LogEvent:
    """A function `log(event, fields)`. Warnings are what an operator of the network should look at."""
    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )

    def log(name: str, fields: dict[str, Any]) -> None:
        (logger.warning if name in _WARNINGS else logger.info)(name, **fields)

    return log
