"""Run the whole test suite in two lanes side by side, each a row of pytest runs.

    python scripts/tests.py     exit 0 when every run passed

One lane only computes at first (the contracts) and gives way to the other, whose processes talk to each other; after
that it takes the tests of the figures, so that both take about as long. It is shown when it has ended. The contracts'
tests have a process to themselves: what is imported beside them changes what their machines draw.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager

from machine import REPOSITORY

CONTRACTS = "tests/contracts"
FIGURES = "tests/bench"
NICENESS = 5
# The shown lane takes a few minutes more at most; one that hangs must not hang everything.
LANE_SECONDS_MAX = 1_800


def main() -> int:
    with tempfile.TemporaryFile() as shown, lane_beside(shown.fileno()) as lane:
        rest = subprocess.run(
            pytest("tests", f"--ignore={CONTRACTS}", f"--ignore={FIGURES}"), cwd=REPOSITORY, check=False
        ).returncode
        beside = ended(lane)
        shown.seek(0)
        sys.stdout.buffer.write(shown.read())
        sys.stdout.flush()
    print(f"{CONTRACTS} and {FIGURES}: {verdict(beside)}; all the rest, further up: {verdict(rest)}", flush=True)
    return rest or beside


def pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *arguments]


def quiet_lane() -> int:
    """The runs of the lane that is shown at the end, one after the other; the first failure's code, 0 without any."""
    computing = ["nice", "-n", str(NICENESS), *pytest(CONTRACTS, "-o", "cache_dir=.pytest_cache/contracts")]
    talking = pytest(FIGURES, "-o", "cache_dir=.pytest_cache/figures")
    codes = [subprocess.run(command, cwd=REPOSITORY, check=False).returncode for command in (computing, talking)]
    return next((code for code in codes if code), 0)


@contextmanager
def lane_beside(output: int) -> Generator[subprocess.Popen[bytes]]:
    """The quiet lane in a process group of its own, which ends with this block whatever happens."""
    with subprocess.Popen(
        [sys.executable, __file__, "--quiet-lane"],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def ended(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(LANE_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return 1


def verdict(code: int) -> str:
    return "passed" if code == 0 else f"failed (pytest exited with {code})"


if __name__ == "__main__":
    sys.exit(quiet_lane() if sys.argv[1:] == ["--quiet-lane"] else main())
