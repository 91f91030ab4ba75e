from __future__ import annotations

import re

from harness import run_machine
from locker_machine import LockerMachine
from sources import contract_source

CALLS = 1_500
SEED = 1

NOT_OF_THE_MACHINE = {"locker: zero address", "locker: token transfer failed"}
"""Reasons that take another token, or a deployment that fails: the tests of single functions show them."""


def test_the_locker_does_what_its_model_does() -> None:
    tally = run_machine(LockerMachine, calls=CALLS, seed=SEED)

    tally.require_both_outcomes()
    reasons = set(re.findall(r'"(locker: [^"]+)"', contract_source("NodeRegistryLocker")))
    assert reasons - set(tally.reasons) == NOT_OF_THE_MACHINE
