"""How surely and how soon evidence convicts, computed exactly: a Markov chain over the sum of the evidence and the
audits passed running, one step for each request. No chance and no simulation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from world import settings

from parallelix.engine.settings import EngineSettings
from parallelix.engine.trust import Evidence, Trust, evidence_of, rate_percent

SETTINGS = settings()
POWER = 0.95
"""Of one audit of a result that was cheated."""
HONEST_SHARE = 0.002
"""Of audits of an honest node that end against it, at worst."""
WEAK_POWER = 0.7
"""Of one whose answers are short and easily guessed."""
RUNS, REQUESTS = 3_000, 10_000


def convicted_within(requests: int, *, share: float, established: bool, chosen: EngineSettings = SETTINGS) -> float:
    """The chance that a node is convicted as an executor within so many requests, of whose audits this share ends
    against it. One that is `established` begins at the floor."""
    evidence = evidence_of(chosen, "executor")
    unit = math.gcd(evidence.against, evidence.in_favour // 2, evidence.bound)
    up, down, bound = evidence.against // unit, evidence.in_favour // unit, evidence.bound // unit
    rates = [each / 100 for each in rates_by_passes(chosen)]
    open_: NDArray[Any] = np.zeros((bound, len(rates)))
    open_[0, -1 if established else 0] = 1.0
    convicted = 0.0
    for _ in range(requests):
        audited = open_ * rates
        against, passed = audited * share, audited * (1 - share)
        after = open_ - audited
        # What was drawn above the floor, which is the last column, counts half.
        half = np.zeros_like(passed)
        half[: -down // 2] = passed[down // 2 :]
        half[0] += passed[: down // 2].sum(axis=0)
        after[:, 1:] += half[:, :-1]
        after[:-down, -1] += passed[down:, -1]
        after[0, -1] += passed[:down, -1].sum()
        convicted += float(against[bound - up :].sum())
        after[up:, 0] += against[: bound - up].sum(axis=1)
        open_ = after
    assert math.isclose(convicted + float(open_.sum()), 1.0, rel_tol=1e-9)
    return convicted


def rates_by_passes(chosen: EngineSettings) -> list[int]:
    """The rate after 0, 1, 2, ... audits passed, up to where it changes no more."""
    rates = [
        rate_percent(passes, passes_per_rate=chosen.passes_per_rate, floor_percent=chosen.sampling_floor_percent)
        for passes in range(100)
    ]
    return rates[: rates.index(chosen.sampling_floor_percent) + 1]


@pytest.mark.parametrize(("share", "expected_at_most"), [(HONEST_SHARE, 0.0001), (2.5 * HONEST_SHARE, 0.03)])
def test_no_honest_node_of_three_thousand_is_ever_convicted(share: float, expected_at_most: float) -> None:
    """Even if the worst share is more than twice what is allowed for."""
    expected = RUNS * convicted_within(REQUESTS, share=share, established=False)
    assert expected < expected_at_most, f"{expected} honest nodes in {RUNS} runs"


def test_who_always_cheats_is_convicted_within_90_requests() -> None:
    assert convicted_within(90, share=POWER, established=True) >= 0.999


def test_who_cheats_on_one_request_in_five_is_convicted_within_459() -> None:
    assert convicted_within(459, share=POWER / 5, established=True) >= 0.999


def test_a_weaker_audit_still_keeps_both_promises() -> None:
    assert convicted_within(90, share=WEAK_POWER, established=True) >= 0.99
    assert convicted_within(459, share=WEAK_POWER / 5, established=True) >= 0.99


def test_six_disagreements_running_convict_nobody_and_the_seventh_does() -> None:
    trust = Trust(SETTINGS)
    for role in ("executor", "auditor"):
        assert [trust.observe(1, role, against=True) for _ in range(7)] == [False] * 6 + [True]  # pyright: ignore[reportArgumentType]
    assert [trust.observe(1, "unusable", against=True) for _ in range(8)] == [False] * 7 + [True]


def test_what_was_passed_while_most_is_looked_at_counts_half() -> None:
    trust = Trust(SETTINGS)
    for rate, left in ((100, 2_940), (20, 2_880), (10, 2_760)):
        trust.of(1).executor_millinats = trust.of(1).executor_millinats or 3_000
        trust.observe(1, "executor", against=False, rate_percent=rate)
        assert trust.of(1).executor_millinats == left


def test_passes_take_back_what_spoke_against_a_node_and_never_make_credit() -> None:
    evidence = Evidence(against=10, in_favour=3, bound=20)
    assert evidence.after(0, against=False) == 0
    assert evidence.after(5, against=False) == 2
    assert evidence.after(2, against=False) == 0
    assert evidence.after(0, against=True) == 10


def test_the_weights_are_the_log_likelihoods_that_they_are_said_to_be() -> None:
    evidence = evidence_of(SETTINGS, "executor")
    honest, cheat = 0.0059, 0.118
    assert evidence.against == pytest.approx(1000 * math.log(cheat / honest), rel=0.01)
    assert evidence.in_favour == pytest.approx(1000 * math.log((1 - honest) / (1 - cheat)), rel=0.02)
    unusable = evidence_of(SETTINGS, "unusable")
    honest, cheat = 0.02, 0.25
    assert unusable.against == pytest.approx(1000 * math.log(cheat / honest), rel=0.01)
    assert unusable.in_favour == pytest.approx(1000 * math.log((1 - honest) / (1 - cheat)), rel=0.06)


@pytest.mark.parametrize(
    ("floor", "rates"),
    [
        (10, [100, 50, 20, 10, 10]),
        (20, [100, 50, 20, 20, 20]),
        (100, [100, 100, 100, 100, 100]),
        (5, [100, 50, 20, 10, 5]),
        (30, [100, 50, 30, 30, 30]),
    ],
)
def test_the_rate_falls_with_what_was_passed_and_never_below_the_floor(floor: int, rates: list[int]) -> None:
    found = [rate_percent(passes, passes_per_rate=10, floor_percent=floor) for passes in (0, 10, 20, 30, 40)]
    assert found == rates
    assert rate_percent(9, passes_per_rate=10, floor_percent=floor) == 100
