"""Make `.venv` from the lock file, on a machine that has Python and nothing else. Quick and silent when it is there."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

if sys.version_info < (3, 11):
    sys.exit(
        f"setup: Python 3.11 or newer is needed and {sys.executable} is {sys.version.split()[0]}. "
        "Name another one: make PYTHON=python3.11 setup"
    )

from machine import REPOSITORY, TOOLS, UV, install_debian_packages, run_logged, say, stop

UV_VERSION = "0.13.8"


def main() -> None:
    adopt_certificates()
    ensure_uv()
    ensure_environment()


def adopt_certificates() -> None:
    """pip and npm do not read SSL_CERT_FILE as uv and Go do; without this a private authority works for half of us."""
    authority = os.environ.get("SSL_CERT_FILE")
    if authority:
        os.environ.setdefault("PIP_CERT", authority)
        os.environ.setdefault("NODE_EXTRA_CA_CERTS", authority)
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")


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
    say("installing the locked Python packages into .venv")
    if subprocess.run(sync, cwd=REPOSITORY, check=False).returncode != 0:
        stop("uv sync failed; what it said is above. If uv.lock is out of date, run: .venv-tools/bin/uv lock")


if __name__ == "__main__":
    main()
