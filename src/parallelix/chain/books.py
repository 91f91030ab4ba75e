"""Our books of the contracts against their own views, at one block."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec

from parallelix.chain.abi import Address
from parallelix.chain.asking import answers
from parallelix.chain.bindings import credit_vault, execution_anchor, node_registry_locker
from parallelix.chain.bindings.credit_vault import CreditVaultViews
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorViews
from parallelix.chain.bindings.node_registry_locker import Node, NodeRegistryLockerViews
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import ChainLies, Part, RpcRefused, StateMissing
from parallelix.chain.rpc import Rpc

NO_STATE = re.compile(r"missing trie node|state\b.*\b(unavailable|not available|pruned)|pruned|archive|no state", re.I)
"""How geth, erigon, nethermind, besu, reth and hosted endpoints say that they have forgotten."""


class AccountBooks(msgspec.Struct, frozen=True, kw_only=True):
    """What the vault holds of an account, was ever settled of it, and pays out on its request; wei."""

    deposit_wei: int
    settled_wei: int
    requested_wei: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What our books say at one block. Totals are always compared, the count of batches (the contract's empty batch 0
    among them) unless it is None; of accounts, nodes and roots (0x-hex by batch) those that are given."""

    total_deposits_wei: int
    total_principal_wei: int
    node_count: int
    batch_count: int | None = None
    accounts: Mapping[Address, AccountBooks] = field(default_factory=dict[Address, AccountBooks])
    nodes: Mapping[int, Node] = field(default_factory=dict[int, Node])
    roots: Mapping[int, str] = field(default_factory=dict[int, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    part: Part
    what: str
    ours: object
    ask: Callable[[], Awaitable[object]]


async def compare(rpc: Rpc, deployment: Deployment, expected: Expected, *, block: int) -> None:
    """Raises `ChainLies` at the first difference, `StateMissing` where the endpoint cannot tell any more, and what any
    question raises."""
    questions = _questions(rpc, deployment, expected, block)
    try:
        found = await answers([question.ask for question in questions])
    except RpcRefused as error:
        if NO_STATE.search(error.message):
            raise StateMissing(block, given=error.message) from error
        raise
    for question, theirs in zip(questions, found, strict=True):
        if question.ours != theirs:
            raise ChainLies(question.part, question.what, ours=question.ours, theirs=theirs, block=block)


def _questions(rpc: Rpc, deployment: Deployment, expected: Expected, block: int) -> list[_Question]:
    questions: list[_Question] = []
    # A contract answers from the block on in which it was deployed.
    there = {name for name, entry in deployment.contracts.items() if entry.block_number <= block}
    if credit_vault.CONTRACT in there:
        vault = CreditVaultViews(rpc, deployment.address(credit_vault.CONTRACT), block=block)
        questions += _of_vault(vault, expected)
    if node_registry_locker.CONTRACT in there:
        locker = NodeRegistryLockerViews(rpc, deployment.address(node_registry_locker.CONTRACT), block=block)
        questions += _of_locker(locker, expected)
    if execution_anchor.CONTRACT in there:
        anchor = ExecutionAnchorViews(rpc, deployment.address(execution_anchor.CONTRACT), block=block)
        questions += _of_anchor(anchor, expected)
    return questions


def _of_vault(views: CreditVaultViews, expected: Expected) -> list[_Question]:
    ask = partial(_Question, part="vault")
    questions = [ask(what="totalDeposits", ours=expected.total_deposits_wei, ask=views.total_deposits)]
    for account, ours in expected.accounts.items():
        questions += [
            ask(what=f"deposits({account})", ours=ours.deposit_wei, ask=partial(views.deposits, account)),
            ask(what=f"settled({account})", ours=ours.settled_wei, ask=partial(views.settled, account)),
            ask(what=f"requested({account})", ours=ours.requested_wei, ask=partial(_requested, views, account)),
        ]
    return questions


async def _requested(views: CreditVaultViews, account: Address) -> int:
    amount_wei, _available_at = await views.pending_withdrawal(account)
    return amount_wei


def _of_locker(views: NodeRegistryLockerViews, expected: Expected) -> list[_Question]:
    ask = partial(_Question, part="registry")
    return [
        ask(what="totalPrincipal", ours=expected.total_principal_wei, ask=views.total_principal),
        ask(what="nodeCount", ours=expected.node_count, ask=views.node_count),
        *(
            ask(what=f"nodes({node_id})", ours=ours, ask=partial(views.nodes, node_id))
            for node_id, ours in expected.nodes.items()
        ),
    ]


def _of_anchor(views: ExecutionAnchorViews, expected: Expected) -> list[_Question]:
    ask = partial(_Question, part="anchor")
    questions = [
        ask(what=f"rootOf({number})", ours=ours, ask=partial(_root, views, number))
        for number, ours in expected.roots.items()
    ]
    if expected.batch_count is not None:
        questions.append(ask(what="batchCount", ours=expected.batch_count, ask=views.batch_count))
    return questions


async def _root(views: ExecutionAnchorViews, number: int) -> str:
    return "0x" + (await views.root_of(number)).hex()
