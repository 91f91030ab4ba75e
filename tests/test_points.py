"""A named point kills at the time that the environment names, and does nothing otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PASS_BY = """
from parallelix.points import reached
for number in range(3):
    reached("here")
    reached("there")
    print(number, flush=True)
"""


@pytest.mark.parametrize(
    ("armed", "printed", "code"),
    [
        ("", "012", 0),
        ("elsewhere", "012", 0),
        ("here", "", -signal.SIGKILL),
        ("there:2", "0", -signal.SIGKILL),
        ("there:4", "012", 0),
    ],
)
def test_a_point_kills_where_it_is_armed(armed: str, printed: str, code: int) -> None:
    environment = {**os.environ, "PARALLELIX_KILL_AT": armed}

    done = subprocess.run([sys.executable, "-c", PASS_BY], env=environment, capture_output=True, text=True, check=False)

    assert ("".join(done.stdout.split()), done.returncode) == (printed, code)
