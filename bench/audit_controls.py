"""Coordinators with a fault made on purpose: each must be noticed by what the report checks, or it checks nothing.

Each control takes a seed and how many examples a classifier gets, and says whether the check fails as it must.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import msgspec

from bench import cases, visible
from bench.cases import Case
from bench.communities import play
from bench.verdict_runs import (
    PROMISED_SHARE,
    Deeds,
    acquitted,
    caught,
    executor_life,
    honest_lives,
    outcomes_of,
    with_false_alarms,
)
from parallelix.engine import events
from parallelix.engine.core import Engine
from parallelix.engine.entities import Attempt, Request
from parallelix.engine.settings import EngineSettings
from parallelix.protocol.calibration import DEFAULT_CARD, SpreadAt

FULL_TIME_WITHIN = 90
FALSE_ALARMS = 0.002
"""Of honest audits, how many are taken to end against the node although none was seen to."""
LIVES = 60
HONEST_LIVES = 30
CASES = 150
COMMUNITY_REQUESTS = 400
TOLERANT = msgspec.structs.replace(
    DEFAULT_CARD,
    spreads=tuple(
        SpreadAt(positions=positions, samples=1, median=1.0, q99=1.0, q999=1.0, largest=1.0) for positions in (1, 4, 8)
    ),
)


def never_samples(seed: int, _: int) -> bool:
    result = play("other_model", seed, COMMUNITY_REQUESTS, audits=False)
    return result.removed.get(1, math.inf) > FULL_TIME_WITHIN and result.bad_accepted == result.bad > 0


def accepts_every_distance(seed: int, _: int) -> bool:
    pool = cases.make("quantised", CASES, seed, card=TOLERANT)
    return not any(case.end().executor == "bad" for case in pool) and share_removed(pool, seed) < PROMISED_SHARE


def convicts_at_once(seed: int, _: int) -> bool:
    settings = EngineSettings(chain_id=31337, conviction_millinats=0)
    outcomes = with_false_alarms(outcomes_of(cases.make("honest", CASES, seed)), FALSE_ALARMS)
    lives = honest_lives(settings, outcomes, outcomes, runs=HONEST_LIVES, requests=10_000, seed=seed)
    return acquitted(lives, outcomes, requests=10_000).convicted > 0


def never_convicts(seed: int, _: int) -> bool:
    pool = cases.make("other_model", CASES, seed)
    return share_removed(pool, seed, EngineSettings(chain_id=31337, conviction_millinats=10**9)) < PROMISED_SHARE


def forgets_owners(seed: int, _: int) -> bool:
    return play("colluding 30 %, one owner", seed, COMMUNITY_REQUESTS, make_engine=ForgetfulEngine).same_owner_pairs > 0


def spares_a_friend(seed: int, _: int) -> bool:
    result = play("other_model", seed, COMMUNITY_REQUESTS, make_engine=SparingEngine)
    return result.audits_out_of_place > 0 and 1 not in result.removed


def tells_executors(seed: int, sights: int) -> bool:
    return visible.executors(sights, seed=seed, leaky=True).auc > visible.CONTROL_AUC_MIN


def tells_auditors(seed: int, sights: int) -> bool:
    return visible.auditors(sights, seed=seed, leaky=True).auc > visible.CONTROL_AUC_MIN


CONTROLS: Mapping[str, Callable[[int, int], bool]] = {
    "an engine that never samples": never_samples,
    "thresholds that accept every distance": accepts_every_distance,
    "a bound of 0, at which one disagreement convicts": convicts_at_once,
    "a bound that no evidence comes to": never_convicts,
    "an engine that lets one owner's nodes audit each other": forgets_owners,
    "an engine that spares one node its audits": spares_a_friend,
    "an engine that gives audited units another deadline": tells_executors,
    "a shell that asks at fewer places when it knows the answer": tells_auditors,
}


def share_removed(pool: list[Case], seed: int, settings: EngineSettings | None = None) -> float:
    """Of full-time cheats with these audits, how many are removed as soon as is promised."""
    settings = settings or EngineSettings(chain_id=31337)
    deeds = Deeds(cheats=outcomes_of(pool), honest=())
    lives = [
        executor_life(settings, deeds, random.Random(f"{seed}/{number}"), settled=True, units_max=FULL_TIME_WITHIN)
        for number in range(LIVES)
    ]
    return caught(lives, within=FULL_TIME_WITHIN, units_max=FULL_TIME_WITHIN).share


class ForgetfulEngine(Engine):
    def _owners_of(self, *node_ids: int) -> frozenset[str]:
        return frozenset()


class SparingEngine(Engine):
    def _sample(self, request: Request, attempt: Attempt, facts: events.ExecutionFacts, rate: int) -> list[Request]:
        return [] if attempt.node_id == 1 else super()._sample(request, attempt, facts, rate)
