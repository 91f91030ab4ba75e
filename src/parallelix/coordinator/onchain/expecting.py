"""What the contracts' views must say if our books and the next facts are right. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from parallelix.chain.abi import Address
from parallelix.chain.bindings.node_registry_locker import Node
from parallelix.chain.books import AccountBooks, Expected
from parallelix.chain.errors import LogsDiffer
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
from parallelix.engine.core import Engine
from parallelix.engine.mirror import VaultAccount
from parallelix.protocol.encoding import from_hex
from parallelix.protocol.registry import Registration

HASH_BYTES = 32
STATES = {"active": 1, "cooling": 2, "retired": 3}
"""As the locker numbers them."""
_OF_ACCOUNTS = (Deposited, SpendingSettled, Withdrawn, WithdrawalAsked, WithdrawalTakenBack, LimitSet)


def now(engine: Engine, *, accounts: Iterable[Address] = (), node_ids: Iterable[int] = ()) -> Expected:
    """The totals, and these accounts and nodes, at the engine's cursor."""
    mirror, nodes = engine.mirror, engine.registrations
    return Expected(
        total_deposits_wei=mirror.total_deposits_wei,
        total_principal_wei=_principal_wei(nodes.values()),
        node_count=len(nodes),
        accounts={each: _books(mirror.accounts[each]) for each in accounts if each in mirror.accounts},
        nodes={each: _node(nodes[each]) for each in node_ids if each in nodes},
    )


def after(engine: Engine, facts: Sequence[ChainFact]) -> Expected:
    """The totals, and all that the facts touch, once they are taken in. Raises `LogsDiffer` where one of them does not
    follow from those before it."""
    difference = engine.mirror.difference(facts, engine.registrations)
    if difference is not None:
        raise LogsDiffer(difference.part, str(difference))
    accounts = _accounts_after(engine.mirror.accounts, facts)
    nodes = _nodes_after(engine.registrations, facts)
    roots = {fact.number: fact.merkle_root for fact in facts if isinstance(fact, BatchAnchored)}
    return Expected(
        total_deposits_wei=engine.mirror.total_deposits_wei + _change_wei(engine.mirror.accounts, accounts),
        total_principal_wei=_principal_wei({**engine.registrations, **nodes}.values()),
        node_count=len(engine.registrations.keys() | nodes.keys()),
        batch_count=_batch_count(engine, roots),
        accounts={account: _books(books) for account, books in accounts.items()},
        nodes={node_id: _node(registration) for node_id, registration in nodes.items()},
        roots=roots,
    )


def _accounts_after(known: Mapping[Address, VaultAccount], facts: Iterable[ChainFact]) -> dict[Address, VaultAccount]:
    copies: dict[Address, VaultAccount] = {}
    for fact in facts:
        if isinstance(fact, _OF_ACCOUNTS):
            if fact.account not in copies:
                copies[fact.account] = replace(known.get(fact.account) or VaultAccount(account=fact.account))
            copies[fact.account].follow(fact)
    return copies


def _nodes_after(known: Mapping[int, Registration], facts: Iterable[ChainFact]) -> dict[int, Registration]:
    copies: dict[int, Registration] = {}
    for fact in facts:
        match fact:
            case NodeStaked():
                copies[fact.node_id] = Registration(
                    node_id=str(fact.node_id),
                    owner=fact.owner,
                    stake_wei=str(fact.stake_wei),
                    hardware_tier=fact.hardware_tier,
                    node_key_hash=fact.node_key_hash,
                    state="active",
                )
            case NodeUnstaking():
                before = copies.get(fact.node_id) or known[fact.node_id]
                copies[fact.node_id] = msgspec.structs.replace(
                    before, state="cooling", cooldown_ends_at=fact.withdrawable_at
                )
            case NodeWithdrawn():
                before = copies.get(fact.node_id) or known[fact.node_id]
                copies[fact.node_id] = msgspec.structs.replace(before, state="retired")
            case _:
                pass
    return copies


def _change_wei(before: Mapping[Address, VaultAccount], after: Mapping[Address, VaultAccount]) -> int:
    return sum(
        books.deposit_wei - (before[account].deposit_wei if account in before else 0)
        for account, books in after.items()
    )


def _batch_count(engine: Engine, roots: Mapping[int, str]) -> int | None:
    """None when batches are anchored that are not ours: the engine says so itself, and has no count of them."""
    if engine.mirror.halts.get("anchor"):
        return None
    first = engine.settings.first_batch + engine.recorder.batches_confirmed
    return None if sorted(roots) != list(range(first, first + len(roots))) else first + len(roots)


def _principal_wei(registrations: Iterable[Registration]) -> int:
    return sum(int(each.stake_wei) for each in registrations if each.state != "retired")


def _books(books: VaultAccount) -> AccountBooks:
    return AccountBooks(deposit_wei=books.deposit_wei, settled_wei=books.settled_wei, requested_wei=books.requested_wei)


def _node(registration: Registration) -> Node:
    return Node(
        owner=registration.owner,
        stake=int(registration.stake_wei),
        hardware_tier=registration.hardware_tier,
        state=STATES[registration.state],
        node_key_hash=from_hex(registration.node_key_hash, name="node_key_hash", length_bytes=HASH_BYTES),
        withdrawable_at=registration.cooldown_ends_at,
    )
