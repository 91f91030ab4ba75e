"""Every bound, with the refusal that it gives: what a key may, what an account may, what the tables hold."""

from __future__ import annotations

from typing import Any

import pytest
from world import ACCOUNT, PRLX, SECOND, START_MS, World

from parallelix.engine import effects, events
from parallelix.engine.ledger import available
from parallelix.engine.rows import KeyRow, RequestRow, TransferRow
from parallelix.engine.settings import DAY_MS, MINUTE_MS
from parallelix.engine.timers import Timer, Timers

SWEEP_MIN = 2_000
OTHER = "0x" + "bb" * 20
HOLD_WEI = (40 + 32) * 1_000 + 100 * 3_000
"""Of an ordinary request: 40 bytes of prompt, 32 tokens of template, 100 tokens of answer."""


def made(**changes: Any) -> World:
    world = World(**changes)
    world.fund()
    return world


def serve(world: World, request_id: str, **usage: Any) -> None:
    world.acknowledge(world.attempt_of(request_id))
    world.complete(world.attempt_of(request_id), **usage)


def refused(world: World, **fields: Any) -> effects.Refused:
    """What is refused leaves no trace."""
    before = (len(world.rows(RequestRow)), len(world.rows(TransferRow)), world.balance(available(ACCOUNT)))
    answer = world.try_ask(**fields)
    assert isinstance(answer, effects.Refused), answer
    after = (len(world.rows(RequestRow)), len(world.rows(TransferRow)), world.balance(available(ACCOUNT)))
    assert after == before
    return answer


# --- Keys


def test_a_key_takes_a_minute_s_worth_at_once_and_then_its_rate() -> None:
    world = made()
    world.issue_key(requests_per_minute=6)
    for _ in range(6):
        world.ask()

    answer = refused(world)
    assert (answer.code, answer.retry_after_seconds) == ("rate_limited", 10.0)
    world.now += 9_999
    assert refused(world).code == "rate_limited"
    world.now += 1
    world.ask()
    assert refused(world).code == "rate_limited"
    world.now += 3600 * SECOND
    for _ in range(6):
        world.ask()
    assert refused(world).code == "rate_limited", "an idle hour saves up one minute's worth, not sixty"


def test_a_rate_of_one_a_minute_lets_one_through_each_minute() -> None:
    world = made()
    world.issue_key(requests_per_minute=1)
    world.ask()
    assert refused(world).retry_after_seconds == 60.0
    world.now += MINUTE_MS
    world.ask()


def test_a_clock_that_is_set_back_earns_nothing() -> None:
    world = made()
    world.issue_key(requests_per_minute=1)
    world.ask()
    world.now -= 10 * MINUTE_MS
    assert refused(world).code == "rate_limited"
    world.now = START_MS + MINUTE_MS - 1
    assert refused(world).code == "rate_limited"
    world.now = START_MS + MINUTE_MS
    world.ask()


def test_a_key_has_as_many_requests_open_as_it_may() -> None:
    world = made()
    world.issue_key(concurrency=2)
    world.attach(1, slots=2)
    first, _ = world.ask(), world.ask()

    answer = refused(world)
    assert answer.code == "concurrency_exceeded" and answer.retry_after_seconds == 1.0
    serve(world, first)
    world.ask()
    assert refused(world).code == "concurrency_exceeded"


def test_a_key_spends_its_budget_and_not_a_wei_more() -> None:
    world = made()
    world.issue_key(budget_wei=2 * HOLD_WEI)
    world.attach(1)
    first, second = world.ask(), world.ask()
    assert refused(world).code == "budget_exceeded", "what is open may still cost it"

    serve(world, first, prompt_tokens=72, completion_tokens=100)
    assert world.request(second).open_attempt
    charged = int(world.row(first).charge_wei)
    assert charged == HOLD_WEI
    assert refused(world).code == "budget_exceeded", "recorded and not yet charged"
    world.step(events.Cancel(request_id=second, charged=False, reason="requester"))
    world.ask()
    world.advance(10 * SECOND)
    world.confirm_batches()

    assert world.engine.keys["key_1"].spent_wei == charged
    assert refused(world, max_tokens=1).code == "budget_exceeded"
    stored = {row.key_id: row for row in world.rows(KeyRow)}
    assert stored["key_1"].spent_wei == str(charged)


def test_a_budget_to_the_wei_is_enough() -> None:
    world = made()
    world.issue_key(budget_wei=HOLD_WEI)
    world.ask()
    world = made()
    world.issue_key(budget_wei=HOLD_WEI - 1)
    answer = refused(world)
    assert answer.code == "budget_exceeded" and f"{HOLD_WEI - 1} wei" in answer.message


def test_limits_of_one_key_do_not_bind_another() -> None:
    world = made()
    world.issue_key(concurrency=1, requests_per_minute=1, budget_wei=HOLD_WEI)
    world.issue_key("key_2")
    world.ask()
    for _ in range(5):
        world.ask(key_id="key_2")


@pytest.mark.parametrize("what", ["unknown", "expired", "revoked"])
def test_a_key_that_is_not_good_pays_for_nothing(what: str) -> None:
    world = made()
    world.issue_key(expires_at=START_MS + 1_000)
    world.ask()
    if what == "expired":
        world.now += 999
        world.ask()
        world.now += 1
    elif what == "revoked":
        world.step(events.KeyRevoked(key_id="key_1"))
    answer = refused(world, key_id="key_9" if what == "unknown" else "key_1")
    assert answer.code == "invalid_api_key"


def test_a_key_is_revoked_once_and_issued_once() -> None:
    world = made()
    world.issue_key(concurrency=1)
    world.issue_key(concurrency=99)
    assert world.engine.keys["key_1"].concurrency == 1
    world.step(events.KeyRevoked(key_id="key_1"))
    at = world.engine.keys["key_1"].revoked_at
    world.now += 5
    world.step(events.KeyRevoked(key_id="key_1"))
    world.step(events.KeyRevoked(key_id="no such key"))
    assert world.engine.keys["key_1"].revoked_at == at == START_MS


# --- Idempotency-Keys


def test_an_idempotency_key_finds_the_same_request_again_and_holds_credits_once(world: World) -> None:
    world.attach(1)
    first = world.try_ask(idempotency_key="k", fingerprint="f")
    again = world.try_ask(idempotency_key="k", fingerprint="f")

    assert isinstance(first, effects.Admitted) and isinstance(again, effects.Admitted)
    assert (first.created, again.created) == (True, False)
    assert (again.request_id, again.hold_wei) == (first.request_id, first.hold_wei)
    serve(world, first.request_id)
    after_its_end = world.try_ask(idempotency_key="k", fingerprint="f")
    assert isinstance(after_its_end, effects.Admitted)
    assert (after_its_end.request_id, after_its_end.created) == (first.request_id, False)
    assert len(world.rows(RequestRow)) == 1


def test_a_repeat_is_answered_whatever_the_limits_say_by_now() -> None:
    world = made()
    world.issue_key(requests_per_minute=1, concurrency=1, budget_wei=HOLD_WEI)
    world.ask(idempotency_key="k")
    for _ in range(3):
        repeat = world.try_ask(idempotency_key="k")
        assert isinstance(repeat, effects.Admitted) and not repeat.created


def test_an_idempotency_key_with_another_body_is_refused(world: World) -> None:
    world.ask(idempotency_key="k", fingerprint="one")
    assert refused(world, idempotency_key="k", fingerprint="another").code == "idempotency_key_reused"


def test_the_same_idempotency_key_of_another_account_is_another(world: World) -> None:
    world.fund(account=OTHER)
    world.issue_key("key_2", account=OTHER)
    mine = world.ask(idempotency_key="k")
    theirs = world.ask(idempotency_key="k", account=OTHER, key_id="key_2")
    assert mine != theirs


def test_without_an_idempotency_key_every_request_is_its_own(world: World) -> None:
    assert world.ask() != world.ask()


def test_an_idempotency_key_is_remembered_for_a_day_over_a_restart(world: World) -> None:
    first = world.ask(idempotency_key="k", queue_ms=0)
    world.advance(DAY_MS)
    world.restart()
    repeat = world.try_ask(idempotency_key="k")
    assert isinstance(repeat, effects.Admitted) and repeat.request_id == first
    world.advance(1)
    assert world.ask(idempotency_key="k") != first


def test_what_was_refused_may_be_tried_again_under_its_idempotency_key() -> None:
    world = World()
    world.issue_key()
    assert refused(world, idempotency_key="k").code == "insufficient_credits"
    world.fund()
    world.ask(idempotency_key="k")


def test_so_many_idempotency_keys_are_remembered_and_no_more() -> None:
    world = made(idempotency_keys_max=2)
    world.issue_key()
    for key in "ab":
        world.ask(idempotency_key=key)
    assert refused(world, idempotency_key="c").code == "overloaded"
    world.ask()
    repeat = world.try_ask(idempotency_key="a")
    assert isinstance(repeat, effects.Admitted) and not repeat.created
    world.advance(DAY_MS + 1)
    world.ask(idempotency_key="c")


# --- Tables


def test_so_many_requests_are_open_and_no_more() -> None:
    world = made(open_requests_max=3)
    world.issue_key()
    asked = [world.ask() for _ in range(3)]
    answer = refused(world)
    assert answer.code == "overloaded" and answer.retry_after_seconds == 5.0
    world.step(events.Cancel(request_id=asked[0], charged=False, reason="requester"))
    world.ask()


def test_one_account_cannot_fill_the_table_for_all() -> None:
    world = made(open_requests_per_account_max=2)
    world.issue_key()
    world.issue_key("key_2")
    world.ask()
    second = world.ask(key_id="key_2")
    assert refused(world, key_id="key_2").code == "overloaded"
    world.fund(account=OTHER)
    world.issue_key("key_3", account=OTHER)
    world.ask(account=OTHER, key_id="key_3")
    world.step(events.Cancel(request_id=second, charged=False, reason="requester"))
    world.ask()


def test_nothing_new_comes_in_while_too_many_records_wait_for_an_anchor() -> None:
    world = made(unsettled_max=2)
    world.issue_key()
    world.attach(1)
    for _ in range(2):
        serve(world, world.ask())
    assert refused(world).code == "overloaded"
    world.advance(10 * SECOND)
    world.confirm_batches()
    world.ask()


def test_so_many_nodes_are_attached_and_no_more() -> None:
    world = made(nodes_max=2)
    for node_id in (1, 2):
        assert world.attach(node_id) is None
    answer = world.attach(3)
    assert isinstance(answer, effects.Refused) and answer.code == "overloaded"
    world.now += 1
    assert world.attach(2) is None, "one that is known comes back"


def test_a_full_batch_is_closed_at_once() -> None:
    world = made(batch_records_max=3)
    world.issue_key()
    world.attach(1)
    for count in range(1, 7):
        serve(world, world.ask())
        assert world.engine.recorder.batches_closed == count // 3
    world.check_chain()


def test_so_many_answers_are_remembered_for_nodes_that_did_not_hear_them() -> None:
    world = made(answers_remembered_max=2)
    world.issue_key()
    world.attach(1)
    attempts: list[str] = []
    for _ in range(3):
        request_id = world.ask()
        attempts.append(world.attempt_of(request_id))
        serve(world, request_id)
    answers = [world.returned(each, "failed") for each in attempts]
    assert isinstance(answers[0], effects.Refused) and answers[0].code == "attempt_closed"
    assert answers[1:] == [effects.ResultTaken(accepted=True)] * 2


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"max_tokens": 1000}, None),
        ({"max_tokens": 1001}, "max_tokens_too_large"),
        ({"max_tokens": 100, "prompt_bytes": 4 * 3996}, None),
        ({"max_tokens": 100, "prompt_bytes": 4 * 3997}, "context_exceeded"),
        ({"kind": "embedding", "prompt_bytes": 4 * 4096}, None),
        ({"kind": "embedding", "prompt_bytes": 4 * 4097}, "context_exceeded"),
        ({"max_tokens": None}, None),
    ],
)
def test_what_a_model_takes_is_bounded_to_the_token(world: World, fields: dict[str, Any], code: str | None) -> None:
    answer = world.try_ask(**fields)
    assert (answer.code if isinstance(answer, effects.Refused) else None) == code


def test_credits_to_the_wei_are_enough_and_one_less_is_not() -> None:
    world = World()
    world.issue_key()
    world.fund(HOLD_WEI - 1)
    answer = refused(world)
    assert answer.code == "insufficient_credits" and f"{HOLD_WEI - 1} wei available" in answer.message
    world.fund(1)
    world.ask()
    assert world.balance(available(ACCOUNT)) == 0


def test_a_quote_tells_the_hold_and_keeps_nothing(world: World) -> None:
    event = events.Admit(
        account=ACCOUNT, key_id="key_1", workload_class="ai.inference", kind="chat", model="small", prompt_bytes=40
    )
    plan = world.engine.quote(event)
    assert not isinstance(plan, effects.Refused) and plan.hold_wei == HOLD_WEI
    assert plan.need.deadline_ms == world.settings.deadline_ms_default
    assert world.balance(available(ACCOUNT)) == PRLX and not world.engine.requests


def test_every_message_of_the_template_is_held_for(world: World) -> None:
    one, three = world.ask(message_count=1), world.ask(message_count=3)
    assert world.request(three).hold_wei - world.request(one).hold_wei == 2 * 32 * 1_000


def test_no_deadline_is_longer_than_an_hour(world: World) -> None:
    request_id = world.ask(deadline_ms=7200 * SECOND)
    assert world.request(request_id).need.deadline_ms == 3600 * SECOND
    assert world.request(request_id).queue_ms == 3600 * SECOND, "waiting is bounded alike where nothing is said"


# --- Timers


def test_timers_come_in_order_of_time_and_then_of_setting() -> None:
    timers = Timers(lambda timer: True, sweep_min=SWEEP_MIN)
    for at, name in ((5, "a"), (3, "b"), (5, "c"), (4, "d")):
        timers.set(at, "kind", name)
    assert timers.next_at() == 3
    assert timers.take_due(2) is None
    taken: list[Timer] = []
    while (timer := timers.take_due(5)) is not None:
        taken.append(timer)
    assert [subject for *_, subject in taken] == ["b", "d", "a", "c"]
    assert timers.next_at() is None and len(timers) == 0


def test_timers_without_a_purpose_do_not_pile_up_and_no_other_is_lost() -> None:
    timers = Timers(lambda timer: timer[3] % 1000 == 0, sweep_min=SWEEP_MIN)
    for number in range(10 * SWEEP_MIN):
        timers.set(number, "kind", number)
        assert len(timers) <= SWEEP_MIN
    left: set[Any] = set()
    while (timer := timers.take_due(10**9)) is not None:
        left.add(timer[3])
    assert left >= set(range(0, 10 * SWEEP_MIN, 1000))


def test_many_timers_with_a_purpose_are_all_kept() -> None:
    timers = Timers(lambda timer: True, sweep_min=SWEEP_MIN)
    for number in range(3 * SWEEP_MIN):
        timers.set(number, "kind", number)
    assert len(timers) == 3 * SWEEP_MIN


def test_the_timers_of_finished_requests_are_swept_and_those_of_open_ones_kept() -> None:
    """A request sets one timer for half a day; a thousand a second must not keep half a day of them."""
    world = made(timers_sweep_min=40)
    world.issue_key()
    world.attach(1)
    held = world.ask(model="big", queue_ms=3600 * SECOND)
    for _ in range(60):
        serve(world, world.ask())
    assert world.engine.timers_waiting <= 80
    running = world.ask(deadline_ms=2 * SECOND)
    world.acknowledge(world.attempt_of(running))
    world.advance(2 * SECOND)
    assert world.row(running).state == "queued", "its deadline was kept"
    world.advance(3600 * SECOND)
    assert world.row(held).state == "expired"
