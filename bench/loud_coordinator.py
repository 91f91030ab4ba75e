"""`python -m bench.loud_coordinator FOLDER`: the coordinator with every log that there is, down to debugging lines.

Its event loop reports what is slow, Python what is deprecated, and each of the fourteen steps is a line.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import warnings

from parallelix.coordinator import __main__

ENVIRONMENT = {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"}
"""Read by Python as it starts."""


def main(arguments: list[str]) -> int:
    faulthandler.enable()
    warnings.simplefilter("always")
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
    return __main__.main(arguments)


def command(module: str = "bench.loud_coordinator") -> tuple[str, ...]:
    settings = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    return ("env", *settings, sys.executable, "-m", module)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
