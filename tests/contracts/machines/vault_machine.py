"""The vault beside its model: several requesters, clearances kept and misused, batches honest and greedy, time, and
every role at work."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Generator
from typing import Any

import boa
from chain_storage import stored
from eth_account.signers.local import LocalAccount
from harness import ContractMachine, Mutant, run_machine
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from locker_scene import events
from permits import Signature
from vault_model import DAY_SECONDS, Event, ModelAccount, Refused, VaultModel
from vault_scene import FORGER, LIMIT_WEI_MAX, NOBODY, PRLX, SETTLER, Clearance, deploy_vault, key_of, permit_of

REQUESTERS = 4
FUNDS_WEI = 1_000 * PRLX
UNLIMITED = 2**256 - 1
CLEARANCES_KEPT = 6
CALLS_BETWEEN_LOOKS = 20
SEEN_ENOUGH = 2
"""How often an example may do what teaches nothing new the next time."""

WHO = st.integers(0, REQUESTERS - 1)
PICKS = st.integers(0, 63)
DEPOSITS = st.sampled_from([1, PRLX, 7 * PRLX + 3, 40 * PRLX, 40 * PRLX, 100 * PRLX, 150 * PRLX, 0, 2_000 * PRLX])
SHARES = st.sampled_from([0, 1, 20, 33, 50, 50, 75, 99, 100, 101])
"""Per cent of a deposit; 0 is one wei, 101 is one wei too many."""
SPENT_SHARES = st.sampled_from([0, 0, 1, 10, 30, 60, 99, -10, 101])
"""Per cent of a deposit that were spent since the last settlement; 101 is a figure beyond all bounds."""
SPENDING = st.sampled_from(
    [-1, 0, 1, 9, 3 * PRLX, 3 * PRLX + 7, 20 * PRLX, 30 * PRLX, 70 * PRLX, 200 * PRLX, UNLIMITED]
)
LIMITS = st.sampled_from([0, 1, 5 * PRLX, 30 * PRLX, 50 * PRLX, 80 * PRLX, 200 * PRLX, LIMIT_WEI_MAX, 2**96, UNLIMITED])
DELAYS_SECONDS = st.sampled_from([1, 3_600, 86_399, 86_400, 86_400])
HONESTY = st.sampled_from([True, True, False])

NOT_THE_SETTLER = "vault: clearance is not from the settler"
SIGNATURE_FAULTS = {
    "another account": NOT_THE_SETTLER,
    "another amount": NOT_THE_SETTLER,
    "another vault": NOT_THE_SETTLER,
    "another chain": NOT_THE_SETTLER,
    "another key": NOT_THE_SETTLER,
    "high s": "ecdsa: invalid signature `s` value",
    "nobody": "ecdsa: invalid signature",
}
FAULTS = st.sampled_from([*SIGNATURE_FAULTS, "nothing", "expired", "nonce ahead"])


class VaultMachine(ContractMachine):
    """Compares the whole state of the vault with the model's after each step."""

    @initialize(
        delay_seconds=DELAYS_SECONDS,
        limit_wei=st.sampled_from([0, 10 * PRLX, 50 * PRLX, 50 * PRLX, LIMIT_WEI_MAX]),
        exempt=st.sampled_from([True, True, True, False]),
        deposits=st.lists(st.tuples(WHO, DEPOSITS), min_size=1, max_size=REQUESTERS),
    )
    def deploy(self, delay_seconds: int, limit_wei: int, exempt: bool, deposits: list[tuple[int, int]]) -> None:
        self.scene = deploy_vault(exempt=exempt, delay_seconds=delay_seconds, limit_wei=limit_wei)
        self.vault, self.token = self.scene.vault, self.scene.token
        self.keys: dict[str, LocalAccount] = {account.address: account for account in (SETTLER, FORGER)}
        self.requesters = [key_of(f"requester {number}") for number in range(REQUESTERS)]
        self.names: list[str] = [requester.address for requester in self.requesters]
        self.stranger = boa.env.generate_address("stranger")
        self.receivers = (self.scene.rewards, self.scene.treasury, self.scene.infrastructure)
        self.start_model()
        self.issued: collections.deque[tuple[Clearance, LocalAccount]] = collections.deque(maxlen=CLEARANCES_KEPT)
        self.paid = collections.Counter[tuple[str, int]]()
        self.taken_by_day = collections.Counter[tuple[str, int]]()
        self.settled_lately = set[str]()
        self.highest_settled = dict.fromkeys(self.names, 0)
        self.recovered_wei = 0
        self.seen = collections.Counter[str]()
        if not exempt:
            self.without_exemption()
        for who, amount_wei in deposits:
            self.deposit(who, amount_wei, True)

    def without_exemption(self) -> None:
        self.model.exempt = False
        self.deposit(0, PRLX, True)
        self.token.addExemption(self.vault.address, sender=self.scene.owner)
        self.model.exempt = True

    def start_model(self) -> None:
        scene = self.scene
        for name in self.names:
            scene.fund(name, FUNDS_WEI)
        watched = [scene.vault.address, scene.owner, scene.rewards, scene.treasury, scene.infrastructure]
        self.model = VaultModel(
            vault=self.vault.address,
            owner=scene.owner,
            settler=scene.settler,
            guardian=scene.guardian,
            rewards=scene.rewards,
            treasury=scene.treasury,
            infrastructure=scene.infrastructure,
            delay_seconds=self.vault.withdrawalDelaySeconds(),
            default_limit=self.vault.defaultDailyLimit(),
            balances={holder: self.token.balanceOf(holder) for holder in [*watched, *self.names]},
            allowances=dict.fromkeys(self.names, UNLIMITED),
            accounts={name: ModelAccount() for name in [*self.names, self.stranger]},
            exempt=True,
        )

    def both(self, rule_name: str, in_model: Callable[[VaultModel], list[Event]], call: Callable[[], object]) -> bool:
        """Lets the model say what must happen, then sees that it does: refusal or events. True when it was allowed."""
        self.model.now = boa.env.timestamp
        try:
            expected = in_model(self.model)
        except Refused as refused:
            self.attempt(rule_name, call, refusal=refused.reason)
            return False
        self.attempt(rule_name, call, refusal=None)
        assert events(self.vault, self.vault) == expected, rule_name
        return True

    # Money in

    @rule(who=WHO, amount_wei=DEPOSITS, approved=st.sampled_from([True] * 5 + [False]))
    def deposit(self, who: int, amount_wei: int, approved: bool) -> None:
        name = self.names[who]
        self.allow(name, UNLIMITED if approved else amount_wei // 2)
        self.both(
            "deposit",
            lambda model: model.deposit(name, amount_wei),
            lambda: self.vault.deposit(amount_wei, sender=name),
        )

    def allow(self, name: str, amount_wei: int) -> None:
        if self.model.allowances[name] != amount_wei:
            self.token.approve(self.vault.address, amount_wei, sender=name)
            self.model.allowances[name] = amount_wei

    @rule(
        who=WHO, amount_wei=DEPOSITS, state=st.sampled_from(["valid", "valid", "sent by another", "expired", "forged"])
    )
    def deposit_with_permit(self, who: int, amount_wei: int, state: str) -> None:
        requester = self.requesters[who]
        name = requester.address
        self.allow(name, 0)
        deadline = boa.env.timestamp - (state == "expired")
        signer = FORGER if state == "forged" else requester
        permit = permit_of(signer, self.token, self.vault.address, amount_wei, deadline)
        if state == "sent by another":
            self.token.permit(name, self.vault.address, amount_wei, deadline, *permit, sender=self.stranger)
        works = state in ("valid", "sent by another")
        self.model.allowances[name] = amount_wei if works else 0
        allowed = self.both(
            "depositWithPermit",
            lambda model: model.deposit(name, amount_wei),
            lambda: self.vault.depositWithPermit(amount_wei, deadline, *permit, sender=name),
        )
        if not allowed and state == "valid":
            self.model.allowances[name] = 0

    @precondition(lambda self: self.seen["stray transfer"] < SEEN_ENOUGH)
    @rule(amount_wei=st.integers(1, 10 * PRLX))
    def transfer_without_depositing(self, amount_wei: int) -> None:
        self.seen["stray transfer"] += 1
        self.token.transfer(self.vault.address, amount_wei, sender=self.scene.owner)
        self.model.move(self.scene.owner, self.vault.address, amount_wei)

    @precondition(lambda self: self.model.surplus or self.seen["no surplus"] < SEEN_ENOUGH)
    @rule(pick=PICKS)
    def recover_surplus(self, pick: int) -> None:
        surplus_wei = self.model.surplus
        self.seen["no surplus"] += not surplus_wei
        sender = [*self.names, self.stranger, self.model.owner][pick % (REQUESTERS + 2)]
        self.recovered_wei += surplus_wei
        self.both(
            "recoverSurplus",
            VaultModel.recover_surplus,
            lambda: self.vault.recoverSurplus(sender=sender),
        )

    # Money out

    @rule(who=WHO, share=SHARES, spent=SPENT_SHARES, seconds=st.sampled_from([0, 60, 3_600, 172_800]))
    def issue_clearance(self, who: int, share: int, spent: int, seconds: int) -> None:
        """The settler signs, and the account may come with it at any time, or never."""
        self.issued.append((self.clearance(who, share, spent, seconds), self.keys[self.model.settler]))

    def clearance(self, who: int, share: int, spent_share: int, seconds: int) -> Clearance:
        name = self.prefer_funded(who)
        account = self.model.accounts[name]
        spent_wei = UNLIMITED if spent_share == 101 else account.deposit * spent_share // 100
        return Clearance(
            account=name,
            amount=part_of(max(0, account.deposit - spent_wei), share),
            cumulative_spent=min(max(0, account.settled + spent_wei), UNLIMITED),
            nonce=account.nonce,
            expiry=boa.env.timestamp + seconds,
        )

    @rule(who=WHO, share=SHARES, spent=SPENT_SHARES)
    def withdraw_cleared(self, who: int, share: int, spent: int) -> None:
        self.use(self.clearance(who, share, spent, 0), self.keys[self.model.settler], None)

    @rule(who=WHO, share=st.sampled_from([1, 50, 100]), fault=FAULTS)
    def misuse_a_clearance(self, who: int, share: int, fault: str) -> None:
        clearance = self.clearance(who, share, 0, 0)
        changes = {
            "nothing": {"amount": 0},
            "expired": {"expiry": clearance.expiry - 1},
            "nonce ahead": {"nonce": clearance.nonce + 1},
        }.get(fault, {})
        self.use(dataclasses.replace(clearance, **changes), self.keys[self.model.settler], fault)

    @precondition(lambda self: self.issued)
    @rule(pick=PICKS)
    def use_a_clearance_kept(self, pick: int) -> None:
        self.use(*self.issued[pick % len(self.issued)], None)

    def use(self, clearance: Clearance, signer: LocalAccount, fault: str | None) -> None:
        sender = self.names[self.names.index(clearance.account) - (fault == "another account")]
        arguments = self.spoilt(clearance, signer, fault)
        flaw = SIGNATURE_FAULTS.get(fault or "") or NOT_THE_SETTLER * (signer.address != self.model.settler) or None
        allowed = self.both(
            "withdrawWithClearance",
            lambda model: model.withdraw_cleared(
                sender,
                arguments[0],
                clearance.cumulative_spent,
                nonce=clearance.nonce,
                expiry=clearance.expiry,
                flaw=flaw,
            ),
            lambda: self.vault.withdrawWithClearance(*arguments, sender=sender),
        )
        self.paid[sender, clearance.nonce] += allowed

    def spoilt(self, clearance: Clearance, signer: LocalAccount, fault: str | None) -> list[Any]:
        """The call's arguments, with the fault that was asked for."""
        chain_id = boa.env.evm.patch.chain_id + (fault == "another chain")
        other_key = FORGER if signer is SETTLER else SETTLER
        arguments: list[Any] = list(
            clearance.arguments(
                self.token.address if fault == "another vault" else self.vault.address,
                signer=other_key if fault == "another key" else signer,
                chain_id=chain_id,
            )
        )
        if fault == "another amount":
            arguments[0] += 1
        if fault == "high s":
            arguments[4:] = Signature(*arguments[4:]).malleated()
        if fault == "nobody":
            arguments[4] = 29
        return arguments

    @rule(who=WHO, share=SHARES, pick=PICKS)
    def request_withdrawal(self, who: int, share: int, pick: int) -> None:
        name = self.prefer_funded(who)
        self.request(name, 0 if pick % 16 == 9 else part_of(self.model.accounts[name].deposit, share))

    def request(self, name: str, amount_wei: int) -> None:
        self.both(
            "requestWithdrawal",
            lambda model: model.request(name, amount_wei),
            lambda: self.vault.requestWithdrawal(amount_wei, sender=name),
        )

    @precondition(lambda self: self.has_requests or self.seen["no request"] < SEEN_ENOUGH)
    @rule(pick=PICKS)
    def cancel_withdrawal(self, pick: int) -> None:
        name = self.prefer_requested(pick)
        self.both(
            "cancelWithdrawal", lambda model: model.cancel(name), lambda: self.vault.cancelWithdrawal(sender=name)
        )

    @precondition(lambda self: self.has_requests or self.seen["no request"] < SEEN_ENOUGH)
    @rule(pick=PICKS, moment=st.sampled_from(["now", "a second early", "a second early", "on time", "on time", "late"]))
    def withdraw_requested(self, pick: int, moment: str) -> None:
        name = self.prefer_requested(pick)
        available_at = self.model.accounts[name].available_at
        if available_at:
            self.wait_until(available_at + {"now": -(2**40), "a second early": -1, "on time": 0, "late": 1}[moment])
        self.withdraw(name)

    def withdraw(self, name: str) -> None:
        self.both("withdraw", lambda model: model.withdraw(name), lambda: self.vault.withdraw(sender=name))

    # Settlement

    @rule(
        entries=st.lists(st.tuples(st.integers(0, REQUESTERS), SPENDING), max_size=6),
        caller=st.sampled_from(["settler"] * 7 + ["stranger", "owner", "guardian"]),
    )
    def settle(self, entries: list[tuple[int, int]], caller: str) -> None:
        accounts = [*self.names, self.stranger]
        spent = [(accounts[who], self.cumulative(accounts[who], new)) for who, new in entries]
        sender = {"settler": self.model.settler, "owner": self.model.owner, "guardian": self.model.guardian}
        self.settle_batch(sender.get(caller, self.stranger), spent)

    def cumulative(self, name: str, new: int) -> int:
        return min(max(0, self.model.accounts[name].settled + new), UNLIMITED)

    def settle_batch(self, sender: str, entries: list[tuple[str, int]]) -> None:
        allowed = self.both(
            "settle",
            lambda model: model.settle(sender, entries),
            lambda: self.vault.settle(entries, sender=sender),
        )
        if allowed:
            for event, fields in events(self.vault, self.vault):
                if event == "SpendSettled":
                    self.taken_by_day[fields["account"], boa.env.timestamp // DAY_SECONDS] += fields["amount"]
                    self.settled_lately.add(fields["account"])

    # Rules and roles

    @rule(who=WHO, limit_wei=LIMITS)
    def set_daily_limit(self, who: int, limit_wei: int) -> None:
        name = self.names[who]
        self.both(
            "setDailyLimit",
            lambda model: model.set_limit(name, limit_wei),
            lambda: self.vault.setDailyLimit(limit_wei, sender=name),
        )

    @rule(pick=PICKS, honest=HONESTY)
    def pause_or_unpause(self, pick: int, honest: bool) -> None:
        model = self.model
        if model.paused and pick % 4 != 3:
            sender = model.owner if honest else model.guardian
            self.both("unpause", lambda model: model.unpause(sender), lambda: self.vault.unpause(sender=sender))
        elif pick % 4 in (0, 3):
            sender = [model.guardian, model.owner][pick // 4 % 2] if honest else self.stranger
            self.both("pause", lambda model: model.pause(sender), lambda: self.vault.pause(sender=sender))
        elif pick % 16 == 14:
            self.both(
                "unpause", lambda model: model.unpause(model.owner), lambda: self.vault.unpause(sender=self.model.owner)
            )

    @rule(honest=HONESTY, role=st.sampled_from(["settler", "guardian"]), pick=PICKS)
    def replace_a_role(self, honest: bool, role: str, pick: int) -> None:
        sender = self.model.owner if honest else self.stranger
        others = {"settler": [SETTLER.address, FORGER.address], "guardian": [self.scene.guardian, self.stranger]}
        current = NOBODY if pick % 4 == 3 else others[role][pick % 2]
        in_model = VaultModel.set_settler if role == "settler" else VaultModel.set_guardian
        call = self.vault.setSettler if role == "settler" else self.vault.setGuardian
        self.both(
            f"set{role.title()}", lambda model: in_model(model, sender, current), lambda: call(current, sender=sender)
        )

    @precondition(lambda self: self.seen["handed over"] < 2 * SEEN_ENOUGH)
    @rule(honest=HONESTY, accept=st.booleans(), pick=PICKS)
    def hand_over(self, honest: bool, accept: bool, pick: int) -> None:
        self.seen["handed over"] += 1
        successor = [self.scene.owner, self.names[0]][pick % 2]
        if accept:
            sender = self.model.pending_owner if honest and int(self.model.pending_owner, 16) else self.stranger
            self.both(
                "accept_ownership",
                lambda model: model.accept_ownership(sender),
                lambda: self.vault.accept_ownership(sender=sender),
            )
            return
        sender = self.model.owner if honest else self.stranger
        self.both(
            "transfer_ownership",
            lambda model: model.transfer_ownership(sender, successor),
            lambda: self.vault.transfer_ownership(successor, sender=sender),
        )

    @rule(seconds=st.sampled_from([1, 60, 3_600, 43_200, 86_399, 86_400, 259_200]))
    def wait(self, seconds: int) -> None:
        boa.env.time_travel(seconds=seconds)

    @rule(before_seconds=st.sampled_from([0, 1]))
    def wait_for_midnight(self, before_seconds: int) -> None:
        self.wait_until((boa.env.timestamp // DAY_SECONDS + 1) * DAY_SECONDS - before_seconds)

    # Invariants

    @invariant()
    def contract_and_model_agree(self) -> None:
        model, vault = self.model, self.vault
        roles = [int(stored(vault, name)) for name in ("settler", "guardian", "paused")]
        assert roles == [int(model.settler, 16), int(model.guardian, 16), model.paused]
        assert stored(vault, "ownable", "owner") == int(model.owner, 16)
        assert stored(vault, "ownable_2step", "pending_owner") == int(model.pending_owner, 16)
        assert stored(vault, "totalDeposits") == model.total_deposits
        for name, account in model.accounts.items():
            assert self.stored_account(name) == as_words(account), name
        assert {holder: self.balance_wei(holder) for holder in model.balances} == model.balances

    @invariant()
    def views_say_what_is_stored(self) -> None:
        if self.tally.calls % CALLS_BETWEEN_LOOKS:
            return
        model = self.model
        model.now = boa.env.timestamp
        for name, account in model.accounts.items():
            waiting = account.lowering if account.lowering and account.lowering.acts_at > model.now else None
            assert self.scene.account(name) == (
                account.deposit,
                account.settled,
                account.settled_by_day[model.today],
                account.nonce,
                (account.requested, account.available_at),
                model.limit_of(name),
                (waiting.limit, waiting.acts_at) if waiting else (0, 0),
            ), name

    @invariant()
    def invariant_i9_deposits_are_covered(self) -> None:
        deposits_wei = [self.stored_account(name)[0] for name in self.names]
        assert sum(deposits_wei) == stored(self.vault, "totalDeposits") <= self.balance_wei(self.vault.address)

    @invariant()
    def invariant_i9_a_request_is_part_of_its_deposit(self) -> None:
        for name in self.names:
            deposit_wei, _, _, requested_wei, _ = self.stored_account(name)
            assert requested_wei <= deposit_wei, name

    @invariant()
    def invariant_i9_a_nonce_is_paid_once(self) -> None:
        assert all(times <= 1 for times in self.paid.values()), self.paid
        for name in self.names:
            paid = sum(times for (account, _), times in self.paid.items() if account == name)
            assert stored(self.vault, "nonces", key=name) == paid, name

    @precondition(lambda self: self.model.total_deposits and self.seen["all left"] < SEEN_ENOUGH)
    @rule(greedy=st.booleans())
    def invariant_i9_everybody_gets_out_alone(self, greedy: bool) -> None:
        """From any state on, with the coordinator dead, or with a settler that takes what it can all the while."""
        self.seen["all left"] += 1
        with self.undone():
            leaving = [name for name in self.names if self.model.accounts[name].deposit]
            before_wei = {name: self.balance_wei(name) + self.model.accounts[name].deposit for name in leaving}
            settled_wei = {name: self.model.accounts[name].settled for name in leaving}
            for name in leaving:
                self.request(name, UNLIMITED)
            for seconds in (0, self.model.delay_seconds):
                boa.env.time_travel(seconds=seconds)
                if greedy:
                    self.settle_batch(self.model.settler, [(name, UNLIMITED) for name in leaving])
            for name in leaving:
                self.withdraw(name)
                taken_wei = self.model.accounts[name].settled - settled_wei[name]
                assert self.balance_wei(name) == before_wei[name] - taken_wei, name
                assert taken_wei == 0 or greedy

    @invariant()
    def invariant_i10_settled_spending_never_goes_back(self) -> None:
        for name in self.names:
            settled_wei = self.stored_account(name)[1]
            assert settled_wei >= self.highest_settled[name], name
            self.highest_settled[name] = settled_wei

    @invariant()
    def invariant_i10_the_shares_are_what_was_settled(self) -> None:
        shares_wei = sum(self.balance_wei(receiver) for receiver in self.receivers)
        assert shares_wei - self.recovered_wei == sum(self.stored_account(name)[1] for name in self.names)

    @invariant()
    def invariant_i10_batches_keep_to_the_limit_of_the_day(self) -> None:
        today = boa.env.timestamp // DAY_SECONDS
        for name in self.settled_lately:
            assert self.taken_by_day[name, today] <= self.vault.dailyLimit(name), name
        self.settled_lately.clear()

    # Helpers

    @contextlib.contextmanager
    def undone(self) -> Generator[None]:
        """What happens inside happened neither to the chain nor to the books kept here."""
        kept = "model", "paid", "taken_by_day", "settled_lately"
        before = {name: getattr(self, name) for name in kept}
        vars(self).update(copy.deepcopy(before))
        with boa.env.anchor():
            yield
        vars(self).update(before)

    def stored_account(self, name: str) -> tuple[int, int, int, int, int]:
        """Deposit, settled, settled on the newest day, requested, available at."""
        books, outflow = (stored(self.vault, variable, key=name) for variable in ("books", "outflows"))
        field = 2**96
        return books % field, books >> 96, outflow % field, (outflow >> 120) % field, outflow >> 216

    def balance_wei(self, account: str) -> int:
        return stored(self.token, "erc20", "balanceOf", key=account)

    @property
    def has_requests(self) -> bool:
        return any(account.available_at for account in self.model.accounts.values())

    def prefer_requested(self, pick: int) -> str:
        """A requester with an open request if there is one; now and then any."""
        self.seen["no request"] += not self.has_requests
        names = [name for name in self.names if self.model.accounts[name].available_at]
        if pick % 8 == 7 or not names:
            names = self.names
        return names[pick % len(names)]

    def prefer_funded(self, who: int) -> str:
        """A requester with a deposit, unless there is none."""
        names = [name for name in self.names if self.model.accounts[name].deposit] or self.names
        return names[who % len(names)]

    def wait_until(self, moment: int) -> None:
        if moment > boa.env.timestamp:
            boa.env.time_travel(seconds=moment - boa.env.timestamp)


def part_of(deposit_wei: int, share: int) -> int:
    """So many per cent, at least one wei; 101 is one wei too many."""
    return deposit_wei + 1 if share == 101 else max(1, deposit_wei * share // 100)


def as_words(account: ModelAccount) -> tuple[int, int, int, int, int]:
    settled_last = account.settled_by_day[max(day)] if (day := nonzero_days(account)) else 0
    return account.deposit, account.settled, settled_last, account.requested, account.available_at


def nonzero_days(account: ModelAccount) -> list[int]:
    return [day for day, taken in account.settled_by_day.items() if taken]


_planted = functools.partial(
    Mutant,
    contract="CreditVault",
    check=functools.partial(run_machine, VaultMachine, calls=1_500, seed=1, shrink=False),
)

MUTANTS = (
    _planted(
        invariant="I9",
        name="clearance-works-again",
        before="self.nonces[account] = nonce + 1",
        after="self.nonces[account] = nonce",
    ),
    _planted(
        invariant="I9",
        name="pause-closes-the-exit",
        before='    assert amount > 0, "vault: nothing left to withdraw"\n',
        after='    assert amount > 0 and not self.paused, "vault: nothing left to withdraw"\n',
    ),
    _planted(
        invariant="I9",
        name="settlement-leaves-the-request-too-large",
        before="outflow.requested = min(outflow.requested, books.deposit)",
        after="outflow.requested = outflow.requested",
    ),
    _planted(
        invariant="I9",
        name="total-forgets-what-clearances-settle",
        before="self.totalDeposits -= owed + amount",
        after="self.totalDeposits -= amount",
    ),
    _planted(
        invariant="I10",
        name="batch-believes-the-figure",
        before="books.settled += taken",
        after="books.settled = cumulative_spent",
    ),
    _planted(
        invariant="I10",
        name="limit-counts-each-batch-alone",
        before="outflow.settled_today += taken",
        after="outflow.settled_today = taken",
    ),
    _planted(
        invariant="I10",
        name="split-loses-the-rest",
        before="total - to_treasury - to_infrastructure",
        after="total * 85 // 100",
    ),
    _planted(
        invariant="I10",
        name="lowering-acts-at-once",
        before="    if limit >= current:\n",
        after="    if limit != current:\n",
    ),
)
