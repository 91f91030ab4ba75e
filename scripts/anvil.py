"""Find anvil, a real chain on this machine for the tests, or install it from npm into the cache.

    python3 scripts/anvil.py find     print its path; exit 1 when there is none
    python3 scripts/anvil.py ensure   install it into the cache when there is none

Looked for in this order: ANVIL_BIN, the cache. Another one on PATH is not used: chains differ from version to version.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import npm
from machine import stop

VERSION = "1.7.1"
# What @foundry-rs/anvil itself would choose among; for those without a sum the registry's own has to do.
SUMS = {
    "darwin-amd64": None,
    "darwin-arm64": None,
    "linux-amd64": "+XmShybEaxfCrr0OUUZwYEy2OnYZt5pHH9TzBtLv3+VrK0O/ANuNSVEahqNhKHlgX7GRJ59383ofNhxkRWIYTg==",
    "linux-arm64": None,
}
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def find() -> Path | None:
    named = os.environ.get("ANVIL_BIN")
    if named:
        if works(Path(named)):
            return Path(named)
        stop(f"ANVIL_BIN={named} is not an anvil that runs: correct or unset it.")
    cached = folder() / "anvil" / "bin" / "anvil"
    return cached if os.access(cached, os.X_OK) else None


def folder() -> Path:
    return npm.cache_folder("anvil") / VERSION


def works(binary: Path) -> bool:
    try:
        shown = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return shown.lower().startswith("anvil")


def ensure() -> None:
    if find() is not None:
        return
    machine = f"{platform.system().lower()}-{ARCHITECTURES.get(platform.machine().lower(), platform.machine())}"
    if machine not in SUMS:
        stop(f"there is no anvil for {machine} on npm: build one, and let ANVIL_BIN name it")
    npm.ensure(folder(), {"anvil": npm.Package(f"@foundry-rs/anvil-{machine}", VERSION, SUMS[machine])})
    binary = folder() / "anvil" / "bin" / "anvil"
    if not works(binary):
        stop(f"{binary} does not run on this machine: build one that does, and let ANVIL_BIN name it")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["find"]:
            found = find()
            if found is None:
                sys.exit(1)
            print(found)
        case ["ensure"]:
            ensure()
        case _:
            stop(f"unknown arguments {arguments}: give find or ensure")


if __name__ == "__main__":
    main(sys.argv[1:])
