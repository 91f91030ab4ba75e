"""Named points at which a test lets the process die as kill -9 does; inert unless the environment arms one.

`PARALLELIX_KILL_AT=outbox.sent` kills at the first call with that name, `outbox.sent:3` at the third.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "PARALLELIX_KILL_AT"
_name, _, _times = os.environ.get(VARIABLE, "").partition(":")
_passed: Counter[str] = Counter()


def reached(name: str) -> None:
    """Returns, except at the point and the time that the environment names: there the process is gone at once."""
    if name != _name:
        return
    _passed[name] += 1
    if _passed[name] >= int(_times or 1):
        os.kill(os.getpid(), signal.SIGKILL)
