"""`node.log`: one line an event, `<UTC time> <event> [subject] key=value …`, rotated at a bound.

    2026-11-21T08:00:03.117Z start node=4217 mode=gpu model=llama3.2
    2026-11-21T08:00:09.402Z served req_a3f1 model=llama3.2 ms=47 poe=0x9c27…

A field named `subject` is printed bare after the event. Only the names in `FIELDS` are ever written: prompts, answers
and secrets have no name there, so a careless call shows `name=(withheld)` instead of a requester's text.
"""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from parallelix.node.home import Home
from parallelix.private_files import FILE_MODE

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.stdlib import BoundLogger

LOG_BYTES_MAX = 10 * 1024 * 1024
LOG_FILES_MAX = 5
"""Five files of 10 MiB hold about 400,000 requests, days at full load, and can never fill an operator's disk."""
VALUE_CHARACTERS_MAX = 300
"""Longer than any identifier, hash or refusal of ours; a longer value is somebody's text."""

LOGGER_NAME = "parallelix.node"
SUBJECT = "subject"
WITHHELD = "(withheld)"

FIELDS = frozenset({
    SUBJECT, "attempt", "attempt_number", "backoff_seconds", "bytes", "cause", "code", "completion_tokens",
    "connection", "coordinator", "count", "deadline_seconds", "delay_seconds", "digest", "error", "exit_code", "finish",
    "heartbeats", "hours", "level", "message", "mode", "model", "models", "ms", "node", "offset_bytes", "offset_ms",
    "outcome", "pid", "poe", "prompt_tokens", "rate_percent", "reason", "region", "return_ms", "running", "runtime",
    "served", "session", "signal", "slot", "slots", "slots_free", "source", "status", "target", "tier", "tokens",
    "unit", "until", "version", "wait_seconds", "workload_class",
})  # fmt: skip

_BARE = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f]+")
_CONTROL = re.compile(r"[\x7f-\x9f\u2028\u2029]")


def node_logger() -> BoundLogger:
    """The one logger of the node. Writes nowhere until `open_log` was called."""
    import structlog

    return structlog.wrap_logger(
        logging.getLogger(LOGGER_NAME),
        processors=[_bound_level, _withhold, _render],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def open_log(home: Home, *, echo: bool = False) -> BoundLogger:
    """Sends the node's log to `node.log`, and to standard output as well when `echo`."""
    logger = logging.getLogger(LOGGER_NAME)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.addHandler(PrivateRotatingHandler(home.log))
    if echo:
        logger.addHandler(_Echo(sys.stdout))
    for handler in logger.handlers:
        handler.setFormatter(_MessageOnly())
    return node_logger()


class _NeverInTheWay(logging.Handler):
    """A full disk or a closed pipe costs lines of the log, and never the node."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Not even a traceback on standard error, which would come with every line."""


class _Echo(_NeverInTheWay, logging.StreamHandler[TextIO]):
    pass


class PrivateRotatingHandler(_NeverInTheWay, logging.handlers.RotatingFileHandler):
    """Log files belong to the operator alone: 0600 whatever the umask, never through a link."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES_MAX - 1, encoding="utf-8")

    def _open(self) -> io.TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags, FILE_MODE)
        os.fchmod(descriptor, FILE_MODE)
        return io.TextIOWrapper(io.FileIO(descriptor, "a"), encoding="utf-8", line_buffering=True)


class _MessageOnly(logging.Formatter):
    """No traceback: the text of a foreign exception may quote what it was given."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage()


def format_line(unix_seconds: float, event: str, fields: MutableMapping[str, Any]) -> str:
    """One line of the log, without its end."""
    stamp = datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    subject = fields.get(SUBJECT)
    parts = [stamp, event, *([] if subject is None else [_quote(subject)])]
    parts += [f"{name}={_quote(value)}" for name, value in fields.items() if name != SUBJECT]
    return " ".join(parts)


def _bound_level(_logger: Any, method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    fields.pop("exc_info", None)
    if method not in ("info", "debug"):
        fields["level"] = "error" if method == "exception" else method
    return fields


def _withhold(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in fields:
        if name not in FIELDS and name != "event":
            fields[name] = WITHHELD
    return fields


def _render(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> str:
    event = str(fields.pop("event", ""))
    return format_line(time.time(), event, fields)


def _quote(value: object) -> str:
    """As in logfmt: a JSON string where a space or quote would split it; nothing that could steer a terminal."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) > VALUE_CHARACTERS_MAX:
        text = text[:VALUE_CHARACTERS_MAX] + "…"
    if _BARE.fullmatch(text):
        return text
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
