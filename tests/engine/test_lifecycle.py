"""The ways through the engine that are not failures, and those that are nobody's fault."""

from __future__ import annotations

from typing import Any

import pytest
from world import ACCOUNT, BIG_DIGEST, DIGEST, PRLX, SECOND, World

from parallelix.engine import effects, events
from parallelix.engine.ledger import available, held
from parallelix.engine.lifecycle import (
    ATTEMPT_TRANSITIONS,
    REQUEST_TRANSITIONS,
    IllegalTransition,
    RequestState,
    require_request_transition,
)
from parallelix.engine.rows import RecordRow
from parallelix.engine.settings import HOUR_MS
from parallelix.protocol.work import Usage


def serve(world: World, request_id: str, **usage: Any) -> None:
    world.acknowledge(world.attempt_of(request_id))
    world.complete(world.attempt_of(request_id), **usage)


def test_a_request_is_held_matched_run_recorded_and_settled_only_after_its_batch(world: World) -> None:
    world.attach(1)
    request_id = world.ask(prompt_bytes=40, max_tokens=50)
    hold_wei = world.request(request_id).hold_wei
    # (40 bytes + 32 tokens of template) x 1,000 wei + 50 x 3,000 wei
    assert hold_wei == 72 * 1_000 + 50 * 3_000
    serve(world, request_id, prompt_tokens=10, completion_tokens=20)

    charge_wei = 10 * 1_000 + 20 * 3_000
    assert world.row(request_id).charge_wei == str(charge_wei)
    assert world.balance(held(ACCOUNT)) == charge_wei, "the rest of the hold is released at the record"
    assert world.balance("usage") == 0 and world.balance("operators") == 0
    assert not world.engine.settled(world.row(request_id).record_sequence)

    world.advance(10 * SECOND)
    assert world.balance(held(ACCOUNT)) == charge_wei, "closed is not confirmed"
    world.confirm_batches()

    assert world.engine.settled(world.row(request_id).record_sequence)
    assert world.balance(held(ACCOUNT)) == 0
    assert world.balance(available(ACCOUNT)) == PRLX - charge_wei
    assert world.balance("operators") + world.balance("treasury") + world.balance("infrastructure") == charge_wei
    assert world.balance("operators") == charge_wei * 85 // 100
    world.check_chain()


def test_the_charge_counts_the_lesser_of_what_the_node_signed_and_what_arrived(world: World) -> None:
    world.attach(1)
    request_id = world.ask(max_tokens=50)
    world.acknowledge(world.attempt_of(request_id))
    attempt_id = world.attempt_of(request_id)
    facts = events.ExecutionFacts(
        usage=Usage(prompt_tokens=10**9, completion_tokens=10**9),
        entries_counted=7,
        input_hash="0x" + "01" * 32,
        result_hash="0x" + "02" * 32,
        poe_commitment="0x" + "03" * 32,
        model_digest=DIGEST,
    )
    world.returned(attempt_id, "completed", facts=facts)

    row = world.row(request_id)
    assert (row.prompt_tokens, row.completion_tokens) == (72, 7)
    assert int(row.charge_wei) <= int(row.hold_wei)


def test_tier_and_priority_multiply_the_price(world: World) -> None:
    world.attach(1, tier=3)
    plain = world.request(world.ask()).hold_wei
    # tier 3 doubles, urgent triples
    assert world.request(world.ask(hardware_tier=3, priority="urgent")).hold_wei == plain * 6


def test_busy_is_never_a_fault(world: World) -> None:
    for node_id in (1, 2, 3):
        world.attach(node_id)
    request_id = world.ask()
    for _ in range(3):
        world.returned(world.attempt_of(request_id), "declined", code="node.busy")

    assert world.row(request_id).state == "failed" and world.row(request_id).reason == "node.busy"
    assert world.logged("node.flagged") == []
    assert all(not node.rejections for node in world.engine.pool.nodes.values())


def test_a_slot_is_reserved_at_the_match_so_one_slot_never_carries_two_units(world: World) -> None:
    world.attach(1, slots=2)
    first, second, third = world.ask(), world.ask(), world.ask()
    assert world.request(first).open_attempt and world.request(second).open_attempt
    held_now = world.engine.held(world.request(third))
    assert held_now is not None and held_now.reason == "no_free_slot"

    serve(world, first)

    assert world.request(third).open_attempt is not None


def test_an_offer_that_is_not_acknowledged_goes_elsewhere_and_costs_no_attempt(world: World) -> None:
    world.attach(1)
    world.attach(2)
    request_id = world.ask()
    first = world.attempt_of(request_id)
    world.advance(10 * SECOND)

    assert world.attempt_of(request_id) != first
    assert world.request(request_id).attempts_counted == 0
    refused = world.step(events.Acknowledged(attempt_id=first, node_id=1))
    assert isinstance(refused, effects.Refused) and refused.code == "attempt_closed"


def test_an_only_node_that_was_slow_to_acknowledge_gets_the_unit_once_more(world: World) -> None:
    world.attach(1)
    request_id = world.ask(queue_ms=HOUR_MS)
    first = world.attempt_of(request_id)
    world.heartbeat(1)
    world.advance(10 * SECOND)

    second = world.attempt_of(request_id)
    assert second != first and world.node_of(request_id) == 1

    world.heartbeat(1)
    world.advance(10 * SECOND)
    assert world.row(request_id).state == "queued" and world.request(request_id).open_attempt is None


def test_a_unit_that_was_let_pass_goes_first_to_a_node_that_never_saw_it(world: World) -> None:
    world.attach(1)
    request_id = world.ask(queue_ms=HOUR_MS)
    world.attach(2)
    for node_id in (1, 2):
        world.heartbeat(node_id)
    world.advance(10 * SECOND)
    assert world.node_of(request_id) == 2


def test_a_node_without_heartbeat_is_offline_and_its_work_goes_elsewhere_at_once(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=HOUR_MS)
    world.acknowledge(world.attempt_of(request_id))
    world.advance(29 * SECOND)
    assert world.node_of(request_id) == 1
    world.attach(2)

    world.advance(1 * SECOND)

    assert world.node_of(request_id) == 2
    assert world.request(request_id).attempts_counted == 0, "no missed deadline"
    assert [fields["reason"] for fields in world.logged("attempt.redispatched")] == ["node_offline"]


def test_a_daemon_that_was_restarted_loses_its_work_at_once_but_one_that_attaches_anew_keeps_it(world: World) -> None:
    world.attach(1, run_id="a")
    request_id = world.ask()
    world.acknowledge(world.attempt_of(request_id))
    attempt_id = world.attempt_of(request_id)
    world.now += 1
    world.attach(1, run_id="a")
    assert world.attempt_of(request_id) == attempt_id
    world.attach(2)
    world.now += 1
    world.attach(1, run_id="b")

    assert world.node_of(request_id) == 2
    assert world.logged("attempt.redispatched")[0]["reason"] == "node_restarted"


def test_a_node_that_attaches_anew_is_not_offered_again_what_it_runs(world: World) -> None:
    world.attach(1)
    world.acknowledge(world.attempt_of(world.ask()))
    world.now += 1
    world.attach(1)
    assert len([effect for effect in world.effects if isinstance(effect, effects.Offer)]) == 1


@pytest.mark.parametrize("lost", ["node_restarted", "node_offline"])
def test_the_only_node_is_given_again_what_it_lost_before_it_took_it_up(world: World, lost: str) -> None:
    world.attach(1, run_id="a")
    world.advance(25 * SECOND)
    request_id = world.ask()
    first = world.attempt_of(request_id)
    if lost == "node_restarted":
        world.attach(1, run_id="b")
    else:
        world.advance(5 * SECOND)
        assert world.request(request_id).open_attempt is None
        world.heartbeat(1)

    assert world.attempt_of(request_id) != first and world.node_of(request_id) == 1
    assert [fields["reason"] for fields in world.logged("attempt.redispatched")] == [lost]
    serve(world, request_id)
    assert world.row(request_id).state == "completed"


def test_a_node_that_loses_the_same_work_twice_or_had_begun_it_is_not_given_it_again(world: World) -> None:
    world.attach(1, run_id="a")
    begun = world.ask()
    world.acknowledge(world.attempt_of(begun))
    world.now += 1
    world.attach(1, run_id="b")
    lost = world.ask()
    assert world.request(begun).open_attempt is None and world.node_of(lost) == 1
    for run_id in ("c", "d"):
        world.now += 1
        world.attach(1, run_id=run_id)
        world.restart()

    assert world.request(begun).open_attempt is None and world.request(lost).open_attempt is None
    assert len(world.request(lost).attempts) == 2
    world.attach(2, slots=2)
    assert (world.node_of(begun), world.node_of(lost)) == (2, 2)


@pytest.mark.parametrize("over", [False, True])
def test_a_result_that_comes_from_another_node_is_neither_taken_nor_answered(world: World, over: bool) -> None:
    world.attach(1)
    world.attach(2)
    attempt_id = world.attempt_of(world.ask())
    world.acknowledge(attempt_id)
    mine = world.offers[attempt_id].node_id
    if over:
        world.complete(attempt_id)
    answer = world.returned(attempt_id, "failed", node_id=3 - mine)
    assert isinstance(answer, effects.Refused) and answer.code == "not_your_attempt"


def test_a_unit_never_returns_to_a_node_that_had_it(world: World) -> None:
    for node_id in range(1, 6):
        world.attach(node_id)
    request_id = world.ask()
    seen: list[int] = []
    for _ in range(3):
        seen.append(world.node_of(request_id))
        world.returned(world.attempt_of(request_id), "failed", code="node.runtime_failed")
    assert len(set(seen)) == 3
    assert world.row(request_id).state == "failed" and world.row(request_id).reason == "node.runtime_failed"


def test_an_unstaking_node_gets_no_new_work_but_may_return_what_it_has(world: World) -> None:
    world.attach(1)
    request_id = world.ask()
    world.acknowledge(world.attempt_of(request_id))
    attempt_id = world.attempt_of(request_id)

    world.register(1, state="cooling")

    answer = world.heartbeat(1)
    assert isinstance(answer, effects.Refused) and answer.code == "in_cooldown"
    waiting = world.ask()
    assert world.request(waiting).open_attempt is None
    assert isinstance(world.complete(attempt_id), effects.ResultTaken)
    assert world.row(request_id).state == "completed"
    world.register(1, state="retired")
    refused = world.attach(1)
    assert isinstance(refused, effects.Refused) and refused.code == "not_staked"


def test_a_machine_below_its_registered_tier_is_not_attached(world: World) -> None:
    world.register(9, tier=3)
    refused = world.attach(9, tier=2)
    assert isinstance(refused, effects.Refused) and refused.code == "tier_mismatch"
    assert world.engine.pool.find(9) is None


def test_a_paused_node_gets_no_work_until_it_resumes(world: World) -> None:
    world.attach(1)
    world.heartbeat(1, paused=True)
    request_id = world.ask()
    assert world.request(request_id).open_attempt is None
    world.heartbeat(1)
    assert world.node_of(request_id) == 1


@pytest.mark.parametrize("acknowledged", [False, True])
def test_cancelling_before_the_node_began_is_free_and_after_it_asks_for_what_there_is(
    world: World, acknowledged: bool
) -> None:
    world.attach(1)
    request_id = world.ask()
    attempt_id = world.attempt_of(request_id)
    if acknowledged:
        world.acknowledge(attempt_id)

    world.step(events.Cancel(request_id=request_id, charged=True, reason="requester"))

    withdrawn = [effect for effect in world.effects if isinstance(effect, effects.Withdraw)]
    assert [each.partial for each in withdrawn] == [acknowledged]
    if not acknowledged:
        assert world.row(request_id).state == "cancelled" and world.row(request_id).charge_wei == "0"
        return
    world.complete(attempt_id, completion_tokens=3, outcome="cancelled")
    assert (world.row(request_id).state, world.row(request_id).reason) == ("cancelled", "requester")
    assert world.row(request_id).completion_tokens == 3 and int(world.row(request_id).charge_wei) > 0
    assert world.row(request_id).record_sequence == 0, "a partial result is recorded"


def test_a_cancel_without_a_partial_result_in_ten_seconds_charges_nothing(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=HOUR_MS)
    world.acknowledge(world.attempt_of(request_id))
    world.step(events.Cancel(request_id=request_id, charged=True, reason="requester"))
    world.heartbeat(1)
    world.advance(10 * SECOND)

    assert world.row(request_id).state == "cancelled" and world.row(request_id).reason == "requester"
    assert world.balance(available(ACCOUNT)) == PRLX
    assert world.engine.pool.nodes[1].slots_free == 1


def test_a_node_that_says_cancelled_without_being_asked_gets_nothing_recorded(world: World) -> None:
    world.attach(1)
    request_id = world.ask(queue_ms=SECOND)
    world.acknowledge(world.attempt_of(request_id))
    world.complete(world.attempt_of(request_id), outcome="cancelled")
    assert world.rows(RecordRow) == []
    assert world.row(request_id).state == "queued"


def test_the_same_result_twice_gets_the_same_answer_and_one_record(world: World) -> None:
    world.attach(1)
    request_id = world.ask()
    attempt_id = world.attempt_of(request_id)
    world.acknowledge(attempt_id)
    first = world.complete(attempt_id)
    second = world.complete(attempt_id)

    assert first == second == effects.ResultTaken(accepted=True)
    assert len(world.rows(RecordRow)) == 1


def test_nobody_returns_a_result_for_somebody_elses_attempt(world: World) -> None:
    world.attach(1)
    request_id = world.ask()
    attempt_id = world.attempt_of(request_id)
    world.attach(2)
    refused = world.returned(attempt_id, "failed", node_id=2)
    assert isinstance(refused, effects.Refused) and refused.code == "not_your_attempt"
    assert world.attempt_of(request_id) == attempt_id


def test_a_slot_of_uptime_is_credited_once(world: World) -> None:
    world.attach(1)
    world.now = world.now // 10_000 * 10_000
    first = world.heartbeat(1)
    world.now += 9_999
    second = world.heartbeat(1)
    world.now += 1
    third = world.heartbeat(1)
    credited = [answer.credited for answer in (first, second, third) if isinstance(answer, effects.SlotCredited)]
    assert credited == [True, False, True]


def test_a_request_is_over_after_twelve_hours_whatever_happens_to_it(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=HOUR_MS, queue_ms=HOUR_MS)
    for _ in range(12 * 3600 // 20 + 1):
        if request_id not in world.engine.requests:
            break
        attempt = world.request(request_id).open_attempt
        if attempt is not None and attempt.state == "offered":
            world.acknowledge(attempt.attempt_id)
        world.heartbeat(1)
        world.advance(20 * SECOND)
    assert request_id not in world.engine.requests


@pytest.mark.parametrize("before", list(RequestState))
@pytest.mark.parametrize("after", list(RequestState))
def test_only_what_stands_in_the_table_can_happen_to_a_request(before: RequestState, after: RequestState) -> None:
    if after in REQUEST_TRANSITIONS[before]:
        require_request_transition(before, after)
    else:
        with pytest.raises(IllegalTransition):
            require_request_transition(before, after)


def test_every_state_is_reached_and_every_final_one_is_final() -> None:
    for table in (REQUEST_TRANSITIONS, ATTEMPT_TRANSITIONS):
        reached = {after for states in table.values() for after in states}
        first = next(iter(table))
        assert reached | {first} == set(table)


def test_a_model_is_matched_by_its_weights_not_by_its_name(world: World) -> None:
    world.attach(1, digests=("ff" * 32,))
    request_id = world.ask()
    assert world.request(request_id).open_attempt is None
    world.attach(2, digests=(BIG_DIGEST,))
    assert world.request(request_id).open_attempt is None
    world.attach(3)
    assert world.node_of(request_id) == 3
