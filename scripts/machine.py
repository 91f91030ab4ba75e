"""What set-up needs from the machine: Debian packages, a place for caches, a way to speak to the person.

The scripts in this folder run before anything is installed, so they use the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / ".venv-tools"
UV = TOOLS / "bin" / "uv"

PROGRESS_EVERY_SECONDS = 30
LOG_LINES_SHOWN = 40
# A mirror that hangs is worse than one that fails; the slowest step seen took a tenth of this.
COMMAND_SECONDS_MAX = 3600


def say(message: str) -> None:
    print(f"setup: {message}", flush=True)


def stop(*lines: str) -> NoReturn:
    """End set-up with what is wrong and the way out."""
    for line in lines:
        print(f"setup: {line}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def install_debian_packages(packages: Sequence[str], *, needed_for: str) -> None:
    """Install `packages` by apt as root; otherwise print the line to run and stop."""
    if not packages:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        stop(
            f"{needed_for} needs what Debian packages as: {' '.join(packages)}.",
            "This machine has no apt-get: install the same by its own package manager, then run this again.",
        )
    if os.geteuid() != 0:
        stop(
            f"{needed_for} needs Debian packages that are missing: {' '.join(packages)}.",
            "Run this line, then the same make target again:",
            f"    sudo apt-get update && sudo {' '.join(install)}",
        )
    say(f"installing Debian packages for {needed_for}: {' '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # Another apt may hold the lock for a moment (unattended upgrades do).
    wait_for_lock = ["-o", "DPkg::Lock::Timeout=300", "-qq"]
    run_logged("apt-get update", ["apt-get", *wait_for_lock, "update"], environment=environment)
    run_logged("apt-get install", [install[0], *wait_for_lock, *install[1:]], environment=environment)


def run_logged(
    name: str,
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> None:
    """Run a command silently, saying now and then that it still runs; on failure show its last lines and stop."""
    started = time.monotonic()
    with subprocess.Popen(
        list(map(str, command)),
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        output = ""
        while process.returncode is None:
            try:
                output, _ = process.communicate(timeout=PROGRESS_EVERY_SECONDS)
            except subprocess.TimeoutExpired:
                elapsed = time.monotonic() - started
                say(f"  {name}: running for {duration(elapsed)}")
                if elapsed > COMMAND_SECONDS_MAX:
                    process.kill()
    if process.returncode != 0:
        for line in output.splitlines()[-LOG_LINES_SHOWN:]:
            print(f"  | {line}", file=sys.stderr)
        stop(f"{name} failed with exit code {process.returncode}; its last lines are above.")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
