"""A plain model of the contracts on a chain that can be reorganised: blocks, each with the state after it.

It says what the vault holds, independently of the engine: every rule is written down anew from the contract's source.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TypeAlias

from parallelix.engine.chain_facts import (
    BatchAnchored,
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

DAY_SECONDS = 86_400
WITHDRAWAL_DELAY_SECONDS = 60
STAKE_WEI = 50_000 * 10**18


class Reverted(Exception):
    """The contract refuses the call; nothing changes."""


@dataclass
class Books:
    deposit: int = 0
    settled: int = 0
    requested: int = 0
    available_at: int = 0
    nonce: int = 0
    limit: int | None = None
    lowered: int = 0
    lowered_from_day: int = 0
    last_limit_set: int | None = None
    settled_today: int = 0
    day: int = 0

    def limit_on(self, day: int, default: int) -> int:
        if self.limit is None:
            return default
        return self.lowered if self.lowered_from_day and day >= self.lowered_from_day else self.limit


@dataclass
class Contracts:
    """The state of all contracts after some block. `signed` are the clearances that bear the settler's signature."""

    accounts: dict[str, Books] = field(default_factory=dict[str, Books])
    total_deposits: int = 0
    ever_deposited: int = 0
    ever_withdrawn: int = 0
    roots: list[str] = field(default_factory=lambda: ["0x" + "00" * 32])
    nodes: dict[int, str] = field(default_factory=dict[int, str])

    def of(self, account: str) -> Books:
        return self.accounts.setdefault(account, Books())


@dataclass(frozen=True)
class Moment:
    """When and where a call is carried out."""

    time: int
    transaction: str
    default_limit: int

    @property
    def day(self) -> int:
        return self.time // DAY_SECONDS


Call: TypeAlias = Callable[[Contracts, Moment], list[ChainFact]]


def require(condition: bool, why: str) -> None:
    if not condition:
        raise Reverted(why)


def deposit(account: str, amount: int) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        books = state.of(account)
        books.deposit += amount
        state.total_deposits += amount
        state.ever_deposited += amount
        return [
            Deposited(event_id=f"{at.transaction}:0", account=account, amount_wei=amount, deposit_wei=books.deposit)
        ]

    return call


def request_withdrawal(account: str, amount: int) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        books = state.of(account)
        wanted = min(amount, books.deposit)
        require(wanted > 0, "nothing left to withdraw")
        books.requested, books.available_at = wanted, at.time + WITHDRAWAL_DELAY_SECONDS
        return [WithdrawalAsked(account=account, amount_wei=wanted)]

    return call


def cancel_withdrawal(account: str) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        books = state.of(account)
        require(books.available_at > 0, "no withdrawal was requested")
        books.requested = books.available_at = 0
        return [WithdrawalTakenBack(account=account)]

    return call


def withdraw(account: str) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        books = state.of(account)
        require(0 < books.available_at <= at.time, "no request, or too early")
        amount = books.requested
        require(amount > 0, "nothing left to withdraw")
        books.requested = books.available_at = 0
        return _paid(state, account, amount, at, nonce=0, cleared=False)

    return call


def withdraw_cleared(account: str, amount: int, cumulative: int, nonce: int, expiry: int) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        books = state.of(account)
        require(amount > 0, "amount is zero")
        require(at.time <= expiry, "clearance has expired")
        require(nonce == books.nonce, "nonce is not the next")
        owed = max(0, cumulative - books.settled)
        require(owed + amount <= books.deposit, "clearance exceeds the deposit")
        books.nonce += 1
        facts = _settled(state, account, owed, at, index=0) if owed else []
        facts += _paid(state, account, amount, at, nonce=nonce, cleared=True)
        return facts

    return call


def settle(entries: tuple[tuple[str, int], ...]) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        facts: list[ChainFact] = []
        for account, cumulative in entries:
            books = state.of(account)
            if books.day != at.day:
                books.day, books.settled_today = at.day, 0
            left_today = max(0, books.limit_on(at.day, at.default_limit) - books.settled_today)
            taken = min(max(0, cumulative - books.settled), books.deposit, left_today)
            if taken:
                books.settled_today += taken
                facts += _settled(state, account, taken, at, index=len(facts))
        return facts

    return call


def set_limit(account: str, limit: int) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        books = state.of(account)
        current = books.limit_on(at.day, at.default_limit)
        books.last_limit_set = limit
        if limit >= current:
            books.limit, books.lowered, books.lowered_from_day = limit, 0, 0
            return [LimitSet(account=account, limit_wei=limit, effective_from=at.time)]
        from_day = (at.time + WITHDRAWAL_DELAY_SECONDS + 2 * DAY_SECONDS - 1) // DAY_SECONDS
        books.limit, books.lowered, books.lowered_from_day = current, limit, from_day
        return [LimitSet(account=account, limit_wei=limit, effective_from=from_day * DAY_SECONDS)]

    return call


def anchor(number: int, root: str) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        require(number == len(state.roots), "its previous hash is not the head")
        state.roots.append(root)
        return [BatchAnchored(number=number, merkle_root=root, reference=at.transaction)]

    return call


def stake(node_id: int) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        require(node_id not in state.nodes, "registered already")
        state.nodes[node_id] = "active"
        return [
            NodeStaked(
                node_id=node_id,
                owner=f"0x{node_id:040x}",
                stake_wei=STAKE_WEI,
                hardware_tier=1,
                node_key_hash=f"0x{node_id:064x}",
            )
        ]

    return call


def unstake(node_id: int) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        require(state.nodes.get(node_id) == "active", "not active")
        state.nodes[node_id] = "cooling"
        return [NodeUnstaking(node_id=node_id, withdrawable_at=at.time + 7 * DAY_SECONDS)]

    return call


def withdraw_stake(node_id: int) -> Call:
    def call(state: Contracts, at: Moment) -> list[ChainFact]:
        require(state.nodes.get(node_id) == "cooling", "not cooling")
        state.nodes[node_id] = "retired"
        return [NodeWithdrawn(node_id=node_id)]

    return call


def _settled(state: Contracts, account: str, amount: int, at: Moment, *, index: int) -> list[ChainFact]:
    books = state.of(account)
    books.deposit -= amount
    books.settled += amount
    books.requested = min(books.requested, books.deposit)
    state.total_deposits -= amount
    return [
        SpendingSettled(
            event_id=f"{at.transaction}:{index}",
            account=account,
            amount_wei=amount,
            cumulative_wei=books.settled,
            deposit_wei=books.deposit,
        )
    ]


def _paid(state: Contracts, account: str, amount: int, at: Moment, *, nonce: int, cleared: bool) -> list[ChainFact]:
    books = state.of(account)
    books.deposit -= amount
    books.requested = min(books.requested, books.deposit)
    state.total_deposits -= amount
    state.ever_withdrawn += amount
    return [
        Withdrawn(
            event_id=f"{at.transaction}:9",
            account=account,
            amount_wei=amount,
            deposit_wei=books.deposit,
            nonce=nonce,
            cleared=cleared,
        )
    ]


@dataclass(frozen=True)
class Block:
    number: int
    hash: str
    time: int
    calls: tuple[tuple[str, Call], ...]
    facts: tuple[ChainFact, ...]
    state: Contracts


class Chain:
    """`confirmations` is how deep a block must lie to be believed, and so how deep a reorganisation may go."""

    def __init__(self, *, time: int, confirmations: int, default_limit: int) -> None:
        self.confirmations = confirmations
        self._default_limit = default_limit
        self._made = 0
        self.blocks = [Block(number=0, hash="0x" + "00" * 32, time=time, calls=(), facts=(), state=Contracts())]

    @property
    def head(self) -> Block:
        return self.blocks[-1]

    @property
    def confirmed(self) -> int:
        """The newest block that is believed."""
        return max(0, self.head.number - self.confirmations)

    def send(self, call: Call, *, time: int) -> tuple[ChainFact, ...]:
        """Mines the call in a block of its own. Raises `Reverted`, and then no block is mined."""
        self._made += 1
        return self._mine((f"0x{self._made:064x}", call), max(time, self.head.time + 1)).facts

    def mine(self, count: int, *, time: int) -> None:
        for _ in range(count):
            self._mine(None, max(time, self.head.time + 1))

    def reorganise(self, depth: int, keep: Callable[[], bool]) -> int:
        """Replaces the last `depth` blocks by one more than that. Of their calls those are carried out again that
        `keep` lets pass and that the contracts still allow. Gives how many were lost."""
        depth = min(depth, self.confirmations, self.head.number)
        dropped = self.blocks[len(self.blocks) - depth :]
        del self.blocks[len(self.blocks) - depth :]
        lost = 0
        for block in dropped:
            for call in block.calls:
                try:
                    if keep():
                        self._mine(call, block.time)
                        continue
                except Reverted:
                    pass
                lost += 1
                self._mine(None, block.time)
            if not block.calls:
                self._mine(None, block.time)
        self._mine(None, self.head.time + 1)
        return lost

    def _mine(self, call: tuple[str, Call] | None, time: int) -> Block:
        state = deepcopy(self.head.state)
        facts: list[ChainFact] = []
        if call is not None:
            transaction, act = call
            facts = act(state, Moment(time=time, transaction=transaction, default_limit=self._default_limit))
        self._made += 1
        block = Block(
            number=self.head.number + 1,
            hash=f"0x{self._made:064x}",
            time=time,
            calls=(call,) if call is not None else (),
            facts=tuple(facts),
            state=state,
        )
        self.blocks.append(block)
        return block
