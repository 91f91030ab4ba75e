"""Random lives of accounts on a chain: deposits, work, charges, settlement, clearances, withdrawals that ask nobody,
limits, reorganisations, a settler's key in wrong hands, and restarts, against a plain model of the vault.

What always holds is checked by `ChainWorld` after every step of the engine. Rules that never succeed prove nothing, and
neither do refusals that never come: a run that does not achieve what it should fails. PARALLELIX_ENGINE_EXAMPLES makes
it longer.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)
from onchain_world import ALICE, BOB, CONFIRMATIONS, DEFAULT_LIMIT, ChainWorld
from vault_chain import (
    WITHDRAWAL_DELAY_SECONDS,
    cancel_withdrawal,
    deposit,
    request_withdrawal,
    set_limit,
    settle,
    withdraw,
    withdraw_cleared,
)
from world import SECOND

from parallelix.engine import effects, events
from parallelix.engine.ledger import SETTLED, available, cleared, held, spent, uncovered
from parallelix.engine.rows import TransferRow
from parallelix.engine.settings import DAY_MS

ACCOUNTS = st.sampled_from([ALICE, ALICE, ALICE, BOB])
AMOUNTS = st.sampled_from([1, 150_000, 400_000, 1_000_000, 3_000_000])
EXAMPLES = int(os.environ.get("PARALLELIX_ENGINE_EXAMPLES", "150"))
MANY_EXAMPLES = 1_000

ACHIEVED: Counter[str] = Counter()
ORDINARY = {
    *("admitted", "refused: no_deposit", "refused: insufficient_credits", "refused: daily_limit_reached", "charged"),
    *("refused: chain_unreachable", "limit raised", "limit lowered", "withdrew alone", "withdrawal refused"),
    *("clearance granted", "refused a clearance: clearance_open", "refused a clearance: insufficient_credits"),
    *("reorganised", "request frozen before it is confirmed", "request lost in a reorganisation"),
}
TO_ACHIEVE = ORDINARY | {
    *("settled", "stale settled", "uncovered", "written off", "work while exiting", "withdrawal taken back"),
    *("clearance repeated", "clearance used", "use of a clearance refused", "clearance used in its last moments"),
    *("clearance released", "nonce given again", "clearance beside a request"),
    *("refused a clearance: chain_unreachable", "use of a clearance lost in a reorganisation"),
    *("settled too much by a stolen key", "cleared by a stolen key"),
    *("restarted with open work", "restarted with a clearance"),
}


class AccountsMachine(RuleBasedStateMachine):
    """Each rule is something that an account, a settler, a chain, a node or a crash can do."""

    nodes = 1

    def __init__(self) -> None:
        super().__init__()
        self.world = self.new_world()
        self.exposed: Counter[str] = Counter()
        self.frozen_told: dict[str, int] = {}
        self.entries: list[tuple[tuple[str, int], ...]] = []
        self.logs_read = 0
        self.stale_told = False

    def new_world(self) -> ChainWorld:
        return ChainWorld()

    @initialize(alice=st.sampled_from([0, 400_000, 3_000_000, 3_000_000]), bob=st.sampled_from([0, 1_000_000]))
    def begin(self, alice: int, bob: int) -> None:
        self.world.staffed(nodes=self.nodes, slots=8)
        for account in (ALICE, BOB):
            self.world.issue_key(f"key_{account}", account)
        for account, amount in ((ALICE, alice), (BOB, bob)):
            if amount:
                self.world.fund(amount, account)
        self.follow(1_000)

    # --- What accounts do in the vault

    @rule(account=ACCOUNTS, amount=AMOUNTS, waits=st.booleans())
    def deposit(self, account: str, amount: int, waits: bool) -> None:
        assert self.world.send(deposit(account, amount))
        if waits:
            self.blocks_pass(CONFIRMATIONS)

    @rule(account=ACCOUNTS, amount=AMOUNTS)
    def ask_back(self, account: str, amount: int) -> None:
        self.world.send(request_withdrawal(account, amount))

    @rule(account=ACCOUNTS)
    def take_the_request_back(self, account: str) -> None:
        ACHIEVED["withdrawal taken back"] += self.world.send(cancel_withdrawal(account)) is not None

    @rule(account=ACCOUNTS, amount=AMOUNTS, works=st.booleans(), returns=st.booleans())
    def ask_back_wait_and_withdraw(self, account: str, amount: int, works: bool, returns: bool) -> None:
        if works:
            self.ask_once(account, 200)
            self.nodes_work(400, 1)
        if self.world.send(request_withdrawal(account, amount)) is None:
            return
        self.follow(1_000)
        if works:
            self.ask_once(account, 200)
            self.nodes_work(400, 1)
        self.withdraw(account, True)
        self.blocks_pass(CONFIRMATIONS)
        if returns:
            self.deposit(account, 1_000_000, True)
            self.ask_once(account, 200)

    @rule(account=ACCOUNTS, patient=st.booleans())
    def withdraw(self, account: str, patient: bool) -> None:
        if patient:
            self.pass_time(WITHDRAWAL_DELAY_SECONDS * SECOND)
        done = self.world.send(withdraw(account)) is not None
        ACHIEVED["withdrew alone" if done else "withdrawal refused"] += 1

    @rule(account=ACCOUNTS, limit=st.sampled_from([0, 350_000, 900_000, 5_000_000]))
    def set_limit(self, account: str, limit: int) -> None:
        before = self.limit(account)
        self.world.confirm(set_limit(account, limit))
        self.after_following()
        ACHIEVED["limit raised" if limit > before else "limit lowered"] += 1

    @rule(
        account=ACCOUNTS, amount=AMOUNTS, everything=st.booleans(), waits=st.sampled_from(["", "", "on time", "late"])
    )
    def ask_for_clearances(self, account: str, amount: int, everything: bool, waits: str) -> None:
        self.ask_for_a_clearance(account, amount, everything)
        if waits:
            self.time_passes(901 * SECOND, waits)
            self.ask_for_a_clearance(account, amount, everything)

    def ask_for_a_clearance(self, account: str, amount: int, everything: bool) -> None:
        world = self.world
        engine = world.engine
        if everything:
            amount = engine.clearable_wei(account) or amount
        nonces = {(each.account, each.nonce) for each in world.signed}
        expected = self.clearance_expected(account, amount)
        frozen = self.frozen(account)
        answer = world.clear(account, amount)
        if isinstance(answer, effects.Refused):
            assert answer.code == expected, (answer, expected)
            ACHIEVED[f"refused a clearance: {answer.code}"] += 1
            return
        assert isinstance(answer, effects.ClearanceGranted)
        assert expected in {"granted", "repeated"}, (answer, expected)
        assert (answer.account, answer.amount_wei) == (account, amount)
        books = world.contracts.of(account)
        assert answer.nonce == books.nonce
        if expected == "granted":
            assert answer.cumulative_wei == books.settled + world.balance(spent(account))
            assert answer.expiry > world.seconds
            ACHIEVED["nonce given again"] += (account, answer.nonce) in nonces
            ACHIEVED["clearance beside a request"] += frozen > 0
        ACHIEVED[f"clearance {expected}"] += 1

    def clearance_expected(self, account: str, amount: int) -> str:
        """By the rules as they are written down, and the model."""
        world = self.world
        if self.stale():
            return "chain_unreachable"
        now = world.seconds
        last = max((each for each in world.signed if each.account == account), key=lambda it: it.expiry, default=None)
        if last is not None and world.balance(cleared(account)):
            return "repeated" if last.amount_wei == amount and now < last.expiry else "clearance_open"
        free = world.balance(available(account)) + world.balance(uncovered(account))
        if world.balance(held(account)):
            free = max(0, free - self.frozen(account))
        return "granted" if amount <= free else "insufficient_credits"

    @precondition(lambda self: bool(self.world.signed))
    @rule(data=st.data(), late=st.booleans())
    def use_a_clearance(self, data: st.DataObject, late: bool) -> None:
        """The newest, or any that was ever signed; perhaps in the last second in which it holds."""
        world = self.world
        newest = world.signed[-1]
        clearance = newest if data.draw(st.booleans()) else data.draw(st.sampled_from(world.signed))
        if late and clearance.expiry - 1 > world.seconds:
            self.pass_time((clearance.expiry - 1 - world.seconds) * SECOND)
        used = world.use(clearance) is not None
        if data.draw(st.booleans()):
            self.reorganise(1, False, data)
        ACHIEVED["clearance used" if used else "use of a clearance refused"] += 1
        ACHIEVED["clearance used in its last moments"] += used and late

    # --- Work

    @rule(account=ACCOUNTS, max_tokens=st.sampled_from([20, 100, 200]), times=st.integers(1, 3))
    def ask(self, account: str, max_tokens: int, times: int) -> None:
        for _ in range(times):
            self.ask_once(account, max_tokens)

    def ask_once(self, account: str, max_tokens: int) -> None:
        world = self.world
        event = events.Admit(
            account=account, key_id=f"key_{account}", workload_class="ai.inference", kind="chat", model="small",
            prompt_bytes=40, max_tokens=max_tokens,
        )  # fmt: skip
        plan = world.engine.quote(event)
        assert not isinstance(plan, effects.Refused)
        expected = self.admission_expected(account, plan.hold_wei)
        exiting = self.frozen(account) > 0
        answer = world.step(event)
        if isinstance(answer, effects.Refused):
            assert answer.code in expected, (answer, expected)
            ACHIEVED[f"refused: {answer.code}"] += 1
            return
        assert isinstance(answer, effects.Admitted)
        assert "admitted" in expected, (answer, expected)
        ACHIEVED["admitted"] += 1
        ACHIEVED["work while exiting"] += exiting

    def admission_expected(self, account: str, hold: int) -> set[str]:
        """By the rules as they are written down, and the model. How much of today's limit is gone has bounds only: what
        the vault could still settle of it, and what was charged or settled in two days."""
        world = self.world
        if self.stale():
            return {"chain_unreachable"}
        if not world.contracts.of(account).deposit:
            return {"no_deposit"}
        own = world.balance(available(account)) + world.balance(uncovered(account))
        if hold > max(0, own - self.frozen(account)):
            return {"insufficient_credits"}
        to_settle = world.balance(held(account)) + world.balance(spent(account)) + hold
        if self.settled_today(account) + to_settle > self.limit(account):
            return {"daily_limit_reached"}
        if self.moved_lately(account) + to_settle <= self.limit(account):
            return {"admitted"}
        return {"admitted", "daily_limit_reached"}

    def settled_today(self, account: str) -> int:
        """By the vault, where the chain's day is ours."""
        books, today = self.world.contracts.of(account), self.world.now // DAY_MS
        return books.settled_today if books.day == today else 0

    def moved_lately(self, account: str) -> int:
        return sum(
            int(row.amount_wei)
            for row in self.world.rows(TransferRow)
            if spent(account) in {row.debit_account, row.credit_account}
            or (row.debit_account, row.credit_account) == (available(account), SETTLED)
            if row.at > self.world.now - 2 * DAY_MS
        )

    def limit(self, account: str) -> int:
        limit = self.world.contracts.of(account).last_limit_set
        return DEFAULT_LIMIT if limit is None else limit

    def frozen(self, account: str) -> int:
        """The largest withdrawal that the engine was told of."""
        return max(self.world.contracts.of(account).requested, self.frozen_told.get(account, 0))

    def stale(self) -> bool:
        heard_at, now = self.heard_at, self.world.now
        return not heard_at or now - heard_at > self.world.settings.chain_stale_ms

    @rule(tokens=st.sampled_from([0, 20, 400]), most=st.integers(1, 4))
    def nodes_work(self, tokens: int, most: int) -> None:
        world = self.world
        working = sorted(
            each for each, offer in world.offers.items() if not offer.is_audit and world.engine.attempt(each)
        )
        for attempt_id in working[:most]:
            world.acknowledge(attempt_id)
            world.complete(attempt_id, prompt_tokens=tokens, completion_tokens=tokens)

    @rule(account=ACCOUNTS, settles=st.booleans(), overnight=st.booleans())
    def work_is_done_and_charged(self, account: str, settles: bool, overnight: bool) -> None:
        self.ask_once(account, 200)
        self.nodes_work(400, 4)
        self.pass_time(11 * SECOND)
        self.anchor()
        self.blocks_pass(CONFIRMATIONS)
        if settles:
            if overnight:
                self.pass_time(DAY_MS)
            self.settle()
            self.blocks_pass(CONFIRMATIONS)
            self.ask_once(account, 100)

    @rule()
    def anchor(self) -> None:
        while self.world.anchor():
            pass

    # --- The settler

    @rule()
    def settle(self) -> None:
        world = self.world
        entries = world.engine.settlement_entries(500)
        assert len(entries) == sum(1 for account in (ALICE, BOB) if world.balance(spent(account)))
        self.entries.append(entries)
        ACHIEVED["settled"] += bool(world.send(settle(entries)))

    @precondition(lambda self: bool(self.entries))
    @rule(data=st.data())
    def settle_with_old_figures(self, data: st.DataObject) -> None:
        ACHIEVED["stale settled"] += self.world.send(settle(data.draw(st.sampled_from(self.entries)))) is not None

    @precondition(lambda self: self.world.now > self.world.settings.batch_ms)
    @rule(account=ACCOUNTS, amount=AMOUNTS, clears=st.booleans(), often=st.integers(0, 7))
    def somebody_has_the_settlers_key(self, account: str, amount: int, clears: bool, often: int) -> None:
        if often:
            return
        world = self.world
        books = world.chain.head.state.of(account)
        if clears:
            call = withdraw_cleared(account, min(amount, books.deposit), 0, books.nonce, world.seconds + 900)
        else:
            call = settle(((account, books.settled + amount),))
        world.honest = False
        facts = world.send(call)
        ACHIEVED["cleared by a stolen key" if clears else "settled too much by a stolen key"] += bool(facts)

    # --- The chain, time, and crashes

    @rule(blocks_max=st.sampled_from([1, 2, 1_000]))
    def follow(self, blocks_max: int) -> None:
        assert self.world.follow(blocks_max=blocks_max) is None
        self.after_following()

    def after_following(self) -> None:
        """The engine has just heard of the newest block."""
        world = self.world
        self.heard_at = world.now
        told, self.frozen_told = self.frozen_told, world.asked()
        for account in (ALICE, BOB):
            frozen = self.frozen(account)
            if frozen and frozen != told.get(account):
                self.exposed[account] += world.balance(held(account)) + world.balance(spent(account))
            ACHIEVED["request frozen before it is confirmed"] += frozen > world.contracts.of(account).requested

    heard_at = 0

    @rule(count=st.integers(1, 5))
    def blocks_pass(self, count: int) -> None:
        self.world.chain.mine(count, time=self.world.seconds)
        self.follow(1_000)

    @rule(depth=st.integers(1, CONFIRMATIONS), asks=st.booleans(), data=st.data())
    def reorganise(self, depth: int, asks: bool, data: st.DataObject) -> None:
        if asks:
            self.world.send(request_withdrawal(ALICE, 400_000))
            self.follow(1_000)
        chain = self.world.chain
        before = {account: books.nonce for account, books in chain.head.state.accounts.items()}
        asked = self.world.asked()
        lost = chain.reorganise(depth, lambda: data.draw(st.booleans()))
        self.follow(1_000)
        ACHIEVED["reorganised"] += 1
        ACHIEVED["request lost in a reorganisation"] += bool(asked) and lost > 0 and self.world.asked() != asked
        ACHIEVED["use of a clearance lost in a reorganisation"] += any(
            chain.head.state.of(account).nonce < nonce for account, nonce in before.items()
        )

    @rule(
        milliseconds=st.sampled_from([SECOND, 11 * SECOND, 301 * SECOND, 901 * SECOND, DAY_MS]),
        blocks=st.sampled_from(["none", "on time", "on time", "late"]),
    )
    def time_passes(self, milliseconds: int, blocks: str) -> None:
        """A chain whose blocks say less than our clock may still take what is over by the clock."""
        self.pass_time(milliseconds)
        if blocks != "none":
            self.world.chain.mine(CONFIRMATIONS + 1, time=self.world.seconds if blocks == "on time" else 0)
            self.follow(1_000)

    def pass_time(self, milliseconds: int) -> None:
        self.world.advance(milliseconds)
        for node_id in range(1, self.nodes + 1):
            self.world.heartbeat(node_id)

    @rule()
    def restart(self) -> None:
        world = self.world
        before = self.remembered()
        ACHIEVED["restarted with open work"] += bool(world.engine.requests)
        ACHIEVED["restarted with a clearance"] += bool(world.engine.mirror.clearances)
        world.restart()
        assert self.remembered() == before
        # What was not confirmed is forgotten, so nothing may begin before it is heard of again.
        self.heard_at, self.frozen_told = 0, {}

    def remembered(self) -> dict[str, Any]:
        engine = self.world.engine
        mirror = engine.mirror
        return {
            "balances": {name: wei for name, wei in engine.ledger.accounts().items() if wei},
            "cursor": mirror.cursor,
            "accounts": {account: asdict(books) for account, books in mirror.accounts.items()},
            "total": mirror.total_deposits_wei,
            "clearances": dict(mirror.clearances),
            "halts": dict(mirror.halts),
            "registrations": {node_id: msgspec.structs.asdict(each) for node_id, each in engine.registrations.items()},
            "settlement": engine.settlement_entries(500),
            "batches": (engine.recorder.next_batch, engine.recorder.confirmed_through),
        }

    # --- What holds after every rule

    @invariant()
    def nothing_is_lost_but_what_work_counted_on_when_it_was_asked_back(self) -> None:
        """With an honest settler: once a request is known, nothing new counts on what it may take."""
        if self.world.honest:
            for account in (ALICE, BOB):
                assert self.world.lost(account) <= self.exposed[account]

    @invariant()
    def what_happened_is_counted(self) -> None:
        named = {"vault.uncovered": "uncovered", "vault.written_off": "written off"}
        for name, _ in self.world.log[self.logs_read :]:
            if name in named:
                ACHIEVED[named[name]] += 1
        self.logs_read = len(self.world.log)

    def teardown(self) -> None:
        """Everything runs out: no clearance stays open, no work, and what is owed can be settled."""
        world = self.world
        if not world.engine.registrations:
            return
        open_before = len(world.engine.mirror.clearances)
        for _ in range(4):
            world.advance(12 * 3_600 * SECOND)
            self.anchor()
            world.settle()
            world.settle_down()
        assert not world.engine.mirror.clearances
        world.check_all_ended()
        world.check_chain()
        ACHIEVED["charged"] += any(world.charged(account) for account in (ALICE, BOB))
        ACHIEVED["clearance released"] += open_before > 0


def test_random_lives_of_accounts_never_pay_a_wei_twice_and_achieve_everything_they_try() -> None:
    ACHIEVED.clear()
    run_state_machine_as_test(
        AccountsMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    print(dict(ACHIEVED.most_common()))
    never = {name for name in (TO_ACHIEVE if EXAMPLES >= MANY_EXAMPLES else ORDINARY) if not ACHIEVED[name]}
    assert not never, f"never achieved in {EXAMPLES} examples: {sorted(never)}"
