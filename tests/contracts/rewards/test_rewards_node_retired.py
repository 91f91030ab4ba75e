from __future__ import annotations

import pytest
from rewards_stage import WEIGHT, Stage, bootstrap_wei, pass_time, stranger


def test_a_node_whose_owner_wants_the_stake_back_earns_nothing_from_that_block_on(streaming: Stage, node: int) -> None:
    pass_time(1_000)
    streaming.retire(node)
    retired = [log for log in streaming.network.locker.get_logs() if log.address == streaming.rewards.address]
    assert [(type(log).__name__, log.nodeId, log.totalWeight) for log in retired[2:]] == [("NodeOffline", node, 0)]
    assert tuple(streaming.rewards.node(node)) == (WEIGHT, 0, False, False, True)
    pass_time(1_000)
    streaming.report()
    assert streaming.earned(node) == bootstrap_wei(1_000)


def test_the_others_share_what_it_would_have_earned(streaming: Stage, pair: tuple[int, int]) -> None:
    first, second = pair
    pass_time(1_000)
    streaming.retire(first)
    pass_time(1_000)
    assert streaming.earned(first) == bootstrap_wei(1_000) // 2
    assert streaming.earned(second) == bootstrap_wei(2_000) - bootstrap_wei(1_000) // 2 - bootstrap_wei(1_000) % 2


def test_a_node_that_was_never_reported_is_only_marked(stage: Stage) -> None:
    node_id = stage.stake()
    stage.retire(node_id)
    assert [log for log in stage.network.locker.get_logs() if log.address == stage.rewards.address] == []
    assert tuple(stage.rewards.node(node_id)) == (0, 0, False, False, True)


def test_it_is_told_while_paused(streaming: Stage, node: int) -> None:
    streaming.rewards.pause(sender=streaming.guardian)
    streaming.retire(node)
    assert (streaming.rewards.totalWeight(), streaming.rewards.node(node)[4]) == (0, True)


def test_being_told_twice_changes_nothing(streaming: Stage, node: int) -> None:
    streaming.retire(node)
    before = streaming.everything()
    streaming.rewards.nodeRetired(node, sender=streaming.network.locker.address)
    assert streaming.everything() == before


@pytest.mark.parametrize("role", ["owner", "guardian", "liveness", "deployer"])
def test_nobody_but_the_locker_may_tell(streaming: Stage, node: int, role: str) -> None:
    with streaming.refused("rewards: caller is not the locker"):
        streaming.rewards.nodeRetired(node, sender=getattr(streaming.network.roles, role))


def test_neither_the_owner_of_the_node_nor_a_stranger_may(streaming: Stage, node: int) -> None:
    for caller in (streaming.owner_of(node), stranger()):
        with streaming.refused("rewards: caller is not the locker"):
            streaming.rewards.nodeRetired(node, sender=caller)
