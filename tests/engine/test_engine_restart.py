"""What a restarted engine knows, and what it does not forget. `World.restart` rebuilds it from its tables alone."""

from __future__ import annotations

import msgspec
import pytest
from world import ACCOUNT, PRLX, SECOND, World

from parallelix.engine import effects, events
from parallelix.engine.ledger import available
from parallelix.engine.settings import DAY_MS, HOUR_MS, MINUTE_MS


def beat(world: World, *node_ids: int, seconds: int) -> None:
    for _ in range(seconds // 10):
        for node_id in node_ids:
            world.heartbeat(node_id)
        world.advance(10 * SECOND)


def test_an_open_attempt_goes_on_and_has_some_time_more(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=20 * SECOND)
    attempt_id = world.attempt_of(request_id)
    world.acknowledge(attempt_id)
    world.now += 19 * SECOND
    world.restart()

    assert world.attempt_of(request_id) == attempt_id and world.request(request_id).state == "running"
    world.advance(29 * SECOND)
    assert world.request(request_id).state == "running", "its node could not reach us meanwhile"
    world.heartbeat(1)
    world.advance(1 * SECOND)
    assert world.row(request_id).state == "queued" and world.request(request_id).attempts[0].state == "missed"


def test_a_deadline_far_off_is_not_moved(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=600 * SECOND)
    world.acknowledge(world.attempt_of(request_id))
    deadline_at = world.request(request_id).attempts[0].deadline_at
    world.restart()
    assert world.request(request_id).attempts[0].deadline_at == deadline_at


def test_an_offer_is_made_again_and_waits_longer_for_its_acknowledgement(world: World) -> None:
    world.attach(1)
    world.attach(2)
    request_id = world.ask()
    attempt_id, node_id = world.attempt_of(request_id), world.node_of(request_id)
    world.restart()

    assert world.offers[attempt_id].node_id == node_id
    beat(world, 1, 2, seconds=20)
    world.advance(9_999)
    assert world.attempt_of(request_id) == attempt_id
    world.advance(1)
    assert world.request(request_id).open_attempt is None or world.attempt_of(request_id) != attempt_id


def test_a_slot_that_is_taken_stays_taken(world: World) -> None:
    world.attach(1, slots=1)
    world.acknowledge(world.attempt_of(world.ask()))
    world.restart()
    assert world.engine.pool.nodes[1].slots_free == 0
    assert world.request(world.ask()).open_attempt is None


def test_what_waits_is_served_in_order_of_its_priority(world: World) -> None:
    ordinary = world.ask()
    world.now += 1
    urgent = world.ask(priority="urgent")
    world.register(1)
    world.restart()
    world.attach(1)
    assert world.node_of(urgent) == 1 and world.request(ordinary).open_attempt is None


def test_of_what_waits_the_urgent_is_placed_first_where_a_slot_came_free_with_the_restart(world: World) -> None:
    world.attach(1)
    world.heartbeat(1, paused=True)
    ordinary = world.ask()
    world.now += 1
    urgent = world.ask(priority="urgent")
    # The pause is in no table: the next heartbeat tells of it again.
    world.restart()
    assert world.node_of(urgent) == 1 and world.request(ordinary).open_attempt is None


def test_a_unit_still_avoids_the_nodes_that_had_it(world: World) -> None:
    world.attach(1)
    request_id = world.ask()
    world.returned(world.attempt_of(request_id), "failed", code="node.runtime_failed")
    world.restart()
    assert world.request(request_id).open_attempt is None
    assert world.request(request_id).attempts_counted == 1


def test_waiting_is_counted_from_the_end_of_the_last_attempt(world: World) -> None:
    world.attach(1)
    request_id = world.ask(queue_ms=60 * SECOND)
    world.acknowledge(world.attempt_of(request_id))
    beat(world, 1, seconds=50)
    world.returned(world.attempt_of(request_id), "failed", code="node.runtime_failed")
    world.restart()
    world.advance(59 * SECOND)
    assert world.row(request_id).state == "queued"
    world.advance(1 * SECOND)
    assert world.row(request_id).state == "expired"


def test_nodes_that_were_online_are_given_work_at_once_and_those_long_gone_are_not(world: World) -> None:
    world.attach(9)
    beat(world, 9, seconds=60)
    world.attach(1)
    beat(world, 1, seconds=300)
    world.attach(2)
    world.now += HOUR_MS
    world.restart()

    assert {node.node_id for node in world.engine.pool.nodes.values() if node.online} == {1, 2}
    assert {world.node_of(world.ask()), world.node_of(world.ask())} == {1, 2}
    assert world.request(world.ask()).open_attempt is None
    world.heartbeat(9)
    assert world.engine.pool.nodes[9].online and world.engine.pool.nodes[9].slots_free == 0


def test_a_node_with_work_keeps_it_however_little_was_heard_of_it(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=HOUR_MS)
    world.acknowledge(world.attempt_of(request_id))
    world.now += 10 * MINUTE_MS
    world.attach(2)
    world.restart()
    assert world.node_of(request_id) == 1 and world.engine.pool.nodes[1].online
    world.advance(20 * SECOND)
    world.heartbeat(2)
    world.advance(10 * SECOND)
    assert [fields["reason"] for fields in world.logged("attempt.redispatched")] == ["node_offline"]


def test_a_node_that_stays_silent_after_a_restart_goes_offline(world: World) -> None:
    world.attach(1)
    world.restart()
    world.advance(29_999)
    assert world.engine.pool.nodes[1].online
    world.advance(1)
    assert not world.engine.pool.nodes[1].online


def test_a_removed_node_stays_removed_for_its_day_and_its_rejections_stay_counted(world: World) -> None:
    world.attach(1)
    for _ in range(2):
        world.returned(world.attempt_of(world.ask(queue_ms=0)), "rejected", code="poe_mismatch")
        world.advance(0)
    world.restart()
    assert len(world.engine.pool.nodes[1].rejections) == 2
    world.returned(world.attempt_of(world.ask(queue_ms=0)), "rejected", code="poe_mismatch")
    removed_until = world.engine.pool.nodes[1].removed_until
    assert removed_until == world.now + DAY_MS
    world.restart()
    assert world.engine.pool.nodes[1].removed_until == removed_until
    assert [node.node_id for node in world.engine.pool.penalised()] == [1]
    world.advance(DAY_MS)
    assert world.engine.pool.nodes[1].removed_until == 0
    world.restart()
    assert not world.engine.pool.nodes[1].rejections


def test_a_client_that_does_not_come_back_in_a_minute_has_its_request_cancelled_free_of_charge(world: World) -> None:
    world.attach(1)
    lost, returned, detached = (world.ask(attached=each) for each in (True, True, False))
    world.restart()
    assert [world.engine.orphaned(each) for each in (lost, returned, detached)] == [True, True, False]
    world.step(world_returned(returned))
    beat(world, 1, seconds=50)
    world.advance(9_999)
    assert world.row(lost).state == "queued"
    world.heartbeat(1)
    world.advance(1)

    assert (world.row(lost).state, world.row(lost).reason) == ("cancelled", "client_lost")
    assert lost not in world.engine.requests
    assert not world.engine.orphaned(lost)
    assert {returned, detached} <= set(world.engine.requests)
    assert world.row(lost).charge_wei == "0"


def test_what_ran_for_a_client_that_does_not_come_back_is_dropped_and_free_of_charge_too(world: World) -> None:
    world.attach(1)
    request_id = world.ask(attached=True, deadline_ms=HOUR_MS)
    world.acknowledge(world.attempt_of(request_id))
    world.restart()
    beat(world, 1, seconds=60)

    assert (world.row(request_id).state, world.row(request_id).reason) == ("cancelled", "client_lost")
    (withdrawn,) = [effect for effect in world.effects if isinstance(effect, effects.Withdraw)]
    assert not withdrawn.partial


def test_what_waits_still_fits_the_nodes_that_its_prompt_fits(world: World) -> None:
    world.attach(1, context_tokens=1_000)
    running = world.ask()
    world.acknowledge(world.attempt_of(running))
    waiting = world.ask(prompt_bytes=2_000, max_tokens=100)
    too_long = world.ask(prompt_bytes=8_000, max_tokens=100)
    world.restart()
    world.returned(world.attempt_of(running), "failed", node_id=1)
    assert world.node_of(waiting) == 1
    assert world.request(too_long).open_attempt is None


def world_returned(request_id: str) -> events.ClientReturned:
    return events.ClientReturned(request_id=request_id)


def test_a_cancel_that_waits_for_its_partial_result_asks_for_it_again(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=HOUR_MS)
    world.acknowledge(world.attempt_of(request_id))
    world.step(events.Cancel(request_id=request_id, charged=True, reason="requester"))
    world.effects.clear()
    world.restart()
    asked = [effect for effect in world.effects if isinstance(effect, effects.Withdraw)]
    assert [(each.partial, each.reason) for each in asked] == [(True, "requester")]
    world.heartbeat(1)
    world.advance(10 * SECOND)
    assert world.row(request_id).state == "cancelled"
    assert world.balance(available(ACCOUNT)) == PRLX


def test_what_was_recorded_and_not_charged_is_charged_when_its_batch_is_confirmed(world: World) -> None:
    world.attach(1)
    charges = 0
    for _ in range(3):
        request_id = world.ask()
        world.acknowledge(world.attempt_of(request_id))
        world.complete(world.attempt_of(request_id))
        charges += int(world.row(request_id).charge_wei)
        world.restart()
        assert world.engine.keys["key_1"].committed_wei == charges
    world.advance(10 * SECOND)
    world.restart()
    assert len(world.unconfirmed) == 1, "a batch that was not confirmed is handed to the anchor again"
    world.confirm_batches()
    assert world.engine.keys["key_1"].spent_wei == charges
    assert world.balance(available(ACCOUNT)) == PRLX - charges
    world.restart()
    world.check_chain()
    assert world.engine.keys["key_1"].committed_wei == 0 and world.engine.recorder.batches_confirmed == 1


def test_a_batch_that_was_open_is_closed_in_its_time(world: World) -> None:
    world.attach(1)
    request_id = world.ask()
    world.acknowledge(world.attempt_of(request_id))
    world.complete(world.attempt_of(request_id))
    world.restart()
    world.advance(9_999)
    assert world.engine.recorder.batches_closed == 0
    world.advance(1)
    assert world.engine.recorder.batches_closed == 1
    assert world.unconfirmed == [0]


def test_a_request_keeps_its_lifetime(world: World) -> None:
    request_id = world.ask(queue_ms=0)
    world.engine.requests[request_id].queue_ms = 13 * HOUR_MS
    world.tables["requests"][(request_id,)] = world.engine.requests[request_id].row()
    world.now += 11 * HOUR_MS
    world.restart()
    world.advance(HOUR_MS - 1)
    assert request_id in world.engine.requests
    world.advance(1)
    assert world.row(request_id).reason == "lifetime_exceeded"


def test_a_model_that_left_the_catalogue_holds_its_work_until_it_expires(world: World) -> None:
    request_id = world.ask(queue_ms=30 * SECOND)
    row = world.tables["requests"][(request_id,)]
    world.tables["requests"][(request_id,)] = msgspec.structs.replace(row, model="gone")
    world.restart()
    world.attach(1)
    assert world.request(request_id).open_attempt is None
    world.advance(30 * SECOND)
    assert world.row(request_id).reason == "no_capable_node"


def test_uptime_is_neither_lost_nor_credited_twice(world: World) -> None:
    world.attach(1)
    hour = world.now // HOUR_MS
    beat(world, 1, seconds=60)
    world.restart()
    assert world.engine.uptime.counted(1, hour) == 6
    answer = world.step(events.Heartbeat(node_id=1, unix_ms=world.now - 10 * SECOND, paused=False))
    assert isinstance(answer, effects.SlotCredited) and not answer.credited
    world.heartbeat(1)
    assert world.engine.uptime.counted(1, hour) == 7


def test_a_slot_of_an_earlier_hour_is_voided_without_losing_the_others_of_it(world: World) -> None:
    """An attempt may end an hour after it began, in the third hour that a coordinator sees of it."""
    world.now = (world.now // HOUR_MS + 1) * HOUR_MS - 100 * SECOND
    world.attach(1)
    hour = world.now // HOUR_MS
    beat(world, 1, seconds=80)
    request_id = world.ask(deadline_ms=HOUR_MS)
    world.acknowledge(world.attempt_of(request_id))
    world.heartbeat(1)
    while world.now % HOUR_MS != HOUR_MS - 25 * SECOND or world.now // HOUR_MS == hour:
        world.advance(5 * SECOND)
        world.heartbeat(1)
    world.restart()
    world.advance(27 * SECOND)
    world.restart()
    assert world.now // HOUR_MS == hour + 2
    world.returned(world.attempt_of(request_id), "rejected", node_id=1, code="poe_mismatch")
    world.advance(MINUTE_MS)
    world.restart()
    assert world.engine.uptime.counted(1, hour) == 8, "two of its ten slots are void"


@pytest.mark.parametrize("registered", [True, False])
def test_the_registry_at_the_restart_is_what_counts(world: World, registered: bool) -> None:
    world.attach(1)
    if not registered:
        world.step(events.RegistryChanged(removed=(1,)))
    world.restart()
    assert (world.request(world.ask()).open_attempt is not None) == registered
