"""`parallelix-node logs`: the last lines of node.log, and those to come, across rotation.

Nothing is read whole: a tail reads blocks from the end, so that a full log of 10 MiB costs as much as a short one.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from parallelix.node.answers import LogLine
from parallelix.node.logging import LOG_FILES_MAX

LINES_MAX = 1_000_000
"""Above what five full files hold."""
BLOCK_BYTES = 64 * 1024
LINE_BYTES_MAX = 64 * 1024
"""Ours are below 10 KiB; what has no end by then is shown in pieces."""
FOLLOW_SECONDS = 0.25

_PAIR = re.compile(r'([A-Za-z_][A-Za-z0-9_.]*)=("(?:[^"\\]|\\.)*"|[^\s]*)')
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


def tail(log: Path, *, count: int, end_bytes: int | None = None) -> list[str]:
    """The last `count` lines before byte `end_bytes` of the newest file, older files included when it holds fewer."""
    lines = _last_lines(log, count, end_bytes)
    for index in range(1, LOG_FILES_MAX):
        if len(lines) < count:
            lines = _last_lines(log.with_name(f"{log.name}.{index}"), count - len(lines)) + lines
    return lines


def follow(log: Path, *, count: int, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """The last `count` lines, then each line as it is written. Rotation loses none: the old file is read to its end
    before the new one is opened. `pause` waits; the caller ends it by an exception.
    """
    follower = _Follower(log)
    yield from tail(log, count=count, end_bytes=follower.offset)
    while True:
        found = False
        for line in follower.lines():
            found = True
            yield line
        if not found:
            pause(FOLLOW_SECONDS)


def parse_line(line: str) -> LogLine:
    """The line's parts; a line that is not ours becomes an event without a time."""
    stamp, _, rest = line.partition(" ")
    event, _, rest = rest.partition(" ")
    if _TIME.fullmatch(stamp) is None or not event:
        return LogLine(time="", event=line)
    subject = ""
    if rest and _PAIR.match(rest) is None:
        subject, _, rest = _split_subject(rest)
    return LogLine(
        time=stamp, event=event, subject=subject, fields={name: _unquote(value) for name, value in _PAIR.findall(rest)}
    )


class _Follower:
    """The file behind a name: lines that were added, and the change to another file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self._rest = b""
        self._open(from_end=True)

    @property
    def offset(self) -> int:
        return 0 if self._descriptor is None else os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def lines(self) -> Iterator[str]:
        yield from self._drain()
        if self._replaced():
            # Lines may have come between the last read and the rename.
            yield from self._drain()
            self._open(from_end=False)
            yield from self._drain()

    def _open(self, *, from_end: bool) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._identity, self._rest = None, None, b""
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        found = os.fstat(self._descriptor)
        self._identity = (found.st_dev, found.st_ino)
        os.lseek(self._descriptor, 0, os.SEEK_END if from_end else os.SEEK_SET)

    def _replaced(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        if (found.st_dev, found.st_ino) != self._identity:
            return True
        return found.st_size < self.offset

    def _drain(self) -> Iterator[str]:
        while self._descriptor is not None and (block := os.read(self._descriptor, BLOCK_BYTES)):
            *complete, self._rest = (self._rest + block).split(b"\n")
            if len(self._rest) > LINE_BYTES_MAX:
                complete, self._rest = [*complete, self._rest], b""
            for line in complete:
                yield line.decode(errors="replace")


def _last_lines(path: Path, count: int, end_bytes: int | None = None) -> list[str]:
    if count <= 0:
        return []
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return []
    with file:
        position = file.seek(0, os.SEEK_END)
        position = position if end_bytes is None else min(position, end_bytes)
        blocks: list[bytes] = []
        newlines = 0
        while position > 0 and newlines <= count:
            step = min(BLOCK_BYTES, position)
            position = file.seek(position - step)
            blocks.append(file.read(step))
            newlines += blocks[-1].count(b"\n")
    text = b"".join(reversed(blocks)).decode(errors="replace")
    return text.removesuffix("\n").split("\n")[-count:] if text else []


def _split_subject(text: str) -> tuple[str, str, str]:
    quoted = re.match(r'"(?:[^"\\]|\\.)*"', text)
    if quoted is None:
        return text.partition(" ")
    return _unquote(quoted[0]), " ", text[quoted.end() :].lstrip()


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except json.JSONDecodeError:
        return value.strip('"')
