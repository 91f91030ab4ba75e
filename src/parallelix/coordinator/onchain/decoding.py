"""What a contract's log means to the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from parallelix.chain.abi import Address, Event, Happened, Log
from parallelix.chain.bindings import credit_vault, execution_anchor, node_registry_locker, operator_stake_rewards
from parallelix.chain.errors import LogRefused
from parallelix.chain.rpc import COUNT_MAX
from parallelix.chain.watcher import Span
from parallelix.engine import chain_facts
from parallelix.engine.chain_facts import ChainFact
from parallelix.engine.events import ChainProvisional, ChainSpan


def chain_span(span: Span) -> ChainSpan:
    return ChainSpan(
        first_block=span.first_block,
        last_block=span.last.number,
        last_hash=span.last.hash,
        last_time=span.last.time,
        facts=tuple(fact_of(each, at=span.times[each.log.block_number]) for each in span.happened),
    )


def chain_provisional(head: int, happened: Iterable[Happened], *, time: int) -> ChainProvisional:
    """`time` is the head's, in Unix seconds. The largest request of each account counts: a smaller one after it, or its
    cancellation, may not come to stand."""
    asked: dict[Address, int] = {}
    for each in happened:
        if isinstance(each.event, credit_vault.WithdrawalRequested):
            asked[each.event.account] = max(asked.get(each.event.account, 0), each.event.amount)
    return ChainProvisional(block=head, time=time, asked=asked)


def fact_of(happened: Happened, *, at: int) -> ChainFact:
    """`at` is the time of its block, in Unix seconds. Only for the events that `watcher.WATCHED` names.

    Raises `LogRefused` where a count, id or time is none that our contracts could have come to.
    """
    for name, most in _COUNTS.items():
        value: int = getattr(happened.event, name, 0)
        if value > most:
            raise LogRefused(
                f"log {happened.log.log_index} of block {happened.log.block_number}", f"{name} {value}, at most {most}"
            )
    return _FACTS[type(happened.event)](happened.event, happened.log, at)


def event_id(log: Log) -> str:
    """The chain's own name for one thing that happened once."""
    return f"{log.transaction_hash}:{log.log_index}"


_COUNTS = {"hardware_tier": 4} | dict.fromkeys(
    ("node_id", "withdrawable_at", "nonce", "effective_from", "number", "slots", "batch"), COUNT_MAX
)
"""What is a whole number here, and in the store, is 256 bits wide in a log, which an endpoint may fill as it likes."""


def _staked(event: node_registry_locker.NodeRegistered, _log: Log, _at: int) -> ChainFact:
    return chain_facts.NodeStaked(
        node_id=event.node_id,
        owner=event.owner,
        stake_wei=event.stake,
        hardware_tier=event.hardware_tier,
        node_key_hash="0x" + event.node_key_hash.hex(),
    )


def _unstaking(event: node_registry_locker.UnstakeRequested, _log: Log, _at: int) -> ChainFact:
    return chain_facts.NodeUnstaking(node_id=event.node_id, withdrawable_at=event.withdrawable_at)


def _node_withdrawn(event: node_registry_locker.StakeWithdrawn, _log: Log, _at: int) -> ChainFact:
    return chain_facts.NodeWithdrawn(node_id=event.node_id)


def _deposited(event: credit_vault.Deposited, log: Log, _at: int) -> ChainFact:
    return chain_facts.Deposited(
        event_id=event_id(log), account=event.account, amount_wei=event.amount, deposit_wei=event.deposit
    )


def _asked(event: credit_vault.WithdrawalRequested, _log: Log, _at: int) -> ChainFact:
    return chain_facts.WithdrawalAsked(account=event.account, amount_wei=event.amount)


def _taken_back(event: credit_vault.WithdrawalCancelled, _log: Log, _at: int) -> ChainFact:
    return chain_facts.WithdrawalTakenBack(account=event.account)


def _withdrawn(event: credit_vault.Withdrawn, log: Log, _at: int) -> ChainFact:
    return chain_facts.Withdrawn(
        event_id=event_id(log),
        account=event.account,
        amount_wei=event.amount,
        deposit_wei=event.deposit,
        nonce=event.nonce,
        cleared=event.cleared,
    )


def _limit_set(event: credit_vault.DailyLimitSet, _log: Log, _at: int) -> ChainFact:
    return chain_facts.LimitSet(account=event.account, limit_wei=event.limit, effective_from=event.effective_from)


def _settled(event: credit_vault.SpendSettled, log: Log, _at: int) -> ChainFact:
    return chain_facts.SpendingSettled(
        event_id=event_id(log),
        account=event.account,
        amount_wei=event.amount,
        cumulative_wei=event.cumulative_settled,
        deposit_wei=event.deposit,
    )


def _anchored(event: execution_anchor.BatchAnchored, log: Log, _at: int) -> ChainFact:
    return chain_facts.BatchAnchored(
        number=event.number, merkle_root="0x" + event.merkle_root.hex(), reference=log.transaction_hash
    )


def _online(event: operator_stake_rewards.NodeOnline, _log: Log, _at: int) -> ChainFact:
    return chain_facts.NodeWentOnline(node_id=event.node_id)


def _offline(event: operator_stake_rewards.NodeOffline, _log: Log, _at: int) -> ChainFact:
    return chain_facts.NodeWentOffline(node_id=event.node_id)


def _voided(event: operator_stake_rewards.SlotsVoided, _log: Log, _at: int) -> ChainFact:
    return chain_facts.SlotsVoided(node_id=event.node_id, slots=event.slots)


def _reported(event: operator_stake_rewards.LivenessReported, _log: Log, at: int) -> ChainFact:
    return chain_facts.LivenessReported(batch=event.batch, at=at)


_FACTS: dict[type[Event], Callable[[Any, Log, int], ChainFact]] = {
    node_registry_locker.NodeRegistered: _staked,
    node_registry_locker.UnstakeRequested: _unstaking,
    node_registry_locker.StakeWithdrawn: _node_withdrawn,
    credit_vault.Deposited: _deposited,
    credit_vault.WithdrawalRequested: _asked,
    credit_vault.WithdrawalCancelled: _taken_back,
    credit_vault.Withdrawn: _withdrawn,
    credit_vault.DailyLimitSet: _limit_set,
    credit_vault.SpendSettled: _settled,
    execution_anchor.BatchAnchored: _anchored,
    operator_stake_rewards.NodeOnline: _online,
    operator_stake_rewards.NodeOffline: _offline,
    operator_stake_rewards.SlotsVoided: _voided,
    operator_stake_rewards.LivenessReported: _reported,
}
