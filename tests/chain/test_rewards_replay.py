"""How what a checkpoint paid is shared out to the days before and after midnight, by events made by hand."""

from __future__ import annotations

import pytest

from parallelix.chain.abi import Event
from parallelix.chain.bindings.operator_stake_rewards import (
    LivenessReported,
    NodeOffline,
    NodeOnline,
    Paused,
    RewardsClaimed,
    RewardsDistributed,
    RewardsFunded,
)
from parallelix.chain.errors import BadResult
from parallelix.chain.rewards_replay import DAY_SECONDS, INDEX_SCALE, NodeDay, Replay, Terms

HOUR = 3_600
DAY = 20_000
MIDNIGHT = (DAY + 1) * DAY_SECONDS
TEN_A_SECOND = Terms(bootstrap_wei=10 * DAY_SECONDS, bootstrap_seconds=DAY_SECONDS, stale_seconds=6 * HOUR)
BOOTSTRAP, INCOME = 1, 2
WEIGHT = 1_000


class Contract:
    """Its events, with the totals that they carry."""

    def __init__(self) -> None:
        self.replay = Replay(TEN_A_SECOND)
        self.blocks = self.held = self.paid = self.weight = 0

    def block(self, time: int, *events: Event) -> None:
        self.blocks += 1
        self.replay.block(self.blocks, time, events)

    def funded(self, source: int, amount: int) -> Event:
        self.held += amount
        return RewardsFunded(source=source, amount=amount, total_held=self.held)

    def distributed(self, *, bootstrap: int = 0, income: int = 0) -> Event:
        self.paid += (bootstrap + income) * INDEX_SCALE // self.weight
        return RewardsDistributed(bootstrap=bootstrap, income=income, index=self.paid)

    def online(self, node_id: int, weight: int = WEIGHT) -> Event:
        self.weight += weight
        return NodeOnline(node_id=node_id, weight=weight, total_weight=self.weight)

    def offline(self, node_id: int, weight: int = WEIGHT) -> Event:
        self.weight -= weight
        return NodeOffline(node_id=node_id, total_weight=self.weight)

    def reported(self) -> Event:
        return LivenessReported(batch=0, changes=1, total_weight=self.weight)

    def claimed(self, node_id: int, amount: int) -> Event:
        self.held -= amount
        return RewardsClaimed(node_id=node_id, owner="0x", amount=amount, total_held=self.held)

    def days(self, node_id: int = 1) -> list[NodeDay]:
        self.replay.finish()
        return [row for row in self.replay.node_days if row.node_id == node_id]


@pytest.fixture
def contract() -> Contract:
    return Contract()


def test_the_bootstrap_of_a_stretch_over_midnight_is_shared_out_by_its_seconds(contract: Contract) -> None:
    contract.block(MIDNIGHT - HOUR, contract.funded(BOOTSTRAP, 10**6), contract.online(1), contract.reported())
    contract.block(MIDNIGHT + 2 * HOUR, contract.distributed(bootstrap=30 * HOUR), contract.reported())
    before, after = contract.days()
    assert (before.day, before.earned_wei, before.paid_seconds) == (DAY, 10 * HOUR, HOUR)
    assert (after.day, after.earned_wei, after.paid_seconds) == (DAY + 1, 20 * HOUR, 2 * HOUR)


def test_income_of_a_day_belongs_to_the_seconds_after_its_midnight(contract: Contract) -> None:
    contract.block(
        MIDNIGHT - 2 * HOUR, contract.funded(INCOME, 3 * DAY_SECONDS), contract.online(1), contract.reported()
    )
    contract.block(MIDNIGHT + 2 * HOUR, contract.distributed(income=6 * HOUR), contract.reported())
    before, after = contract.days()
    assert (before.earned_wei, after.earned_wei) == (0, 6 * HOUR)
    assert (before.paid_seconds, after.paid_seconds) == (2 * HOUR, 2 * HOUR)


def test_one_bucket_follows_the_other_within_a_stretch_and_midnight_finds_the_one_that_runs(contract: Contract) -> None:
    contract.block(MIDNIGHT - 30 * HOUR, contract.funded(INCOME, 3 * DAY_SECONDS))
    contract.block(MIDNIGHT - 20 * HOUR, contract.funded(INCOME, 5 * DAY_SECONDS))
    contract.block(MIDNIGHT - 3 * HOUR, contract.online(1), contract.reported())
    for hours in (3, 9, 15):
        contract.block(MIDNIGHT + hours * HOUR, contract.distributed(income=6 * 3 * HOUR), contract.reported())
    contract.block(MIDNIGHT + 20 * HOUR, contract.distributed(income=5 * 3 * HOUR), contract.reported())
    # The first bucket has an hour left; the second one runs for three hours before midnight, and for one after it.
    contract.block(MIDNIGHT + 25 * HOUR, contract.distributed(income=(3 + 4 * 5) * HOUR), contract.reported())
    assert [row.earned_wei for row in contract.days()] == [3 * 3 * HOUR, (21 * 3 + 3 * 5) * HOUR, 5 * HOUR]


def test_where_a_checkpoint_left_no_event_the_stretch_is_paid_evenly(contract: Contract) -> None:
    contract.block(MIDNIGHT - 2 * HOUR, contract.online(1), contract.reported())
    # Somebody called `pull` an hour later, when there was nothing to pay.
    contract.block(MIDNIGHT + 2 * HOUR, contract.funded(BOOTSTRAP, 10**6), contract.distributed(bootstrap=30 * HOUR))
    before, after = contract.days()
    assert (before.earned_wei, after.earned_wei) == (15 * HOUR, 15 * HOUR)


def test_days_without_a_report_are_online_and_unpaid(contract: Contract) -> None:
    contract.block(MIDNIGHT - HOUR, contract.funded(BOOTSTRAP, 10**7), contract.online(1), contract.reported())
    contract.block(MIDNIGHT + 2 * DAY_SECONDS + HOUR, contract.distributed(bootstrap=60 * HOUR), contract.reported())
    rows = contract.days()
    assert [row.earned_wei for row in rows] == [10 * HOUR, 50 * HOUR, 0, 0]
    assert [row.paid_seconds for row in rows] == [HOUR, 5 * HOUR, 0, 0]
    assert [row.online_seconds for row in rows] == [HOUR, DAY_SECONDS, DAY_SECONDS, HOUR]
    assert [paid.lag_seconds for paid in contract.replay.pool_days] == [
        HOUR,
        HOUR + DAY_SECONDS,
        HOUR + 2 * DAY_SECONDS,
        2 * HOUR + 2 * DAY_SECONDS,
    ]


def test_a_pause_stops_payment_until_the_next_report(contract: Contract) -> None:
    contract.block(MIDNIGHT, contract.funded(BOOTSTRAP, 10**7), contract.online(1), contract.reported())
    contract.block(MIDNIGHT + HOUR, contract.distributed(bootstrap=10 * HOUR), Paused(account="0x"))
    contract.block(MIDNIGHT + 3 * HOUR, contract.reported())
    contract.block(MIDNIGHT + 4 * HOUR, contract.distributed(bootstrap=10 * HOUR), contract.reported())
    (row,) = contract.days()
    assert (row.online_seconds, row.paid_seconds, row.earned_wei) == (4 * HOUR, 2 * HOUR, 20 * HOUR)


def test_two_nodes_share_by_weight_and_only_while_both_are_there(contract: Contract) -> None:
    contract.block(MIDNIGHT, contract.funded(BOOTSTRAP, 10**7), contract.online(1), contract.reported())
    contract.block(
        MIDNIGHT + HOUR, contract.distributed(bootstrap=10 * HOUR), contract.online(2, 3 * WEIGHT), contract.reported()
    )
    contract.block(
        MIDNIGHT + 2 * HOUR, contract.distributed(bootstrap=10 * HOUR), contract.offline(1), contract.reported()
    )
    contract.block(MIDNIGHT + 3 * HOUR, contract.distributed(bootstrap=10 * HOUR), contract.claimed(2, 63_000))
    (first,), (second,) = contract.days(1), contract.days(2)[:1]
    assert (first.earned_wei, second.earned_wei) == (45_000, 63_000)
    (paid,) = {paid.weight_seconds for paid in contract.replay.pool_days if paid.paid_seconds}
    assert (first.weight_seconds, second.weight_seconds) == (2 * HOUR * WEIGHT, 2 * HOUR * 3 * WEIGHT)
    assert paid == first.weight_seconds + second.weight_seconds
    assert (second.claimed_wei, second.unclaimed_wei) == (63_000, 0)


def test_a_payment_for_a_time_in_which_nobody_earned_is_no_events_of_the_contract(contract: Contract) -> None:
    contract.block(MIDNIGHT, contract.funded(BOOTSTRAP, 10**7), contract.online(1))
    with pytest.raises(BadResult, match="in which nobody earned"):
        contract.block(MIDNIGHT + HOUR, contract.distributed(bootstrap=10 * HOUR))


def test_before_anything_happened_there_are_no_days() -> None:
    replay = Replay(TEN_A_SECOND)
    replay.finish()
    assert (replay.node_days, replay.pool_days, replay.totals()) == ([], [], [])
