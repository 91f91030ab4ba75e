"""Whether a node can tell what it must not know: that a result will be audited, or that an audit is a prepared one.

A classifier is given everything that a node saw, in a population whose nodes have all come to the floor. It must find
nothing, and find at once what faulty coordinators give away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bench.classifiers import separation
from bench.population import Population, Sight, Spec
from parallelix.coordinator.auditing import Audit, Auditing, Execution
from parallelix.engine import effects
from parallelix.engine.core import Engine
from parallelix.engine.entities import Attempt, Request
from parallelix.engine.pool import Node
from parallelix.protocol.sampling import DRAW_BITS
from parallelix.protocol.work import Probes

NODES = 20
AUC_MAX = 0.55
CONTROL_AUC_MIN = 0.9
WARM_UP = 120
"""Requests for each node until it has passed the audits that bring it to the floor."""
SHOWN_FEATURES = 5


class Indistinct(msgspec.Struct, frozen=True, kw_only=True):
    """How well the better of two classifiers did, with each feature's own area for those that stand out most."""

    auc: float
    ci95: tuple[float, float]
    classifier: str
    examples: int
    positives: int
    strongest: dict[str, float]


def specs(count: int = NODES) -> list[Spec]:
    return [Spec(node_id=node_id) for node_id in range(1, count + 1)]


def executors(
    requests: int, *, seed: int, leaky: bool = False, nodes: int = NODES, floor_percent: int = 10
) -> Indistinct:
    """Audited against unaudited requests, `requests` of them at the floor."""
    faulty: dict[str, Any] = {"make_engine": TellingEngine} if leaky else {}
    kind = TellingPopulation if leaky else Population
    population = kind(
        specs(nodes), seed=seed, watch=True, sampling_floor_percent=floor_percent, passes_per_rate=3, **faulty
    )
    population.run(nodes * WARM_UP // 3)
    while sum(sight.rate == floor_percent for sight in population.sights) < requests:
        population.run(min(1_000, requests))
    return told_apart([sight for sight in population.sights if sight.rate == floor_percent][:requests], seed)


def auditors(audits: int, *, seed: int, leaky: bool = False, nodes: int = NODES) -> Indistinct:
    """Prepared against real audits, `audits` of them. All results are audited and half of the audits repeated, so that
    there are many of both."""
    population = Population(
        specs(nodes),
        seed=seed,
        watch=True,
        sampling_floor_percent=100,
        prepared_percent=50,
        make_shell=TellingShell if leaky else Auditing,
    )
    while len(population.audit_sights) < audits:
        population.run(min(500, audits))
    return told_apart(population.audit_sights[:audits], seed)


def told_apart(sights: Sequence[Sight], seed: int) -> Indistinct:
    names = list(sights[0].features)
    found = separation(
        names,
        [[sight.features[name] for name in names] for sight in sights],
        [each.marked for each in sights],
        seed=seed,
    )
    strongest = sorted(found.single.items(), key=lambda pair: -pair[1])[:SHOWN_FEATURES]
    return Indistinct(
        auc=found.auc,
        ci95=found.ci95,
        classifier=found.classifier,
        examples=found.examples,
        positives=found.positives,
        strongest=dict(strongest),
    )


# Controls -----------------------------------------------------------------------------------------------------------


class TellingEngine(Engine):
    """Draws when it dispatches, and gives what it drew a second more: nobody could tell that a reader of offers can."""

    drawn_at_dispatch: dict[str, bool]

    def _send_offer(self, request: Request, attempt: Attempt, node: Node) -> None:
        super()._send_offer(request, attempt, node)
        offer = self._effects[-1]
        assert isinstance(offer, effects.Offer)
        if offer.is_audit:
            return
        self.__dict__.setdefault("drawn_at_dispatch", {})
        drawn = int.from_bytes(self._random(4), "big") % 100 < self.trust.rate_percent(node.node_id)
        self.drawn_at_dispatch[offer.attempt_id] = drawn
        if drawn:
            self._effects[-1] = msgspec.structs.replace(offer, deadline_ms=offer.deadline_ms + 1_000)


class TellingPopulation(Population):
    def draw(self, offer: effects.Offer, poe_commitment: str) -> int:
        assert isinstance(self.engine, TellingEngine)
        return 0 if self.engine.drawn_at_dispatch[offer.attempt_id] else (1 << DRAW_BITS) - 1


class TellingShell(Auditing):
    """Spares itself something with prepared audits: what it asks again it asks at fewer places."""

    def _open(self, effect: effects.OpenAudit, execution: Execution, probes: Probes | None) -> Audit:
        if effect.prepared_from and probes is not None:
            fewer = probes.positions[:3]
            probes = Probes(text=probes.text.encode()[: fewer[-1]].decode(), positions=fewer)
        return super()._open(effect, execution, probes)
