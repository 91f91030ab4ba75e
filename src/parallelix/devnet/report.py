"""Every figure is a command: it writes one JSON file that says what was measured, where, and that it can fail.

`controls` are deliberate faults that the check must catch. A report whose controls were not all caught, or that has
none, has not passed, whatever it measured.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import msgspec


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A fault made on purpose, and whether the check noticed it."""

    name: str
    caught: bool


class Report:
    """One run of one command, from its start to `write`."""

    def __init__(self, name: str, command: str, *, seed: int | None = None) -> None:
        self.name = name
        self.command = command
        self.seed = seed
        self.controls: list[Control] = []
        self._load_before = _load()

    def control(self, name: str, caught: bool) -> None:
        self.controls.append(Control(name=name, caught=bool(caught)))

    @property
    def controls_hold(self) -> bool:
        return bool(self.controls) and all(control.caught for control in self.controls)

    def document(self, results: Any, passed: bool) -> dict[str, Any]:
        """What `write` writes. `results` is anything that msgspec can encode."""
        return {
            "commit": _commit(),
            "command": self.command,
            "seed": self.seed,
            "machine": machine(),
            "load": {"before": self._load_before, "after": _load()},
            "results": msgspec.to_builtins(results, str_keys=True),
            "controls": msgspec.to_builtins(self.controls),
            "passed": bool(passed) and self.controls_hold,
        }

    def write(self, path: Path, results: Any, passed: bool) -> int:
        """Writes the report and gives the exit code: 0 when it passed and every control was caught, else 1."""
        document = self.document(results, passed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return 0 if document["passed"] else 1


def machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_name(),
        "cores": _cores(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "python": platform.python_version(),
    }


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _load() -> list[float]:
    """Mean number of processes that ran or waited over the last 1, 5 and 15 minutes."""
    return [round(each, 2) for each in os.getloadavg()]


def _commit() -> str:
    """The commit of the working folder, with `+changes` where it was altered; empty outside a repository."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(("git", *arguments), capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()
