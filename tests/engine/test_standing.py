"""A node's standing: what the registry and its own results say against it, and the uptime that is credited to it."""

from __future__ import annotations

import msgspec
import pytest
from world import PRLX, SECOND, World, registration

from parallelix.engine import effects, events
from parallelix.engine.rows import FaultRow, NodeRow, TransferRow, UptimeRow
from parallelix.engine.settings import DAY_MS, HOUR_MS, MINUTE_MS
from parallelix.engine.uptime import HOURS_KEPT, SLOT_MS, SLOTS_PER_HOUR, Uptime


def reject(world: World, node_id: int = 1) -> None:
    """The node returns one bad result; its request is then cancelled."""
    request_id = world.ask(queue_ms=0)
    assert world.node_of(request_id) == node_id
    world.returned(world.attempt_of(request_id), "rejected", code="poe_mismatch", message="not its hash")
    if request_id in world.engine.requests:
        world.step(events.Cancel(request_id=request_id, charged=False, reason="requester"))


def flagged(world: World) -> list[int]:
    return [fields["rejections"] for fields in world.logged("node.flagged")]


# --- Flagged and removed


def test_each_rejection_flags_the_node_and_only_the_third_removes_it(world: World) -> None:
    world.attach(1)
    for _ in range(2):
        reject(world)
    assert flagged(world) == [1, 2] and world.logged("node.removed") == []
    assert not world.engine.pool.nodes[1].removed_until

    reject(world)

    assert flagged(world) == [1, 2, 3]
    (removed,) = world.logged("node.removed")
    assert removed == {"node_id": "1", "until": world.now + DAY_MS, "rejections": 3}
    assert world.rows(NodeRow)[0].removed_until == world.now + DAY_MS
    assert [row.reason for row in world.rows(FaultRow)] == ["poe_mismatch"] * 3


def test_rejections_older_than_a_day_count_no_more(world: World) -> None:
    world.attach(1)
    reject(world)
    reject(world)
    world.advance(DAY_MS - 1)
    world.heartbeat(1)
    assert len(world.engine.pool.nodes[1].rejections) == 2
    world.advance(1)
    reject(world)
    assert flagged(world)[-1] == 1 and world.logged("node.removed") == []
    reject(world)
    reject(world)
    assert len(world.logged("node.removed")) == 1


def test_a_rejection_within_the_day_still_counts(world: World) -> None:
    world.attach(1)
    reject(world)
    reject(world)
    world.advance(DAY_MS - 1)
    world.heartbeat(1)
    reject(world)
    assert flagged(world)[-1] == 3 and len(world.logged("node.removed")) == 1


def test_a_node_that_is_removed_already_is_not_removed_again_but_its_rejections_count(world: World) -> None:
    world.attach(1)
    for _ in range(3):
        reject(world)
    until = world.engine.pool.nodes[1].removed_until
    world.now += HOUR_MS
    world.heartbeat(1)
    reject(world)
    assert world.engine.pool.nodes[1].removed_until == until
    assert flagged(world)[-1] == 4 and len(world.logged("node.removed")) == 1


def test_a_removed_node_comes_back_after_its_day_as_a_new_one(world: World) -> None:
    world.attach(1)
    request_id = world.ask()
    world.acknowledge(world.attempt_of(request_id))
    world.now += SECOND
    world.complete(world.attempt_of(request_id))
    assert world.engine.pool.nodes[1].speeds
    for _ in range(3):
        reject(world)
    for _ in range(DAY_MS // (20 * SECOND)):
        assert world.logged("node.readmitted") == []
        world.heartbeat(1)
        world.advance(20 * SECOND)

    node = world.engine.pool.nodes[1]
    assert (node.removed_until, list(node.rejections), node.speeds) == (0, [], {})
    assert world.rows(NodeRow)[0].removed_until == 0
    assert world.logged("node.readmitted") == [{"node_id": "1"}]
    assert world.node_of(world.ask()) == 1


def test_attaching_anew_washes_nothing_off(world: World) -> None:
    world.attach(1)
    for _ in range(2):
        reject(world)
    world.now += 1
    world.attach(1, run_id="another")
    reject(world)
    assert len(world.logged("node.removed")) == 1
    world.now += 1
    world.attach(1, run_id="a third")
    assert world.engine.pool.nodes[1].removed_until and world.engine.pool.penalised()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("declined", "node.busy"),
        ("declined", "node.paused"),
        ("declined", "node.draining"),
        ("declined", "node.unsupported"),
        ("failed", "node.runtime_failed"),
        ("failed", "node.deadline_exceeded"),
    ],
)
def test_what_a_node_says_itself_is_no_rejection(world: World, outcome: str, code: str) -> None:
    world.attach(1)
    for _ in range(5):
        request_id = world.ask(queue_ms=0)
        answer = world.returned(world.attempt_of(request_id), outcome, code=code)
        assert answer == effects.ResultTaken(accepted=True)
        world.step(events.Cancel(request_id=request_id, charged=False, reason="requester"))
    assert world.logged("node.flagged") == [] and world.rows(FaultRow) == []


@pytest.mark.parametrize("acknowledged", [False, True])
def test_what_a_node_says_of_a_deadline_counts_as_missed_only_when_its_clock_ran(
    world: World, acknowledged: bool
) -> None:
    world.attach(1)
    request_id = world.ask()
    if acknowledged:
        world.acknowledge(world.attempt_of(request_id))
    world.returned(world.attempt_of(request_id), "failed", code="node.deadline_exceeded")
    state = world.request(request_id).attempts[0].state
    assert state == ("missed" if acknowledged else "failed")


def test_a_busy_node_that_declines_keeps_its_uptime(world: World) -> None:
    world.attach(1)
    world.heartbeat(1)
    request_id = world.ask()
    world.returned(world.attempt_of(request_id), "declined", code="node.busy")
    assert world.engine.uptime.counted(1, world.now // HOUR_MS) == 1


def test_no_rejection_ever_touches_a_stake(world: World) -> None:
    world.attach(1)
    for _ in range(3):
        reject(world)
    assert world.engine.registrations[1].stake_wei == str(50_000 * PRLX)
    purposes = {row.transfer_id.split(":")[0] for row in world.rows(TransferRow)}
    assert purposes == {"grant", "hold", "release"}


def test_an_operator_is_told_of_each_rejection_and_why(world: World) -> None:
    world.attach(1)
    reject(world)
    (told,) = [effect for effect in world.effects if isinstance(effect, effects.TellRejection)]
    assert (told.node_id, told.reason, told.at) == (1, "poe_mismatch: not its hash", world.now)
    (logged,) = world.logged("attempt.rejected")
    assert (logged["node_id"], logged["reason"], logged["detail"]) == ("1", "poe_mismatch", "not its hash")
    assert logged["slots_voided"] == 1


# --- The registry


@pytest.mark.parametrize(
    ("state", "code"), [("cooling", "in_cooldown"), ("retired", "not_staked"), (None, "not_staked"), ("active", None)]
)
def test_what_the_registry_says_decides_every_call_of_a_node(world: World, state: str | None, code: str | None) -> None:
    world.attach(1)
    if state is None:
        world.step(events.RegistryChanged(removed=(1,)))
    else:
        world.register(1, state=state)
    world.now += 1

    standing = world.engine.standing(1)
    assert (standing.code if standing else None) == code
    for answer in (world.heartbeat(1), world.attach(1) if state is not None else standing):
        assert (answer.code if isinstance(answer, effects.Refused) else None) == code
    assert (world.request(world.ask()).open_attempt is None) == (code is not None)
    changed = [effect.node_id for effect in world.effects if isinstance(effect, effects.StandingChanged)]
    assert changed == [1], "its poll is answered now"


@pytest.mark.parametrize(
    ("cooldown_ends_at", "said"),
    [
        (1_795_852_800, "node 1 is unstaking; its stake is withdrawable from 2026-11-28 08:00:00 UTC"),
        (253_402_300_799, "node 1 is unstaking; its stake is withdrawable from 9999-12-31 23:59:59 UTC"),
        (253_402_300_800, "node 1 is unstaking; its stake is withdrawable when its cooldown ends"),
        (2**53 - 1, "node 1 is unstaking; its stake is withdrawable when its cooldown ends"),
        (0, "node 1 is unstaking; its stake is withdrawable when its cooldown ends"),
    ],
)
def test_an_unstaking_node_is_told_when_in_words_that_a_reader_knows(
    world: World, cooldown_ends_at: int, said: str
) -> None:
    cooling = msgspec.structs.replace(registration(1, state="cooling"), cooldown_ends_at=cooldown_ends_at)
    world.step(events.RegistryChanged(registrations=(cooling,)))
    standing = world.engine.standing(1)
    assert standing is not None and standing.message == said


def test_a_node_nobody_registered_is_not_staked(world: World) -> None:
    standing = world.engine.standing(99)
    assert standing is not None and standing.code == "not_staked"


def test_a_node_that_stakes_again_is_given_what_waits(world: World) -> None:
    world.attach(1)
    world.register(1, state="cooling")
    waiting = world.ask()
    world.register(1)
    assert world.node_of(waiting) == 1


def test_an_unstaking_node_keeps_what_it_runs_for_as_long_as_its_deadline_allows(world: World) -> None:
    """Attempts handed out before `requestUnstake` may still return, though its heartbeats are refused."""
    world.attach(1)
    request_id = world.ask(deadline_ms=HOUR_MS)
    world.acknowledge(world.attempt_of(request_id))
    world.register(1, state="cooling")
    for _ in range(9):
        world.heartbeat(1)
        world.advance(10 * SECOND)
    assert world.node_of(request_id) == 1
    assert world.engine.uptime.counted(1, world.now // HOUR_MS) == 0, "but earns no uptime"
    assert not world.engine.pool.nodes[1].online
    world.complete(world.attempt_of(request_id))
    assert world.row(request_id).state == "completed"


def test_an_unstaking_node_that_is_gone_is_given_up_at_its_deadline(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=60 * SECOND)
    world.acknowledge(world.attempt_of(request_id))
    world.register(1, state="cooling")
    world.advance(60 * SECOND)
    assert world.request(request_id).attempts[0].state == "missed"


def test_a_manifest_that_is_not_newer_than_the_last_opens_no_session(world: World) -> None:
    world.attach(1)
    session, issued_at = world.engine.pool.nodes[1].session, world.engine.pool.nodes[1].issued_at
    world.now -= 10 * SECOND
    answer = world.attach(1)
    assert isinstance(answer, effects.Refused) and answer.code == "stale_time"
    assert str(issued_at) in answer.message
    assert world.engine.pool.nodes[1].session == session


# --- Online and offline


def test_a_node_is_offline_after_thirty_seconds_of_silence_and_not_before(world: World) -> None:
    world.attach(1)
    world.advance(20 * SECOND)
    world.heartbeat(1)
    world.advance(29_999)
    assert world.engine.pool.nodes[1].online
    world.advance(1)
    assert not world.engine.pool.nodes[1].online
    assert [fields["node_id"] for fields in world.logged("node.offline")] == ["1"]
    assert world.request(world.ask()).open_attempt is None


def test_a_node_that_is_heard_again_is_given_what_waits_and_goes_offline_again_in_its_time(world: World) -> None:
    world.attach(1)
    world.advance(31 * SECOND)
    waiting = world.ask()
    world.heartbeat(1)
    assert world.node_of(waiting) == 1
    world.advance(30 * SECOND)
    assert not world.engine.pool.nodes[1].online
    assert len(world.logged("node.offline")) == 2


def test_a_node_that_attaches_after_it_was_offline_is_watched_once(world: World) -> None:
    world.attach(1)
    world.advance(31 * SECOND)
    world.attach(1)
    world.advance(20 * SECOND)
    world.attach(1)
    world.advance(20 * SECOND)
    assert world.engine.pool.nodes[1].online
    world.advance(10 * SECOND)
    assert not world.engine.pool.nodes[1].online
    assert len(world.logged("node.offline")) == 2


# --- Uptime


def test_a_slot_is_ten_seconds_and_credited_once() -> None:
    uptime = Uptime()
    assert uptime.credit(1, 0) == (0, True)
    assert uptime.credit(1, 9_999) == (0, False)
    assert uptime.credit(1, 10_000) == (1, True)
    assert uptime.credit(2, 0) == (0, True), "each node has its own"
    assert (uptime.counted(1, 0), uptime.counted(2, 0), uptime.counted(3, 0)) == (2, 1, 0)


def test_an_hour_holds_360_slots_and_the_next_begins_its_own() -> None:
    uptime = Uptime()
    for slot in range(SLOTS_PER_HOUR + 1):
        assert uptime.credit(1, slot * SLOT_MS) == (slot, True)
    assert (uptime.counted(1, 0), uptime.counted(1, 1)) == (360, 1)
    rows = uptime.take_rows(0)
    assert [(row.hour, row.credited) for row in rows] == [(0, "f" * 90), (1, "1")]


def test_a_rejected_attempt_voids_every_slot_it_touches_for_good() -> None:
    uptime = Uptime()
    for slot in range(6):
        uptime.credit(1, slot * SLOT_MS)
    assert uptime.void(1, 19_999, 40_000) == 4
    assert uptime.counted(1, 0) == 2
    assert uptime.credit(1, 20_000) == (2, False)
    assert uptime.void(1, 60_000, 60_000) == 1
    assert uptime.credit(1, 60_000) == (6, True)
    assert uptime.counted(1, 0) == 2, "a voided slot counts for nothing, credited before or after"


def test_voiding_over_the_hour_touches_both() -> None:
    uptime = Uptime()
    uptime.credit(1, HOUR_MS - 1)
    uptime.credit(1, HOUR_MS)
    assert uptime.void(1, HOUR_MS - 1, HOUR_MS) == 2
    assert (uptime.counted(1, 0), uptime.counted(1, 1)) == (0, 0)


def test_rows_are_written_for_what_changed_and_read_back_the_same() -> None:
    uptime = Uptime()
    uptime.credit(1, 0)
    uptime.void(1, 10_000, 10_000)
    rows = uptime.take_rows(0)
    assert rows == [UptimeRow(node_id="1", hour=0, credited="1", voided="2")]
    assert uptime.take_rows(0) == []
    again = Uptime()
    again.restore(tuple(rows))
    assert again.take_rows(0) == [], "nothing changed by reading"
    assert again.credit(1, 5_000) == (0, False)
    again.credit(1, 20_000)
    assert again.take_rows(0) == [UptimeRow(node_id="1", hour=0, credited="5", voided="2")]
    assert again.last_credited_ms() == {1: 20_000}


def test_hours_long_written_are_forgotten_and_the_last_ones_kept() -> None:
    uptime = Uptime()
    for hour in range(6):
        uptime.credit(1, hour * HOUR_MS)
        uptime.void(1, hour * HOUR_MS, hour * HOUR_MS)
    uptime.take_rows(5 * HOUR_MS)
    for hour in range(6):
        uptime.credit(1, hour * HOUR_MS + SLOT_MS)
    credited = {row.hour: row.credited for row in uptime.take_rows(5 * HOUR_MS)}
    assert [hour for hour, bitmap in credited.items() if bitmap == "3"] == list(range(5 - HOURS_KEPT, 6))


def test_who_was_credited_last_is_known_over_hours() -> None:
    uptime = Uptime()
    assert uptime.last_credited_ms() == {}
    uptime.credit(1, 3 * HOUR_MS + 25_000)
    uptime.credit(1, 2 * HOUR_MS + 95_000)
    uptime.credit(2, 7)
    uptime.void(3, 0, 0)
    assert uptime.last_credited_ms() == {1: 3 * HOUR_MS + 20_000, 2: 0}


def test_uptime_is_written_each_minute_and_not_with_each_heartbeat(world: World) -> None:
    world.attach(1)
    for _ in range(5):
        world.heartbeat(1)
        world.advance(10 * SECOND)
        assert world.rows(UptimeRow) == []
    world.heartbeat(1)
    world.advance(MINUTE_MS - 50 * SECOND)
    assert sum(int(row.credited, 16).bit_count() for row in world.rows(UptimeRow)) == 6
