from __future__ import annotations

import pytest
from harness import run_machine
from rewards_machine import REASONS, RewardsMachine

pytestmark = pytest.mark.service


def test_contract_and_model_agree_and_the_invariants_hold() -> None:
    tally = run_machine(RewardsMachine, calls=1_500, seed=1)

    tally.require_both_outcomes()
    assert not set(REASONS) - set(tally.reasons), "these refusals were not seen"
