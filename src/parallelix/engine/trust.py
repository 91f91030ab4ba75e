"""What is known of each node's honesty, and how it is judged: on accumulated evidence, never on one audit.

Evidence is Page's test, the sequential probability ratio test that never goes below zero: each observation adds its
log-likelihood ratio, and a sum at the bound convicts. A node is judged apart for what it executes, what it audits, and
how often its results cannot be compared at all. Whole thousandths of a nat, so that a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from parallelix.engine.rows import NodeTrustRow
from parallelix.engine.settings import EngineSettings
from parallelix.protocol.sampling import RATES_PERCENT

Role: TypeAlias = Literal["executor", "auditor", "unusable"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one observation adds to the sum, in millinats, and the sum that convicts."""

    against: int
    in_favour: int
    bound: int

    def after(self, millinats: int, *, against: bool, share: float = 1.0) -> int:
        """`share` is how much a pass counts."""
        return max(0, millinats + self.against) if against else max(0, millinats - round(self.in_favour * share))


def evidence_of(settings: EngineSettings, role: Role) -> Evidence:
    if role == "unusable":
        return Evidence(settings.unusable_millinats, settings.usable_millinats, settings.conviction_millinats)
    return Evidence(settings.disagreement_millinats, settings.agreement_millinats, settings.conviction_millinats)


def rate_percent(passes: int, *, passes_per_rate: int, floor_percent: int) -> int:
    """At what rate the results of a node are sampled that passed so many audits running."""
    rates = [*(rate for rate in RATES_PERCENT if rate > floor_percent), floor_percent]
    return rates[min(passes // passes_per_rate, len(rates) - 1)]


@dataclass(slots=True, kw_only=True)
class NodeTrust:
    """One node. Times are Unix milliseconds, 0 for never; the fields are those of `NodeTrustRow`."""

    node_id: int
    passes: int = 0
    executor_millinats: int = 0
    auditor_millinats: int = 0
    unusable_millinats: int = 0
    audited: int = 0
    disagreed: int = 0
    first_attached_at: int = 0
    proven_at: int = 0
    strikes: int = 0
    benched_at: int = 0
    bench_reason: str = ""

    def millinats(self, role: Role) -> int:
        return {
            "executor": self.executor_millinats,
            "auditor": self.auditor_millinats,
            "unusable": self.unusable_millinats,
        }[role]

    def begin_anew(self) -> None:
        """As a new node: at the full rate, and nothing speaks against it."""
        self.passes = self.executor_millinats = self.auditor_millinats = self.unusable_millinats = 0

    def row(self) -> NodeTrustRow:
        return NodeTrustRow(
            node_id=str(self.node_id),
            passes=self.passes,
            executor_millinats=self.executor_millinats,
            auditor_millinats=self.auditor_millinats,
            unusable_millinats=self.unusable_millinats,
            audited=self.audited,
            disagreed=self.disagreed,
            first_attached_at=self.first_attached_at,
            proven_at=self.proven_at,
            strikes=self.strikes,
            benched_at=self.benched_at,
            bench_reason=self.bench_reason,
        )

    @classmethod
    def of(cls, row: NodeTrustRow) -> NodeTrust:
        return cls(
            node_id=int(row.node_id),
            passes=row.passes,
            executor_millinats=row.executor_millinats,
            auditor_millinats=row.auditor_millinats,
            unusable_millinats=row.unusable_millinats,
            audited=row.audited,
            disagreed=row.disagreed,
            first_attached_at=row.first_attached_at,
            proven_at=row.proven_at,
            strikes=row.strikes,
            benched_at=row.benched_at,
            bench_reason=row.bench_reason,
        )


class Trust:
    """All nodes; the rows of what changed are handed out once, by `take_rows`."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._nodes: dict[int, NodeTrust] = {}
        self._changed: set[int] = set()

    def known(self, node_id: int) -> NodeTrust | None:
        return self._nodes.get(node_id)

    def of(self, node_id: int) -> NodeTrust:
        """To be read, or changed and then named to `changed`."""
        trust = self._nodes.get(node_id)
        if trust is None:
            trust = self._nodes[node_id] = NodeTrust(node_id=node_id)
        return trust

    def changed(self, node_id: int) -> None:
        self._changed.add(node_id)

    def rate_percent(self, node_id: int) -> int:
        trust = self._nodes.get(node_id)
        return rate_percent(
            trust.passes if trust is not None else 0,
            passes_per_rate=self._settings.passes_per_rate,
            floor_percent=self._settings.sampling_floor_percent,
        )

    def observe(self, node_id: int, role: Role, *, against: bool, rate_percent: int = 0) -> bool:
        """Takes in one observation, of a result that was drawn at this rate; gives whether the node is convicted by it.

        What an executor does well while most of its work is looked at says less of how it does when it is not: half."""
        trust, evidence = self.of(node_id), evidence_of(self._settings, role)
        expected = role == "executor" and rate_percent > self._settings.sampling_floor_percent
        after = evidence.after(trust.millinats(role), against=against, share=0.5 if expected else 1.0)
        if role == "executor":
            trust.executor_millinats = after
        elif role == "auditor":
            trust.auditor_millinats = after
        else:
            trust.unusable_millinats = after
        self.changed(node_id)
        return against and after >= evidence.bound

    def begin_anew(self, node_id: int) -> None:
        trust = self.known(node_id)
        if trust is not None:
            trust.begin_anew()
            self.changed(node_id)

    def take_rows(self) -> list[NodeTrustRow]:
        rows = [self._nodes[node_id].row() for node_id in sorted(self._changed)]
        self._changed.clear()
        return rows

    def restore(self, rows: Iterable[NodeTrustRow]) -> None:
        self._nodes = {int(row.node_id): NodeTrust.of(row) for row in rows}
