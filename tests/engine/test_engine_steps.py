"""What each step writes, tells and asks for: the rows, effects and answers that a shell acts on."""

from __future__ import annotations

import random

import pytest
from world import ACCOUNT, PRLX, SECOND, START_MS, World

from parallelix.engine import effects, events
from parallelix.engine.ledger import available
from parallelix.engine.lifecycle import ATTEMPT_TRANSITIONS, AttemptState, IllegalTransition, require_attempt_transition
from parallelix.engine.rows import AttemptRow, BatchRow, RecordRow, TransferRow
from parallelix.engine.settings import HOUR_MS
from parallelix.protocol import canonical
from parallelix.protocol.records import GENESIS_HASH, ExecutionRecord


def withdrawn(world: World) -> list[effects.Withdraw]:
    return [effect for effect in world.effects if isinstance(effect, effects.Withdraw)]


def told(world: World, request_id: str) -> list[tuple[str, int, str, str]]:
    return [
        (effect.kind, effect.attempt_number, effect.state, effect.reason)
        for effect in world.effects
        if isinstance(effect, effects.RequestProgress) and effect.request_id == request_id
    ]


def attempt_row(world: World, attempt_id: str) -> AttemptRow:
    row = world.tables["attempts"][(attempt_id,)]
    assert isinstance(row, AttemptRow)
    return row


def test_a_requester_is_told_of_every_step_and_never_of_a_node(world: World) -> None:
    request_id = world.ask()
    world.attach(1)
    world.acknowledge(world.attempt_of(request_id))
    world.attach(2)
    world.returned(world.attempt_of(request_id), "failed", code="node.runtime_failed")
    world.acknowledge(world.attempt_of(request_id))
    world.complete(world.attempt_of(request_id))

    assert told(world, request_id) == [
        ("held", 0, "", "no_capable_node"),
        ("dispatched", 1, "", ""),
        ("running", 1, "", ""),
        ("restarted", 1, "", "node.runtime_failed"),
        ("dispatched", 2, "", ""),
        ("running", 2, "", ""),
        ("finished", 2, "completed", ""),
    ]
    assert {"node_id", "node", "session"}.isdisjoint(effects.RequestProgress.__struct_fields__)


def test_an_offer_says_all_that_its_envelope_needs(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=7 * SECOND)
    offer = world.offers[world.attempt_of(request_id)]
    node = world.engine.pool.nodes[1]

    assert (offer.request_id, offer.attempt_number, offer.node_id) == (request_id, 1, 1)
    assert (offer.session, offer.model, offer.model_digest) == (node.session, "md1", "d1" * 32)
    assert (offer.workload_class, offer.deadline_ms) == ("ai.inference", 7 * SECOND)


def test_the_times_of_an_attempt_and_of_its_request_are_written(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=60 * SECOND)
    attempt_id = world.attempt_of(request_id)
    offered = attempt_row(world, attempt_id)
    assert (offered.dispatched_at, offered.started_at, offered.deadline_at, offered.finished_at) == (START_MS, 0, 0, 0)
    assert (world.row(request_id).admitted_at, world.row(request_id).finished_at) == (START_MS, 0)
    world.now += 1
    world.acknowledge(attempt_id)
    running = attempt_row(world, attempt_id)
    assert (running.state, running.started_at, running.deadline_at) == ("running", START_MS + 1, START_MS + 60_001)
    world.now += 1
    world.complete(attempt_id)
    ended = attempt_row(world, attempt_id)
    assert (ended.state, ended.reason, ended.finished_at) == ("completed", "", START_MS + 2)
    assert (world.row(request_id).state, world.row(request_id).finished_at) == ("completed", START_MS + 2)


def test_a_record_stands_on_the_one_before_and_says_what_was_done(world: World) -> None:
    world.attach(1)
    for number in range(2):
        request_id = world.ask()
        world.acknowledge(world.attempt_of(request_id))
        world.now += 250
        world.complete(world.attempt_of(request_id), prompt_tokens=3, completion_tokens=4)
        row = world.rows(RecordRow)[number]
        record = canonical.decode(row.body, ExecutionRecord)
        before = world.rows(RecordRow)[number - 1].record_hash if number else GENESIS_HASH
        assert (record.sequence, record.previous_hash, record.request_id) == (number, before, request_id)
        assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (3, 4)
        assert (record.epoch, record.rate) == (0, 0), "audits are off"
        assert record.finished_at - record.started_at == 250
        assert world.row(request_id).record_sequence == number


def test_a_batch_closes_its_time_after_its_first_record_and_not_after_the_last(world: World) -> None:
    world.attach(1)
    for _ in range(3):
        request_id = world.ask()
        world.acknowledge(world.attempt_of(request_id))
        world.complete(world.attempt_of(request_id))
        world.heartbeat(1)
        world.advance(3 * SECOND)
    assert world.rows(BatchRow) == []
    world.advance(SECOND)
    (batch,) = world.rows(BatchRow)
    assert (batch.first, batch.last, batch.count, batch.confirmed_at) == (0, 2, 3, 0)
    assert batch.closed_at == START_MS + 10 * SECOND
    world.now += 5
    world.confirm_batches()
    (batch,) = world.rows(BatchRow)
    assert (batch.closed_at, batch.confirmed_at) == (START_MS + 10 * SECOND, world.now)
    assert batch.reference == "local:0"


def test_batches_are_confirmed_in_order_and_once() -> None:
    world = World(batch_records_max=1)
    world.fund()
    world.issue_key()
    world.attach(1)
    for _ in range(3):
        request_id = world.ask()
        world.acknowledge(world.attempt_of(request_id))
        world.complete(world.attempt_of(request_id))
    for number in (2, 1, 7, 0, 0, 2):
        world.step(events.BatchConfirmed(number=number, reference="r"))
    assert world.engine.recorder.batches_confirmed == 1
    assert len([row for row in world.rows(TransferRow) if row.transfer_id.startswith("charge:")]) == 1
    for number in (1, 2):
        world.step(events.BatchConfirmed(number=number, reference="r"))
    assert world.engine.recorder.confirmed_through == 2 and world.balance("usage") == 0


def test_a_free_model_holds_charges_and_posts_nothing(world: World) -> None:
    world.attach(1)
    request_id = world.ask(model="free")
    assert world.request(request_id).hold_wei == 0
    world.acknowledge(world.attempt_of(request_id))
    world.complete(world.attempt_of(request_id))
    world.advance(10 * SECOND)
    world.confirm_batches()
    assert world.row(request_id).charge_wei == "0" and world.engine.settled(0)
    assert [row.transfer_id.split(":")[0] for row in world.rows(TransferRow)] == ["grant"]


def test_a_free_model_needs_no_credits_at_all() -> None:
    world = World()
    world.issue_key(budget_wei=1)
    assert isinstance(world.try_ask(model="free"), effects.Admitted)
    assert world.balance(available(ACCOUNT)) == 0


def test_a_late_node_is_told_to_stop(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=5 * SECOND)
    attempt_id = world.attempt_of(request_id)
    world.acknowledge(attempt_id)
    world.advance(5 * SECOND)
    assert [(each.attempt_id, each.node_id, each.reason, each.partial) for each in withdrawn(world)] == [
        (attempt_id, 1, "node.deadline_exceeded", False)
    ]


def test_a_node_that_does_not_acknowledge_is_told_to_leave_it(world: World) -> None:
    world.attach(1)
    attempt_id = world.attempt_of(world.ask())
    world.advance(10 * SECOND)
    assert [(each.attempt_id, each.reason, each.partial) for each in withdrawn(world)] == [
        (attempt_id, "not_acknowledged", False)
    ]


def test_a_request_that_is_over_in_mid_attempt_frees_its_slot_for_who_waits(world: World) -> None:
    world = World(lifetime_ms=20 * SECOND)
    world.fund()
    world.issue_key()
    world.attach(1)
    old = world.ask(deadline_ms=HOUR_MS)
    world.acknowledge(world.attempt_of(old))
    world.advance(5 * SECOND)
    waiting = world.ask(deadline_ms=HOUR_MS)
    world.heartbeat(1)
    world.advance(15 * SECOND)
    assert (world.row(old).state, world.row(old).reason) == ("expired", "lifetime_exceeded")
    assert [each.reason for each in withdrawn(world)] == ["lifetime_exceeded"]
    assert world.node_of(waiting) == 1


@pytest.mark.parametrize("charged", [False, True])
def test_a_cancel_frees_the_slot_for_who_waits(world: World, charged: bool) -> None:
    world.attach(1)
    running, waiting = world.ask(), world.ask()
    if not charged:
        world.acknowledge(world.attempt_of(running))
    world.step(events.Cancel(request_id=running, charged=charged, reason="requester"))
    assert world.row(running).state == "cancelled" and world.row(running).reason == "requester"
    assert world.node_of(waiting) == 1


def test_a_cancel_of_what_waits_or_is_over_does_no_harm(world: World) -> None:
    waiting = world.ask()
    for _ in range(2):
        world.step(events.Cancel(request_id=waiting, charged=True, reason="requester"))
    assert world.ends[waiting] == ["cancelled"] and withdrawn(world) == []
    world.step(events.Cancel(request_id="req_unknown", charged=True, reason="requester"))


def test_a_second_cancel_does_not_ask_again_but_one_that_drops_the_work_does_it_at_once(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=HOUR_MS)
    world.acknowledge(world.attempt_of(request_id))
    for _ in range(2):
        world.step(events.Cancel(request_id=request_id, charged=True, reason="requester"))
    assert [each.partial for each in withdrawn(world)] == [True]
    world.step(events.Cancel(request_id=request_id, charged=False, reason="client_lost"))
    assert [each.partial for each in withdrawn(world)] == [True, False]
    assert world.row(request_id).state == "cancelled" and world.balance(available(ACCOUNT)) == PRLX


def test_a_node_that_fails_a_cancelled_unit_ends_it_and_nobody_tries_again(world: World) -> None:
    world.attach(1)
    world.attach(2)
    request_id = world.ask()
    world.acknowledge(world.attempt_of(request_id))
    world.step(events.Cancel(request_id=request_id, charged=True, reason="requester"))
    world.returned(world.attempt_of(request_id), "failed", code="node.runtime_failed")
    assert (world.row(request_id).state, world.row(request_id).reason) == ("cancelled", "requester")
    assert world.logged("attempt.redispatched") == [] and world.logged("request.failed") == []


def test_an_answer_that_came_before_the_cancel_is_an_ordinary_result(world: World) -> None:
    world.attach(1)
    request_id = world.ask()
    world.acknowledge(world.attempt_of(request_id))
    world.step(events.Cancel(request_id=request_id, charged=True, reason="requester"))
    world.complete(world.attempt_of(request_id))
    assert (world.row(request_id).state, world.row(request_id).reason) == ("completed", "")


def test_after_ten_dispatches_through_nobody_s_fault_a_request_gives_up(world: World) -> None:
    for node_id in range(1, 13):
        world.attach(node_id)
    request_id = world.ask(queue_ms=HOUR_MS)
    for _ in range(10):
        assert world.row(request_id).state == "queued"
        for node_id in range(1, 13):
            world.heartbeat(node_id)
        world.advance(10 * SECOND)
    assert (world.row(request_id).state, world.row(request_id).reason) == ("failed", "not_acknowledged")
    (failed,) = world.logged("request.failed")
    assert (failed["state"], failed["attempts"]) == ("failed", 10)


def test_a_failed_attempt_without_a_reason_has_the_ordinary_one(world: World) -> None:
    world.attach(1)
    request_id = world.ask()
    world.returned(world.attempt_of(request_id), "failed")
    assert world.request(request_id).attempts[0].reason == "node.runtime_failed"


def test_a_result_without_an_acknowledgement_starts_and_ends_the_attempt_at_once(world: World) -> None:
    """The acknowledgement was lost on the way, the result was not."""
    world.attach(1)
    request_id = world.ask()
    world.complete(world.attempt_of(request_id))
    assert world.row(request_id).state == "completed"
    assert world.rows(AttemptRow)[0].started_at == world.now


def test_a_clock_that_is_set_back_undoes_nothing(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=60 * SECOND)
    world.now -= HOUR_MS
    world.acknowledge(world.attempt_of(request_id))
    assert attempt_row(world, world.attempt_of(request_id)).started_at == START_MS


def test_ids_come_from_the_randomness_of_their_own_step() -> None:
    def ids_of(seed: int) -> tuple[str, str]:
        world = World(seed=0)
        world.fund()
        world.issue_key()
        world.attach(1)
        world.random = random.Random(seed)
        request_id = world.ask()
        return request_id, world.attempt_of(request_id)

    assert ids_of(1) == ids_of(1)
    assert ids_of(1) != ids_of(2)


@pytest.mark.parametrize("before", list(AttemptState))
@pytest.mark.parametrize("after", list(AttemptState))
def test_only_what_stands_in_the_table_can_happen_to_an_attempt(before: AttemptState, after: AttemptState) -> None:
    if after in ATTEMPT_TRANSITIONS[before]:
        require_attempt_transition(before, after)
    else:
        with pytest.raises(IllegalTransition):
            require_attempt_transition(before, after)
