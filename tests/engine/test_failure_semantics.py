"""One test for each row of the lifecycle's table of failures, named after its stage."""

from __future__ import annotations

from typing import Any

import pytest
from world import ACCOUNT, PRLX, SECOND, World

from parallelix.engine import effects
from parallelix.engine.ledger import available
from parallelix.engine.rows import RequestRow, TransferRow
from parallelix.engine.settings import DAY_MS


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"max_tokens": 1000, "prompt_bytes": 10}, "insufficient_credits"),
        ({"workload_class": "ai.dreaming"}, "unknown_workload_class"),
        ({"model": "no-such-model"}, "unknown_model"),
        ({"max_tokens": 1001}, "max_tokens_too_large"),
        ({"prompt_bytes": 100_000}, "context_exceeded"),
    ],
)
def test_receive_request_is_finally_rejected_without_an_id_or_any_work(fields: dict[str, Any], code: str) -> None:
    world = World()
    world.fund(1_000_000 if code == "insufficient_credits" else PRLX)
    world.issue_key()
    world.attach(1)
    before = len(world.rows(TransferRow))

    answer = world.try_ask(**fields)

    assert isinstance(answer, effects.Refused)
    assert answer.code == code
    assert world.rows(RequestRow) == []
    assert len(world.rows(TransferRow)) == before
    assert world.offers == {}


def test_schedule_holds_work_with_a_reason_until_a_candidate_appears(world: World) -> None:
    request_id = world.ask()
    assert world.logged("request.held") == [{"request_id": request_id, "model": "small", "reason": "no_capable_node"}]
    held = world.engine.held(world.request(request_id))
    assert held is not None and held.reason == "no_capable_node" and held.position == 0

    world.attach(1)

    assert world.node_of(request_id) == 1
    assert world.engine.held(world.request(request_id)) is None


def test_schedule_expires_held_work_at_its_deadline_and_gives_the_credits_back(world: World) -> None:
    request_id = world.ask(queue_ms=20 * SECOND)
    world.advance(19_999)
    assert world.row(request_id).state == "queued"

    world.advance(1)

    assert world.row(request_id).state == "expired"
    assert world.row(request_id).reason == "no_capable_node"
    assert world.balance(available(ACCOUNT)) == PRLX
    assert [fields["state"] for fields in world.logged("request.failed")] == ["expired"]


def test_execute_that_misses_its_deadline_is_redispatched_once_and_the_late_original_discarded(world: World) -> None:
    world.attach(1)
    world.attach(2)
    request_id = world.ask(deadline_ms=5 * SECOND)
    late, first_node = world.attempt_of(request_id), world.node_of(request_id)
    world.acknowledge(late)

    world.advance(5 * SECOND)

    again = world.attempt_of(request_id)
    assert again != late
    assert world.node_of(request_id) != first_node, "a fresh node takes it"
    assert [fields["reason"] for fields in world.logged("attempt.redispatched")] == ["node.deadline_exceeded"]
    discarded = world.returned(late, "failed", node_id=first_node)
    assert isinstance(discarded, effects.Refused) and discarded.code == "attempt_closed"
    world.acknowledge(again)
    world.complete(again)
    assert world.row(request_id).state == "completed"


def test_execute_that_misses_its_deadline_twice_fails_with_that_reason(world: World) -> None:
    for node_id in (1, 2, 3):
        world.attach(node_id)
    request_id = world.ask(deadline_ms=5 * SECOND)
    for _ in range(2):
        world.acknowledge(world.attempt_of(request_id))
        world.advance(5 * SECOND)

    assert world.row(request_id).state == "failed"
    assert world.row(request_id).reason == "node.deadline_exceeded"
    assert world.balance(available(ACCOUNT)) == PRLX, "what failed is free"


def test_execute_deadline_counts_from_decrypt_not_from_dispatch(world: World) -> None:
    world.attach(1)
    request_id = world.ask(deadline_ms=5 * SECOND)
    attempt_id = world.attempt_of(request_id)
    world.advance(4 * SECOND)
    started = world.acknowledge(attempt_id)

    assert isinstance(started, effects.Started) and started.deadline_at == world.now + 5 * SECOND
    world.advance(4 * SECOND)
    assert world.request(request_id).state == "running"


@pytest.mark.parametrize("code", ["malformed_poe", "poe_mismatch", "bad_signature"])
def test_proof_of_execution_missing_or_wrong_goes_to_a_different_node_without_uptime(world: World, code: str) -> None:
    world.attach(1)
    world.attach(2)
    request_id = world.ask()
    attempt_id, node_id = world.attempt_of(request_id), world.node_of(request_id)
    world.heartbeat(node_id)
    world.acknowledge(attempt_id)
    hour = world.now // 3_600_000
    assert world.engine.uptime.counted(node_id, hour) == 1

    answer = world.returned(attempt_id, "rejected", code=code, message="because")

    assert isinstance(answer, effects.ResultTaken) and not answer.accepted and code in answer.reason
    assert world.node_of(request_id) != node_id
    assert world.engine.uptime.counted(node_id, hour) == 0
    world.heartbeat(node_id)
    assert world.engine.uptime.counted(node_id, hour) == 0, "a voided slot stays void"
    assert [fields["reason"] for fields in world.logged("attempt.rejected")] == [code]
    told = [effect for effect in world.effects if isinstance(effect, effects.TellRejection)]
    assert [(each.node_id, each.attempt_id) for each in told] == [(node_id, attempt_id)]


def test_validate_rejects_a_hash_mismatch_outright_and_never_back_to_the_same_node(world: World) -> None:
    world.attach(1)
    request_id = world.ask(queue_ms=3 * SECOND)
    world.acknowledge(world.attempt_of(request_id))
    world.returned(world.attempt_of(request_id), "rejected", code="poe_mismatch")

    assert world.row(request_id).state == "queued"
    held = world.engine.held(world.request(request_id))
    assert held is not None and held.reason == "no_capable_node"
    world.advance(3 * SECOND)
    assert world.row(request_id).state == "expired"


def test_settle_flags_a_bad_node_and_removes_it_after_repeated_bad_results(world: World) -> None:
    for node_id in range(1, 8):
        world.attach(node_id)
    for round_number in range(1, 4):
        request_id = world.ask()
        while world.node_of(request_id) != 1:
            world.acknowledge(world.attempt_of(request_id))
            world.complete(world.attempt_of(request_id))
            request_id = world.ask()
        world.acknowledge(world.attempt_of(request_id))
        world.returned(world.attempt_of(request_id), "rejected", code="poe_mismatch")
        assert world.logged("node.flagged")[-1]["rejections"] == round_number
        world.complete(world.attempt_of(request_id))

    assert [fields["node_id"] for fields in world.logged("node.removed")] == ["1"]
    for _ in range(6):
        assert world.node_of(world.ask()) != 1
    assert not any(row.debit_account.startswith("stake") for row in world.rows(TransferRow)), "no slashing, ever"


def test_settle_readmits_a_removed_node_as_a_new_one_after_24_hours(world: World) -> None:
    world.attach(1)
    world.attach(2, slots=4)
    for _ in range(3):
        request_id = world.ask()
        world.returned(world.attempt_of(request_id), "rejected", code="poe_mismatch", node_id=None)
        if request_id in world.engine.requests and world.request(request_id).open_attempt:
            world.complete(world.attempt_of(request_id))
    removed = [int(fields["node_id"]) for fields in world.logged("node.removed")]
    assert removed, "three rejections remove a node"
    for _ in range(DAY_MS // (20 * SECOND) + 2):
        world.advance(20 * SECOND)
        world.heartbeat(1)
        world.heartbeat(2)

    node = world.engine.pool.nodes[removed[0]]
    assert node.removed_until == 0 and not node.rejections and not node.speeds
    assert [fields["node_id"] for fields in world.logged("node.readmitted")] == [str(removed[0])]
