"""Coordinators that start in a tenth of the time: forked from a process that has imported everything already.

`python -m bench.nursery MODULE` imports MODULE, then forks a child for each line it reads, which runs `MODULE.main`.
Each child is a whole process of its own with its own environment, and dies alone; it dies with us, however we end.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from parallelix import points
from parallelix.devnet import leash
from parallelix.devnet.processes import POLL_SECONDS, TAIL_BYTES, TAIL_LINES, ProcessError

IMPORT_SECONDS_MAX = 120.0
STOP_SECONDS = 15.0
CHAIN_PART = "parallelix.coordinator.onchain.running"


class Nursery:
    """One process that bears the coordinators of one module, one at a time."""

    def __init__(self, module: str, *, output: Path) -> None:
        leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), ""]
        with output.open("ab") as log:
            self._process = subprocess.Popen(
                [*leashed, sys.executable, "-m", "bench.nursery", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._output = output

    def bear(self, arguments: Sequence[str], *, environment: Mapping[str, str], output: Path) -> Born:
        """A running child; the one before has ended by then. Raises `ProcessError`."""
        order = {"arguments": list(arguments), "environment": dict(environment), "output": str(output)}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ProcessError(f"the nursery has ended:\n{self._output.read_text()[-TAIL_BYTES:]}") from error
        told = self.hear(seconds=IMPORT_SECONDS_MAX)
        if told is None:
            raise ProcessError(f"the nursery bore nothing:\n{self._output.read_text()[-TAIL_BYTES:]}")
        return Born(self, told["pid"], output)

    def hear(self, *, seconds: float) -> dict[str, Any] | None:
        """The next line from the nursery; None when none came in time, or none will."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Born:
    """One child of a nursery."""

    def __init__(self, nursery: Nursery, pid: int, output: Path) -> None:
        self.pid = pid
        self.output = output
        self._nursery = nursery
        self._exit_code: int | None = None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -9 when it was killed by signal 9."""
        self._look(seconds=0)
        return self._exit_code

    @property
    def running(self) -> bool:
        return self.exit_code is None

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._send(signal.SIGKILL)
        self._look(seconds=STOP_SECONDS)

    async def stopped(self) -> int:
        """SIGTERM, then SIGKILL after `STOP_SECONDS`. The exit code."""
        self._send(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self.running and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        self.kill()
        assert self._exit_code is not None, "a process outlived SIGKILL"
        return self._exit_code

    def tail(self) -> str:
        """The last lines of its output."""
        return "\n".join(self.output.read_text(errors="replace")[-TAIL_BYTES:].splitlines()[-TAIL_LINES:])

    def _send(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.pid, number)

    def _look(self, *, seconds: float) -> None:
        if self._exit_code is None:
            told = self._nursery.hear(seconds=seconds)
            if told is not None:
                self._exit_code = told["exit_code"]


# The process itself -------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    (module,) = arguments
    target = importlib.import_module(module)
    # It imports this itself, but only when it learns that it is on a chain.
    importlib.import_module(CHAIN_PART)
    for line in sys.stdin.buffer:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            live(target, order)
        tell({"pid": pid})
        tell({"exit_code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})
    return 0


def tell(what: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def live(target: Any, order: dict[str, Any]) -> NoReturn:
    """The life of a child."""
    code = 70
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(leash.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number, target_number in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(number, target_number)
        os.environ.update(order["environment"])
        # It has read the environment already; and children must not roll the same dice.
        importlib.reload(points)
        random.seed()
        code = target.main(order["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
