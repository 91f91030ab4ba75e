"""How much CPU a process used, how much memory it holds, and what a node's stopwatch wrote down."""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

_SCHEDULER_CLOCK = 2
_SAMPLE = struct.Struct("<Bd")
KINDS = ("decrypt", "sign", "first", "runtime")
"""What a node's stopwatch measures: its two RSA operations, the runtime to its first token, the runtime whole."""


def cpu_seconds(pid: int) -> float:
    """CPU seconds of all threads that the process has or had, user and system together, in nanosecond steps."""
    return time.clock_gettime(~pid << 3 | _SCHEDULER_CLOCK)


def busy_seconds() -> float:
    """CPU seconds of all cores that were not idle since the machine's start, those stolen by other guests included."""
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class SampleWriter:
    """Appends what was measured to a file, in milliseconds. One write each, so that a reader sees only whole ones."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, kind: str, seconds: float) -> None:
        os.write(self._file, _SAMPLE.pack(KINDS.index(kind), seconds * 1000))


class SampleReader:
    """What writers add to their files from now on."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._offsets = {path: path.stat().st_size if path.exists() else 0 for path in paths}

    def take(self) -> dict[str, list[float]]:
        """Milliseconds by kind, since the last time."""
        samples: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for path, offset in self._offsets.items():
            if path.exists():
                data = path.read_bytes()
                for kind, ms in _SAMPLE.iter_unpack(data[offset:]):
                    samples[KINDS[kind]].append(ms)
                self._offsets[path] = len(data)
        return samples


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    assert values and 0 < share <= 1, (len(values), share)
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)
