"""What each node earned on each day, replayed from the rewards contract's events alone.

Between two checkpoints of the contract no weight changes, and `RewardsDistributed` says what was paid into the index
and what the index is then. So what a node has earned is exact at every checkpoint, to the wei: its weight times what
the index grew while it earned. The replay holds the events to that, and refuses them where one is missing.

A day ends between two checkpoints. There the replay does what the contract would have done at midnight: it pays the
seconds until then, at the constant rates of the bootstrap and of the income bucket that runs. What the checkpoint paid
beyond that belongs to the next day. So days add up to the total, without a remainder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from parallelix.chain.abi import Event
from parallelix.chain.bindings.operator_stake_rewards import (
    LivenessReported,
    NodeOffline,
    NodeOnline,
    Paused,
    RewardsClaimed,
    RewardsDistributed,
    RewardsFunded,
    SlotsVoided,
    Unpaused,
)
from parallelix.chain.errors import BadResult

DAY_SECONDS = 86_400
INDEX_SCALE = 10**36
"""The contract's index counts wei × 10^36 for each unit of weight."""
BOOTSTRAP = 1
"""Source of `RewardsFunded`; the other one is income."""
BUCKETS_TOUCHED_MAX = 2
"""By one distribution of the contract: it pays a day's seconds at most."""

EVENTS: tuple[type[Event], ...] = (
    RewardsFunded,
    RewardsDistributed,
    RewardsClaimed,
    NodeOnline,
    NodeOffline,
    SlotsVoided,
    LivenessReported,
    Paused,
    Unpaused,
)
"""Those that a checkpoint leaves. The contract's others change nothing that is paid."""

Day: TypeAlias = int
"""A UTC day, counted from 1 January 1970."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the contract was deployed with: its bootstrap in wei over so many paid seconds, and for how many seconds one
    report keeps nodes earning."""

    bootstrap_wei: int
    bootstrap_seconds: int
    stale_seconds: int


class NodeDay(msgspec.Struct, frozen=True, kw_only=True):
    """One node on one UTC day. `weight` is wei of stake × tenths, the last that it earned with.

    `weight_seconds` is its weight summed over its paid seconds. `unclaimed_wei` is what `earned` says at the end of the
    day, or at the last checkpoint of a day that is not over.
    """

    node_id: int
    day: Day
    weight: int
    online_seconds: int
    paid_seconds: int
    weight_seconds: int
    earned_wei: int
    claimed_wei: int
    unclaimed_wei: int


class PoolDay(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes together on one UTC day. `lag_seconds` is the longest time without a report, as far as it lies before
    the day's end."""

    day: Day
    bootstrap_wei: int
    income_wei: int
    paid_seconds: int
    weight_seconds: int
    reports: int
    lag_seconds: int


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """Of one node since the beginning, in wei. `unclaimed_wei` is the contract's `earned`."""

    node_id: int
    earned_wei: int
    claimed_wei: int
    unclaimed_wei: int
    earning: bool


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where the pool stands at one moment: everything that only ever grows."""

    time: int
    index: int
    bootstrap_wei: int
    income_wei: int
    paid_seconds: int
    weight_seconds: int


@dataclass(slots=True)
class _Node:
    """`since` is the mark up to which its time is booked while it earns, None while it does not."""

    weight: int = 0
    since: _Mark | None = None
    accrued_scaled: int = 0
    claimed_wei: int = 0
    online_seconds: int = 0
    paid_seconds: int = 0
    weight_seconds: int = 0
    earned_before_wei: int = 0
    claimed_before_wei: int = 0

    @property
    def earned_wei(self) -> int:
        return self.accrued_scaled // INDEX_SCALE

    def book(self, mark: _Mark) -> None:
        if self.since is None:
            return
        paid_seconds = mark.paid_seconds - self.since.paid_seconds
        self.accrued_scaled += self.weight * (mark.index - self.since.index)
        self.online_seconds += mark.time - self.since.time
        self.paid_seconds += paid_seconds
        self.weight_seconds += self.weight * paid_seconds
        self.since = mark

    def end_day(self, node_id: int, day: Day) -> NodeDay | None:
        """The day's row, unless nothing happened; the next day begins."""
        earned_wei = self.earned_wei - self.earned_before_wei
        claimed_wei = self.claimed_wei - self.claimed_before_wei
        row = None
        if self.online_seconds or earned_wei or claimed_wei:
            row = NodeDay(
                node_id=node_id,
                day=day,
                weight=self.weight,
                online_seconds=self.online_seconds,
                paid_seconds=self.paid_seconds,
                weight_seconds=self.weight_seconds,
                earned_wei=earned_wei,
                claimed_wei=claimed_wei,
                unclaimed_wei=self.earned_wei - self.claimed_wei,
            )
        self.earned_before_wei, self.claimed_before_wei = self.earned_wei, self.claimed_wei
        self.online_seconds = self.paid_seconds = self.weight_seconds = 0
        return row


@dataclass(slots=True)
class _Bucket:
    """The income of one UTC day, paid evenly over 86,400 paid seconds, at the earliest from the next day on."""

    day: Day
    amount_wei: int

    def paid_wei(self, elapsed: int) -> int:
        return self.amount_wei * elapsed // DAY_SECONDS


@dataclass(frozen=True, slots=True)
class _Due:
    """What the contract's rules pay for some seconds, and where that leaves them."""

    bootstrap_wei: int
    carry: int
    income_wei: int
    head: int
    elapsed: int


@dataclass(slots=True)
class _Pool:
    """The contract's own state, as far as its events tell it. Times are Unix seconds."""

    terms: Terms
    updated_at: int = 0
    index: int = 0
    total_weight: int = 0
    reported_at: int = 0
    held_wei: int = 0
    bootstrap_held_wei: int = 0
    carry: int = 0
    buckets: list[_Bucket] = field(default_factory=list[_Bucket])
    head: int = 0
    elapsed: int = 0

    def active_seconds(self, now: int) -> int:
        """Paid seconds since the last checkpoint: the first ones, while somebody earns and the report is fresh."""
        until = min(now, self.reported_at + self.terms.stale_seconds)
        return max(0, until - self.updated_at) if self.total_weight else 0

    def fund_income(self, amount_wei: int, day: Day) -> None:
        if self.buckets and self.buckets[-1].day == day:
            self.buckets[-1].amount_wei += amount_wei
        else:
            self.buckets.append(_Bucket(day, amount_wei))

    def due(self, active_seconds: int) -> _Due:
        due_scaled = self.terms.bootstrap_wei * active_seconds + self.carry
        bootstrap_wei, carry = divmod(due_scaled, self.terms.bootstrap_seconds)
        if bootstrap_wei >= self.bootstrap_held_wei:
            bootstrap_wei, carry = self.bootstrap_held_wei, 0
        income_wei, head, elapsed = self._income_due(self.updated_at + active_seconds)
        return _Due(bootstrap_wei, carry, income_wei, head, elapsed)

    def _income_due(self, until: int) -> tuple[int, int, int]:
        paid_wei, head, elapsed, time = 0, self.head, self.elapsed, self.updated_at
        for _ in range(BUCKETS_TOUCHED_MAX):
            if head == len(self.buckets):
                break
            bucket = self.buckets[head]
            time = max(time, (bucket.day + 1) * DAY_SECONDS)
            if time >= until:
                break
            seconds = min(until - time, DAY_SECONDS - elapsed)
            paid_wei += bucket.paid_wei(elapsed + seconds) - bucket.paid_wei(elapsed)
            time, elapsed = time + seconds, elapsed + seconds
            if elapsed == DAY_SECONDS:
                head, elapsed = head + 1, 0
        return paid_wei, head, elapsed


class Replay:
    """Feed it each block that has `EVENTS`, in order; then `finish`. With `node_id`, only that node gets rows."""

    def __init__(self, terms: Terms, *, node_id: int | None = None) -> None:
        self.node_days: list[NodeDay] = []
        self.pool_days: list[PoolDay] = []
        self.last_block = -1
        """The newest block with a checkpoint: what is told here is as of its end."""
        self._pool = _Pool(terms)
        self._nodes: dict[int, _Node] = {}
        self._wanted = node_id
        self._mark = _Mark(0, 0, 0, 0, 0, 0)
        self._day_began = self._mark
        self._last_report_at = 0
        self._reports = 0
        self._lag_seconds = 0

    @property
    def last_time(self) -> int:
        return self._pool.updated_at

    def block(self, number: int, time: int, events: Iterable[Event]) -> None:
        """Raises `BadResult` for events that do not fit those before them: some are missing, or not the contract's."""
        if self.last_block < 0:
            self._pool.updated_at = time
            self._mark = self._day_began = _Mark(time, 0, 0, 0, 0, 0)
        self.last_block = number
        for event in events:
            self._take(event, time)
        self._checkpoint(time, None)

    def finish(self) -> None:
        """Ends the last day, which need not be over."""
        if self.last_block >= 0:
            self._end_day(self._mark, self._mark.time // DAY_SECONDS)

    def totals(self) -> list[Total]:
        """By node, as of the last checkpoint."""
        return [
            Total(
                node_id=node_id,
                earned_wei=node.earned_wei,
                claimed_wei=node.claimed_wei,
                unclaimed_wei=node.earned_wei - node.claimed_wei,
                earning=node.since is not None,
            )
            for node_id, node in sorted(self._nodes.items())
            if self._wanted in (None, node_id)
        ]

    def _take(self, event: Event, time: int) -> None:
        pool = self._pool
        match event:
            case RewardsFunded():
                # Comes before the distribution of its checkpoint, and may be paid by it.
                self._fund(event, time)
                return
            case RewardsDistributed():
                self._checkpoint(time, event)
                return
            case _:
                self._checkpoint(time, None)
        match event:
            case NodeOnline():
                self._online(event)
            case NodeOffline():
                self._offline(event)
            case RewardsClaimed():
                self._claim(event)
            case LivenessReported():
                _require(event.total_weight == pool.total_weight, event, "has another total weight")
                self._note_report(time)
                pool.reported_at, self._last_report_at = time, time
                self._reports += 1
            case Paused():
                pool.reported_at = 0
            case _:
                pass

    def _fund(self, event: RewardsFunded, time: int) -> None:
        pool = self._pool
        pool.held_wei += event.amount
        _require(event.total_held == pool.held_wei, event, "has another total of what is held")
        if event.source == BOOTSTRAP:
            pool.bootstrap_held_wei += event.amount
        else:
            pool.fund_income(event.amount, time // DAY_SECONDS)

    def _claim(self, event: RewardsClaimed) -> None:
        node, pool = self._node(event.node_id), self._pool
        node.book(self._mark)
        node.claimed_wei += event.amount
        pool.held_wei -= event.amount
        _require(node.claimed_wei == node.earned_wei, event, "pays another amount than was earned")
        _require(event.total_held == pool.held_wei, event, "has another total of what is held")

    def _online(self, event: NodeOnline) -> None:
        node, pool = self._node(event.node_id), self._pool
        _require(node.since is None, event, "is of a node that earns already")
        node.weight, node.since = event.weight, self._mark
        pool.total_weight += event.weight
        _require(event.total_weight == pool.total_weight, event, "has another total weight")

    def _offline(self, event: NodeOffline) -> None:
        node, pool = self._node(event.node_id), self._pool
        _require(node.since is not None, event, "is of a node that earns nothing")
        node.book(self._mark)
        node.since = None
        pool.total_weight -= node.weight
        _require(event.total_weight == pool.total_weight, event, "has another total weight")

    def _node(self, node_id: int) -> _Node:
        return self._nodes.setdefault(node_id, _Node())

    # Checkpoints and midnights ----------------------------------------------------------------------------------------

    def _checkpoint(self, now: int, paid: RewardsDistributed | None) -> None:
        """The time since the last one is over; `paid` is what the contract distributed for it."""
        pool, before = self._pool, self._mark
        active_seconds = pool.active_seconds(now)
        if paid is None and now <= pool.updated_at:
            return
        bootstrap_wei, income_wei = (paid.bootstrap, paid.income) if paid is not None else (0, 0)
        if paid is not None:
            _require(active_seconds > 0, paid, "pays for a time in which nobody earned")
            self._require_index(paid)
        split = _Split(pool, active_seconds, bootstrap_wei, income_wei)
        midnight = (pool.updated_at // DAY_SECONDS + 1) * DAY_SECONDS
        while midnight <= now:
            seconds = min(max(0, midnight - pool.updated_at), active_seconds)
            self._end_day(self._grown(before, midnight, seconds, *split.until(seconds)), midnight // DAY_SECONDS - 1)
            midnight += DAY_SECONDS
        self._mark = self._grown(before, now, active_seconds, bootstrap_wei, income_wei)
        pool.index = self._mark.index
        pool.bootstrap_held_wei -= bootstrap_wei
        pool.carry, pool.head, pool.elapsed = split.due.carry, split.due.head, split.due.elapsed
        pool.updated_at = now

    def _require_index(self, paid: RewardsDistributed) -> None:
        pool = self._pool
        amount_wei = paid.bootstrap + paid.income
        grown = amount_wei * INDEX_SCALE // pool.total_weight if pool.total_weight else -1
        _require(pool.index + grown == paid.index, paid, "does not continue the index")
        _require(paid.bootstrap <= pool.bootstrap_held_wei, paid, "pays more of the bootstrap than had arrived")

    def _grown(self, before: _Mark, time: int, seconds: int, bootstrap_wei: int, income_wei: int) -> _Mark:
        weight, amount_wei = self._pool.total_weight, bootstrap_wei + income_wei
        return _Mark(
            time=time,
            index=before.index + (amount_wei * INDEX_SCALE // weight if amount_wei else 0),
            bootstrap_wei=before.bootstrap_wei + bootstrap_wei,
            income_wei=before.income_wei + income_wei,
            paid_seconds=before.paid_seconds + seconds,
            weight_seconds=before.weight_seconds + weight * seconds,
        )

    def _end_day(self, mark: _Mark, day: Day) -> None:
        for node_id, node in self._nodes.items():
            node.book(mark)
            row = node.end_day(node_id, day)
            if row is not None and self._wanted in (None, node_id):
                self.node_days.append(row)
        self._note_report(mark.time)
        began = self._day_began
        self.pool_days.append(
            PoolDay(
                day=day,
                bootstrap_wei=mark.bootstrap_wei - began.bootstrap_wei,
                income_wei=mark.income_wei - began.income_wei,
                paid_seconds=mark.paid_seconds - began.paid_seconds,
                weight_seconds=mark.weight_seconds - began.weight_seconds,
                reports=self._reports,
                lag_seconds=self._lag_seconds,
            )
        )
        self._day_began, self._reports, self._lag_seconds = mark, 0, 0

    def _note_report(self, until: int) -> None:
        """So long nothing was reported until then."""
        if self._last_report_at:
            self._lag_seconds = max(self._lag_seconds, until - self._last_report_at)


class _Split:
    """How much of what a checkpoint paid belongs to its first seconds."""

    def __init__(self, pool: _Pool, active_seconds: int, bootstrap_wei: int, income_wei: int) -> None:
        self.due = pool.due(active_seconds)
        self._pool = pool
        self._active_seconds = active_seconds
        self._bootstrap_wei, self._income_wei = bootstrap_wei, income_wei
        # A checkpoint that paid nothing leaves no event, and by dust the rules then come to another amount. By more
        # they do only where one of those cut the time short; what was paid is shared out evenly then.
        self._by_rule = (
            abs(self.due.bootstrap_wei - bootstrap_wei) <= 1
            and abs(self.due.income_wei - income_wei) <= BUCKETS_TOUCHED_MAX
        )

    def until(self, seconds: int) -> tuple[int, int]:
        """(bootstrap, income) in wei of the first `seconds`."""
        if seconds >= self._active_seconds:
            return self._bootstrap_wei, self._income_wei
        if not self._by_rule:
            share = self._active_seconds
            return self._bootstrap_wei * seconds // share, self._income_wei * seconds // share
        due = self._pool.due(seconds)
        return min(due.bootstrap_wei, self._bootstrap_wei), min(due.income_wei, self._income_wei)


def _require(holds: bool, event: Event, what: str) -> None:
    if not holds:
        raise BadResult(event.LAYOUT.name, f"{event} {what}; the endpoint left an event out")
