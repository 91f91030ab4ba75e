"""Audits in the life of a network: what is drawn, whom an audit is given to, what waits for it, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from onchain_world import ALICE, ChainWorld
from vault_chain import WITHDRAWAL_DELAY_SECONDS, request_withdrawal, withdraw
from world import ACCOUNT, BIG_DIGEST, DIGEST, PRLX, SECOND, World

from parallelix.engine import auditing, catalogue, effects, events
from parallelix.engine.ledger import available, held, uncovered
from parallelix.engine.rows import AttemptRow, AuditRow, BatchRow, EpochRow, NodeTrustRow, RequestRow
from parallelix.engine.settings import DAY_MS
from parallelix.protocol.records import AuditRecord, ExecutionRecord
from parallelix.protocol.sampling import DRAW_BITS
from parallelix.protocol.spot_check import Finding

LAST_DRAW = 2**DRAW_BITS - 1
"""Drawn by no rate but 100."""


def network(nodes: int = 3, **changes: Any) -> World:
    world = World(audited=True, **_without_prepared(changes))
    world.fund()
    world.issue_key()
    for node_id in range(1, nodes + 1):
        world.attach(node_id, slots=4)
    return world


def executions(world: World) -> list[ExecutionRecord]:
    return [record for record in world.records.values() if isinstance(record, ExecutionRecord)]


def audits(world: World) -> list[AuditRecord]:
    return [record for record in world.records.values() if isinstance(record, AuditRecord)]


def answer_all(world: World, outcome: str = "agree") -> None:
    for audit_id in list(world.engine.audits):
        prepared = world.engine.audits[audit_id].stage == "prepared"
        world.answer_audit(audit_id, outcome, "agree" if prepared else None)


def settle(world: World) -> None:
    world.advance(world.settings.batch_ms)
    world.confirm_batches()


def _without_prepared(changes: dict[str, Any]) -> dict[str, Any]:
    return {"prepared_percent": 0, **changes}


# What is drawn --------


def test_a_drawn_result_is_given_back_at_once_and_its_audit_goes_to_another_node() -> None:
    world = network()
    request_id = world.work()
    assert world.row(request_id).state == "completed", "the requester does not wait for an audit"
    audit = world.audit(request_id)
    kinds = [type(effect) for effect in world.effects]
    (opened,) = (at for at, kind in enumerate(kinds) if kind is effects.OpenAudit)
    offered = max(at for at, kind in enumerate(kinds) if kind is effects.Offer)
    assert opened < offered, "its payload is made before it is offered"
    offer = world.effects[offered]
    assert isinstance(offer, effects.Offer) and offer.is_audit and offer.node_id != audit.node_id
    assert offer.request_id == audit.audit_id
    assert offer.deadline_ms == world.settings.audit_deadline_ms and offer.model_digest == DIGEST
    (record,) = executions(world)
    assert (record.rate, record.epoch) == (100, 0)


@pytest.mark.parametrize(("audited", "on"), [(False, True), (True, False)])
def test_nothing_is_drawn_while_audits_are_off_or_no_epoch_has_begun(audited: bool, on: bool) -> None:
    world = World(audited=audited, audits=on)
    world.fund()
    world.issue_key()
    world.attach(1)
    request_id = world.work()
    (record,) = executions(world)
    assert record.rate == 0 and not world.engine.audits and not world.rows(AuditRow)
    assert world.engine.audit_of(request_id) is None


def test_the_rate_of_a_record_falls_with_the_audits_that_its_node_passed() -> None:
    world = network(2, passes_per_rate=2)
    world.heartbeat(2, paused=True)
    rates: list[int] = []
    for _ in range(9):
        request_id = world.work(draw=0)
        rates.append(executions(world)[-1].rate)
        world.heartbeat(1, paused=True)
        world.heartbeat(2)
        world.answer_audit(world.audit(request_id).audit_id, "agree")
        world.heartbeat(2, paused=True)
        world.heartbeat(1)
    assert rates == [100, 100, 50, 50, 20, 20, 10, 10, 10]


def test_a_draw_above_the_rate_is_not_audited() -> None:
    world = network(passes_per_rate=1)
    first = world.work(draw=LAST_DRAW)
    executor = world.audit(first).node_id
    world.answer_audit(world.audit(first).audit_id, "agree")
    world.engine.trust.of(executor)
    for node_id in {1, 2, 3} - {executor}:
        world.heartbeat(node_id, paused=True)
    for draw, drawn in ((LAST_DRAW, False), (2 ** (DRAW_BITS - 1), False), (2 ** (DRAW_BITS - 1) - 1, True)):
        before = len(world.engine.audits)
        world.work(draw=draw)
        assert executions(world)[-1].rate == 50
        assert (len(world.engine.audits) > before) == drawn


@pytest.mark.parametrize("verdict", ["disagree", "inconclusive"])
def test_whoever_does_not_pass_is_sampled_at_the_full_rate_again(verdict: str) -> None:
    world = network(passes_per_rate=1)
    request_id = world.work()
    audit = world.audit(request_id)
    world.engine.trust.of(audit.node_id).passes = 3
    world.answer_audit(audit.audit_id, "disagree")
    world.answer_audit(audit.audit_id, "disagree", "agree" if verdict == "disagree" else "disagree")
    assert world.audit_row(request_id).verdict == verdict
    assert world.engine.trust.rate_percent(audit.node_id) == 100


def test_a_rejected_result_puts_its_node_back_to_the_full_rate() -> None:
    world = network(1)
    world.engine.trust.of(1).passes = 40
    world.returned(world.attempt_of(world.ask()), "rejected", code="poe_mismatch")
    assert world.engine.trust.rate_percent(1) == 100


def test_a_partial_result_is_drawn_too() -> None:
    world = network()
    request_id = world.ask()
    attempt_id = world.attempt_of(request_id)
    world.acknowledge(attempt_id)
    world.step(events.Cancel(request_id=request_id, charged=True, reason="requester"))
    world.complete(attempt_id, outcome="cancelled")
    assert world.row(request_id).state == "cancelled"
    answer_all(world)
    assert world.audit_row(request_id).verdict == "agree"


def test_a_result_in_which_nothing_can_be_compared_is_run_again_whole_from_the_start() -> None:
    world = network()
    request_id = world.ask(max_tokens=70, deadline_ms=200 * SECOND)
    attempt_id = world.attempt_of(request_id)
    world.complete(attempt_id, spot_check=False)
    unit = world.audit(request_id).unit
    assert world.audit(request_id).stage == "whole"
    assert unit.need.tokens == unit.completion_tokens_max == 70 and unit.need.deadline_ms == 200 * SECOND
    assert not any(isinstance(effect, effects.RunAgain) for effect in world.effects)


def test_more_audits_than_there_is_room_for_are_recorded_as_unaudited() -> None:
    world = network(audits_open_max=2)
    world.work()
    world.work()
    last = world.work()
    assert len(world.engine.audits) == 2
    row = world.audit_row(last)
    assert (row.verdict, row.reason) == ("unaudited", "too_many_open")
    assert [record.reason for record in audits(world)] == ["too_many_open"]
    assert not any(isinstance(effect, effects.OpenAudit) and effect.request_id == last for effect in world.effects)
    assert [effect.request_id for effect in world.effects if isinstance(effect, effects.AuditEnded)] == [last]


def test_what_nobody_can_audit_leaves_room_for_what_somebody_can() -> None:
    """Whoever asks for a model that one owner alone has could else have nothing audited any more."""
    world = World(audited=True, audits_open_max=8, prepared_percent=0)
    world.fund()
    world.issue_key()
    world.attach(1, digests=(BIG_DIGEST,))
    for _ in range(12):
        request_id = world.ask(model="big")
        world.complete(world.attempt_of(request_id))
    assert len(world.engine.audits) == 4
    ended = [row for row in world.rows(AuditRow) if row.verdict]
    assert {(row.verdict, row.reason) for row in ended} == {("unaudited", "no_second_node")} and len(ended) == 8
    world.attach(2)
    world.attach(3)
    request_id = world.work()
    assert world.audit(request_id).unit.open_attempt is not None


@pytest.mark.parametrize("asked", ["whole", "third"])
def test_what_is_run_whole_is_so_after_a_restart(asked: str) -> None:
    world = World(audited=True, prepared_percent=0)
    world.fund()
    world.issue_key()
    for node_id in range(1, 5):
        world.attach(node_id)
    request_id = world.work(spot_check=False)
    if asked == "third":
        world.answer_audit(world.audit(request_id).audit_id, "disagree", reason="base_tokens")
    assert world.audit(request_id).stage == asked
    world.restart()
    audit = world.audit(request_id)
    assert audit.stage == "whole" and audit.unit.need.features.isdisjoint({"probe"})
    assert [each.whole for each in world.effects if isinstance(each, effects.OpenAudit)] == [True, True]


def test_a_slot_goes_to_the_next_audit_where_the_first_drew_another_node() -> None:
    for seed in range(12):
        world = World(audited=True, prepared_percent=0, seed=seed)
        world.fund()
        world.issue_key()
        world.attach(1)
        request_ids = [world.work() for _ in range(3)]
        world.attach(2)
        world.attach(3)
        units = [world.audit(request_id).unit for request_id in request_ids]
        undrawn = [unit for unit in units if unit.open_attempt is None and unit.auditor is None]
        assert world.engine.pool.nodes[3].reserved or not undrawn


def test_an_audit_waits_for_a_node_that_is_held_for_a_challenge() -> None:
    world = World(audited=True, prepared_percent=0)
    world.fund()
    world.issue_key()
    world.attach(1)
    world.attach(2, slots=2)
    node = world.engine.pool.nodes[2]
    node.held = True
    world.engine.pool.refresh(node)
    request_id = world.work()
    audit = world.audit(request_id)
    assert audit.unit.open_attempt is None
    node.held = False
    world.engine.pool.refresh(node)
    world.step(events.Heartbeat(node_id=2, unix_ms=world.now, paused=True))
    world.step(events.Heartbeat(node_id=2, unix_ms=world.now, paused=False))
    assert audit.unit.open_attempt is not None


# To whom it is given --------


def test_no_node_of_the_executors_owner_audits_it_at_the_match_or_from_the_queue() -> None:
    world = network(0)
    world.owners = {1: 7, 2: 7, 3: 7, 4: 8}
    for node_id in (1, 2):
        world.attach(node_id, slots=4)
    request_id = world.work()
    audit = world.audit(request_id)
    assert audit.unit.open_attempt is None and audit.audit_id in world.engine.queue
    assert world.logged("audit.held") == [{"audit_id": audit.audit_id, "model": "small", "reason": "no_capable_node"}]
    world.attach(3, slots=4)
    assert audit.unit.open_attempt is None, "one more node of the same owner"
    world.attach(4, slots=4)
    assert world.node_of(audit.audit_id) == 4


def test_a_third_node_is_of_neither_owner() -> None:
    world = network(0)
    world.owners = {1: 7, 2: 8, 3: 8, 4: 7, 5: 9}
    world.attach(1, slots=4)
    request_id = world.ask()
    for node_id in (2, 3, 4):
        world.attach(node_id, slots=4)
    world.complete(world.attempt_of(request_id))
    audit = world.audit(request_id)
    assert world.node_of(audit.audit_id) in {2, 3}
    world.answer_audit(audit.audit_id, "disagree")
    assert audit.unit.open_attempt is None
    world.attach(5)
    assert world.node_of(audit.audit_id) == 5


def test_an_owner_that_changes_counts_as_it_is_now() -> None:
    world = network(0)
    world.owners = {1: 7, 2: 7}
    world.attach(1)
    request_id = world.ask()
    world.attach(2)
    world.complete(world.attempt_of(request_id))
    assert world.audit(request_id).unit.open_attempt is None
    world.owners = {2: 8}
    world.register(2)
    assert world.node_of(world.audit(request_id).audit_id) == 2


@pytest.mark.parametrize(
    "lacking", [{"digests": (BIG_DIGEST,)}, {"features": ("chat", "logprobs")}, {"context_tokens": 8}]
)
def test_an_auditor_has_the_very_weights_room_and_can_probe(lacking: dict[str, Any]) -> None:
    world = network(1)
    request_id = world.work()
    world.attach(2, **lacking)
    assert world.audit(request_id).unit.open_attempt is None
    world.attach(3, tier=2)
    assert world.node_of(world.audit(request_id).audit_id) == 3


def test_a_removed_node_audits_nothing_though_it_serves_what_nobody_else_can() -> None:
    world = network(1, rejections_to_remove=1)
    world.attach(2, slots=4)
    world.returned(world.attempt_of(world.ask()), "rejected", code="poe_mismatch")
    (removed,) = (node.node_id for node in world.engine.pool.penalised())
    request_id = next(iter(world.engine.requests))
    world.complete(world.attempt_of(request_id))
    assert world.audit(request_id).unit.open_attempt is None
    world.heartbeat(3 - removed, paused=True)
    assert world.node_of(world.ask()) == removed, "a penalty never empties the pool"
    assert world.audit(request_id).unit.open_attempt is None


def test_an_auditor_that_was_removed_meanwhile_is_not_believed() -> None:
    world = network(3, rejections_to_remove=1)
    request_id = world.work()
    audit = world.audit(request_id)
    auditor = world.node_of(audit.audit_id)
    attempt = audit.unit.open_attempt
    assert attempt is not None
    world.engine.pool.nodes[auditor].removed_until = world.now + DAY_MS
    world.engine.pool.refresh(world.engine.pool.nodes[auditor])
    world.answer_audit(audit.audit_id, "disagree")
    assert audit.stage == "first" and world.node_of(audit.audit_id) not in {auditor, audit.node_id}


@pytest.mark.parametrize("how", ["rejected", "late", "declined", "not acknowledged", "gone"])
def test_an_audit_that_is_not_answered_goes_to_another_node(how: str) -> None:
    world = network(3)
    request_id = world.work()
    audit = world.audit(request_id)
    first = audit.unit.open_attempt
    assert first is not None
    if how == "rejected":
        world.returned(first.attempt_id, "rejected", code="malformed_audit", message="entries")
        assert world.engine.pool.nodes[first.node_id].rejections, "flagged as for any rejection"
        assert world.logged("attempt.rejected")[-1]["reason"] == "malformed_audit"
    elif how == "late":
        world.acknowledge(first.attempt_id)
        for _ in range(6):
            for node_id in (1, 2, 3):
                world.heartbeat(node_id)
            world.advance(10 * SECOND)
    elif how == "declined":
        world.returned(first.attempt_id, "declined", code="node.busy")
    elif how == "not acknowledged":
        world.advance(10 * SECOND)
    else:
        world.attach(first.node_id, run_id="another")
    second = audit.unit.open_attempt
    assert second is not None and second.node_id not in {first.node_id, audit.node_id}
    withdrawn = [effect.attempt_id for effect in world.effects if isinstance(effect, effects.Withdraw)]
    assert withdrawn == ([] if how in {"rejected", "declined"} else [first.attempt_id]), "what its node did not end"
    answer = world.step(
        events.AuditAnswered(attempt_id=first.attempt_id, node_id=first.node_id, finding=finding("agree"))
    )
    assert answer is not None and audit.audit_id in world.engine.audits, "the late original is dropped"
    world.answer_audit(audit.audit_id, "agree")
    assert world.audit_row(request_id).auditor_id == str(second.node_id)


def finding(outcome: Any) -> Finding:
    return Finding(outcome=outcome, reason=outcome)


def test_an_answer_of_somebody_else_or_twice_counts_once() -> None:
    world = network(3)
    request_id = world.work()
    audit = world.audit(request_id)
    attempt = audit.unit.open_attempt
    assert attempt is not None
    answer = events.AuditAnswered(attempt_id=attempt.attempt_id, node_id=attempt.node_id, finding=finding("agree"))
    stranger = world.step(events.AuditAnswered(attempt_id=attempt.attempt_id, node_id=9, finding=finding("agree")))
    assert isinstance(stranger, effects.Refused) and stranger.code == "not_your_attempt"
    assert world.step(answer) == effects.ResultTaken(accepted=True) == world.step(answer)
    assert len(audits(world)) == 1


def test_whoever_was_first_may_run_the_unit_whole_where_nobody_else_can() -> None:
    for count in (3, 4):
        world = network(count)
        audit = world.audit(world.work())
        asked: list[int] = []
        for _ in range(2):
            asked.append(world.node_of(audit.audit_id))
            world.answer_audit(audit.audit_id, "unusable")
        assert audit.stage == "whole" and audit.node_id not in asked and len(set(asked)) == 2
        assert (world.node_of(audit.audit_id) in asked) == (count == 3)
        assert world.node_of(audit.audit_id) != audit.node_id


def test_one_auditors_word_that_nothing_can_be_compared_speaks_against_nobody() -> None:
    world = network(2)
    request_id = world.work()
    audit = world.audit(request_id)
    world.answer_audit(audit.audit_id, "unusable")
    assert audit.stage == "second"
    world.advance(world.settings.audit_queue_ms)
    assert (world.audit_row(request_id).verdict, world.audit_row(request_id).reason) == ("inconclusive", "unauditable")
    assert not world.logged("node.marked")


def test_a_part_of_an_answer_is_never_compared_with_a_whole_one() -> None:
    for spot_check in (False, True):
        world = network(3)
        request_id = world.ask()
        attempt_id = world.attempt_of(request_id)
        world.acknowledge(attempt_id)
        world.step(events.Cancel(request_id=request_id, charged=True, reason="requester"))
        world.complete(attempt_id, outcome="cancelled", spot_check=spot_check)
        while spot_check and request_id not in {row.request_id for row in world.rows(AuditRow) if row.verdict}:
            world.answer_audit(world.audit(request_id).audit_id, "unusable")
        row = world.audit_row(request_id)
        assert (row.verdict, row.reason) == ("inconclusive", "unauditable") and not world.logged("node.marked")


def test_who_audits_is_drawn_from_all_who_could_whoever_is_free() -> None:
    """Else a node that is always free, or the slowest, would audit whom it likes."""
    world = network(12, seed=3)
    asked: set[int] = set()
    for _ in range(60):
        request_id = world.work()
        audit = world.audit(request_id)
        asked.add(world.node_of(audit.audit_id))
        world.answer_audit(audit.audit_id, "agree")
    assert len(asked) >= 8


def test_an_audit_waits_for_who_was_drawn_and_draws_again_when_that_takes_long() -> None:
    world = network(3)
    request_id = world.ask()
    executor = world.node_of(request_id)
    others = {1, 2, 3} - {executor}
    held = [world.ask() for _ in range(50)]
    world.complete(world.attempt_of(request_id))
    audit = world.audit(request_id)
    drawn = audit.unit.auditor
    assert drawn in others and audit.audit_id in world.engine.queue
    other = (others - {drawn}).pop()
    done = next(each for each in held if each not in world.engine.queue and world.node_of(each) == other)
    world.complete(world.attempt_of(done))
    assert audit.audit_id in world.engine.queue, "whoever is free does not do"
    done = next(each for each in held if each not in world.engine.queue and world.node_of(each) == drawn)
    world.complete(world.attempt_of(done))
    assert world.node_of(audit.audit_id) == drawn


def test_an_audit_whose_drawn_node_is_gone_goes_to_another_in_time() -> None:
    world = network(3, challenges=False, acknowledge_ms=DAY_MS, audit_queue_ms=60 * SECOND)
    request_id = world.ask()
    executor = world.node_of(request_id)
    running = [world.ask() for _ in range(11)]
    world.complete(world.attempt_of(request_id))
    audit = world.audit(request_id)
    gone = audit.unit.auditor
    assert gone is not None and audit.audit_id in world.engine.queue
    (left,) = {1, 2, 3} - {executor, gone}
    world.heartbeat(gone, paused=True)
    free = next(each for each in running if world.node_of(each) == left)
    world.complete(world.attempt_of(free))
    for _ in range(world.settings.audit_queue_ms // 2 // (10 * SECOND)):
        world.advance(10 * SECOND)
        for node_id in (executor, left):
            world.heartbeat(node_id)
        world.heartbeat(gone, paused=True)
    assert world.node_of(audit.audit_id) == left


def test_a_runtime_that_renders_chats_its_own_way_accuses_nobody() -> None:
    cases = (
        ("chat", "llama_cpp", "base_tokens", True),
        ("chat", "llama_cpp", "distance", False),
        ("chat", "made_up", "base_tokens", False),
        ("completion", "llama_cpp", "base_tokens", False),
    )
    for kind, runtime, reason, excused in cases:
        world = network(1)
        request_id = world.ask(kind=kind)
        world.attach(2, runtime=runtime)
        world.complete(world.attempt_of(request_id))
        world.answer_audit(world.audit(request_id).audit_id, "disagree", reason=reason)
        if excused:
            row = world.audit_row(request_id)
            assert (row.verdict, row.reason) == ("inconclusive", "other_runtime") and not world.logged("node.marked")
        else:
            assert world.audit(request_id).stage == "third", (kind, runtime, reason)


def test_an_auditor_with_the_executors_runtime_is_drawn_where_there_is_one() -> None:
    for seed in range(5):
        world = network(1, seed=seed)
        request_id = world.ask()
        for node_id in range(2, 9):
            world.attach(node_id, runtime="ollama" if node_id == 5 else "llama_cpp")
        world.complete(world.attempt_of(request_id))
        assert world.node_of(world.audit(request_id).audit_id) == 5


def test_what_a_node_does_while_most_of_its_work_is_looked_at_is_half_the_credit() -> None:
    world = network(3)
    trust = world.engine.trust.of(1)
    trust.executor_millinats = 3_000
    world.heartbeat(2, paused=True)
    world.heartbeat(3, paused=True)
    request_id = world.ask()
    world.heartbeat(2)
    world.heartbeat(3)
    world.complete(world.attempt_of(request_id))
    world.answer_audit(world.audit(request_id).audit_id, "agree")
    assert trust.executor_millinats == 2_940 and trust.passes == 1


# What it costs nobody --------


def test_an_audit_is_no_request_in_any_row_count_limit_or_balance() -> None:
    world = network(3, open_requests_max=1)
    before = world.balance(available(ACCOUNT)) + world.balance(held(ACCOUNT))
    request_id = world.work()
    audit = world.audit(request_id)
    assert audit.audit_id in world.engine.requests and world.engine.requests_open == 0
    assert not world.engine.open_of_account
    world.answer_audit(audit.audit_id, "disagree")
    assert {row.request_id for row in world.rows(RequestRow)} == {request_id}
    assert {row.request_id for row in world.rows(AttemptRow)} == {request_id}
    assert audit.audit_id not in world.told
    assert world.balance(available(ACCOUNT)) + world.balance(held(ACCOUNT)) == before
    world.ask()
    assert isinstance(world.try_ask(), effects.Refused), "a request counts"
    world.step(events.Cancel(request_id=audit.audit_id, charged=False, reason="requester"))
    assert audit.audit_id in world.engine.audits, "no requester can cancel an audit"


def test_a_charge_waits_for_the_audit_and_for_the_batch() -> None:
    world = network()
    first, second = world.work(), world.work()
    world.answer_audit(world.audit(first).audit_id, "agree")
    assert not world.transfers("charge"), "its batch is not confirmed"
    settle(world)
    assert set(world.transfers("charge")) == {first}
    sequence = world.row(second).record_sequence
    assert not world.engine.settled(sequence) and world.engine.settled(world.row(first).record_sequence)
    world.answer_audit(world.audit(second).audit_id, "agree")
    assert set(world.transfers("charge")) == {first, second} and world.engine.settled(sequence)
    settle(world)
    charged = sum(world.transfers("charge").values())
    assert charged == sum(world.balance(part) for part in ("operators", "treasury", "infrastructure"))
    assert world.engine.keys["key_1"].spent_wei == charged and world.engine.keys["key_1"].committed_wei == 0
    world.check_all_ended()


@pytest.mark.parametrize("confirmed_first", [True, False])
def test_what_is_overturned_is_given_back_whole_and_its_requester_told(confirmed_first: bool) -> None:
    world = network()
    request_id = world.work()
    cost = int(world.row(request_id).charge_wei)
    if confirmed_first:
        world.advance(world.settings.batch_ms)
        world.confirm_batches()
    audit = world.audit(request_id)
    world.answer_audit(audit.audit_id, "disagree")
    world.answer_audit(audit.audit_id, "disagree", "agree", reason="other_model")
    assert world.balance(available(ACCOUNT)) == PRLX and world.balance(held(ACCOUNT)) == 0
    assert world.transfers("refund") == {request_id: cost} and cost > 0
    assert world.engine.keys["key_1"].committed_wei == 0
    settle(world)
    assert not world.transfers("charge") and world.row(request_id).charge_wei == "0"
    (ended,) = (effect for effect in world.effects if isinstance(effect, effects.AuditEnded))
    assert (ended.verdict, ended.reason, ended.refunded_wei) == ("disagree", "other_model", cost)
    row = world.engine.audit_of(request_id)
    assert row is not None and row == world.audit_row(request_id) and int(row.refunded_wei) == cost
    world.check_all_ended()
    world.check_chain()


def test_an_audit_ends_in_its_time_however_often_it_is_placed_again() -> None:
    world = network(2, audit_attempts_max=10**6)
    request_id = world.work()
    audit = world.audit(request_id)
    life_ms = 2 * (world.settings.audit_queue_ms + world.settings.audit_deadline_ms + audit.request.need.deadline_ms)
    until = world.now + life_ms
    node_id = 100
    while world.now < until:
        attempt = audit.unit.open_attempt
        if attempt is None:
            node_id += 1
            world.attach(node_id)
        else:
            world.returned(attempt.attempt_id, "declined", code="node.busy")
        world.advance(30 * SECOND)
    assert world.audit_row(request_id).reason in {"no_answer", "no_second_node"}
    settle(world)
    assert world.transfers("charge"), "what is not audited is charged"


def test_what_is_overturned_returns_to_a_deposit_and_pays_what_it_owes_first() -> None:
    """A withdrawal took what the work counted on: the gap is written off against what comes back."""
    world = ChainWorld(audited=True, prepared_percent=0, offline_ms=DAY_MS, acknowledge_ms=DAY_MS)
    world.staffed(nodes=3)
    world.fund(1_000_000)
    world.issue_key(f"key_{ALICE}", ALICE)
    request_id = world.work()
    cost = int(world.row(request_id).charge_wei)
    world.confirm_batches()
    assert not world.charged(ALICE) and world.balance(held(ALICE)) == cost
    world.confirm(request_withdrawal(ALICE, 1_000_000))
    world.advance(2 * WITHDRAWAL_DELAY_SECONDS * SECOND)
    world.confirm(withdraw(ALICE))
    assert world.balance(uncovered(ALICE)) == -cost, "it left although the work counted on it"
    audit_id = world.audit(request_id).audit_id
    world.answer_audit(audit_id, "disagree")
    world.answer_audit(audit_id, "disagree", "agree")
    assert world.balance(uncovered(ALICE)) == world.balance(held(ALICE)) == world.balance(available(ALICE)) == 0
    assert not world.charged(ALICE)


# What is known of nodes --------


def test_who_is_overturned_again_and_again_is_removed_told_and_returns_as_a_new_node() -> None:
    world = network(3)
    for node_id in (2, 3):
        world.heartbeat(node_id, paused=True)
    for times in range(1, 8):
        request_id = world.work()
        world.heartbeat(1, paused=True)
        for node_id in (2, 3):
            world.heartbeat(node_id)
        audit_id = world.audit(request_id).audit_id
        world.answer_audit(audit_id, "disagree")
        assert bool(world.engine.pool.nodes[1].removed_until) is False
        world.answer_audit(audit_id, "disagree", "agree", reason="distance")
        assert bool(world.engine.pool.nodes[1].removed_until) == (times == 7), times
        for node_id in (2, 3):
            world.heartbeat(node_id, paused=True)
        world.heartbeat(1)
        assert told_last(world) == request_id
    told = [effect for effect in world.effects if isinstance(effect, effects.TellRejection)]
    assert [(effect.node_id, effect.reason) for effect in told] == [(1, "audit_disagreed: distance")] * 7
    assert world.logged("node.convicted") == [{"node_id": "1", "role": "executor"}]
    assert not world.engine._may_earn(1)  # pyright: ignore[reportPrivateUsage]
    world.restart()
    assert world.engine.pool.nodes[1].removed_until and world.engine.trust.of(1).executor_millinats > 0
    world.advance(DAY_MS)
    trust = world.engine.trust.of(1)
    assert not world.engine.pool.nodes[1].removed_until
    assert (trust.executor_millinats, trust.passes, trust.disagreed) == (0, 0, 7)
    (row,) = (row for row in world.rows(NodeTrustRow) if row.node_id == "1")
    assert row.executor_millinats == 0, "durable"


def told_last(world: World) -> str:
    return [effect for effect in world.effects if isinstance(effect, effects.TellRejection)][-1].request_id


def test_an_auditor_that_contradicts_the_honest_is_removed_and_the_executor_keeps_its_standing() -> None:
    world = network(1)
    world.attach(2, slots=1)
    for times in range(1, 8):
        world.heartbeat(2, paused=True)
        request_id = world.work()
        world.heartbeat(2)
        audit_id = world.audit(request_id).audit_id
        assert world.node_of(audit_id) == 2
        world.answer_audit(audit_id, "disagree")
        world.attach(100 + times)
        world.answer_audit(audit_id, "agree", "disagree")
        world.step(events.RegistryChanged(removed=(100 + times,)))
        assert world.audit_row(request_id).reason == "auditor_overruled"
    assert world.engine.pool.nodes[2].removed_until and not world.engine.pool.nodes[1].removed_until
    told = [effect for effect in world.effects if isinstance(effect, effects.TellRejection)]
    assert {(effect.node_id, effect.reason) for effect in told} == {(2, "audit_overruled: auditor_overruled")}
    assert world.engine.trust.of(1).executor_millinats == 0 and world.engine.trust.of(1).passes == 7


def test_who_makes_itself_unauditable_is_removed_by_the_rate_of_it() -> None:
    world = network(1)
    for times in range(1, 9):
        account = "0x" + f"{times:040x}"
        world.fund(PRLX, account)
        world.issue_key(account, account)
        assert unauditable(world, account) == "unauditable"
        assert bool(world.engine.pool.nodes[1].removed_until) == (times == 8)


def unauditable(world: World, account: str, *, reason: str = "rerun_differs") -> str:
    """Node 1 serves a request in which nothing can be compared, and that comes out otherwise when run again."""
    world.heartbeat(1)
    request_id = world.ask(account=account, key_id=account)
    world.complete(world.attempt_of(request_id))
    world.heartbeat(1, paused=True)
    world.now += 1
    for node_id in (2, 3):
        world.attach(node_id)
    audit_id = world.audit(request_id).audit_id
    for _ in range(2):
        world.answer_audit(audit_id, "unusable")
    world.answer_audit(audit_id, "unusable", reason=reason)
    for node_id in (2, 3):
        world.heartbeat(node_id, paused=True)
    return world.audit_row(request_id).reason


def test_one_requester_alone_convicts_nobody_by_asking_for_what_cannot_be_compared() -> None:
    world = network(1)
    world.issue_key(ACCOUNT)
    for _ in range(50):
        unauditable(world, ACCOUNT)
    trust = world.engine.trust.of(1)
    assert trust.unusable_millinats == world.settings.unusable_millinats and not world.logged("node.convicted")
    world.now += DAY_MS
    unauditable(world, ACCOUNT)
    assert trust.unusable_millinats == 2 * world.settings.unusable_millinats, "one word a day"


def test_a_request_that_nobodys_answer_to_can_be_compared_speaks_against_nobody() -> None:
    world = network(1)
    world.issue_key(ACCOUNT)
    assert unauditable(world, ACCOUNT, reason="rerun_unauditable") == "unauditable"
    assert world.engine.trust.of(1).unusable_millinats == 0 and not world.logged("node.marked")


def test_the_words_of_requesters_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "UNUSABLE_WORDS_MAX", 3)
    world = network(1, conviction_millinats=10**9)
    for each in range(5):
        account = "0x" + f"{each:040x}"
        world.fund(PRLX, account)
        world.issue_key(account, account)
        unauditable(world, account)
    assert len(world.engine._unusable_words) == 3  # pyright: ignore[reportPrivateUsage]


def test_who_is_convicted_already_is_not_convicted_again() -> None:
    world = network(1, conviction_millinats=1)
    for each in range(3):
        account = "0x" + f"{each:040x}"
        world.fund(PRLX, account)
        world.issue_key(account, account)
        unauditable(world, account)
    assert len(world.logged("node.marked")) == 3
    assert len(world.logged("node.convicted")) == len(world.logged("node.removed")) == 1


def test_audits_that_wait_for_another_owner_stand_in_nobodys_way() -> None:
    """However many there are: a network of one owner has no auditor, and each of its results is drawn."""
    world = network(1, drain_scan_max=2)
    for _ in range(5):
        world.work()
    assert len(world.engine.queue) == 5
    running = [world.ask() for _ in range(4)]
    waiting = world.ask()
    assert waiting in world.engine.queue
    world.complete(world.attempt_of(running[0]))
    assert world.node_of(waiting) == 1


def test_evidence_is_the_same_after_a_restart() -> None:
    world = network(3)
    request_id = world.work()
    audit = world.audit(request_id)
    world.answer_audit(audit.audit_id, "disagree")
    world.answer_audit(audit.audit_id, "disagree", "agree")
    before = {node_id: world.engine.trust.of(node_id).row() for node_id in (1, 2, 3)}
    world.restart()
    assert {node_id: world.engine.trust.of(node_id).row() for node_id in (1, 2, 3)} == before
    assert before[audit.node_id].executor_millinats == world.settings.disagreement_millinats


# Prepared audits --------


def test_a_prepared_audit_is_put_to_a_third_owner_and_leaves_no_record() -> None:
    world = network(3, prepared_percent=100)
    request_id = world.work()
    first = world.audit(request_id)
    auditor = world.node_of(first.audit_id)
    start = len(world.effects)
    world.answer_audit(first.audit_id, "agree")
    (prepared,) = world.engine.audits.values()
    assert prepared.prepared_from == first.audit_id and prepared.request is first.request
    assert world.node_of(prepared.audit_id) not in {auditor, first.node_id}
    kinds = [type(effect) for effect in world.effects[start:]]
    assert kinds.index(effects.OpenAudit) < kinds.index(effects.AuditEnded), "while its answer is still known"
    assert world.audit_row(request_id).verdict == "agree"
    settle(world)
    assert world.transfers("charge"), "a charge does not wait for it"
    world.answer_audit(prepared.audit_id, "disagree", "agree")
    assert not world.engine.audits, "one is not made from another"
    assert len(audits(world)) == 1 and world.engine.trust.of(first.node_id).audited == 1
    row = world.engine.audit_of(request_id)
    assert row is not None and row.audit_id == first.audit_id


@pytest.mark.parametrize("percent", [0, 30, 100])
def test_as_many_audits_are_prepared_as_is_said(percent: int) -> None:
    world = network(3, prepared_percent=percent)
    total = 100
    for _ in range(total):
        request_id = world.work()
        world.answer_audit(world.audit(request_id).audit_id, "agree")
        answer_all(world)
    made = sum(1 for row in world.rows(AuditRow) if row.prepared_from)
    # Five standard deviations.
    assert abs(made - total * percent / 100) <= 5 * (total * percent * (100 - percent)) ** 0.5 / 100


def test_a_prepared_audit_does_not_outlive_a_restart() -> None:
    world = network(3, prepared_percent=100)
    request_id = world.work()
    world.answer_audit(world.audit(request_id).audit_id, "agree")
    (prepared_id,) = world.engine.audits
    start = len(world.effects)
    world.restart()
    assert not world.engine.audits
    ended = [effect for effect in world.effects[start:] if isinstance(effect, effects.AuditEnded)]
    assert [(effect.audit_id, effect.verdict, effect.reason) for effect in ended] == [
        (prepared_id, "unaudited", "restarted")
    ]


# Restarts --------


def test_an_open_audit_begins_anew_after_a_restart_and_its_charge_still_waits() -> None:
    world = network(3)
    request_id = world.work()
    other = world.work()
    audit = world.audit(request_id)
    world.answer_audit(audit.audit_id, "disagree")
    attempt = audit.unit.open_attempt
    assert attempt is not None
    settle(world)
    start = len(world.effects)
    world.restart()
    again = world.audit(request_id)
    assert again.audit_id == audit.audit_id and again.stage == "first" and again.node_id == audit.node_id
    opened = [effect for effect in world.effects[start:] if isinstance(effect, effects.OpenAudit | effects.Offer)]
    assert [type(effect) for effect in opened] == [effects.OpenAudit, effects.Offer] * 2
    late = world.step(
        events.AuditAnswered(attempt_id=attempt.attempt_id, node_id=attempt.node_id, finding=finding("agree"))
    )
    assert isinstance(late, effects.Refused) and late.code == "attempt_closed"
    assert not world.transfers("charge") and not world.engine.settled(world.row(request_id).record_sequence)
    for each in (request_id, other):
        world.answer_audit(world.audit(each).audit_id, "agree")
    assert set(world.transfers("charge")) == {request_id, other}
    key = world.engine.keys["key_1"]
    assert key.committed_wei == 0 and key.spent_wei == sum(world.transfers("charge").values())
    settle(world)
    world.check_all_ended()


# Epochs --------


def test_an_attempt_belongs_to_the_epoch_it_was_dispatched_in_and_batches_never_go_back() -> None:
    world = network(4)
    old = world.ask()
    world.acknowledge(world.attempt_of(old))
    world.begin_epoch(1)
    world.work(draw=LAST_DRAW)
    assert world.engine.oldest_open_epoch() == 0 and world.engine.epochs_revealable() == ()
    settle(world)
    world.complete(world.attempt_of(old))
    assert [record.epoch for record in executions(world)] == [1, 0]
    assert world.engine.oldest_open_epoch() == 1 and world.engine.epochs_revealable() == ()
    answer_all(world)
    world.restart()
    assert world.engine.epoch == 1 and world.engine.epochs_revealable() == ()
    settle(world)
    assert world.engine.epochs_revealable() == (0,), "once what was recorded in it is confirmed"
    assert [row.epoch for row in sorted(world.rows(BatchRow), key=lambda row: row.number)] == [1, 1]
    assert {effect.epoch for effect in world.effects if isinstance(effect, effects.AnchorBatch)} == {1}
    world.step(events.EpochRevealed(epoch=0, secret="0x" + "55" * 32))
    assert world.engine.epochs_revealable() == ()
    (revealed,) = (row for row in world.rows(EpochRow) if row.epoch == 0)
    assert revealed.secret == "0x" + "55" * 32 and revealed.revealed_at == world.now
    world.step(events.EpochRevealed(epoch=0, secret="0x" + "66" * 32))
    assert revealed in world.rows(EpochRow), "it is said once"


def test_an_epoch_is_not_revealed_while_a_draw_may_be_made_in_it() -> None:
    world = network(2)
    world.ask()
    world.begin_epoch(1)
    with pytest.raises(AssertionError, match="while draws may be made"):
        world.engine.step(events.EpochRevealed(epoch=0, secret="0x00"), world.now, world.random.randbytes)


def test_an_open_audit_holds_no_epoch_back() -> None:
    world = network(2)
    world.work()
    world.begin_epoch(1)
    settle(world)
    assert world.engine.audits and world.engine.epochs_revealable() == (0,)


def test_after_a_restart_an_epoch_is_revealed_once_what_was_batched_before_is_confirmed() -> None:
    world = network(1)
    world.work()
    world.begin_epoch(1)
    world.advance(world.settings.batch_ms)
    world.restart()
    assert world.engine.epochs_revealable() == ()
    world.confirm_batches()
    assert world.engine.epochs_revealable() == (0,)


def test_an_epoch_begins_once_and_none_before_the_present_one() -> None:
    world = network(1)
    world.begin_epoch(3)
    rows = len(world.rows(EpochRow))
    world.begin_epoch(3)
    assert len(world.rows(EpochRow)) == rows
    with pytest.raises(AssertionError, match="epoch 2 began after 3"):
        world.begin_epoch(2)


def test_a_restarted_batch_keeps_the_epoch_of_its_unbatched_records() -> None:
    world = network(2)
    world.begin_epoch(5)
    world.work(draw=LAST_DRAW)
    world.restart()
    settle(world)
    (row,) = world.rows(BatchRow)
    assert row.epoch == 5


# A node that changes hands --------


def test_nobody_audits_its_own_work_under_another_owner_nor_takes_the_place_of_who_waits() -> None:
    world = network(0)
    world.attach(1, slots=1)
    audited = world.work()
    running = world.ask()
    waiting = world.ask()
    world.owners = {1: 9}
    world.register(1)
    world.complete(world.attempt_of(running), draw=LAST_DRAW)
    assert world.node_of(waiting) == 1, "the audit that waits first is not for this node"
    assert world.audit(audited).unit.open_attempt is None


def test_who_has_spoken_does_not_decide_under_another_owner() -> None:
    world = network(1)
    request_id = world.work()
    world.attach(2)
    audit = world.audit(request_id)
    world.answer_audit(audit.audit_id, "disagree")
    world.owners = {2: 9}
    world.register(2)
    assert audit.stage == "third" and audit.unit.open_attempt is None


def test_an_audit_asks_for_the_executors_own_weights_and_no_others_of_the_model() -> None:
    first, second = "a1" * 32, "a2" * 32
    offered = catalogue.parse(
        f"""
        [[models]]
        name = "small"
        digests = ["{first}", "{second}"]
        prompt_wei_per_1000 = "1000000"
        completion_wei_per_1000 = "3000000"
        context_tokens = 4096
        """
    )
    world = World(audited=True, catalogue=offered)
    world.fund()
    world.issue_key()
    world.attach(1, digests=(first,))
    request_id = world.work()
    world.attach(2, digests=(second,))
    assert world.audit(request_id).unit.open_attempt is None
    world.attach(3, digests=(second, first))
    assert world.node_of(world.audit(request_id).audit_id) == 3
    assert world.offers[world.attempt_of(world.audit(request_id).audit_id)].model_digest == first
