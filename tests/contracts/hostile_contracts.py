"""Contracts of the outside world that tests put in place of honest ones; none of them is ours."""

from __future__ import annotations

import enum
import functools
from pathlib import Path
from typing import Any

import boa

HOSTILE = Path(__file__).resolve().parent / "hostile"


class RewardsMode(enum.IntEnum):
    """What `HostileRewards` does when the locker tells it that a node was retired."""

    OBEY = 0
    REVERT = 1
    BURN_GAS = 2
    ANSWER_AT_LENGTH = 3
    REVERT_AT_LENGTH = 4
    REENTER = 5

    @property
    def is_told(self) -> bool:
        """Whether the call succeeds, and so leaves a trace."""
        return self in (RewardsMode.OBEY, RewardsMode.ANSWER_AT_LENGTH, RewardsMode.REENTER)


class TokenMode(enum.IntEnum):
    """What `HostileToken` does on a transfer; `callBack` sets the last."""

    OBEY = 0
    TAX_IN = 1
    SAY_FALSE = 2
    CALL_BACK = 3


@functools.cache
def hostile_deployer(name: str) -> Any:
    """What deploys `tests/contracts/hostile/<name>.vy`."""
    return boa.loads_partial((HOSTILE / f"{name}.vy").read_text(), name=name, filename=HOSTILE / f"{name}.vy")
