"""Child processes that never outlive us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from parallelix.devnet import leash

POLL_SECONDS = 0.02
STOP_SECONDS = 15.0
"""For a daemon that finishes what it runs. What is still there afterwards is killed."""
TAIL_LINES = 15
TAIL_BYTES = 16 * 1024


class ProcessError(Exception):
    """A process did not do what was asked of it. The message ends with the end of its output."""


class Child:
    """One process and where its output goes. It is the leader of a group, so that Ctrl-C reaches only its parent."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        output: Path,
        environment: Mapping[str, str] | None = None,
        cpus: Collection[int] = (),
        gentle: bool = False,
    ) -> None:
        """`environment` adds to ours. `cpus` are the only ones it may use, on Linux; empty: all. A `gentle` end is by
        SIGTERM, when we are killed.

        Call it in the main thread: Linux ends the child with the thread that started it.
        """
        self.name = name
        self.output = output
        parent = f"{os.getpid()}:{signal.SIGTERM:d}" if gentle else str(os.getpid())
        leashed = [sys.executable, "-I", "-S", leash.__file__, parent, ",".join(map(str, cpus)), *command]
        with output.open("ab") as log:
            self._process = subprocess.Popen(
                leashed,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -9 when it was killed by signal 9."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Nothing happens to a process that has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, at once; returns when it is gone. What it had started is left to notice by itself."""
        self._process.kill()
        self._process.wait()

    async def stopped(self, *, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, then SIGKILL for what is left of its group after `seconds`. The exit code."""
        self.send(signal.SIGTERM)
        try:
            for _ in range(round(seconds / POLL_SECONDS)):
                if not self.running:
                    break
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._kill_group()
        return self._process.wait()

    def tail(self) -> str:
        """The last lines of its output."""
        with self.output.open("rb") as file:
            file.seek(max(0, self.output.stat().st_size - TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL_LINES:])

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            """Nobody is left; macOS says it with the other error."""
