"""`python -m parallelix.coordinator FOLDER`: a coordinator with its data in FOLDER and its log on standard error."""

from __future__ import annotations

import sys
from pathlib import Path

import uvloop

from parallelix.coordinator.app import run
from parallelix.coordinator.logging import make_log
from parallelix.coordinator.ports import ChainNotUsable
from parallelix.coordinator.settings import SettingsError, load
from parallelix.coordinator.store.errors import StoreError


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m parallelix.coordinator FOLDER\n")
        return 2
    try:
        settings = load(Path(arguments[0]))
        uvloop.run(run(settings, log=make_log(sys.stderr), on_ready=_ignore))
    except (ChainNotUsable, SettingsError, StoreError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _ignore(_url: str) -> None:
    """The log says it too."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
