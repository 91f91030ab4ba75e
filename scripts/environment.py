"""Make `.venv` from the lock file, on a machine that has Python and nothing else. Quick and silent when it is there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

if sys.version_info < (3, 11):
    sys.exit(
        f"setup: Python 3.11 or newer is needed and {sys.executable} is {sys.version.split()[0]}. "
        "Name another one: make PYTHON=python3.11 setup"
    )

from machine import REPOSITORY, TOOLS, UV, install_debian_packages, run_logged, say

UV_VERSION = "0.13.8"


def main() -> None:
    ensure_uv()
    ensure_environment()


def ensure_uv() -> None:
    if installed_uv_version() == UV_VERSION:
        return
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        install_debian_packages([package], needed_for="the Python environment")
    say(f"installing uv {UV_VERSION} into {TOOLS.name}")
    run_logged("python -m venv", [sys.executable, "-m", "venv", "--clear", TOOLS])
    run_logged("pip install uv", [TOOLS / "bin" / "python", "-m", "pip", "install", f"uv=={UV_VERSION}"])


def installed_uv_version() -> str | None:
    try:
        shown = subprocess.run([UV, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return shown.split()[1]


def ensure_environment() -> None:
    sync = [UV, "sync", "--locked", "--all-extras", "--all-groups", "--no-python-downloads"]
    sync += ["--python", sys.executable]
    if subprocess.run([*sync, "--check", "--quiet"], cwd=REPOSITORY, check=False, capture_output=True).returncode == 0:
        return
    say("bringing .venv to what uv.lock says; the first time this fetches 200 MB")
    run_logged("uv sync", sync, folder=REPOSITORY)


if __name__ == "__main__":
    main()
