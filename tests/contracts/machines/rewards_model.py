"""What OperatorStakeRewardsV2 owes to whom, in exact fractions and as plainly as it can be said.

Written from the rules and not from the contract: nothing here is an index, a carry or a packed word. Every stretch of
time is shared out to every node at once, by weight, and nothing is rounded.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable
from fractions import Fraction

DAY_SECONDS = 86_400
SLOT_SECONDS = 10


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RewardTerms:
    """What the rewards contract is deployed with. A multiplier of 10 tenths counts the stake once."""

    bootstrap_wei: int
    bootstrap_seconds: int
    multipliers_tenths: tuple[int, int, int, int] = (10, 20, 25, 30)
    stale_seconds: int = 21_600


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One line of a liveness report."""

    node_id: int
    online: bool
    voided_slots: int = 0


@dataclasses.dataclass(kw_only=True, slots=True)
class NodeModel:
    """`weight` is what counts now: 0 while offline, voided or retired."""

    full_weight: int
    online: bool = False
    void_until: int = 0
    retired: bool = False
    weight: int = 0
    accrued_wei: Fraction = Fraction(0)
    paid_wei: int = 0

    def weigh(self, now: int) -> None:
        counts = self.online and not self.retired and now >= self.void_until
        self.weight = self.full_weight if counts else 0


@dataclasses.dataclass(kw_only=True, slots=True)
class DayOfIncome:
    """What came in on one UTC day, and for how many active seconds it has been paid out so far."""

    day: int
    amount_wei: int
    elapsed_seconds: int = 0

    def per_second_wei(self) -> Fraction:
        return Fraction(self.amount_wei, DAY_SECONDS)


class RewardsModel:
    """The rewards of all nodes of one contract. Times are seconds since the epoch and never go back.

    Who calls says what came in: all that the stream has paid so far, and the income since the last settlement.
    """

    def __init__(self, terms: RewardTerms) -> None:
        self.terms = terms
        self.nodes: dict[int, NodeModel] = {}
        self.settled_at = 0
        self.fresh_until = 0
        self.bootstrap_received_wei = 0
        self.bootstrap_paid_wei = Fraction(0)
        self.income_received_wei = 0
        self.income_paid_wei = Fraction(0)
        self.days: collections.deque[DayOfIncome] = collections.deque()

    @property
    def total_weight(self) -> int:
        return sum(node.weight for node in self.nodes.values())

    @property
    def funded_wei(self) -> int:
        return self.bootstrap_received_wei + self.income_received_wei

    @property
    def paid_wei(self) -> int:
        """What claims have taken."""
        return sum(node.paid_wei for node in self.nodes.values())

    @property
    def undistributed_wei(self) -> Fraction:
        return self.funded_wei - self.bootstrap_paid_wei - self.income_paid_wei

    def register(self, node_id: int, stake_wei: int, tier: int) -> None:
        self.nodes[node_id] = NodeModel(full_weight=stake_wei * self.terms.multipliers_tenths[tier - 1])

    def book(self, now: int, bootstrap_received_wei: int, income_wei: int) -> None:
        """Takes in what came, without sharing anything out."""
        assert bootstrap_received_wei >= self.bootstrap_received_wei, bootstrap_received_wei
        self.bootstrap_received_wei = bootstrap_received_wei
        if income_wei == 0:
            return
        self.income_received_wei += income_wei
        today = now // DAY_SECONDS
        if not self.days or self.days[-1].day != today:
            self.days.append(DayOfIncome(day=today, amount_wei=0))
        self.days[-1].amount_wei += income_wei

    def settle(self, now: int, bootstrap_received_wei: int, income_wei: int) -> None:
        """Takes in what came, and shares out what the time since the last settlement earned."""
        self.book(now, bootstrap_received_wei, income_wei)
        self.share_out(now)

    def share_out(self, now: int) -> None:
        bootstrap_wei, steps = self._due(now, self.bootstrap_received_wei)
        income_wei = sum((day.per_second_wei() * seconds for day, seconds in steps), Fraction(0))
        self.bootstrap_paid_wei += bootstrap_wei
        self.income_paid_wei += income_wei
        for day, seconds in steps:
            day.elapsed_seconds += seconds
        while self.days and self.days[0].elapsed_seconds == DAY_SECONDS:
            self.days.popleft()
        self.settled_at = now
        if paid_wei := bootstrap_wei + income_wei:
            per_weight_wei = paid_wei / self.total_weight
            for node in self.nodes.values():
                if node.weight:
                    node.accrued_wei += node.weight * per_weight_wei

    def report(self, now: int, changes: Iterable[Change]) -> None:
        """The caller has settled up to now, as for everything below."""
        for change in changes:
            node = self.nodes[change.node_id]
            node.online = change.online
            if change.voided_slots:
                wanted = max(now, node.void_until) + change.voided_slots * SLOT_SECONDS
                node.void_until = min(wanted, max(node.void_until, now + DAY_SECONDS))
            node.weigh(now)
        self.fresh_until = now + self.terms.stale_seconds

    def sync(self, now: int, node_id: int) -> None:
        self.nodes[node_id].weigh(now)

    def retire(self, now: int, node_id: int) -> None:
        self.nodes[node_id].retired = True
        self.nodes[node_id].weigh(now)

    def pause(self, now: int) -> None:
        """Time counts again from the next report on, whenever the pause ends."""
        self.fresh_until = now

    def paid(self, node_id: int, amount_wei: int) -> None:
        self.nodes[node_id].paid_wei += amount_wei

    def lifetime_wei(self, node_id: int, now: int, bootstrap_received_wei: int) -> Fraction:
        """All that the node will have earned by now, claimed or not, if the stream has paid so much by then."""
        node = self.nodes[node_id]
        return node.accrued_wei + self.due_wei(now, bootstrap_received_wei) * Fraction(
            node.weight, self.total_weight or 1
        )

    def due_wei(self, now: int, bootstrap_received_wei: int) -> Fraction:
        """What the time since the last settlement earned, for all nodes together."""
        bootstrap_wei, steps = self._due(now, bootstrap_received_wei)
        return sum((day.per_second_wei() * seconds for day, seconds in steps), bootstrap_wei)

    def is_short(self, now: int) -> bool:
        """Whether more bootstrap is due by now than is held."""
        return self._bootstrap_due_wei(now) > self.bootstrap_received_wei - self.bootstrap_paid_wei

    def _bootstrap_due_wei(self, now: int) -> Fraction:
        """What the bootstrap would pay for the time since the last settlement, held or not."""
        begin, end = self._active(now)
        return Fraction(self.terms.bootstrap_wei * (end - begin), self.terms.bootstrap_seconds)

    def _active(self, now: int) -> tuple[int, int]:
        """The active time since the last settlement: from when to when."""
        end = min(now, self.fresh_until) if self.total_weight else 0
        return self.settled_at, max(self.settled_at, end)

    def _due(self, now: int, bootstrap_received_wei: int) -> tuple[Fraction, list[tuple[DayOfIncome, int]]]:
        held_wei = bootstrap_received_wei - self.bootstrap_paid_wei
        return min(self._bootstrap_due_wei(now), held_wei), self._income_steps(*self._active(now))

    def _income_steps(self, begin: int, end: int) -> list[tuple[DayOfIncome, int]]:
        """How many seconds of which days' income are paid out in a stretch of active time."""
        steps: list[tuple[DayOfIncome, int]] = []
        for day in self.days:
            begin = max(begin, (day.day + 1) * DAY_SECONDS)
            seconds = min(DAY_SECONDS - day.elapsed_seconds, end - begin)
            if seconds <= 0:
                break
            steps.append((day, seconds))
            begin += seconds
        return steps
