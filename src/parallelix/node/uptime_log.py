"""`~/.parallelix/receipts.jsonl`: the coordinator's countersigned heartbeats, an operator's proof of uptime.

One receipt a line, appended as it comes and not synced: after a power cut the last seconds may be missing here, and the
coordinator has them; what a crash of its own makes it forget is told to it again from here. Whatever a killed daemon
left half-written stays one bad line among good ones.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import msgspec

from parallelix.private_files import FILE_MODE
from parallelix.protocol.messages import UPTIME_PROOFS_MAX, UptimeReceipt

FILE_BYTES_MAX = 8 * 1024 * 1024
OLD_FILES_MAX = 9
"""Some 3 MiB a day: ten files hold four weeks, longer than any settlement is disputed."""

TAIL_BYTES = 64 * 1024
"""Some 180 receipts: three times as many as are ever sent again."""


class UptimeLog:
    """Raises `OSError` where the disk refuses."""

    def __init__(self, home: Path) -> None:
        self._path = home / "receipts.jsonl"
        self._file: BinaryIO | None = None

    def append(self, receipt: UptimeReceipt) -> None:
        file = self._file or self._open()
        if file.tell() >= FILE_BYTES_MAX:
            file = self._rotate()
        file.write(msgspec.json.encode(receipt) + b"\n")

    def recent(self, since_ms: int) -> list[UptimeReceipt]:
        """One receipt for each slot since then, oldest first; the newest `UPTIME_PROOFS_MAX`. Bad lines are passed
        over."""
        lines = [*_tail(self._numbered(1)), *_tail(self._path)]
        receipts = [receipt for receipt in map(_receipt, lines) if receipt is not None]
        by_slot = {receipt.slot: receipt for receipt in receipts if receipt.unix_ms >= since_ms}
        return list(by_slot.values())[-UPTIME_PROOFS_MAX:]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.fdopen(os.open(self._path, flags, FILE_MODE), "r+b", buffering=0)
        os.fchmod(file.fileno(), FILE_MODE)
        if file.seek(0, os.SEEK_END) and _last_byte(file) != b"\n":
            file.write(b"\n")
        self._file = file
        return file

    def _rotate(self) -> BinaryIO:
        self.close()
        for number in range(OLD_FILES_MAX, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        return self._open()

    def _numbered(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"receipts.{number}.jsonl")


def _tail(path: Path) -> list[bytes]:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read(TAIL_BYTES).splitlines()
    except FileNotFoundError:
        return []


def _receipt(line: bytes) -> UptimeReceipt | None:
    try:
        return msgspec.json.decode(line, type=UptimeReceipt)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)
