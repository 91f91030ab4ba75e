"""Each event that the watcher brings is one fact of the engine, with every value in its place."""

from __future__ import annotations

import msgspec
import pytest

from parallelix.chain.abi import Event, Happened, Log
from parallelix.chain.bindings import credit_vault as vault
from parallelix.chain.bindings import execution_anchor as anchor
from parallelix.chain.bindings import node_registry_locker as locker
from parallelix.chain.bindings import operator_stake_rewards as rewards
from parallelix.chain.errors import LogRefused
from parallelix.chain.ports import Block
from parallelix.chain.watcher import WATCHED, Span
from parallelix.coordinator.onchain import decoding
from parallelix.engine import chain_facts as facts
from parallelix.engine import events

ANN, BOB = "0x" + "11" * 20, "0x" + "22" * 20
HASH = "0x" + "ab" * 32
AT = 1_790_000_000
MEANINGS: list[tuple[Event, facts.ChainFact]] = [
    (
        locker.NodeRegistered(
            node_id=7, owner=ANN, node_key_hash=b"\x03" * 32, stake=5, hardware_tier=2, total_principal=9
        ),
        facts.NodeStaked(node_id=7, owner=ANN, stake_wei=5, hardware_tier=2, node_key_hash="0x" + "03" * 32),
    ),
    (
        locker.UnstakeRequested(node_id=7, owner=ANN, withdrawable_at=AT),
        facts.NodeUnstaking(node_id=7, withdrawable_at=AT),
    ),
    (locker.StakeWithdrawn(node_id=7, owner=ANN, amount=5, total_principal=4), facts.NodeWithdrawn(node_id=7)),
    (
        vault.Deposited(account=ANN, amount=3, deposit=8),
        facts.Deposited(event_id=f"{HASH}:4", account=ANN, amount_wei=3, deposit_wei=8),
    ),
    (
        vault.WithdrawalRequested(account=ANN, amount=3, available_at=AT),
        facts.WithdrawalAsked(account=ANN, amount_wei=3),
    ),
    (vault.WithdrawalCancelled(account=ANN), facts.WithdrawalTakenBack(account=ANN)),
    (
        vault.Withdrawn(account=ANN, amount=3, deposit=5, nonce=6, cleared=True),
        facts.Withdrawn(event_id=f"{HASH}:4", account=ANN, amount_wei=3, deposit_wei=5, nonce=6, cleared=True),
    ),
    (
        vault.DailyLimitSet(account=ANN, limit=3, effective_from=AT),
        facts.LimitSet(account=ANN, limit_wei=3, effective_from=AT),
    ),
    (
        vault.SpendSettled(account=ANN, amount=3, cumulative_settled=12, deposit=5),
        facts.SpendingSettled(event_id=f"{HASH}:4", account=ANN, amount_wei=3, cumulative_wei=12, deposit_wei=5),
    ),
    (
        anchor.BatchAnchored(
            number=2,
            previous_hash=b"\x01" * 32,
            head_hash=b"\x02" * 32,
            first=4,
            last=6,
            count=3,
            merkle_root=b"\x04" * 32,
            epoch=0,
        ),
        facts.BatchAnchored(number=2, merkle_root="0x" + "04" * 32, reference=HASH),
    ),
    (rewards.NodeOnline(node_id=7, weight=1, total_weight=2), facts.NodeWentOnline(node_id=7)),
    (rewards.NodeOffline(node_id=7, total_weight=2), facts.NodeWentOffline(node_id=7)),
    (rewards.SlotsVoided(node_id=7, slots=3, void_until=AT), facts.SlotsVoided(node_id=7, slots=3)),
    (rewards.LivenessReported(batch=2, changes=1, total_weight=2), facts.LivenessReported(batch=2, at=AT)),
]


def happened(event: Event) -> Happened:
    log = Log(address=ANN, topics=(), data=b"", block_number=9, transaction_hash=HASH, log_index=4)
    return Happened(event=event, log=log)


def test_every_watched_event_has_its_meaning_below() -> None:
    assert {type(event) for event, _ in MEANINGS} == {event for kinds in WATCHED.values() for event in kinds}


@pytest.mark.parametrize(("event", "fact"), MEANINGS, ids=lambda each: type(each).__name__)
def test_an_event_is_one_fact(event: Event, fact: facts.ChainFact) -> None:
    assert decoding.fact_of(happened(event), at=AT) == fact


def test_a_span_keeps_order_place_and_the_times_of_its_blocks() -> None:
    last = Block(number=12, hash=HASH, parent_hash="0x" + "cd" * 32, time=AT + 50)
    span = Span(first_block=8, last=last, happened=tuple(happened(event) for event, _ in MEANINGS), times={9: AT})

    assert decoding.chain_span(span) == events.ChainSpan(
        first_block=8, last_block=12, last_hash=HASH, last_time=AT + 50, facts=tuple(fact for _, fact in MEANINGS)
    )


@pytest.mark.parametrize(("field", "most"), [("node_id", 2**53 - 1), ("hardware_tier", 4)])
def test_a_number_that_no_contract_of_ours_could_come_to_is_refused(field: str, most: int) -> None:
    event, fact = MEANINGS[0]
    bound = msgspec.structs.replace(event, **{field: most})

    assert decoding.fact_of(happened(bound), at=AT) == msgspec.structs.replace(fact, **{field: most})
    with pytest.raises(LogRefused, match=f"log 4 of block 9: {field} {most + 1}, at most {most}"):
        decoding.fact_of(happened(msgspec.structs.replace(event, **{field: most + 1})), at=AT)


def test_of_requests_that_are_not_confirmed_the_largest_of_each_account_counts() -> None:
    asked = [(ANN, 5), (BOB, 2), (ANN, 9), (ANN, 1)]

    requests = [happened(vault.WithdrawalRequested(account=who, amount=wei, available_at=AT)) for who, wei in asked]
    assert decoding.chain_provisional(12, requests, time=AT) == events.ChainProvisional(
        block=12, time=AT, asked={ANN: 9, BOB: 2}
    )
    assert decoding.chain_provisional(12, [], time=AT) == events.ChainProvisional(block=12, time=AT, asked={})
