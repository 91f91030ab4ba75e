"""Run the whole test suite: the contracts' part, which only computes, beside all the rest, which mostly waits.

    python scripts/tests.py     exit 0 when both parts passed

The contracts' part gives way to the other, whose processes talk to each other, and is shown when it has ended.
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
NICENESS = 5
# The rest takes a few minutes more at most; contracts that hang must not hang everything.
CONTRACTS_SECONDS_MAX = 1_800


def main() -> int:
    with tempfile.TemporaryFile() as shown, contracts_beside(shown.fileno()) as contracts:
        rest = subprocess.run(pytest("tests", f"--ignore={CONTRACTS}"), cwd=REPOSITORY, check=False).returncode
        beside = ended(contracts)
        shown.seek(0)
        sys.stdout.buffer.write(shown.read())
        sys.stdout.flush()
    print(f"{CONTRACTS}: {verdict(beside)}; all the rest, further up: {verdict(rest)}", flush=True)
    return rest or beside


def pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *arguments]


@contextmanager
def contracts_beside(output: int) -> Generator[subprocess.Popen[bytes]]:
    """The contracts' tests in a process group of their own, which ends with this block whatever happens."""
    command = pytest(CONTRACTS, "-o", "cache_dir=.pytest_cache/contracts")
    with subprocess.Popen(
        ["nice", "-n", str(NICENESS), *command],
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
        return process.wait(CONTRACTS_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return 1


def verdict(code: int) -> str:
    return "passed" if code == 0 else f"failed (pytest exited with {code})"


if __name__ == "__main__":
    sys.exit(main())
