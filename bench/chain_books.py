"""What a coordinator believes beside what the contracts say, to the last wei, by somebody who trusts none of its code.

The store names the block it has read up to, so the two can be compared at any time, with the coordinator dead or alive:
the contracts are asked as of that very block. What was sent is looked at in every block, whatever the store says.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from bench.chain_world import ROLES_THAT_SEND, ChainWorld, logs_of
from parallelix.chain.abi import Function, read_log, table_of
from parallelix.chain.bindings import credit_vault, execution_anchor
from parallelix.coordinator.store.backend import Reading
from parallelix.coordinator.store.backends import backend_of
from parallelix.coordinator.store.rows import IntentRow
from parallelix.engine.rows import (
    BalanceRow,
    BatchRow,
    ChainCursorRow,
    RegistrationRow,
    TransferRow,
    VaultAccountRow,
)
from parallelix.protocol.encoding import to_hex

OURS = ("available", "held", "spent", "cleared")
"""Where an account's money is in the ledger, while the vault has it."""
VAULT, SETTLED, UNCOVERED = "source:vault", "settled", "source:uncovered:"
EVENT_ID = re.compile(r"0x[0-9a-f]{64}:[0-9]+")
ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
NODE_STATES = ("", "active", "cooling", "retired")
"""As the locker numbers them."""
OVER = frozenset({"final", "dead"})
"""The states of intents that send nothing any more."""

Movement: TypeAlias = Literal["in", "out", "settled"]

_TOTAL_DEPOSITS = Function("totalDeposits", (), ("uint256",))
_DEPOSITS = Function("deposits", ("address",), ("uint256",))
_SETTLED_OF = Function("settled", ("address",), ("uint256",))
_NONCES = Function("nonces", ("address",), ("uint256",))
_NODE_COUNT = Function("nodeCount", (), ("uint256",))
_NODES = Function("nodes", ("uint256",), ("(address,uint256,uint256,uint256,bytes32,uint256)",))
_VAULT_EVENTS = table_of(credit_vault.EVENTS)
_ANCHOR_EVENTS = table_of(execution_anchor.EVENTS)


@dataclass(kw_only=True)
class LedgerSide:
    """As stored, in one moment."""

    cursor: ChainCursorRow | None
    balances: dict[str, int]
    transfers: list[TransferRow]
    accounts: dict[str, VaultAccountRow]
    registrations: dict[int, RegistrationRow]
    intents: list[IntentRow]
    batches: list[BatchRow]


@dataclass(frozen=True, kw_only=True)
class VaultAccount:
    """One account in the vault."""

    deposit_wei: int
    settled_wei: int
    nonce: int


@dataclass(frozen=True, kw_only=True)
class RoleTransaction:
    """What one of the coordinator's keys has in a block."""

    hash: str
    role: str
    nonce: int
    data: str
    succeeded: bool


@dataclass(kw_only=True)
class ChainSide:
    """As the contracts say, at block `block`; `role_transactions` up to the newest."""

    block: int
    block_hash: str
    total_deposits_wei: int
    accounts: dict[str, VaultAccount]
    moved: dict[tuple[Movement, str], int]
    """Wei that each event of the vault moved, by its id."""
    nodes: dict[int, tuple[str, int, int, str]]
    """Owner, stake, tier and state."""
    anchored: dict[int, str]
    """Roots by the number of their batch, up to `block`."""
    role_transactions: list[RoleTransaction]


@dataclass(kw_only=True)
class Agreement:
    """What does not agree. `difference_wei` is all money that is on one side only, summed without signs."""

    difference_wei: int = 0
    duplicate_effects: int = 0
    money: list[str] = field(default_factory=list[str])
    twice: list[str] = field(default_factory=list[str])
    other: list[str] = field(default_factory=list[str])

    def __bool__(self) -> bool:
        """Whether all agrees."""
        return not (self.money or self.twice or self.other)

    @property
    def findings(self) -> list[str]:
        return [*self.money, *self.twice, *self.other]

    def differs(self, what: str, ours_wei: int, theirs_wei: int) -> None:
        if ours_wei != theirs_wei:
            self.difference_wei += abs(ours_wei - theirs_wei)
            self.money.append(f"{what}: the store says {ours_wei} wei, the contracts say {theirs_wei}")

    def add(self, other: Agreement) -> None:
        self.difference_wei += other.difference_wei
        self.duplicate_effects += other.duplicate_effects
        self.money += other.money
        self.twice += other.twice
        self.other += other.other


# Reading ------------------------------------------------------------------------------------------------------------


def read_cursor(store_url: str) -> ChainCursorRow | None:
    """How far the store has read the chain."""
    with reading_of(store_url) as reading:
        return reading.row(ChainCursorRow, "SELECT {columns} FROM chain_cursor")


@contextmanager
def reading_of(store_url: str) -> Generator[Reading]:
    """All reads see the store as it is in one moment."""
    backend = backend_of(store_url)
    connection = backend.connect_reader()
    try:
        reading = Reading(backend, connection)
        with reading.transaction(backend.begin_snapshot):
            yield reading
    finally:
        connection.close()
        backend.close()


def read_ledger(store_url: str, *, whole: bool = True) -> LedgerSide:
    """Without its transfers, of which there are many, where it need not be `whole`."""
    with reading_of(store_url) as reading:
        accounts = reading.rows(VaultAccountRow, "SELECT {columns} FROM vault_accounts")
        balances = reading.rows(BalanceRow, "SELECT {columns} FROM balances")
        registrations = reading.rows(RegistrationRow, "SELECT {columns} FROM registrations")
        return LedgerSide(
            cursor=reading.row(ChainCursorRow, "SELECT {columns} FROM chain_cursor"),
            balances={row.account: int(row.balance_wei) for row in balances},
            transfers=reading.rows(TransferRow, "SELECT {columns} FROM transfers") if whole else [],
            accounts={row.account: row for row in accounts},
            registrations={int(row.node_id): row for row in registrations},
            intents=reading.rows(IntentRow, "SELECT {columns} FROM intents ORDER BY created_at"),
            batches=reading.rows(BatchRow, "SELECT {columns} FROM batches ORDER BY number"),
        )


@dataclass(kw_only=True)
class _Told:
    """What the logs of vault and anchor say, in all blocks up to `until`."""

    until: int
    moved: dict[tuple[Movement, str], int] = field(default_factory=dict[tuple[Movement, str], int])
    anchored: dict[int, str] = field(default_factory=dict[int, str])
    accounts: set[str] = field(default_factory=set[str])

    def copied(self) -> _Told:
        return _Told(
            until=self.until, moved=dict(self.moved), anchored=dict(self.anchored), accounts=set(self.accounts)
        )

    def add(self, world: ChainWorld, first: int, last: int) -> None:
        vault, anchor = world.vault.address, world.deployed.address("ExecutionAnchor")
        for log in logs_of(world, [vault, anchor], first, last) if first <= last else ():
            event = read_log(log, _VAULT_EVENTS if log.address.lower() == vault.lower() else _ANCHOR_EVENTS)
            event_id = f"{log.transaction_hash}:{log.log_index}"
            match event:
                case credit_vault.Deposited():
                    self.moved["in", event_id] = event.amount
                    self.accounts.add(event.account)
                case credit_vault.Withdrawn():
                    self.moved["out", event_id] = event.amount
                case credit_vault.SpendSettled():
                    self.moved["settled", event_id] = event.amount
                case execution_anchor.BatchAnchored():
                    self.anchored[event.number] = to_hex(event.merkle_root)
                case _:
                    pass
        self.until = max(self.until, last)


class ChainReader:
    """Reads a chain again and again; blocks that no reorg reaches any more are looked at once."""

    def __init__(self, world: ChainWorld, *, final_after: int) -> None:
        self._world = world
        self._final_after = final_after
        self._looked_to = world.deployed.first_block - 1
        self._told = _Told(until=self._looked_to)
        self._final: list[RoleTransaction] = []

    def beside(self, store_url: str) -> Agreement:
        """How the contracts and the store agree now, whether or not a coordinator is at work on it."""
        # What is in a block was noted before, so blocks come first; the contracts are asked as of the store's block.
        sent = self.sent()
        ledger = read_ledger(store_url)
        if ledger.cursor is None:
            return Agreement(other=["the store has read no block yet"])
        return compare(ledger, self.at(ledger.cursor.block, ledger.accounts, sent))

    def at(self, block: int, accounts: Iterable[str], sent: list[RoleTransaction]) -> ChainSide:
        """The contracts as of `block`, and what roles have sent."""
        world = self._world
        vault = world.vault.address
        told = self._told_until(block)
        everybody = {*accounts, *told.accounts}
        return ChainSide(
            block=block,
            block_hash=world.block(block)["hash"],
            total_deposits_wei=world.asks([(vault, _TOTAL_DEPOSITS, ())], block=block)[0],
            accounts=self._accounts(sorted(everybody), block),
            moved=told.moved,
            nodes=self._nodes(block),
            anchored=told.anchored,
            role_transactions=sent,
        )

    def _told_until(self, block: int) -> _Told:
        world = self._world
        final = max(self._told.until, min(block, world.head - self._final_after))
        self._told.add(world, self._told.until + 1, final)
        told = self._told.copied()
        told.add(world, final + 1, block)
        return told

    def _accounts(self, accounts: list[str], block: int) -> dict[str, VaultAccount]:
        vault, views = self._world.vault.address, (_DEPOSITS, _SETTLED_OF, _NONCES)
        told = iter(self._world.asks([(vault, view, (each,)) for each in accounts for view in views], block=block))
        return {
            account: VaultAccount(deposit_wei=next(told), settled_wei=next(told), nonce=next(told))
            for account in accounts
        }

    def _nodes(self, block: int) -> dict[int, tuple[str, int, int, str]]:
        locker = self._world.locker.address
        (count,) = self._world.asks([(locker, _NODE_COUNT, ())], block=block)
        told = self._world.asks([(locker, _NODES, (node_id,)) for node_id in range(1, count + 1)], block=block)
        return {
            node_id: (owner, stake, tier, NODE_STATES[state])
            for node_id, (owner, stake, tier, state, _, _) in enumerate(told, start=1)
        }

    def sent(self) -> list[RoleTransaction]:
        """What the coordinator's keys have in blocks, in order."""
        head = self._world.head
        final = max(self._looked_to, head - self._final_after)
        self._final += self._sent_in(self._looked_to + 1, final)
        self._looked_to = final
        return [*self._final, *self._sent_in(final + 1, head)]

    def _sent_in(self, first: int, last: int) -> list[RoleTransaction]:
        roles = {self._world.roles[role].address.lower(): role for role in ROLES_THAT_SEND}
        blocks = self._world.blocks(first, last)
        ours = [each for block in blocks for each in block["transactions"] if each["from"].lower() in roles]
        receipts = self._world.rpcs([("eth_getTransactionReceipt", each["hash"]) for each in ours])
        return [
            RoleTransaction(
                hash=each["hash"],
                role=roles[each["from"].lower()],
                nonce=int(each["nonce"], 16),
                data=each["input"],
                succeeded=int(receipt["status"], 16) == 1,
            )
            for each, receipt in zip(ours, receipts, strict=True)
        ]


# Comparing ----------------------------------------------------------------------------------------------------------


def compare(ledger: LedgerSide, chain: ChainSide) -> Agreement:
    """Expects both as of the same block, with nothing in the middle of a step. Changes nothing."""
    agreement = Agreement()
    if ledger.cursor is None or (ledger.cursor.block, ledger.cursor.block_hash) != (chain.block, chain.block_hash):
        agreement.other.append(f"the store has read up to {ledger.cursor}, not to {chain.block} {chain.block_hash}")
    _accounts(agreement, ledger, chain)
    _movements(agreement, ledger, chain)
    _replayed(agreement, ledger)
    _nodes(agreement, ledger, chain)
    _batches(agreement, ledger, chain)
    _intents(agreement, ledger.intents, chain.role_transactions)
    return agreement


def _accounts(agreement: Agreement, ledger: LedgerSide, chain: ChainSide) -> None:
    parts = [account.partition(":") for account in ledger.balances]
    known = {name for kind, _, name in parts if kind in OURS and ADDRESS.fullmatch(name)}
    sum_wei = 0
    for name in sorted(known | set(ledger.accounts) | set(chain.accounts)):
        theirs = chain.accounts.get(name, VaultAccount(deposit_wei=0, settled_wei=0, nonce=0))
        row = ledger.accounts.get(name)
        inside_wei = sum(ledger.balances.get(f"{kind}:{name}", 0) for kind in OURS)
        inside_wei += ledger.balances.get(UNCOVERED + name, 0)
        sum_wei += inside_wei
        agreement.differs(f"{name}: ledger", inside_wei, theirs.deposit_wei)
        agreement.differs(f"{name}: deposit", int(row.deposit_wei) if row else 0, theirs.deposit_wei)
        agreement.differs(f"{name}: settled", int(row.settled_wei) if row else 0, theirs.settled_wei)
        if row is not None and row.nonce != theirs.nonce:
            agreement.other.append(f"{name}: nonce {row.nonce} in the store, {theirs.nonce} in the vault")
    agreement.differs("all deposits", sum_wei, chain.total_deposits_wei)
    payable_wei = sum(wei for account, wei in ledger.balances.items() if account.startswith("spent:0x"))
    if payable_wei > chain.total_deposits_wei:
        agreement.money.append(f"{payable_wei} wei are payable, but the vault holds {chain.total_deposits_wei}")


def _movements(agreement: Agreement, ledger: LedgerSide, chain: ChainSide) -> None:
    """Each event of the vault has moved exactly its amount in the ledger, and nothing else has moved any."""
    ours: defaultdict[tuple[Movement, str], int] = defaultdict(int)
    for transfer in ledger.transfers:
        movement = _movement_of(transfer)
        if movement is None:
            continue
        found = EVENT_ID.search(transfer.transfer_id)
        ours[movement, found.group() if found else transfer.transfer_id] += int(transfer.amount_wei)
    for movement, event_id in sorted({*ours, *chain.moved}):
        ours_wei, theirs_wei = ours.get((movement, event_id), 0), chain.moved.get((movement, event_id), 0)
        agreement.differs(f"{movement} by {event_id}", ours_wei, theirs_wei)
        if ours_wei > theirs_wei:
            agreement.duplicate_effects += 1


def _movement_of(transfer: TransferRow) -> Movement | None:
    if transfer.debit_account == VAULT:
        return "in"
    if transfer.credit_account == VAULT:
        return "out"
    return "settled" if transfer.credit_account == SETTLED else None


def _replayed(agreement: Agreement, ledger: LedgerSide) -> None:
    replayed: defaultdict[str, int] = defaultdict(int)
    for transfer in ledger.transfers:
        replayed[transfer.debit_account] -= int(transfer.amount_wei)
        replayed[transfer.credit_account] += int(transfer.amount_wei)
    for account in sorted({*replayed, *ledger.balances}):
        balance_wei = ledger.balances.get(account, 0)
        if replayed[account] != balance_wei:
            agreement.money.append(f"{account}: {balance_wei} wei, its transfers give {replayed[account]}")
        if balance_wei < 0 and not account.startswith("source:"):
            agreement.money.append(f"{account}: overdrawn, {balance_wei} wei")


def _nodes(agreement: Agreement, ledger: LedgerSide, chain: ChainSide) -> None:
    for node_id in sorted({*ledger.registrations, *chain.nodes}):
        row = ledger.registrations.get(node_id)
        theirs = chain.nodes.get(node_id)
        ours = None if row is None else (row.owner, int(row.stake_wei), row.hardware_tier, row.state)
        if ours != theirs and not (ours is None and theirs is not None and theirs[3] == "retired"):
            agreement.other.append(f"node {node_id}: {ours} in the store, {theirs} in the locker")


def _batches(agreement: Agreement, ledger: LedgerSide, chain: ChainSide) -> None:
    """A batch is confirmed when and only when the chain has it, with its root."""
    for batch in ledger.batches:
        anchored = chain.anchored.get(batch.number)
        if bool(batch.confirmed_at) != (anchored is not None):
            agreement.other.append(
                f"batch {batch.number}: confirmed at {batch.confirmed_at} here, on the chain {anchored or 'nowhere'}"
            )
        if anchored is not None and anchored != batch.merkle_root:
            agreement.other.append(f"batch {batch.number}: root {batch.merkle_root} here, {anchored} on the chain")
    unknown = set(chain.anchored) - {batch.number for batch in ledger.batches} - {0}
    agreement.other += [f"batch {number}: on the chain, unknown here" for number in sorted(unknown)]


def _intents(agreement: Agreement, intents: Iterable[IntentRow], sent: Iterable[RoleTransaction]) -> None:
    """Every transaction of a role belongs to one intent, and no intent has taken effect twice."""
    owners: dict[str, IntentRow] = {}
    for intent in intents:
        for hash_ in hashes_of(intent):
            other = owners.setdefault(hash_, intent)
            if other is not intent:
                agreement.other.append(f"{hash_}: belongs to {other.intent_id} and {intent.intent_id}")
    effects: Counter[str] = Counter()
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    contents: Counter[str] = Counter()
    for each in sent:
        numbers[each.role].append(each.nonce)
        intent = owners.get(each.hash)
        if intent is None:
            _twice(agreement, f"{each.hash}: {each.role} sent it, and no intent says why")
        elif each.succeeded:
            effects[intent.intent_id] += 1
            if each.role == "validator":
                # Nodes may be as they were, and a settlement that fell short is tried again; no batch comes twice.
                contents[each.data] += 1
    for intent_id, count in effects.items():
        if count > 1:
            _twice(agreement, f"{intent_id}: took effect {count} times")
    for data, count in contents.items():
        if count > 1:
            _twice(agreement, f"validator: {count} transactions with the data {data[:74]}…")
    for role, nonces in numbers.items():
        if sorted(nonces) != list(range(len(nonces))):
            agreement.other.append(f"{role}: nonces {sorted(nonces)[-5:]} have a gap")


def _twice(agreement: Agreement, what: str) -> None:
    agreement.duplicate_effects += 1
    agreement.twice.append(what)


def hashes_of(intent: IntentRow) -> list[str]:
    """Of every transaction that was signed for it; of the one that a block has, once it is over."""
    attempts: list[dict[str, Any]] = msgspec.json.decode(intent.attempts) if intent.attempts else []
    hashes = [str(each["transaction_hash"]) for each in attempts]
    return hashes if intent.reference in ("", *hashes) else [*hashes, intent.reference]
