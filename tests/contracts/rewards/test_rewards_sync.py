from __future__ import annotations

from typing import Any

import pytest
from network import deploy_rewards
from rewards_stage import WEIGHT, Stage, now, pass_time, stranger


def test_a_node_that_is_what_it_should_be_stays_so(streaming: Stage, node: int) -> None:
    pass_time(1_000)
    streaming.rewards.sync(node, sender=stranger())
    assert [name for name, _ in streaming.events()] == ["RewardsFunded", "RewardsDistributed"]
    assert tuple(streaming.rewards.node(node)) == (WEIGHT, 0, True, True, False)
    assert streaming.rewards.lastUpdateAt() == now()


def test_a_node_without_a_report_stays_offline(streaming: Stage) -> None:
    node_id = streaming.stake()
    streaming.rewards.sync(node_id, sender=stranger())
    assert tuple(streaming.rewards.node(node_id)) == (WEIGHT, 0, False, False, False)


@pytest.mark.parametrize("node_id", [0, 1, 2**256 - 1])
def test_a_node_that_never_was_is_refused(stage: Stage, node_id: int) -> None:
    with stage.refused("rewards: no such node"):
        stage.rewards.sync(node_id, sender=stranger())


def test_it_does_not_bring_back_what_reports_would(streaming: Stage, node: int) -> None:
    streaming.offline(node)
    streaming.rewards.sync(node, sender=stranger())
    assert streaming.rewards.weightOf(node) == 0


# --- a retirement that nobody told of ---


@pytest.fixture
def untold(stage: Stage) -> tuple[Any, int]:
    """Rewards of the same locker that it does not know of, with one node online: how a lost notice looks."""
    rewards = deploy_rewards(stage.token, stage.network.locker, stage.network.anchor, stage.network.roles)
    node_id = stage.stake()
    rewards.reportLiveness(0, rewards_root(stage), [(node_id, True, 0)], sender=stage.liveness)
    assert rewards.weightOf(node_id) == WEIGHT
    stage.retire(node_id)
    assert rewards.weightOf(node_id) == WEIGHT
    return rewards, node_id


def rewards_root(stage: Stage) -> bytes:
    return bytes(stage.network.anchor.rootOf(0))


def test_anybody_stops_a_node_whose_retirement_was_not_told(untold: tuple[Any, int]) -> None:
    rewards, node_id = untold
    rewards.sync(node_id, sender=stranger())
    assert [(type(log).__name__, log.totalWeight) for log in rewards.get_logs()] == [("NodeOffline", 0)]
    assert tuple(rewards.node(node_id)) == (WEIGHT, 0, False, False, True)


def test_so_does_the_next_report_of_it_whatever_it_says(stage: Stage, untold: tuple[Any, int]) -> None:
    rewards, node_id = untold
    rewards.reportLiveness(0, rewards_root(stage), [(node_id, True, 0)], sender=stage.liveness)
    assert tuple(rewards.node(node_id)) == (WEIGHT, 0, False, False, True)
