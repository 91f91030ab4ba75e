"""Corrections go forward only: what was earned stays, and voided slots are taken from the time to come."""

from __future__ import annotations

import pytest
from rewards_stage import SLOT_SECONDS, WEIGHT, Stage, bootstrap_wei, now, pass_time, stranger


def test_voided_slots_stop_a_node_from_earning_for_ten_seconds_each(streaming: Stage, node: int) -> None:
    pass_time(1_000)
    streaming.report((node, True, 3))
    assert streaming.events()[2:] == [
        ("SlotsVoided", {"nodeId": node, "slots": 3, "voidUntil": now() + 30}),
        ("NodeOffline", {"nodeId": node, "totalWeight": 0}),
        ("LivenessReported", {"batch": 0, "changes": 1, "totalWeight": 0}),
    ]
    assert tuple(streaming.rewards.node(node)) == (WEIGHT, now() + 30, True, False, False)
    assert streaming.earned(node) == bootstrap_wei(1_000)
    pass_time(29)
    streaming.rewards.sync(node, sender=stranger())
    assert (streaming.rewards.weightOf(node), streaming.earned(node)) == (0, bootstrap_wei(1_000))
    pass_time(1)
    streaming.rewards.sync(node, sender=stranger())
    assert streaming.logged("NodeOnline") == [{"nodeId": node, "weight": WEIGHT, "totalWeight": WEIGHT}]
    pass_time(500)
    assert streaming.earned(node) == bootstrap_wei(1_500)


def test_the_weight_returns_with_a_report_too(streaming: Stage, node: int) -> None:
    streaming.report((node, True, 1))
    pass_time(SLOT_SECONDS)
    streaming.report((node, True, 0))
    assert streaming.rewards.weightOf(node) == WEIGHT


def test_it_does_not_return_by_itself(streaming: Stage, node: int) -> None:
    streaming.report((node, True, 1))
    pass_time(1_000)
    streaming.report()
    assert (streaming.rewards.weightOf(node), streaming.earned(node)) == (0, 0)


def test_voided_slots_follow_those_that_are_not_over(streaming: Stage, node: int) -> None:
    streaming.report((node, True, 2), (node, True, 3))
    assert streaming.logged("SlotsVoided")[-1]["voidUntil"] == now() + 50
    pass_time(20)
    streaming.report((node, True, 1))
    assert streaming.rewards.node(node)[1] == now() + 40
    pass_time(1_000)
    streaming.report((node, True, 1))
    assert streaming.rewards.node(node)[1] == now() + 10


def test_a_whole_day_may_be_voided(streaming: Stage, node: int) -> None:
    streaming.report((node, True, 8_640))
    assert streaming.rewards.node(node)[1] == now() + 86_400


def test_no_report_voids_more_than_a_day_ahead_however_often_it_names_a_node(streaming: Stage, node: int) -> None:
    """Or else what a stolen key reported would outlive the key."""
    streaming.report(*[(node, True, 8_640)] * 5)
    assert streaming.rewards.node(node)[1] == now() + 86_400
    pass_time(1_000)
    streaming.report((node, True, 1))
    assert streaming.rewards.node(node)[1] == now() + 86_400 - 990
    pass_time(86_400 - 990)
    streaming.report((node, True, 0))
    assert streaming.rewards.weightOf(node) == WEIGHT


def test_slots_of_a_node_that_is_offline_count_from_the_report_as_well(streaming: Stage, node: int) -> None:
    streaming.report((node, False, 3))
    pass_time(10)
    streaming.report((node, True, 0))
    assert streaming.rewards.weightOf(node) == 0
    pass_time(20)
    streaming.report((node, True, 0))
    assert streaming.rewards.weightOf(node) == WEIGHT


def test_a_new_node_can_begin_with_voided_slots(streaming: Stage) -> None:
    node_id = streaming.stake()
    streaming.report((node_id, True, 1))
    assert [name for name, _ in streaming.events()] == ["SlotsVoided", "LivenessReported"]
    assert tuple(streaming.rewards.node(node_id)) == (WEIGHT, now() + 10, True, False, False)


@pytest.mark.parametrize("retire_first", [False, True])
def test_a_retired_node_stays_so_when_its_voided_slots_are_over(
    streaming: Stage, node: int, retire_first: bool
) -> None:
    if retire_first:
        streaming.retire(node)
    streaming.report((node, True, 1))
    if not retire_first:
        streaming.retire(node)
    pass_time(SLOT_SECONDS)
    streaming.rewards.sync(node, sender=stranger())
    assert tuple(streaming.rewards.node(node)) == (WEIGHT, now(), False, False, True)
