"""The population simulator in small: cheats are caught, the honest are not, nobody can tell; each fault is noticed."""

from __future__ import annotations

import math
import random

import pytest

from bench import cases, classifiers, intervals, plots, verdict_runs, visible
from bench.audit_controls import CONTROLS, FALSE_ALARMS
from bench.audit_jobs import (
    PROMISED,
    REAL,
    REAL_PROMISED,
    SETTINGS,
    UNUSABLE_ALARMS,
    Variation,
    pools_of,
    real_pools,
    variations,
)
from bench.audit_report import Acquitted, Community, Cost, Populations, Results, table
from bench.communities import NODES, play, play_honest
from bench.plots import Axis, Line
from bench.population import Population, Spec
from bench.verdict_runs import Caught, Deeds, Outcome
from bench.visible import Indistinct

CASES = 60
LIVES = 40
SIGHTS = 600
WIDTH = 80
HONEST = Outcome((("executor", False), ("unusable", False)), passed=True, disagreed=False)

# Single audits and lives under trust and verdicts alone -------------------------------------------------------------


@pytest.mark.parametrize("cheat", PROMISED)
def test_a_full_time_cheat_is_removed_within_90_requests_also_when_it_begins_at_the_floor(cheat: str) -> None:
    outcomes = verdict_runs.outcomes_of(cases.make(cheat, CASES, seed=1))
    deeds = Deeds(cheats=outcomes, honest=())
    for settled in (False, True):
        lives = [
            verdict_runs.executor_life(SETTINGS, deeds, random.Random(number), settled=settled, units_max=1_000)
            for number in range(LIVES)
        ]
        found = verdict_runs.caught(lives, within=90, units_max=1_000)
        assert found.share >= 0.95, (cheat, settled, found)


def test_one_that_cheats_on_one_request_in_five_is_removed_within_459() -> None:
    deeds = Deeds(cheats=verdict_runs.outcomes_of(cases.make("other_model", CASES, seed=1)), honest=[HONEST], share=0.2)
    lives = [
        verdict_runs.executor_life(SETTINGS, deeds, random.Random(number), settled=True, units_max=1_000)
        for number in range(LIVES)
    ]
    assert verdict_runs.caught(lives, within=459, units_max=1_000).share >= 0.95


def test_lazy_auditors_are_overruled_and_their_executors_acquitted() -> None:
    for name in ("lazy_auditor", "lazy_small_auditor"):
        made = cases.make(name, CASES, seed=1)
        assert sum(case.end().auditor == "bad" for case in made) > 0.8 * CASES
        assert not any(case.end().executor == "bad" for case in made)


def test_honest_nodes_are_never_convicted_even_with_more_false_alarms_than_were_measured() -> None:
    made = cases.make("honest", CASES, seed=1)
    assert {case.end().verdict for case in made} == {"agree"}
    honest = verdict_runs.with_false_alarms(verdict_runs.outcomes_of(made * 20), FALSE_ALARMS)
    honest = verdict_runs.with_false_alarms(honest, UNUSABLE_ALARMS, role="unusable")
    lives = verdict_runs.honest_lives(SETTINGS, honest, [HONEST], runs=100, requests=10_000, seed=1)
    found = verdict_runs.acquitted(lives, honest, requests=10_000)
    assert found.convicted == 0 and found.bad_marks_in_audits > FALSE_ALARMS
    # Nearly all at the floor, and never below it.
    assert 950 * 100 < found.audits < 1_400 * 100


def test_false_alarms_are_as_many_as_asked_for() -> None:
    alarmed = verdict_runs.with_false_alarms([HONEST] * 990, 0.01)
    assert sum(bad for each in alarmed for _, bad in each.marks) == 10 and len(alarmed) == 1_000


def test_who_covers_each_other_is_found_out_less_often() -> None:
    made = {name: cases.make(name, 20, seed=1) for name in ("colluding_auditor", "colluding_third", "other_model")}
    pools = pools_of(made, seed=1)
    bad = {
        name: sum(any(bad for _, bad in each.marks) for each in outcomes) / len(outcomes)
        for name, outcomes in pools.executors.items()
    }
    assert bad["colluding_auditor"] == bad["colluding_third"] == 0
    assert bad["other_model"] > 0.9
    assert bad["colluding 30 %"] == pytest.approx(0.7 * 0.7 * bad["other_model"], abs=0.04)


def test_cheats_are_found_out_as_often_as_audits_of_real_models_find_them() -> None:
    pools = real_pools()
    assert {each.cheat for each in variations() if each.real} <= pools.keys()
    against = {name: sum(("executor", True) in each.marks for each in pool) / len(pool) for name, pool in pools.items()}
    assert against["real: noise"] > 0.95 and against["real: honest, same file"] == 0
    assert against["real: rescored text"] < against["real: other model"]


def test_all_that_is_promised_has_its_variations() -> None:
    promised = [each for each in variations() if each.promised]
    everyone = {*PROMISED, *(REAL + arm for arm in REAL_PROMISED)}
    assert {each.cheat for each in promised if each.share == 1.0} == everyone
    assert {each.cheat for each in promised if each.share == 0.2} == everyone - {"truncated"}
    assert {each.within for each in promised if each.share == 1.0} == {90}
    assert {each.within for each in promised if each.share == 0.2} == {459}
    assert Variation(cheat="noise", share=0.2, settled=True).name == "noise, one in five, settled"


# Whole populations on the engine ------------------------------------------------------------------------------------


def test_a_population_of_honest_nodes_loses_nobody_and_each_draw_has_its_audit() -> None:
    found = play_honest(1, 600)
    whole = found.played
    assert whole.honest_removed == whole.good_overturned == whole.not_completed == 0
    assert whole.same_owner_pairs == whole.audits_out_of_place == whole.unaudited == 0
    assert whole.audits >= 10 * NODES


def test_a_cheat_among_honest_nodes_is_removed_and_nobody_else() -> None:
    found = play("other_model", 1, 400)
    assert found.removed[1] <= 90 and found.honest_removed == found.good_overturned == 0
    # Refunded, but for what was accepted while the verdicts were on their way.
    assert found.bad > 0 and found.bad_accepted <= 4


def test_a_lazy_auditor_is_removed_and_those_it_accused_are_not() -> None:
    specs = [Spec(node_id=1, behaviour="lazy_auditor"), *(Spec(node_id=node_id) for node_id in range(2, 7))]
    tally = Population(specs, seed=1).run(300, until=lambda tally: bool(tally.removed_after))
    assert tally.removed_as == {1: "auditor"} and set(tally.removed_after) == {1}
    assert tally.good_overturned == 0


def test_a_league_is_broken_up_and_nodes_of_one_owner_never_meet_in_an_audit() -> None:
    for name in ("colluding 30 %", "colluding 30 %, one owner"):
        found = play(name, 1, 400)
        assert len(found.removed) == 3 and found.honest_removed == found.same_owner_pairs == 0, (name, found)


def test_who_is_slow_and_who_takes_up_nothing_stops_counting_as_online() -> None:
    for name in ("slow", "takes up nothing"):
        found = play(name, 1, 300)
        assert 1 in found.removed and found.honest_removed == 0, (name, found)


# What nodes can tell ------------------------------------------------------------------------------------------------


def test_executors_cannot_tell_what_will_be_audited() -> None:
    found = visible.executors(SIGHTS, seed=1, nodes=10)
    assert found.ci95[0] <= visible.AUC_MAX and found.examples == SIGHTS and found.positives > SIGHTS / 20


def test_auditors_cannot_tell_prepared_audits() -> None:
    found = visible.auditors(SIGHTS, seed=1, nodes=10)
    assert found.ci95[0] <= visible.AUC_MAX and found.examples == SIGHTS and found.positives > SIGHTS / 5


@pytest.mark.parametrize("name", CONTROLS)
def test_a_faulty_coordinator_is_noticed(name: str) -> None:
    assert CONTROLS[name](1, SIGHTS)


# Statistics ---------------------------------------------------------------------------------------------------------


def test_exact_intervals_are_those_of_the_books() -> None:
    # Clopper and Pearson for 5 of 10; the rule of three.
    assert intervals.clopper_pearson(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)
    assert intervals.at_most(0, 3_000) == pytest.approx(3 / 3_000, rel=0.002)
    assert intervals.clopper_pearson(0, 0) == (0.0, 1.0)
    assert intervals.clopper_pearson(20, 20)[1] == 1.0
    low, high = intervals.clopper_pearson(990, 1_000)
    assert low < 0.99 < high


def test_quantiles_and_areas() -> None:
    assert intervals.quantile([3, 1, 2, math.inf], 0.5) == 2
    assert intervals.quantile([3, 1, 2, math.inf], 0.99) == math.inf
    assert intervals.auc([1, 2, 3, 4], [False, False, True, True]) == 1.0
    assert intervals.auc([1, 1, 1, 1], [False, True, False, True]) == 0.5
    assert intervals.auc([4, 3, 2, 1], [False, False, True, True]) == 0.0


@pytest.mark.parametrize("name", classifiers.FITS)
def test_a_classifier_finds_what_is_there_and_nothing_else(name: str) -> None:
    chance = random.Random(1)
    labels = [chance.random() < 0.3 for _ in range(800)]
    noise = [[chance.gauss(0, 1) for _ in range(4)] for _ in labels]
    scores = classifiers.out_of_fold(classifiers.FITS[name], noise, labels, seed=1)
    assert abs(intervals.auc(scores, labels) - 0.5) < 0.07
    shifted = [[row[0] + 3 * label, *row[1:]] for row, label in zip(noise, labels, strict=True)]
    scores = classifiers.out_of_fold(classifiers.FITS[name], shifted, labels, seed=1)
    assert intervals.auc(scores, labels) > 0.95


def test_trees_find_a_band_that_a_line_does_not() -> None:
    chance = random.Random(2)
    labels = [chance.random() < 0.3 for _ in range(800)]
    rows = [[chance.gauss(0, 0.1) if label else chance.choice((-2, 2)) + chance.gauss(0, 0.1)] for label in labels]
    found = classifiers.separation(["band"], rows, labels, seed=1)
    assert found.classifier == "boosted trees" and found.auc > 0.95


# The report ---------------------------------------------------------------------------------------------------------


def results(**changed: object) -> Results:
    """Some, and all that is promised is there."""
    caught = verdict_runs.caught(
        [verdict_runs.Life(removed_after=9, audited=9)] * 10, within=90, units_max=100, promised=True
    )
    told = Indistinct(auc=0.5, ci95=(0.45, 0.55), classifier="", examples=1, positives=1, strongest={})
    lives = [verdict_runs.Life(removed_after=None, audited=9)] * 3_000
    fields: dict[str, object] = {
        "cheats": {each.name: caught for each in variations()},
        "auditors": {"lazy_small_auditor": caught},
        "honest": verdict_runs.acquitted(lives, [HONEST], requests=10_000),
        "cost_share": 0.05,
        "cost": {"GPU": Cost(prefill_ms_per_token=1, decode_ms_per_token=1, share=0.05, share_anew=0.12)},
        "auc_executor": 0.55,
        "auc_auditor": 0.55,
        "executor": told,
        "auditor": told,
        "populations": populations(),
        "seconds": 1.0,
        **changed,
    }
    return Results(**fields)  # pyright: ignore[reportArgumentType]


def populations(**changed: int) -> Populations:
    one = Community(
        runs=20, cheats=6, removed=120, removed_within={"p50": 1440.0}, bad=10_000, bad_accepted=9_999, honest_removed=0
    )
    numbers = {
        "honest_runs": 20,
        "honest_requests": 1,
        "honest_nodes_removed": 0,
        "honest_overturned": 0,
        "requests": 1,
        "audits": 1,
        "unaudited": 0,
        "not_completed": 0,
        "same_owner_pairs": 0,
        "audits_out_of_place": 0,
        **changed,
    }
    return Populations(with_cheats={"colluding 30 %, one owner": one}, **numbers)


def test_the_table_fits_a_terminal() -> None:
    lines = table(results(), dict.fromkeys(CONTROLS, True)).splitlines()
    assert max(map(len, lines)) <= WIDTH, max(lines, key=len)


def late() -> Caught:
    lives = [verdict_runs.Life(removed_after=91, audited=9)] + [verdict_runs.Life(removed_after=9, audited=9)] * 49
    return verdict_runs.caught(lives, within=90, units_max=100, promised=True)


def convicted() -> Acquitted:
    lives = [verdict_runs.Life(removed_after=5, audited=5)]
    return verdict_runs.acquitted(lives, [HONEST], requests=10)


@pytest.mark.parametrize(
    "changed",
    [
        {"cheats": {"noise": late()}},
        {"honest": convicted()},
        {"cost_share": 0.0501},
        {"auc_executor": 0.551},
        {"auc_auditor": 0.551},
        {"populations": populations(honest_nodes_removed=1)},
        {"populations": populations(same_owner_pairs=1)},
        {"populations": populations(audits_out_of_place=1)},
    ],
)
def test_what_is_promised_and_not_there_is_a_shortfall(changed: dict[str, object]) -> None:
    assert results().shortfalls() == []
    assert len(results(**changed).shortfalls()) == 1


def test_a_chart_draws_each_line_within_its_frame() -> None:
    x = Axis(title="requests", low=1, high=1_000, ticks=(1, 1_000), log=True)
    y = Axis(title="share", low=0, high=1, ticks=(0, 1))
    drawn = plots.chart("<title>", x, y, [Line(name="a & b", points=[(1, 0), (10_000, 2)])])
    assert "&lt;title&gt;" in drawn and "a &amp; b" in drawn
    assert f"M{plots.LEFT}.0 {plots.HEIGHT - plots.BOTTOM}.0L{plots.WIDTH - plots.RIGHT}.0 {plots.TOP}.0" in drawn
