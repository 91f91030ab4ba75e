"""What the vault should do, in plain Python: no packed words, no signatures, amounts in wei, times in Unix seconds."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

DAY_SECONDS = 86_400
LIMIT_WEI_MAX = 2**96 - 1
STALE, DEPOSIT_GONE, LIMIT_REACHED = 1, 2, 3

Event = tuple[str, Mapping[str, object]]


class Refused(Exception):
    """The call must revert with exactly this reason, and change nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def require(holds: bool, reason: str) -> None:
    if not holds:
        raise Refused(reason)


@dataclasses.dataclass(slots=True)
class Lowering:
    limit: int
    acts_at: int


@dataclasses.dataclass(slots=True)
class ModelAccount:
    deposit: int = 0
    settled: int = 0
    nonce: int = 0
    requested: int = 0
    available_at: int = 0
    limit: int | None = None
    lowering: Lowering | None = None
    settled_by_day: dict[int, int] = dataclasses.field(default_factory=lambda: collections.defaultdict(int))


@dataclasses.dataclass(slots=True)
class VaultModel:
    """Each method that changes something raises `Refused`, or changes it and returns the events."""

    vault: str
    owner: str
    settler: str
    guardian: str
    rewards: str
    treasury: str
    infrastructure: str
    delay_seconds: int
    default_limit: int
    balances: dict[str, int]
    allowances: dict[str, int]
    accounts: dict[str, ModelAccount]
    exempt: bool
    pending_owner: str = "0x" + "00" * 20
    paused: bool = False
    now: int = 0

    @property
    def total_deposits(self) -> int:
        return sum(account.deposit for account in self.accounts.values())

    @property
    def surplus(self) -> int:
        return self.balances[self.vault] - self.total_deposits

    @property
    def today(self) -> int:
        return self.now // DAY_SECONDS

    def limit_of(self, name: str) -> int:
        account = self.accounts[name]
        if account.lowering and self.now >= account.lowering.acts_at:
            return account.lowering.limit
        return self.default_limit if account.limit is None else account.limit

    # Money in

    def deposit(self, name: str, amount: int) -> list[Event]:
        require(amount > 0, "vault: amount is zero")
        require(not self.paused, "vault: deposits are paused")
        require(self.exempt, "vault: not exempt from the transfer tax")
        require(self.allowances[name] >= amount, "erc20: insufficient allowance")
        require(self.balances[name] >= amount, "erc20: transfer amount exceeds balance")
        self.allowances[name] -= amount
        self.move(name, self.vault, amount)
        account = self.accounts[name]
        account.deposit += amount
        return [("Deposited", {"account": name, "amount": amount, "deposit": account.deposit})]

    # Money out

    def withdraw_cleared(
        self, name: str, amount: int, spent: int, *, nonce: int, expiry: int, flaw: str | None
    ) -> list[Event]:
        """`flaw` is the refusal of a signature that is not the settler's over just this."""
        account = self.accounts[name]
        require(amount > 0, "vault: amount is zero")
        require(self.now <= expiry, "vault: clearance has expired")
        require(nonce == account.nonce, "vault: clearance nonce is not the next")
        if flaw:
            raise Refused(flaw)
        owed = max(0, spent - account.settled)
        require(amount + owed <= account.deposit, "vault: clearance exceeds the deposit")
        account.nonce += 1
        log = [self.take(name, owed)] if owed else []
        self.pay_out(name, amount)
        log.append(self.withdrawn(name, amount, nonce=nonce, cleared=True))
        return log + self.split(owed)

    def request(self, name: str, amount: int) -> list[Event]:
        account = self.accounts[name]
        require(amount > 0, "vault: amount is zero")
        require(account.deposit > 0, "vault: nothing left to withdraw")
        account.requested = min(amount, account.deposit)
        account.available_at = self.now + self.delay_seconds
        asked = {"account": name, "amount": account.requested, "availableAt": account.available_at}
        return [("WithdrawalRequested", asked)]

    def cancel(self, name: str) -> list[Event]:
        account = self.accounts[name]
        require(account.available_at > 0, "vault: no withdrawal was requested")
        account.requested = account.available_at = 0
        return [("WithdrawalCancelled", {"account": name})]

    def withdraw(self, name: str) -> list[Event]:
        account = self.accounts[name]
        require(account.available_at > 0, "vault: no withdrawal was requested")
        require(self.now >= account.available_at, "vault: withdrawal delay is not over")
        require(account.requested > 0, "vault: nothing left to withdraw")
        amount = account.requested
        account.available_at = account.requested = 0
        self.pay_out(name, amount)
        return [self.withdrawn(name, amount, nonce=0, cleared=False)]

    def recover_surplus(self) -> list[Event]:
        surplus = self.surplus
        require(surplus > 0, "vault: no surplus")
        self.move(self.vault, self.treasury, surplus)
        return [("SurplusRecovered", {"amount": surplus})]

    # Settlement

    def settle(self, sender: str, entries: list[tuple[str, int]]) -> list[Event]:
        require(sender == self.settler, "vault: caller is not the settler")
        require(not self.paused, "vault: settlement is paused")
        log: list[Event] = []
        total = 0
        for name, spent in entries:
            taken, events = self.settle_entry(name, spent)
            total += taken
            log += events
        return log + self.split(total)

    def settle_entry(self, name: str, spent: int) -> tuple[int, list[Event]]:
        account = self.accounts[name]
        owed = spent - account.settled
        if owed <= 0:
            return 0, [self.short(name, spent, STALE)]
        room = max(0, self.limit_of(name) - account.settled_by_day[self.today])
        taken = min(owed, account.deposit, room)
        log = [self.take(name, taken)] if taken else []
        account.settled_by_day[self.today] += taken
        if taken < owed:
            log.append(self.short(name, spent, LIMIT_REACHED if account.deposit else DEPOSIT_GONE))
        return taken, log

    def short(self, name: str, spent: int, reason: int) -> Event:
        settled = self.accounts[name].settled
        return "SettlementShort", {"account": name, "cumulativeSpent": spent, "settled": settled, "reason": reason}

    def split(self, total: int) -> list[Event]:
        if total == 0:
            return []
        treasury, infrastructure = total // 10, total // 20
        operators = total - treasury - infrastructure
        self.move(self.vault, self.rewards, operators)
        self.move(self.vault, self.treasury, treasury)
        self.move(self.vault, self.infrastructure, infrastructure)
        return [("SpendSplit", {"operators": operators, "treasury": treasury, "infrastructure": infrastructure})]

    # Rules

    def set_limit(self, name: str, limit: int) -> list[Event]:
        require(limit <= LIMIT_WEI_MAX, "vault: daily limit out of range")
        account = self.accounts[name]
        current = self.limit_of(name)
        account.limit, account.lowering = current, None
        acts_at = self.now
        if limit < current:
            acts_at = self.midnight_from(self.now + self.delay_seconds + DAY_SECONDS)
            account.lowering = Lowering(limit, acts_at)
        else:
            account.limit = limit
        return [("DailyLimitSet", {"account": name, "limit": limit, "effectiveFrom": acts_at})]

    def midnight_from(self, moment: int) -> int:
        return moment + -moment % DAY_SECONDS

    def pause(self, sender: str) -> list[Event]:
        require(sender in (self.guardian, self.owner), "vault: caller is not the guardian")
        require(not self.paused, "vault: already paused")
        self.paused = True
        return [("Paused", {"account": sender})]

    def unpause(self, sender: str) -> list[Event]:
        self.require_owner(sender)
        require(self.paused, "vault: not paused")
        self.paused = False
        return [("Unpaused", {"account": sender})]

    def set_settler(self, sender: str, current: str) -> list[Event]:
        previous = self.settler
        self.require_owner(sender)
        require(int(current, 16) != 0, "vault: zero address")
        self.settler = current
        return [("SettlerChanged", {"previous": previous, "current": current})]

    def set_guardian(self, sender: str, current: str) -> list[Event]:
        previous = self.guardian
        self.require_owner(sender)
        require(int(current, 16) != 0, "vault: zero address")
        self.guardian = current
        return [("GuardianChanged", {"previous": previous, "current": current})]

    def transfer_ownership(self, sender: str, successor: str) -> list[Event]:
        self.require_owner(sender)
        self.pending_owner = successor
        return [("OwnershipTransferStarted", {"previous_owner": self.owner, "new_owner": successor})]

    def accept_ownership(self, sender: str) -> list[Event]:
        require(sender == self.pending_owner, "ownable_2step: caller is not the new owner")
        previous, self.owner = self.owner, sender
        self.pending_owner = "0x" + "00" * 20
        return [("OwnershipTransferred", {"previous_owner": previous, "new_owner": sender})]

    def require_owner(self, sender: str) -> None:
        require(sender == self.owner, "ownable: caller is not the owner")

    # What several of these do

    def take(self, name: str, amount: int) -> Event:
        account = self.accounts[name]
        account.settled += amount
        account.deposit -= amount
        account.requested = min(account.requested, account.deposit)
        fields = {"account": name, "amount": amount, "cumulativeSettled": account.settled, "deposit": account.deposit}
        return "SpendSettled", fields

    def pay_out(self, name: str, amount: int) -> None:
        account = self.accounts[name]
        account.deposit -= amount
        account.requested = min(account.requested, account.deposit)
        self.move(self.vault, name, amount)

    def withdrawn(self, name: str, amount: int, *, nonce: int, cleared: bool) -> Event:
        deposit = self.accounts[name].deposit
        fields = {"account": name, "amount": amount, "deposit": deposit, "nonce": nonce, "cleared": cleared}
        return "Withdrawn", fields

    def move(self, sender: str, receiver: str, amount: int) -> None:
        self.balances[sender] -= amount
        self.balances[receiver] += amount
        assert self.balances[sender] >= 0, (sender, receiver, amount)
