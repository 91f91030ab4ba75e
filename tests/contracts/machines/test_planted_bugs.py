"""Each invariant has bugs that break it, planted one at a time, which the suite must notice: one of each here, all in
the long run."""

from __future__ import annotations

import re

import pytest
from harness import Mutant, MutantSurvived, must_catch, one_of_each_invariant
from mutants import MUTANTS
from sources import REPOSITORY, contract_source

INVARIANTS = [f"I{number}" for number in range(1, 15)]


@pytest.mark.service
@pytest.mark.parametrize("mutant", one_of_each_invariant(MUTANTS), ids=str)
def test_a_planted_bug_is_noticed(mutant: Mutant) -> None:
    must_catch(mutant)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_what_a_planted_bug_replaces_stands_once_in_the_contract(mutant: Mutant) -> None:
    assert contract_source(mutant.contract).count(mutant.before) == 1


def test_every_invariant_has_planted_bugs() -> None:
    assert sorted({mutant.invariant for mutant in MUTANTS}, key=INVARIANTS.index) == INVARIANTS
    assert len({str(mutant) for mutant in MUTANTS}) == len(MUTANTS)


def test_the_documentation_lists_the_invariants_in_their_order() -> None:
    page = (REPOSITORY / "docs" / "contracts.md").read_text()
    assert re.findall(r"^\d+\. \*\*(I\d+)\*\*", page, re.MULTILINE) == INVARIANTS


def test_a_bug_that_a_check_does_not_see_survives() -> None:
    mutant = Mutant(
        invariant="I12",
        name="unseen",
        contract="PRLX",
        before="return amount // TAX_DIVISOR",
        after="return 0 * amount",
        check=lambda: None,
    )
    with pytest.raises(MutantSurvived, match="I12-unseen"):
        must_catch(mutant)


def test_a_check_that_is_broken_itself_notices_nothing() -> None:
    def broken() -> None:
        raise KeyError("a bug of the check's own")

    mutant = Mutant(
        invariant="I12",
        name="broken-check",
        contract="PRLX",
        before="return amount // TAX_DIVISOR",
        after="return 0 * amount",
        check=broken,
    )
    with pytest.raises(KeyError):
        must_catch(mutant)
