"""What the contracts hold, learned from nothing but the facts of their confirmed blocks: how far the chain is read, and
each account's books in the vault.

The books follow the vault's own rules to the wei, and each fact repeats what the vault made of them. Where the two
differ, a fact is missing, doubled or made up: `Mirror.difference` finds that before anything is taken in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import msgspec

from parallelix.engine.chain_facts import (
    ChainFact,
    Deposited,
    LimitSet,
    NodeStaked,
    NodeUnstaking,
    NodeWithdrawn,
    SpendingSettled,
    WithdrawalAsked,
    WithdrawalTakenBack,
    Withdrawn,
)
from parallelix.engine.rows import ChainCursorRow, ClearanceRow, VaultAccountRow
from parallelix.protocol.registry import Registration

Part: TypeAlias = Literal["registry", "vault", "anchor", "chain"]
"""What can be halted by itself; without the chain nothing of it goes on."""

ADDRESS_LENGTH = 42
MS_PER_DAY = 86_400_000


def is_address(account: str) -> bool:
    """Whether the account's name is a chain's address; on a chain it lives from deposits then."""
    return len(account) == ADDRESS_LENGTH and account.startswith("0x")


class Differs(Exception):
    """A fact does not follow from those before it. The message says what it should have been."""

    def __init__(self, part: Part, message: str) -> None:
        super().__init__(message)
        self.part: Part = part


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """The last block that was taken in; `time` in Unix seconds."""

    block: int
    hash: str
    time: int


class Clearance(msgspec.Struct, frozen=True, kw_only=True):
    """What the settler may sign for an account: `amount_wei` out at once, with everything spent so far settled in the
    same call, up to and including second `expiry`."""

    account: str
    amount_wei: int
    cumulative_wei: int
    nonce: int
    expiry: int
    granted_at: int

    def row(self, state: Literal["open", "used", "released"], *, ended_at: int = 0) -> ClearanceRow:
        return ClearanceRow(
            account=self.account,
            nonce=self.nonce,
            expiry=self.expiry,
            amount_wei=str(self.amount_wei),
            cumulative_wei=str(self.cumulative_wei),
            state=state,
            granted_at=self.granted_at,
            ended_at=ended_at,
        )


@dataclass(slots=True, kw_only=True)
class VaultAccount:
    """One account's books in the vault, and what the UTC day `charged_day` has used up of its daily limit: what was
    charged in it, and what was owed from before, since the vault settles that out of the same day's limit.

    `limit_wei` is the limit that was set last, None while none was. A lower one than before binds the vault only
    `limit_from` some second, but its owner will not have more spent.
    """

    account: str
    deposit_wei: int = 0
    settled_wei: int = 0
    requested_wei: int = 0
    nonce: int = 0
    limit_wei: int | None = None
    limit_from: int = 0
    charged_day: int = 0
    charged_wei: int = 0

    def begin_day(self, day: int, *, owed_wei: int) -> None:
        """Before anything is charged or settled in that UTC day; `owed_wei` is charged by then and not settled."""
        if day > self.charged_day:
            self.charged_day, self.charged_wei = day, owed_wei

    def charged_today_wei(self, now: int) -> int:
        """What today has used up; 0 while nothing was charged or settled in it. The chain's day may begin first."""
        return self.charged_wei if self.charged_day >= now // MS_PER_DAY else 0

    def follow(self, fact: ChainFact) -> None:
        """Does what the vault did. Raises `Differs` where the vault says that it came out otherwise."""
        match fact:
            case Deposited():
                self._add(fact.amount_wei, fact.deposit_wei)
            case SpendingSettled():
                self._add(-fact.amount_wei, fact.deposit_wei)
                self._require("settled", self.settled_wei + fact.amount_wei, fact.cumulative_wei)
                self.settled_wei = fact.cumulative_wei
            case Withdrawn():
                self._withdraw(fact)
            case WithdrawalAsked():
                self.requested_wei = min(fact.amount_wei, self.deposit_wei)
            case WithdrawalTakenBack():
                self.requested_wei = 0
            case LimitSet():
                self.limit_wei, self.limit_from = fact.limit_wei, fact.effective_from
            case _:
                raise AssertionError(fact)

    def _withdraw(self, fact: Withdrawn) -> None:
        self._add(-fact.amount_wei, fact.deposit_wei)
        if fact.cleared:
            self._require("nonce", self.nonce, fact.nonce)
            self.nonce += 1
        else:
            self.requested_wei = 0

    def _add(self, change_wei: int, deposit_wei: int) -> None:
        if not change_wei or deposit_wei < 0:
            raise Differs("vault", f"account {self.account}: {change_wei} wei moved, and {deposit_wei} wei are left")
        self._require("deposit", self.deposit_wei + change_wei, deposit_wei)
        self.deposit_wei = deposit_wei
        # As the vault cuts a request to what is left.
        self.requested_wei = min(self.requested_wei, deposit_wei)

    def _require(self, what: str, ours: int, theirs: int) -> None:
        if ours != theirs:
            raise Differs("vault", f"account {self.account}: {what} is {theirs}, by our books it would be {ours}")

    @classmethod
    def of(cls, row: VaultAccountRow) -> VaultAccount:
        return cls(
            account=row.account,
            deposit_wei=int(row.deposit_wei),
            settled_wei=int(row.settled_wei),
            requested_wei=int(row.requested_wei),
            nonce=row.nonce,
            limit_wei=int(row.limit_wei) if row.limit_wei else None,
            limit_from=row.limit_from,
            charged_day=row.charged_day,
            charged_wei=int(row.charged_wei),
        )

    def row(self) -> VaultAccountRow:
        return VaultAccountRow(
            account=self.account,
            deposit_wei=str(self.deposit_wei),
            settled_wei=str(self.settled_wei),
            requested_wei=str(self.requested_wei),
            nonce=self.nonce,
            limit_wei="" if self.limit_wei is None else str(self.limit_wei),
            limit_from=self.limit_from,
            charged_day=self.charged_day,
            charged_wei=str(self.charged_wei),
        )


@dataclass(slots=True)
class Mirror:
    """`heard_at` is the time of the newest block that was told of, in Unix milliseconds, but never to come; 0 until
    then after each start."""

    cursor: Cursor | None = None
    accounts: dict[str, VaultAccount] = field(default_factory=dict[str, VaultAccount])
    clearances: dict[str, Clearance] = field(default_factory=dict[str, Clearance])
    """The open ones, one an account."""
    asked: Mapping[str, int] = field(default_factory=dict[str, int])
    """Withdrawals in wei that accounts ask for in blocks not confirmed yet."""
    halts: dict[Part, str] = field(default_factory=dict[Part, str])
    head_block: int = 0
    heard_at: int = 0
    total_deposits_wei: int = 0
    _changed: set[str] = field(default_factory=set[str])

    def account(self, account: str) -> VaultAccount:
        """The books of an account, empty where the vault has never named it; to be changed."""
        self._changed.add(account)
        return self.accounts.setdefault(account, VaultAccount(account=account))

    def frozen_wei(self, account: str) -> int:
        """What the account may take out without another word."""
        books = self.accounts.get(account)
        return max(self.asked.get(account, 0), books.requested_wei if books is not None else 0)

    def halted(self, part: Part) -> str:
        """Why nothing that depends on the part goes on; empty while it does."""
        return self.halts.get("chain", "") or self.halts.get(part, "")

    def difference(self, facts: Iterable[ChainFact], nodes: Mapping[int, Registration]) -> Differs | None:
        """What is wrong with the next facts, tried on copies of the books and of what is known of each node."""
        copies: dict[str, VaultAccount] = {}
        states: dict[int, str] = {}
        try:
            for fact in facts:
                match fact:
                    case NodeStaked() | NodeUnstaking() | NodeWithdrawn():
                        known = nodes.get(fact.node_id)
                        _follow_node(fact, states.get(fact.node_id, known.state if known is not None else ""), states)
                    case (
                        Deposited()
                        | SpendingSettled()
                        | Withdrawn()
                        | WithdrawalAsked()
                        | WithdrawalTakenBack()
                        | LimitSet()
                    ):
                        if fact.account not in copies:
                            books = self.accounts.get(fact.account) or VaultAccount(account=fact.account)
                            copies[fact.account] = replace(books)
                        copies[fact.account].follow(fact)
                    case _:
                        pass
        except Differs as difference:
            return difference
        return None

    def follow(self, fact: ChainFact, account: str) -> None:
        """Takes in a fact of the vault about `account`."""
        books = self.account(account)
        before_wei = books.deposit_wei
        books.follow(fact)
        self.total_deposits_wei += books.deposit_wei - before_wei

    def take_rows(self) -> list[VaultAccountRow]:
        """The accounts that changed since the last call."""
        rows = [self.accounts[account].row() for account in sorted(self._changed)]
        self._changed.clear()
        return rows

    def cursor_row(self) -> ChainCursorRow:
        assert self.cursor is not None, "no block was taken in yet"
        return ChainCursorRow(
            id=1,
            block=self.cursor.block,
            block_hash=self.cursor.hash,
            block_time=self.cursor.time,
            anchor_halt=self.halts.get("anchor", ""),
        )

    def restore(
        self, cursor: ChainCursorRow | None, accounts: Iterable[VaultAccountRow], clearances: Iterable[ClearanceRow]
    ) -> None:
        if cursor is not None:
            self.cursor = Cursor(block=cursor.block, hash=cursor.block_hash, time=cursor.block_time)
            if cursor.anchor_halt:
                # What brought it about is behind the cursor and will not be seen again.
                self.halts["anchor"] = cursor.anchor_halt
        self.accounts = {row.account: VaultAccount.of(row) for row in accounts}
        self.total_deposits_wei = sum(books.deposit_wei for books in self.accounts.values())
        self.clearances = {
            row.account: Clearance(
                account=row.account,
                amount_wei=int(row.amount_wei),
                cumulative_wei=int(row.cumulative_wei),
                nonce=row.nonce,
                expiry=row.expiry,
                granted_at=row.granted_at,
            )
            for row in clearances
        }


_NODE_STATES: dict[type[ChainFact], tuple[str, str]] = {
    NodeStaked: ("", "active"),
    NodeUnstaking: ("active", "cooling"),
    NodeWithdrawn: ("cooling", "retired"),
}
"""What a node is before each fact, and after it."""


def _follow_node(fact: NodeStaked | NodeUnstaking | NodeWithdrawn, state: str, states: dict[int, str]) -> None:
    before, after = _NODE_STATES[type(fact)]
    if state != before:
        raise Differs(
            "registry",
            f"node {fact.node_id}: {type(fact).__name__}, but it is {state or 'unknown'} here, not {before or 'new'}",
        )
    states[fact.node_id] = after
