from __future__ import annotations

from typing import Any

import boa
import pytest
from rewards_stage import (
    BOOTSTRAP_SOURCE,
    INCOME_SOURCE,
    PRLX,
    STAKE_WEI,
    WEIGHT,
    Stage,
    bootstrap_wei,
    pass_time,
    stranger,
)


def test_a_claim_pays_the_owner_what_was_earned(streaming: Stage, node: int) -> None:
    pass_time(1_000)
    held_wei = bootstrap_wei(3_600) - bootstrap_wei(1_000)
    assert streaming.rewards.claim(node, sender=streaming.owner_of(node)) == bootstrap_wei(1_000)
    assert streaming.logged("RewardsClaimed") == [
        {"nodeId": node, "owner": streaming.owner_of(node), "amount": bootstrap_wei(1_000), "totalHeld": held_wei}
    ]
    assert streaming.token.balanceOf(streaming.owner_of(node)) == bootstrap_wei(1_000)
    assert streaming.rewards.held() == streaming.token.balanceOf(streaming.rewards.address) == held_wei
    assert streaming.earned(node) == 0


@pytest.mark.parametrize("seconds", [1, 7, 1_000, 21_600, 30_000])
def test_it_is_what_earned_said_in_the_same_block_to_the_wei(streaming: Stage, seconds: int) -> None:
    pass_time(3_600)
    node_ids = [streaming.stake(stake_wei=STAKE_WEI + 7 * number, tier=number) for number in (1, 2, 3, 4)]
    streaming.online(*node_ids)
    pass_time(seconds)
    said_wei = [streaming.earned(node_id) for node_id in node_ids]
    assert [streaming.claim(node_id) for node_id in node_ids] == said_wei
    assert [streaming.earned(node_id) for node_id in node_ids] == [0] * 4


def test_anybody_may_ask_and_the_owner_is_paid(streaming: Stage, node: int) -> None:
    pass_time(1_000)
    streaming.rewards.claim(node, sender=stranger())
    assert streaming.token.balanceOf(streaming.owner_of(node)) == bootstrap_wei(1_000)
    assert streaming.token.balanceOf(stranger()) == 0


def test_the_owner_is_paid_also_after_the_stake_was_withdrawn(streaming: Stage, node: int) -> None:
    pass_time(1_000)
    streaming.retire(node)
    pass_time(604_800)
    owner = streaming.owner_of(node)
    streaming.network.locker.withdrawStake(node, sender=owner)
    assert streaming.claim(node) == bootstrap_wei(1_000)
    assert streaming.token.balanceOf(owner) == STAKE_WEI + bootstrap_wei(1_000)


def test_it_goes_on_while_paused(streaming: Stage, node: int) -> None:
    pass_time(1_000)
    streaming.rewards.pause(sender=streaming.guardian)
    assert streaming.claim(node) == bootstrap_wei(1_000)


def test_it_goes_on_while_reports_are_stale(streaming: Stage, node: int) -> None:
    pass_time(1_000_000)
    assert streaming.claim(node) == bootstrap_wei(21_600)


def test_claiming_often_pays_what_claiming_once_does(streaming: Stage, pair: tuple[int, int]) -> None:
    often, once = pair
    paid_wei = 0
    for _ in range(20):
        pass_time(13)
        paid_wei += streaming.claim(often)
    assert 0 <= streaming.claim(once) - paid_wei <= 1
    assert streaming.earned(often) == 0


def test_nothing_earned_is_refused(streaming: Stage, node: int) -> None:
    with streaming.refused("rewards: nothing earned"):
        streaming.claim(node)


def test_nothing_earned_since_the_last_claim_is_refused(streaming: Stage, node: int) -> None:
    pass_time(1_000)
    streaming.claim(node)
    with streaming.refused("rewards: nothing earned"):
        streaming.claim(node)


def test_a_node_without_a_report_has_earned_nothing(streaming: Stage) -> None:
    node_id = streaming.stake()
    pass_time(1_000)
    with streaming.refused("rewards: nothing earned"):
        streaming.claim(node_id)


@pytest.mark.parametrize("node_id", [0, 1, 2**256 - 1])
def test_a_node_that_never_was_is_refused(stage: Stage, node_id: int) -> None:
    with stage.refused("rewards: no such node"):
        stage.claim(node_id)


def test_a_claim_takes_nothing_from_the_others(streaming: Stage, pair: tuple[int, int]) -> None:
    first, second = pair
    pass_time(1_000)
    before_wei = streaming.earned(second)
    streaming.claim(first)
    assert streaming.earned(second) == before_wei


def test_no_claim_is_taxed(streaming: Stage, node: int) -> None:
    owner: Any = streaming.owner_of(node)
    assert not streaming.token.isExempt(owner)
    pass_time(1_000)
    taxed_before_wei = streaming.token.balanceOf(streaming.token.taxRecipient())
    assert streaming.claim(node) == streaming.token.balanceOf(owner)
    assert streaming.token.balanceOf(streaming.token.taxRecipient()) == taxed_before_wei
    assert boa.env.get_balance(owner) == 0


# --- when a claim collects ---


def test_a_claim_that_the_pool_can_pay_leaves_the_stream_and_what_arrived_for_the_next_call(
    streaming: Stage, node: int
) -> None:
    pass_time(1_000)
    streaming.fund(PRLX)
    streaming.claim(node)
    assert [name for name, _ in streaming.events()] == ["RewardsDistributed", "RewardsClaimed"]
    assert streaming.rewards.held() == bootstrap_wei(3_600) - bootstrap_wei(1_000)
    streaming.pull()
    assert streaming.funded() == {
        BOOTSTRAP_SOURCE: bootstrap_wei(4_600) - bootstrap_wei(3_600),
        INCOME_SOURCE: PRLX,
    }


@pytest.fixture
def unbuffered(streaming: Stage) -> int:
    """A node online since the first second of the stream: the pool never holds anything beforehand."""
    node_id = streaming.stake()
    streaming.online(node_id)
    return node_id


def test_a_claim_of_more_than_the_pool_holds_collects_first(streaming: Stage, unbuffered: int) -> None:
    pass_time(1_000)
    streaming.fund(PRLX)
    said_wei = streaming.earned(unbuffered)
    assert streaming.claim(unbuffered) == said_wei == bootstrap_wei(1_000)
    assert streaming.funded() == {BOOTSTRAP_SOURCE: bootstrap_wei(1_000), INCOME_SOURCE: PRLX}


@pytest.mark.parametrize(("past_seconds", "collects"), [(-1, False), (0, True), (1, True)])
def test_it_collects_from_the_first_second_that_the_pool_cannot_pay(
    streaming: Stage, node: int, past_seconds: int, collects: bool
) -> None:
    """The pool holds the bootstrap of the hour before the node came, rounded down: part of a wei too little."""
    pass_time(3_600 + past_seconds)
    said_wei = streaming.earned(node)
    assert streaming.claim(node) == said_wei == bootstrap_wei(3_600 + past_seconds)
    assert (BOOTSTRAP_SOURCE in streaming.funded()) is collects


def test_without_a_stream_it_pays_what_income_brought(stage: Stage, paid_by_income: int) -> None:
    pass_time(1_000)
    said_wei = stage.earned(paid_by_income)
    assert stage.claim(paid_by_income) == said_wei == 1_000 * PRLX
    assert stage.rewards.held() == 85_400 * PRLX


def test_what_was_distributed_is_told_by_source_with_the_index(stage: Stage, paid_by_income: int) -> None:
    pass_time(1_000)
    stage.pull()
    assert stage.events() == [
        ("RewardsDistributed", {"bootstrap": 0, "income": 1_000 * PRLX, "index": 1_000 * PRLX * 10**36 // WEIGHT})
    ]
    stage.pull()
    assert stage.events() == []
    assert stage.rewards.index() == 1_000 * PRLX * 10**36 // WEIGHT
    assert stage.earned(paid_by_income) == 1_000 * PRLX
