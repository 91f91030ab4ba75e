from __future__ import annotations

import pytest
from harness import Mutant, must_catch, run_machine
from rewards_machine import CONTRACT, MUTANTS, REASONS, RewardsMachine
from sources import contract_source

pytestmark = pytest.mark.service

INVARIANTS = ("I4", "I5", "I6", "I7", "I8")
MUTANTS_PER_INVARIANT = 1
"""As many as there is time for here, two seconds of compiling each; the long run plants all of them."""


def some_mutants() -> list[Mutant]:
    by_invariant = [[mutant for mutant in MUTANTS if mutant.invariant == invariant] for invariant in INVARIANTS]
    return [mutant for mutants in by_invariant for mutant in mutants[:MUTANTS_PER_INVARIANT]]


def test_contract_and_model_agree_and_the_invariants_hold() -> None:
    tally = run_machine(RewardsMachine, calls=1_500, seed=1)

    tally.require_both_outcomes()
    assert not set(REASONS) - set(tally.reasons), "these refusals were not seen"


@pytest.mark.parametrize("mutant", some_mutants(), ids=str)
def test_a_planted_bug_is_noticed(mutant: Mutant) -> None:
    must_catch(mutant)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_what_a_planted_bug_replaces_stands_once_in_the_contract(mutant: Mutant) -> None:
    assert contract_source(CONTRACT).count(mutant.before) == 1
