"""What is reported to the rewards contract: who comes, who goes, and each voided slot once, whatever dies meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from world import SECOND, World

from parallelix.engine import events
from parallelix.engine.chain_facts import (
    BatchAnchored,
    ChainFact,
    LivenessReported,
    NodeWentOffline,
    NodeWentOnline,
    SlotsVoided,
)
from parallelix.engine.effects import SlotsRestored
from parallelix.engine.liveness import VOIDED_SLOTS_MAX, Liveness, LivenessChange, LivenessReport
from parallelix.engine.rows import NodeLivenessRow, UptimeRow
from parallelix.engine.settings import DAY_MS, MINUTE_MS
from parallelix.engine.uptime import SLOT_MS

NOW = 1_000_000
"""A slot, and ten times that many seconds."""
LIMIT = 500
GRANTED = "a lab"
"""An account that lives from grants, on a chain too."""


def always(_: int) -> bool:
    return True


def never(_: int) -> bool:
    return False


def liveness(*, batch: tuple[int, str] | None = None) -> Liveness:
    made = Liveness(online_after_slots=3, offline_after_slots=3)
    made.restore((), batch=batch, chain_time=NOW * 10, since_slot=NOW - 1)
    return made


def report(
    of: Liveness,
    slot: int,
    *,
    limit: int = LIMIT,
    is_active: Callable[[int], bool] = always,
    may_earn: Callable[[int], bool] = always,
) -> LivenessReport | None:
    return of.report(slot=slot, limit=limit, is_active=is_active, may_earn=may_earn)


def changes(
    of: Liveness, slot: int, *, is_active: Callable[[int], bool] = always, may_earn: Callable[[int], bool] = always
) -> tuple[LivenessChange, ...]:
    found = report(of, slot, is_active=is_active, may_earn=may_earn)
    return found.changes if found is not None else ()


def beat(of: Liveness, node_id: int, *slots: int) -> None:
    for slot in slots:
        of.credit(node_id, slot)


def online(of: Liveness, *node_ids: int) -> None:
    """They beat three times, and the contract was told."""
    for node_id in node_ids:
        beat(of, node_id, NOW, NOW + 1, NOW + 2)
        of.apply(NodeWentOnline(node_id=node_id))


# --- Coming and going


def test_a_node_comes_online_with_its_third_slot_in_a_row() -> None:
    it = liveness()
    beat(it, 1, NOW, NOW + 1)
    assert changes(it, NOW + 2) == ()
    beat(it, 1, NOW + 2)
    assert changes(it, NOW + 2) == ((1, True, 0),)


def test_a_gap_begins_the_count_anew() -> None:
    it = liveness()
    beat(it, 1, NOW, NOW + 1, NOW + 3, NOW + 4)
    assert changes(it, NOW + 4) == ()
    beat(it, 1, NOW + 5)
    assert changes(it, NOW + 5) == ((1, True, 0),)


def test_a_node_goes_offline_when_three_slots_are_over_without_it() -> None:
    it = liveness()
    online(it, 1)
    assert changes(it, NOW + 5) == (), "the third missed slot is not over yet"
    assert changes(it, NOW + 6) == ((1, False, 0),)


@pytest.mark.parametrize("missed", [1, 2])
def test_a_heartbeat_or_two_lost_on_the_way_is_no_transition(missed: int) -> None:
    it = liveness()
    online(it, 1)
    back = NOW + 3 + missed
    assert changes(it, back) == ()
    beat(it, 1, back)
    assert changes(it, back + 1) == ()


def test_who_was_gone_for_three_slots_needs_three_to_come_back() -> None:
    it = liveness()
    online(it, 1)
    it.apply(NodeWentOffline(node_id=1))
    beat(it, 1, NOW + 6, NOW + 7)
    assert changes(it, NOW + 7) == ()
    beat(it, 1, NOW + 8)
    assert changes(it, NOW + 8) == ((1, True, 0),)


def test_an_old_or_doubled_slot_changes_nothing() -> None:
    it = liveness()
    beat(it, 1, NOW + 5, NOW + 5, NOW + 4, NOW + 3)
    assert changes(it, NOW + 6) == ()


def test_what_is_reported_depends_on_events_and_not_on_having_been_asked() -> None:
    it = liveness()
    beat(it, 1, NOW, NOW + 1, NOW + 2)
    first = report(it, NOW + 2)
    assert first is not None and report(it, NOW + 2) == first, "a report that was lost is made again"
    it.apply(NodeWentOnline(node_id=1))
    it.apply(LivenessReported(batch=0, at=NOW * 10))
    assert changes(it, NOW + 3) == ()


def test_a_report_without_changes_keeps_those_who_earn_earning_and_nobody_needs_one_otherwise() -> None:
    it = liveness()
    assert report(it, NOW) is None
    online(it, 1)
    kept = report(it, NOW + 3)
    assert kept is not None and kept.changes == ()


def test_who_has_no_live_stake_is_not_reported_unless_the_contract_still_pays_it() -> None:
    it = liveness()
    beat(it, 1, NOW, NOW + 1, NOW + 2)
    it.void(1, 5)
    assert changes(it, NOW + 2, is_active=never) == ()
    it.apply(NodeWentOnline(node_id=1))
    assert changes(it, NOW + 2, is_active=never) == ((1, False, 0),)


def test_whom_something_speaks_against_goes_offline_and_comes_back_when_nothing_does() -> None:
    it = liveness()
    online(it, 1)
    assert changes(it, NOW + 3, may_earn=never) == ((1, False, 0),)
    it.apply(NodeWentOffline(node_id=1))
    assert changes(it, NOW + 3, may_earn=never) == ()
    assert changes(it, NOW + 3) == ((1, True, 0),)


def test_the_first_report_names_the_empty_batch_and_later_ones_the_newest() -> None:
    it = liveness()
    beat(it, 1, NOW, NOW + 1, NOW + 2)
    first = report(it, NOW + 2)
    assert first is not None
    empty = "0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (first.batch, first.merkle_root) == (0, empty), "as ExecutionAnchor begins"
    it.apply(BatchAnchored(number=7, merkle_root="0x" + "ab" * 32, reference="0x"))
    named = report(it, NOW + 2)
    assert named is not None and (named.batch, named.merkle_root) == (7, "0x" + "ab" * 32)


def test_after_a_restart_the_newest_confirmed_batch_is_named() -> None:
    it = liveness(batch=(3, "0x" + "cd" * 32))
    beat(it, 1, NOW, NOW + 1, NOW + 2)
    named = report(it, NOW + 2)
    assert named is not None and (named.batch, named.merkle_root) == (3, "0x" + "cd" * 32)


def test_nothing_is_reported_with_a_batch_older_than_the_last_reported() -> None:
    it = liveness()
    online(it, 1)
    it.apply(LivenessReported(batch=1, at=NOW * 10))
    assert report(it, NOW + 9) is None
    it.apply(BatchAnchored(number=1, merkle_root="0x" + "ab" * 32, reference="0x"))
    assert changes(it, NOW + 9) == ((1, False, 0),)


def test_where_not_all_fit_those_that_stop_a_payment_go_first_and_then_who_waited_longest() -> None:
    it = liveness()
    online(it, 9)
    beat(it, 1, *range(NOW + 5, NOW + 9))
    beat(it, 2, *range(NOW + 4, NOW + 9))
    it.void(3, 2)
    found = report(it, NOW + 9, limit=3)
    assert found is not None and found.changes == ((3, False, 2), (9, False, 0), (2, True, 0))


def test_a_restart_takes_nobody_off_who_comes_back_in_time() -> None:
    it = liveness()
    it.restore(
        [NodeLivenessRow(node_id="1", online=True, voids_pending=0, void_until=0)],
        batch=None,
        chain_time=NOW * 10,
        since_slot=NOW + 3,
    )
    assert changes(it, NOW + 6) == ()
    assert changes(it, NOW + 7) == ((1, False, 0),), "three slots after it could have come back"
    beat(it, 1, NOW + 6)
    assert changes(it, NOW + 7) == ()


# --- Voided slots


def test_voided_slots_are_reported_until_the_contract_says_that_it_took_them() -> None:
    it = liveness()
    online(it, 1)
    it.void(1, 4)
    it.void(1, 2)
    assert changes(it, NOW + 3) == ((1, True, 6),)
    assert changes(it, NOW + 3) == ((1, True, 6),), "sending is not being taken"
    it.apply(SlotsVoided(node_id=1, slots=6))
    it.apply(NodeWentOffline(node_id=1))
    it.apply(LivenessReported(batch=0, at=NOW * 10 + 30))
    assert it.voids_pending(1) == 0
    beat(it, 1, *range(NOW + 3, NOW + 9))
    assert changes(it, NOW + 8) == (), "the void still runs; nothing said now would make it earn"
    it.advance(NOW * 10 + 89)
    assert changes(it, NOW + 9) == ()
    it.advance(NOW * 10 + 90)
    assert changes(it, NOW + 9) == ((1, True, 0),)


def test_what_the_contract_took_is_durable_and_so_is_until_when_it_voids() -> None:
    it = liveness()
    it.void(1, 4)
    assert it.take_rows() == [NodeLivenessRow(node_id="1", online=False, voids_pending=4, void_until=0)]
    assert it.take_rows() == []
    it.apply(SlotsVoided(node_id=1, slots=4))
    it.apply(LivenessReported(batch=0, at=NOW * 10))
    assert it.take_rows() == [NodeLivenessRow(node_id="1", online=False, voids_pending=0, void_until=NOW * 10 + 40)]


def test_slots_that_came_while_a_report_was_on_its_way_are_in_the_next_one() -> None:
    it = liveness()
    online(it, 1)
    it.void(1, 4)
    it.void(1, 3)
    it.apply(SlotsVoided(node_id=1, slots=4))
    it.apply(LivenessReported(batch=0, at=NOW * 10 + 30))
    assert changes(it, NOW + 3) == ((1, True, 3),)


def test_more_than_somebody_else_voided_is_not_owed_to_the_node() -> None:
    it = liveness()
    it.void(1, 4)
    it.apply(SlotsVoided(node_id=1, slots=400))
    assert it.voids_pending(1) == 0


def test_what_would_reach_beyond_a_day_waits_because_the_contract_would_cut_it_off() -> None:
    it = liveness()
    online(it, 1)
    it.void(1, VOIDED_SLOTS_MAX + 100)
    (first,) = changes(it, NOW + 3)
    assert first.voided_slots == VOIDED_SLOTS_MAX
    it.apply(SlotsVoided(node_id=1, slots=VOIDED_SLOTS_MAX))
    it.apply(LivenessReported(batch=0, at=NOW * 10))
    assert changes(it, NOW + 3) == (), "a day is full"
    it.advance(NOW * 10 + 409)
    assert changes(it, NOW + 3)[0].voided_slots == 40
    it.advance(NOW * 10 + 86_400)
    assert changes(it, NOW + 3)[0].voided_slots == 100


@dataclass
class Node:
    online: bool = False
    earning: bool = False
    void_until: int = 0
    voided: int = 0


@dataclass
class Contract:
    """The rules of the rewards contract, in plain words of Python."""

    nodes: dict[int, Node] = field(default_factory=dict[int, Node])
    cut_off: int = 0

    def report(self, wanted: LivenessReport, at: int) -> list[ChainFact]:
        facts: list[ChainFact] = []
        for change in wanted.changes:
            node = self.nodes.setdefault(change.node_id, Node())
            node.online = change.online
            if change.voided_slots:
                assert change.voided_slots <= VOIDED_SLOTS_MAX, "the contract refuses the whole report"
                full = max(at, node.void_until) + change.voided_slots * 10
                node.void_until = min(full, max(node.void_until, at + 86_400))
                self.cut_off += full - node.void_until
                node.voided += change.voided_slots
                facts.append(SlotsVoided(node_id=change.node_id, slots=change.voided_slots))
            facts += self.touch(change.node_id, at)
        return [*facts, LivenessReported(batch=wanted.batch, at=at)]

    def touch(self, node_id: int, at: int) -> list[ChainFact]:
        node = self.nodes.setdefault(node_id, Node())
        earning = node.online and at >= node.void_until
        if earning == node.earning:
            return []
        node.earning = earning
        return [NodeWentOnline(node_id=node_id) if earning else NodeWentOffline(node_id=node_id)]


class Life:
    """One coordinator that is killed now and then, its table, its one report on the way, and the chain."""

    def __init__(self) -> None:
        self.slot = NOW
        self.contract = Contract()
        self.table: dict[str, NodeLivenessRow] = {}
        self.rejected: dict[int, int] = {}
        self.on_the_way: LivenessReport | None = None
        self.unread: list[tuple[int, list[ChainFact]]] = []
        self.read_until = NOW * 10
        self.crash()

    def crash(self) -> None:
        self.liveness = Liveness(online_after_slots=3, offline_after_slots=3)
        rows = self.table.values()
        self.liveness.restore(rows, batch=None, chain_time=self.read_until, since_slot=self.slot)

    def keep(self) -> None:
        self.table.update({row.node_id: row for row in self.liveness.take_rows()})

    def beat(self, node_id: int) -> None:
        self.liveness.credit(node_id, self.slot)

    def beats(self, node_id: int) -> None:
        for _ in range(3):
            self.wait(1)
            self.beat(node_id)

    def wait(self, slots: int) -> None:
        self.slot += slots

    def reject(self, node_id: int, slots: int) -> None:
        self.rejected[node_id] = self.rejected.get(node_id, 0) + slots
        self.liveness.void(node_id, slots)
        self.keep()

    def send(self) -> None:
        if self.on_the_way is None and not self.unread:
            self.on_the_way = report(self.liveness, self.slot, limit=2)

    def mine(self) -> None:
        if self.on_the_way is not None:
            self.unread.append((self.slot * 10, self.contract.report(self.on_the_way, self.slot * 10)))
            self.on_the_way = None

    def sync(self, node_id: int) -> None:
        if facts := self.contract.touch(node_id, self.slot * 10):
            self.unread.append((self.slot * 10, facts))

    def read(self) -> None:
        for at, facts in self.unread:
            for fact in facts:
                self.liveness.apply(fact)
            self.read_until = at
        self.liveness.advance(self.read_until)
        self.unread.clear()
        self.keep()

    def end(self) -> None:
        """All nodes beat; reports go through, though we are killed after each; days pass."""
        for number in range(600):
            if number > 20 and all(self.liveness.is_earning(node_id) for node_id in (1, 2, 3)):
                return
            self.wait(1)
            if number % 7 == 0:
                self.crash()
            for node_id in (1, 2, 3):
                self.beat(node_id)
            self.send()
            self.mine()
            self.read()
            if self.slot % 5 == 0 and any(node.void_until > self.slot * 10 for node in self.contract.nodes.values()):
                self.slot += 8_640
                self.read_until = self.slot * 10


STEP = st.one_of(
    st.tuples(st.just("beat"), st.integers(1, 3)),
    st.tuples(st.just("beats"), st.integers(1, 3)),
    st.tuples(st.just("wait"), st.integers(1, 6)),
    st.tuples(st.just("reject"), st.integers(1, 3), st.integers(1, 12_000)),
    st.tuples(st.just("sync"), st.integers(1, 3)),
    st.sampled_from([("send",), ("mine",), ("read",), ("crash",)]),
)


@example_settings(max_examples=100, deadline=None)
@given(steps=st.lists(STEP, max_size=60))
def test_every_voided_slot_is_taken_exactly_once_and_none_is_cut_off_whatever_dies(
    steps: list[tuple[str, ...]],
) -> None:
    life = Life()
    for name, *rest in steps:
        getattr(life, name)(*rest)
        owed = {node: life.liveness.voids_pending(node) for node in life.rejected}
        assert all(owed[node] + life.contract.nodes.get(node, Node()).voided >= n for node, n in life.rejected.items())
    life.end()
    voided = {node_id: node.voided for node_id, node in life.contract.nodes.items() if node.voided}
    assert voided == life.rejected
    assert life.contract.cut_off == 0
    assert {node_id: node.earning for node_id, node in life.contract.nodes.items()} == {1: True, 2: True, 3: True}
    assert all(life.liveness.is_earning(node_id) for node_id in (1, 2, 3))


# --- In the engine


@pytest.fixture
def world() -> World:
    made = World(on_chain=True)
    made.fund(account=GRANTED)
    made.issue_key(account=GRANTED)
    return made


def beats(world: World, node_id: int, count: int = 3) -> None:
    for _ in range(count):
        world.heartbeat(node_id)
        world.advance(10 * SECOND)


def reported(world: World) -> tuple[LivenessChange, ...]:
    world.step(events.Tick())
    found = world.engine.liveness_report(LIMIT)
    return found.changes if found is not None else ()


def reject(world: World) -> None:
    request_id = world.ask(queue_ms=0, account=GRANTED)
    world.acknowledge(world.attempt_of(request_id))
    world.advance(15 * SECOND - world.now % (10 * SECOND))
    world.heartbeat(1)
    world.returned(world.attempt_of(request_id), "rejected", code="poe_mismatch", message="not its hash")
    if request_id in world.engine.requests:
        world.step(events.Cancel(request_id=request_id, charged=False, reason="requester"))


def test_heartbeats_bring_a_node_online_and_silence_takes_it_off(world: World) -> None:
    world.attach(1)
    beats(world, 1)
    assert reported(world) == ((1, True, 0),)
    world.engine.liveness.apply(NodeWentOnline(node_id=1))
    assert reported(world) == ()
    world.advance(MINUTE_MS)
    assert reported(world) == ((1, False, 0),)


@pytest.mark.parametrize("part", ["registry", "anchor", "chain"])
def test_nothing_is_reported_while_what_uptime_rests_on_is_halted(world: World, part: Any) -> None:
    world.attach(1)
    beats(world, 1)
    world.step(events.ChainHalted(part=part, reason="theirs is another"))
    assert world.engine.liveness_report(LIMIT) is None
    world.step(events.ChainHalted(part=part, reason=""))
    assert reported(world) == ((1, True, 0),)


def test_a_node_whose_stake_cools_is_not_reported(world: World) -> None:
    world.attach(1)
    beats(world, 1)
    world.register(1, state="cooling")
    assert reported(world) == ()


def test_a_node_that_is_removed_is_reported_offline_until_it_is_back(world: World) -> None:
    world.attach(1)
    beats(world, 1)
    world.engine.liveness.apply(NodeWentOnline(node_id=1))
    for _ in range(3):
        reject(world)
    ((node_id, online, voided),) = reported(world)
    assert (node_id, online) == (1, False) and voided > 0
    world.engine.liveness.apply(SlotsVoided(node_id=1, slots=voided))
    world.engine.liveness.apply(NodeWentOffline(node_id=1))
    beats(world, 1)
    assert reported(world) == ()
    world.advance(DAY_MS)
    beats(world, 1)
    assert reported(world) == ((1, True, 0),)


def test_the_slots_of_a_rejected_attempt_are_durable_with_its_rejection_and_counted_once(world: World) -> None:
    world.attach(1)
    beats(world, 1)
    first = world.ask(queue_ms=0, account=GRANTED)
    dispatched = world.now
    world.advance(5 * SECOND)
    world.heartbeat(1)
    world.returned(world.attempt_of(first), "rejected", code="poe_mismatch", message="not its hash")
    spanned = world.now // SLOT_MS - dispatched // SLOT_MS + 1
    (row,) = world.rows(NodeLivenessRow)
    assert row == NodeLivenessRow(node_id="1", online=False, voids_pending=spanned, void_until=0)
    assert sum(int(hour.voided, 16).bit_count() for hour in world.rows(UptimeRow)) == spanned
    world.restart()
    assert world.engine.liveness.voids_pending(1) == spanned
    assert world.engine.uptime.void(1, dispatched, world.now) == 0, "the same slots again are not voided twice"


def test_off_a_chain_no_voided_slots_pile_up() -> None:
    world = World()
    world.fund(account=GRANTED)
    world.issue_key(account=GRANTED)
    world.attach(1)
    reject(world)
    assert world.rows(NodeLivenessRow) == [] and world.engine.liveness.voids_pending(1) == 0


def test_a_restart_of_ours_takes_nobody_off(world: World) -> None:
    world.attach(1)
    beats(world, 1)
    world.engine.liveness.apply(NodeWentOnline(node_id=1))
    world.heartbeat(1)
    world.advance(MINUTE_MS)
    world.heartbeat(1)
    world.advance(10 * MINUTE_MS)
    world.restart()
    assert reported(world) == ()
    world.advance(20 * SECOND)
    world.heartbeat(1)
    world.advance(35 * SECOND)
    assert reported(world) == ()
    world.advance(40 * SECOND)
    assert reported(world) == ((1, False, 0),)


# --- Slots restored by receipts


def test_slots_that_a_crash_lost_are_credited_once_and_voided_ones_never(world: World) -> None:
    world.attach(1)
    lost = world.now // SLOT_MS - 5
    world.engine.uptime.void(1, (lost + 1) * SLOT_MS, (lost + 2) * SLOT_MS)
    world.engine.uptime.credit(1, (lost + 3) * SLOT_MS)
    asked = events.UptimeRestored(node_id=1, slots=(lost, lost + 1, lost + 2, lost + 3, lost))
    assert world.step(asked) == SlotsRestored(credited=1)
    assert world.step(asked) == SlotsRestored(credited=0)
    world.advance(MINUTE_MS)
    (row,) = world.rows(UptimeRow)
    assert int(row.credited, 16).bit_count() == 2


def test_slots_older_than_are_kept_or_not_begun_are_passed_over(world: World) -> None:
    world.attach(1)
    now = world.now // SLOT_MS
    assert world.step(events.UptimeRestored(node_id=1, slots=(now - 4 * 360, now + 1, 0))) == SlotsRestored(credited=0)
    assert world.step(events.UptimeRestored(node_id=1, slots=(now - 2 * 360,))) == SlotsRestored(credited=1)


def test_restored_slots_are_no_transition(world: World) -> None:
    world.attach(1)
    now = world.now // SLOT_MS
    world.step(events.UptimeRestored(node_id=1, slots=(now - 2, now - 1, now)))
    assert reported(world) == ()


def test_who_has_no_stake_restores_nothing(world: World) -> None:
    world.attach(1)
    world.step(events.RegistryChanged(removed=(1,)))
    answer = world.step(events.UptimeRestored(node_id=1, slots=(world.now // SLOT_MS,)))
    assert getattr(answer, "code", "") == "not_staked"
