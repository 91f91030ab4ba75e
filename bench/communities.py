"""Whole populations with a cheat or several among them, played on the real engine for a number of requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bench.behaviours import AUDITING, EXECUTING
from bench.population import Effort, Population, Spec

NODES = 20
"""Of a population of honest ones."""
WITH_CHEATS = 10
"""Nodes of a population with cheats, so that each has enough to do."""
LEAGUE = 3
"""Of these, nodes that cheat and cover each other: 30 %."""
SETTLED_UNITS = 35
"""Answered honestly before a settled cheat begins: with `passes_per_rate` at 2 it is at the floor by then, or near."""
SLOWNESS = 5.0
OFFLINE_LOAD = 0.005
"""So few requests that challenges have to show who is slow."""
Maker = Callable[[], list[Spec]]


class Community(msgspec.Struct, frozen=True, kw_only=True):
    """Who lives in it. `cheats` are the nodes that are to be removed, or benched; `changes` is for the engine."""

    make: Maker
    cheats: tuple[int, ...] = (1,)
    load: float = 0.6
    changes: dict[str, Any] = {}
    benches: bool = False


def _with(*first: Spec) -> Maker:
    return lambda: [*first, *(Spec(node_id=node_id) for node_id in range(len(first) + 1, WITH_CHEATS + 1))]


def _pair() -> list[Spec]:
    """Two owners: one cheats, the other audits it by repeating its claims."""
    return _with(Spec(node_id=1, behaviour="colluding"), Spec(node_id=2, partners=frozenset({1})))()


def _league() -> list[Spec]:
    everybody = frozenset(range(1, LEAGUE + 1))
    return _with(
        *(Spec(node_id=node, behaviour="colluding", partners=everybody - {node}) for node in range(1, LEAGUE + 1))
    )()


def _one_owner() -> list[Spec]:
    """The same league, staked by one owner: nobody in it ever audits another."""
    everybody = frozenset(range(1, LEAGUE + 1))
    league = (
        Spec(node_id=node, behaviour="colluding", owner=1, partners=everybody - {node}) for node in range(1, LEAGUE + 1)
    )
    return _with(*league)()


COMMUNITIES: Mapping[str, Community] = {
    **{
        name: Community(make=_with(Spec(node_id=1, behaviour=name)))
        for name in (*EXECUTING, *AUDITING)
        if name != "colluding"
    },
    "other_model, settled": Community(
        make=_with(Spec(node_id=1, behaviour="other_model", patience=SETTLED_UNITS)), changes={"passes_per_rate": 2}
    ),
    "other_model, one in five": Community(make=_with(Spec(node_id=1, behaviour="other_model", share=0.2))),
    "colluding pair": Community(make=_pair),
    "colluding 30 %": Community(make=_league, cheats=tuple(range(1, LEAGUE + 1))),
    "colluding 30 %, one owner": Community(make=_one_owner, cheats=tuple(range(1, LEAGUE + 1))),
    "slow": Community(make=_with(Spec(node_id=1, slowness=SLOWNESS)), load=OFFLINE_LOAD, benches=True),
    "takes up nothing": Community(make=_with(Spec(node_id=1, deaf=True)), load=OFFLINE_LOAD, benches=True),
}


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What one population came to. `removed` holds a cheat's units until its removal, or until it was benched its
    minutes; who is not in it was neither."""

    requests: int
    removed: dict[int, float]
    honest_removed: int
    bad: int
    bad_accepted: int
    good_overturned: int
    same_owner_pairs: int
    audits_out_of_place: int
    audits: int
    unaudited: int
    not_completed: int


def play(name: str, seed: int, requests: int, **faulty: Any) -> Played:
    """`faulty` makes a control of it: another engine, or other settings."""
    community = COMMUNITIES[name]
    population = Population(community.make(), seed=seed, load=community.load, **{**community.changes, **faulty})
    return played(population, community, requests)


def played(population: Population, community: Community, requests: int) -> Played:
    tally = population.run(requests)
    cheats = set(community.cheats)
    honest = population.specs.keys() - cheats
    if community.benches:
        removed = {node: ms / 60_000 for node, ms in tally.benched_after_ms.items() if node in cheats}
    else:
        removed = {node: float(units) for node, units in tally.removed_after.items() if node in cheats}
    return Played(
        requests=requests,
        removed=removed,
        honest_removed=len(honest & (tally.removed_after.keys() | tally.benched_after_ms.keys())),
        bad=tally.bad_done,
        bad_accepted=tally.accepted_bad,
        good_overturned=tally.good_overturned,
        same_owner_pairs=tally.same_owner_pairs,
        audits_out_of_place=tally.audits_out_of_place,
        audits=tally.verdicts.total(),
        unaudited=sum(count for (verdict, _), count in tally.verdicts.items() if verdict == "unaudited"),
        not_completed=tally.states.total() - tally.states["completed"],
    )


class HonestPlayed(msgspec.Struct, frozen=True, kw_only=True):
    played: Played
    work: tuple[int, int, int, int]
    """An `Effort`: units, tokens read, read anew, written."""
    audits: tuple[int, int, int, int]


def play_honest(seed: int, requests: int) -> HonestPlayed:
    """Everybody is honest, and no two machines compute quite alike."""
    community = Community(make=lambda: [Spec(node_id=node) for node in range(1, NODES + 1)], cheats=())
    population = Population(community.make(), seed=seed, load=community.load)
    whole = played(population, community, requests)
    tally = population.tally
    return HonestPlayed(played=whole, work=_numbers(tally.work), audits=_numbers(tally.audits))


def _numbers(effort: Effort) -> tuple[int, int, int, int]:
    return effort.units, effort.read, effort.read_anew, effort.written
