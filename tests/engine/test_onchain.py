"""What the contracts say becomes credits, nodes and confirmed batches; what they cannot have said becomes nothing."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgspec
import pytest
from onchain_world import ALICE, BOB, CONFIRMATIONS, DEFAULT_LIMIT, ChainWorld
from vault_chain import (
    WITHDRAWAL_DELAY_SECONDS,
    anchor,
    cancel_withdrawal,
    deposit,
    request_withdrawal,
    set_limit,
    settle,
    stake,
    unstake,
    withdraw,
    withdraw_cleared,
    withdraw_stake,
)
from world import SECOND, START_MS

from parallelix.engine import effects, events
from parallelix.engine.chain_facts import ChainFact, Deposited, NodeStaked, NodeUnstaking, SpendingSettled, Withdrawn
from parallelix.engine.ledger import SETTLED, available, cleared, held, spent, uncovered
from parallelix.engine.rows import BatchRow, ClearanceRow, RegistrationRow, TransferRow
from parallelix.engine.settings import DAY_MS

HOLD = 372_000
"""What `small` may cost by default; `admitted` sees to it."""


@pytest.fixture
def world() -> ChainWorld:
    """Alice has a deposit of ten holds, the network one node."""
    made = ChainWorld()
    made.staffed()
    for account in (ALICE, BOB, "acme"):
        made.issue_key(f"key_{account}", account)
    made.fund(10 * HOLD)
    return made


def code(answer: effects.Answer) -> str:
    assert isinstance(answer, effects.Refused), answer
    return answer.code


def ask(world: ChainWorld, account: str = ALICE) -> effects.Answer:
    return world.try_ask(account=account, key_id=f"key_{account}")


def admitted(world: ChainWorld, account: str = ALICE) -> str:
    answer = ask(world, account)
    assert isinstance(answer, effects.Admitted), answer
    assert answer.hold_wei == HOLD
    return answer.request_id


def exit_alone(world: ChainWorld, amount: int = 10**9) -> None:
    """Alice asks nobody, and takes out as much as the vault gives."""
    assert world.send(request_withdrawal(ALICE, amount))
    world.follow()
    pay_out(world)


def pay_out(world: ChainWorld) -> None:
    world.chain.mine(1, time=world.chain.head.time + WITHDRAWAL_DELAY_SECONDS)
    world.confirm(withdraw(ALICE))


# --- Deposits and what may be spent of them


def test_a_deposit_counts_once_it_is_confirmed_and_once_only(world: ChainWorld) -> None:
    world.send(deposit(BOB, HOLD))
    world.chain.mine(CONFIRMATIONS - 1, time=world.seconds)
    world.follow()
    assert code(ask(world, BOB)) == "no_deposit"
    world.chain.mine(1, time=world.seconds)
    world.follow()
    world.follow()
    assert world.balance(available(BOB)) == HOLD
    world.restart()
    world.follow()
    assert world.balance(available(BOB)) == HOLD
    admitted(world, BOB)


def test_a_withdrawal_is_kept_back_from_the_newest_block_on(world: ChainWorld) -> None:
    world.send(request_withdrawal(ALICE, 9 * HOLD + 1))
    admitted(world)
    world.follow()
    assert world.engine.spendable_wei(ALICE) == 0
    assert code(ask(world)) == "insufficient_credits"


def test_a_withdrawal_that_a_reorganisation_takes_away_keeps_nothing_back(world: ChainWorld) -> None:
    world.send(request_withdrawal(ALICE, 10 * HOLD))
    world.follow()
    assert world.engine.spendable_wei(ALICE) == 0
    assert world.chain.reorganise(1, lambda: False) == 1
    world.follow()
    assert world.engine.spendable_wei(ALICE) == 10 * HOLD
    world.send(request_withdrawal(ALICE, 4 * HOLD))
    world.settle_down()
    assert world.engine.spendable_wei(ALICE) == 6 * HOLD
    world.confirm(cancel_withdrawal(ALICE))
    assert world.engine.spendable_wei(ALICE) == 10 * HOLD


def test_after_a_restart_nothing_of_a_deposit_is_spent_before_the_newest_block_is_heard_of(world: ChainWorld) -> None:
    world.send(request_withdrawal(ALICE, 10 * HOLD))
    world.follow()
    world.restart()
    assert code(ask(world)) == "chain_unreachable"
    world.follow()
    assert code(ask(world)) == "insufficient_credits"


def test_a_span_far_behind_the_head_is_no_word_of_the_newest_block(world: ChainWorld) -> None:
    world.chain.mine(10, time=world.seconds)
    world.restart()
    world.step(world.span(world.cursor + 1, world.cursor + 2))
    assert code(ask(world)) == "chain_unreachable"


def test_deposits_wait_for_a_chain_that_is_silent_and_grants_do_not(world: ChainWorld) -> None:
    world.step(events.Grant(grant_id="g", account="acme", amount_wei=HOLD))
    before = admitted(world)
    world.advance(world.settings.chain_stale_ms)
    world.heartbeat(1)
    admitted(world)
    world.advance(1)
    assert code(ask(world)) == "chain_unreachable"
    assert code(world.clear(ALICE, 1)) == "chain_unreachable"
    admitted(world, "acme")
    assert before in world.ends, "open work ends as ever"


def test_an_endpoint_that_shows_the_same_block_for_ever_is_no_word_of_the_chain(world: ChainWorld) -> None:
    newest = world.seconds
    world.advance(world.settings.chain_stale_ms)
    world.step(events.ChainProvisional(block=world.chain.head.number, time=newest, asked={}))
    world.heartbeat(1)
    admitted(world)
    world.advance(1_000)
    world.step(events.ChainProvisional(block=world.chain.head.number, time=newest, asked={}))
    assert code(ask(world)) == "chain_unreachable"
    world.step(events.ChainProvisional(block=world.chain.head.number + 1, time=world.seconds + 60, asked={}))
    admitted(world)


@pytest.mark.parametrize("part", ["vault", "chain"])
def test_a_halt_stops_new_work_on_deposits_and_lets_open_work_end(world: ChainWorld, part: Any) -> None:
    world.step(events.Grant(grant_id="g", account="acme", amount_wei=HOLD))
    request_id = admitted(world)
    world.step(events.ChainHalted(part=part, reason="they say 5, we say 6"))
    assert code(ask(world)) == "vault_halted"
    assert code(world.clear(ALICE, 1)) == "vault_halted"
    admitted(world, "acme")
    world.acknowledge(world.attempt_of(request_id))
    world.complete(world.attempt_of(request_id))
    assert world.ends[request_id] == ["completed"]
    world.step(events.ChainHalted(part=part, reason=""))
    admitted(world)
    assert [fields["part"] for fields in world.logged("chain.halted") + world.logged("chain.resumed")] == [part] * 2


def test_halting_the_anchor_or_the_registry_stops_no_work(world: ChainWorld) -> None:
    for part in ("anchor", "registry"):
        world.step(events.ChainHalted(part=part, reason="differs"))
    admitted(world)


# --- The daily limit


def test_what_is_held_and_spent_fits_into_the_daily_limit(world: ChainWorld) -> None:
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT
    for _ in range(DEFAULT_LIMIT // HOLD):
        admitted(world)
    assert code(ask(world)) == "daily_limit_reached"
    world.confirm(set_limit(ALICE, 10 * HOLD))
    admitted(world)
    assert world.engine.limit_room_wei("acme") is None


def test_a_lower_limit_counts_at_once_although_the_vault_keeps_the_old_one_for_a_day(world: ChainWorld) -> None:
    world.confirm(set_limit(ALICE, HOLD))
    assert world.contracts.of(ALICE).limit_on(world.seconds // 86_400, DEFAULT_LIMIT) == DEFAULT_LIMIT
    admitted(world)
    assert code(ask(world)) == "daily_limit_reached"


def test_what_was_charged_in_a_utc_day_counts_until_the_next_although_it_was_settled(world: ChainWorld) -> None:
    charged = world.charge(max_tokens=100)
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT - charged
    world.settle()
    world.settle_down()
    assert world.balance(spent(ALICE)) == 0
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT - charged
    world.restart()
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT - charged
    world.advance(DAY_MS - START_MS % DAY_MS)
    world.step(events.Tick())
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT


def test_what_is_spent_and_not_settled_counts_on_the_next_day_too(world: ChainWorld) -> None:
    charged = world.charge()
    world.advance(DAY_MS)
    world.step(events.Tick())
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT - charged


def test_what_the_vault_settles_today_of_yesterdays_work_leaves_today_so_much_less(world: ChainWorld) -> None:
    charged = world.charge()
    world.advance(DAY_MS)
    world.settle()
    world.settle_down()
    assert world.balance(spent(ALICE)) == 0
    assert world.contracts.of(ALICE).settled_today == charged
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT - charged
    world.restart()
    world.follow()
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT - charged
    world.heartbeat(1)
    more = world.charge()
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT - charged - more
    world.advance(DAY_MS)
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT - more


def test_what_was_settled_before_midnight_and_is_read_after_it_takes_nothing_of_the_new_day(world: ChainWorld) -> None:
    world.charge()
    world.advance(DAY_MS - world.now % DAY_MS - SECOND)
    world.settle()
    world.chain.mine(CONFIRMATIONS, time=world.chain.head.time)
    world.advance(2 * SECOND)
    world.step(world.span(world.cursor + 1, world.chain.confirmed))
    assert world.contracts.of(ALICE).settled_today
    assert world.engine.limit_room_wei(ALICE) == DEFAULT_LIMIT


# --- Charges, batches and settlement


def test_a_charge_is_owed_to_the_operators_when_the_chain_has_its_batch(world: ChainWorld) -> None:
    request_id = world.work()
    charge = int(world.row(request_id).charge_wei)
    world.advance(world.settings.batch_ms)
    assert world.anchor()
    world.follow()
    assert (world.balance(held(ALICE)), world.balance(spent(ALICE))) == (charge, 0)
    world.settle_down()
    assert (world.balance(held(ALICE)), world.balance(spent(ALICE))) == (0, charge)
    assert world.balance("usage") == world.balance("operators") == 0, "the vault splits, not we"
    assert world.engine.settlement_entries(10) == ((ALICE, charge),)
    world.settle()
    world.settle_down()
    assert (world.balance(spent(ALICE)), world.balance(SETTLED)) == (0, charge)
    assert world.engine.settlement_entries(10) == ()
    more = world.charge()
    assert world.engine.settlement_entries(10) == ((ALICE, charge + more),)


def test_work_on_grants_is_split_here_on_a_chain_too(world: ChainWorld) -> None:
    world.step(events.Grant(grant_id="g", account="acme", amount_wei=HOLD))
    charged = world.charge("acme")
    assert sum(world.balance(name) for name in ("operators", "treasury", "infrastructure")) == charged
    assert world.engine.settlement_entries(10) == ()


def test_who_owes_most_is_settled_first(world: ChainWorld) -> None:
    world.fund(10 * HOLD, BOB)
    small = world.charge(ALICE, tokens=10)
    large = world.charge(BOB, tokens=100)
    assert small < large
    assert world.engine.settlement_entries(1) == ((BOB, large),)
    assert world.engine.settlement_entries(2) == ((BOB, large), (ALICE, small))
    world.restart()
    assert world.engine.settlement_entries(2) == ((BOB, large), (ALICE, small))


def test_of_those_that_owe_whoever_can_leave_with_most_of_it_is_settled_first(world: ChainWorld) -> None:
    world.fund(10 * HOLD, BOB)
    small = world.charge(ALICE, tokens=10)
    large = world.charge(BOB, tokens=100)
    world.confirm(request_withdrawal(ALICE, 1))
    assert world.engine.settlement_entries(1) == ((ALICE, small),)
    world.confirm(request_withdrawal(BOB, 2))
    assert world.engine.settlement_entries(1) == ((BOB, large),)
    world.confirm(request_withdrawal(ALICE, 10 * HOLD))
    assert world.engine.settlement_entries(1) == ((ALICE, small),)
    assert world.engine.settlement_entries(2, least_wei=small + 1) == ((BOB, large),)
    assert len(world.engine.settlement_entries(2, least_wei=small)) == 2


def test_batches_begin_at_one_because_the_contract_begins_with_an_empty_one(world: ChainWorld) -> None:
    assert world.engine.recorder.batches_closed == 0
    world.charge()
    assert [row.number for row in world.rows(BatchRow)] == [1]
    world.restart()
    assert (world.engine.recorder.next_batch, world.engine.recorder.batches_closed) == (2, 1)
    assert world.engine.recorder.batches_confirmed == 1
    world.follow()
    world.charge()
    assert [row.number for row in world.rows(BatchRow)] == [1, 2]


def test_on_a_chain_nobody_but_the_chain_confirms_a_batch(world: ChainWorld) -> None:
    world.work()
    world.advance(world.settings.batch_ms)
    with pytest.raises(KeyError):
        world.step(events.BatchConfirmed(number=1, reference="me"))


@pytest.mark.parametrize(("number", "ours"), [(1, True), (1, False), (2, True)])
def test_an_anchored_batch_that_is_not_ours_halts_confirmations_for_good(
    world: ChainWorld, number: int, ours: bool
) -> None:
    if ours:
        world.work()
        world.advance(world.settings.batch_ms)
    if number == 2:
        world.send(anchor(1, world.engine.recorder.unconfirmed[1].merkle_root))
    world.confirm(anchor(number, "0x" + "66" * 32))
    assert f"batch {number}" in world.engine.mirror.halted("anchor")
    assert (world.balance(spent(ALICE)) > 0) == (number == 2)
    world.restart()
    assert f"batch {number}" in world.engine.mirror.halted("anchor"), "its event is behind the cursor"
    world.follow()
    admitted(world)


# --- Clearances


def test_a_clearance_freezes_what_it_lets_out_and_settles_what_was_spent(world: ChainWorld) -> None:
    charged = world.charge()
    answer = world.clear(ALICE, 2 * HOLD)
    assert answer == effects.ClearanceGranted(
        account=ALICE, amount_wei=2 * HOLD, cumulative_wei=charged, nonce=0, expiry=world.seconds + 900
    )
    assert isinstance(answer, effects.ClearanceGranted)
    assert world.engine.spendable_wei(ALICE) == 8 * HOLD - charged
    assert world.balance(cleared(ALICE)) == 2 * HOLD
    assert world.use(answer)
    world.settle_down()
    assert world.balance(cleared(ALICE)) == world.balance(spent(ALICE)) == 0
    assert world.engine.mirror.clearances == {}
    assert [row.state for row in world.rows(ClearanceRow)] == ["used"]
    following = world.clear(ALICE, HOLD)
    assert isinstance(following, effects.ClearanceGranted)
    assert (following.nonce, following.cumulative_wei) == (1, charged)


def test_a_clearance_is_the_same_when_asked_for_again_and_the_only_one(world: ChainWorld) -> None:
    first = world.clear(ALICE, HOLD)
    world.advance(60 * SECOND)
    world.restart()
    world.follow()
    assert world.clear(ALICE, HOLD) == first
    assert code(world.clear(ALICE, HOLD - 1)) == "clearance_open"
    assert world.engine.clearable_wei(ALICE) == 0
    assert isinstance(world.clear(ALICE, HOLD), effects.ClearanceGranted)
    assert len(world.rows(ClearanceRow)) == 1


def test_only_a_block_that_is_too_late_for_a_clearance_releases_it(world: ChainWorld) -> None:
    clearance = world.clear(ALICE, HOLD)
    assert isinstance(clearance, effects.ClearanceGranted)
    world.advance(1_000_000)
    world.follow()
    assert code(world.clear(ALICE, HOLD)) == "clearance_open", "the clock alone proves nothing"
    world.chain.mine(1, time=clearance.expiry + 1)
    world.settle_down()
    assert world.balance(cleared(ALICE)) == 0
    again = world.clear(ALICE, 3 * HOLD)
    assert isinstance(again, effects.ClearanceGranted)
    assert again.nonce == clearance.nonce, "it was never used"
    assert again.expiry > clearance.expiry
    assert world.use(clearance) is None, "nor can it be now"
    assert sorted(row.state for row in world.rows(ClearanceRow)) == ["open", "released"]


def test_a_clearance_can_still_be_used_in_the_block_of_its_last_second(world: ChainWorld) -> None:
    clearance = world.clear(ALICE, HOLD)
    assert isinstance(clearance, effects.ClearanceGranted)
    world.advance((clearance.expiry - world.seconds) * SECOND)
    world.chain.mine(CONFIRMATIONS + 1, time=0)
    world.chain.send(deposit(BOB, 1), time=clearance.expiry)
    assert world.chain.head.time == clearance.expiry
    world.chain.mine(CONFIRMATIONS, time=0)
    while world.cursor < world.chain.confirmed:
        world.step(world.span(world.cursor + 1, world.cursor + 1))
        at = world.chain.blocks[world.cursor].time
        assert (world.balance(cleared(ALICE)) == 0) == (at > clearance.expiry), at
    assert world.balance(cleared(ALICE)) == HOLD
    world.chain.mine(1, time=0)
    world.follow()
    assert world.balance(cleared(ALICE)) == 0


def test_a_clearance_lasts_beyond_the_chains_time_where_that_is_ahead_of_ours(world: ChainWorld) -> None:
    """As on a chain of one's own whose clock was set forward."""
    world.chain.mine(1, time=world.seconds + 1_000_000)
    world.settle_down()
    clearance = world.clear(ALICE, HOLD)
    assert isinstance(clearance, effects.ClearanceGranted)
    assert world.use(clearance)


def test_what_open_work_may_cost_is_not_cleared(world: ChainWorld) -> None:
    admitted(world)
    assert code(world.clear(ALICE, 9 * HOLD + 1)) == "insufficient_credits"
    world.confirm(request_withdrawal(ALICE, 4 * HOLD))
    assert world.engine.clearable_wei(ALICE) == 5 * HOLD
    assert code(world.clear(ALICE, 5 * HOLD + 1)) == "insufficient_credits"
    assert isinstance(world.clear(ALICE, 5 * HOLD), effects.ClearanceGranted)


def test_who_asked_for_everything_back_can_still_be_cleared_when_no_work_is_open(world: ChainWorld) -> None:
    world.confirm(request_withdrawal(ALICE, 10 * HOLD))
    clearance = world.clear(ALICE, 10 * HOLD)
    assert isinstance(clearance, effects.ClearanceGranted)
    assert world.use(clearance)
    world.settle_down()
    assert world.contracts.of(ALICE).deposit == world.engine.mirror.total_deposits_wei == 0
    assert code(ask(world)) == "no_deposit"


def test_an_account_without_a_deposit_has_nothing_to_clear(world: ChainWorld) -> None:
    world.step(events.Grant(grant_id="g", account="acme", amount_wei=HOLD))
    for account in (BOB, "acme"):
        assert code(world.clear(account, 1)) == "insufficient_credits"


# --- Withdrawals that ask nobody


def test_who_leaves_while_work_is_open_cannot_spend_twice_and_the_operators_go_short(world: ChainWorld) -> None:
    request_id = world.work()
    charge = int(world.row(request_id).charge_wei)
    exit_alone(world)
    assert world.contracts.total_deposits == 0
    assert (world.balance(held(ALICE)), world.balance(uncovered(ALICE))) == (charge, -charge)
    world.confirm_batches()
    assert world.balance(spent(ALICE)) == world.balance(uncovered(ALICE)) == 0
    assert world.lost(ALICE) == charge
    assert world.engine.settlement_entries(10) == ()


def test_who_leaves_and_comes_back_pays_first(world: ChainWorld) -> None:
    charge = int(world.row(world.work()).charge_wei)
    exit_alone(world)
    world.fund(HOLD)
    assert world.engine.spendable_wei(ALICE) == HOLD - charge
    world.confirm_batches()
    assert world.lost(ALICE) == 0
    assert (world.balance(spent(ALICE)), world.balance(available(ALICE))) == (charge, HOLD - charge)


def test_work_that_ends_free_of_charge_leaves_no_debt(world: ChainWorld) -> None:
    world.step(events.ChainProvisional(block=1, time=world.seconds, asked={}))
    request_id = admitted(world)
    world.send(request_withdrawal(ALICE, 10 * HOLD))
    pay_out(world)
    assert world.balance(uncovered(ALICE)) == -HOLD
    world.step(events.Cancel(request_id=request_id, charged=False, reason="requester"))
    assert world.balance(uncovered(ALICE)) == world.balance(available(ALICE)) == world.lost(ALICE) == 0


def test_a_clearance_and_a_withdrawal_of_the_same_wei_pay_it_once(world: ChainWorld) -> None:
    """The deposit is gone, the clearance still signed: what is deposited next is what it would take."""
    world.confirm(request_withdrawal(ALICE, 10 * HOLD))
    clearance = world.clear(ALICE, 10 * HOLD)
    assert isinstance(clearance, effects.ClearanceGranted)
    pay_out(world)
    world.fund(10 * HOLD)
    assert world.engine.spendable_wei(ALICE) == 0
    assert code(ask(world)) == "insufficient_credits"
    assert world.use(clearance)
    world.settle_down()
    assert world.balance(available(ALICE)) == world.balance(uncovered(ALICE)) == 0


def test_a_stolen_settlers_key_takes_from_the_account_and_never_from_others(world: ChainWorld) -> None:
    world.fund(10 * HOLD, BOB)
    world.honest = False
    charged = world.charge()
    world.confirm(settle(((ALICE, charged + HOLD),)))
    assert world.balance(spent(ALICE)) == 0
    assert world.balance(available(ALICE)) == 9 * HOLD - charged
    assert world.engine.spendable_wei(BOB) == 10 * HOLD
    books = world.contracts.of(ALICE)
    assert world.send(withdraw_cleared(ALICE, books.deposit, 0, 0, world.seconds + 60))
    world.settle_down()
    assert world.contracts.of(ALICE).deposit == world.balance(available(ALICE)) == 0
    assert world.engine.spendable_wei(BOB) == 10 * HOLD
    assert world.logged("vault.settled_too_much")


# --- Nodes


def test_a_node_is_what_the_locker_says_and_a_restart_knows_it_from_the_tables() -> None:
    world = ChainWorld()
    world.confirm(stake(7))
    assert world.attach(7) is None
    world.restart()
    world.advance(SECOND)
    assert world.attach(7, run_id="b") is None
    world.confirm(unstake(7))
    assert code(world.heartbeat(7)) == "in_cooldown"
    told = [each for each in world.effects if isinstance(each, effects.StandingChanged)]
    assert told == [effects.StandingChanged(node_id=7)]
    world.restart()
    assert code(world.heartbeat(7)) == "in_cooldown"
    assert world.engine.registrations[7].cooldown_ends_at > world.seconds
    world.confirm(withdraw_stake(7))
    world.restart()
    assert code(world.heartbeat(7)) == "not_staked"
    assert [row.state for row in world.rows(RegistrationRow)] == ["retired"]


def test_a_registry_that_differs_lets_no_node_attach_and_those_that_are_work_on(world: ChainWorld) -> None:
    world.confirm(stake(2))
    world.step(events.ChainHalted(part="registry", reason="node 3 is missing"))
    assert code(world.attach(2)) == "registry_halted"
    assert isinstance(world.heartbeat(1), effects.SlotCredited)
    admitted(world)
    world.step(events.ChainHalted(part="registry", reason=""))
    assert world.attach(2) is None


# --- A chain that cannot be


def lie(world: ChainWorld, *facts: ChainFact) -> effects.Answer:
    first = world.cursor + 1
    return world.step(events.ChainSpan(first_block=first, last_block=first, last_hash="0x1", last_time=0, facts=facts))


DEPOSITED = Deposited(event_id="0xab:0", account=ALICE, amount_wei=5, deposit_wei=10 * HOLD + 5)
SETTLED_ONE = SpendingSettled(
    event_id="0xac:0", account=ALICE, amount_wei=1, cumulative_wei=1, deposit_wei=10 * HOLD - 1
)
WITHDRAWN = Withdrawn(event_id="0xad:0", account=ALICE, amount_wei=1, deposit_wei=10 * HOLD - 1, nonce=0, cleared=True)
changed = msgspec.structs.replace


@pytest.mark.parametrize(
    ("part", "facts"),
    [
        ("vault", (DEPOSITED, DEPOSITED)),
        ("vault", (changed(DEPOSITED, deposit_wei=5),)),
        ("vault", (changed(DEPOSITED, amount_wei=4),)),
        ("vault", (changed(DEPOSITED, amount_wei=0, deposit_wei=10 * HOLD),)),
        ("vault", (changed(SETTLED_ONE, cumulative_wei=2),)),
        ("vault", (changed(SETTLED_ONE, deposit_wei=10 * HOLD),)),
        ("vault", (SETTLED_ONE, SETTLED_ONE)),
        ("vault", (changed(WITHDRAWN, nonce=1),)),
        ("vault", (WITHDRAWN, WITHDRAWN)),
        ("vault", (changed(WITHDRAWN, amount_wei=11 * HOLD, deposit_wei=-HOLD),)),
        ("registry", (NodeUnstaking(node_id=9, withdrawable_at=1),)),
        ("registry", (NodeUnstaking(node_id=1, withdrawable_at=1), NodeUnstaking(node_id=1, withdrawable_at=1))),
        ("registry", (NodeStaked(node_id=1, owner=BOB, stake_wei=1, hardware_tier=1, node_key_hash="0x"),)),
    ],
)
def test_a_span_that_does_not_follow_from_the_books_is_refused_whole(
    world: ChainWorld, part: str, facts: tuple[ChainFact, ...]
) -> None:
    before, cursor = deepcopy(world.tables), world.engine.mirror.cursor
    answer = lie(world, deepcopy(changed(DEPOSITED, account=BOB, deposit_wei=5)), *facts)
    assert isinstance(answer, effects.SpanRefused)
    assert answer.part == part
    assert world.tables == before
    assert world.engine.mirror.cursor == cursor
    assert world.engine.mirror.halted(answer.part) == answer.reason
    assert code(ask(world) if part == "vault" else world.attach(1)) == f"{part}_halted"
    world.chain.mine(1, time=world.seconds)
    world.follow()
    assert world.engine.mirror.halts == {}, "an honest answer heals it"
    admitted(world)


def test_what_is_bent_above_is_no_lie_as_it_stands(world: ChainWorld) -> None:
    for facts in ((DEPOSITED,), (SETTLED_ONE,), (WITHDRAWN,), (NodeUnstaking(node_id=1, withdrawable_at=1),)):
        assert world.engine.mirror.difference(facts, world.engine.registrations) is None


def test_a_halt_of_the_shells_own_is_not_lifted_by_a_span_that_fits(world: ChainWorld) -> None:
    lie(world, changed(DEPOSITED, deposit_wei=5))
    world.step(events.ChainHalted(part="vault", reason="totalDeposits differs"))
    world.settle_down()
    assert world.engine.mirror.halted("vault") == "totalDeposits differs"


def test_blocks_come_in_order_without_a_gap(world: ChainWorld) -> None:
    for first in (world.cursor, world.cursor + 2):
        with pytest.raises(AssertionError):
            world.step(events.ChainSpan(first_block=first, last_block=first + 1, last_hash="0x1", last_time=0))


def test_how_the_blocks_are_cut_into_spans_changes_nothing() -> None:
    worlds = [ChainWorld(), ChainWorld()]
    for world, blocks_max in zip(worlds, (1, 1_000), strict=True):
        for call in (deposit(ALICE, 500), stake(3), request_withdrawal(ALICE, 100), set_limit(ALICE, 7), unstake(3)):
            world.send(call)
        world.chain.mine(CONFIRMATIONS, time=world.seconds)
        world.follow(blocks_max=blocks_max)
    one, other = worlds
    assert one.tables == other.tables


def test_an_account_on_a_chain_lives_from_its_deposit_and_is_given_nothing(world: ChainWorld) -> None:
    answer = world.step(events.Grant(grant_id="g", account=ALICE, amount_wei=HOLD))
    assert code(answer) == "invalid_request"
    assert world.balance(available(ALICE)) == 10 * HOLD
    assert not [row for row in world.rows(TransferRow) if row.transfer_id.startswith("grant:")]
