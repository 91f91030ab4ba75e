from __future__ import annotations

import hashlib

import boa
import pytest
from rewards_stage import BATCH_0, STAKE_WEI, WEIGHT, Stage, bootstrap_wei, now, pass_time, stranger

ROOT_1, ROOT_2 = (hashlib.sha256(name).digest() for name in (b"root 1", b"root 2"))


@pytest.fixture
def anchored(stage: Stage) -> Stage:
    """Batches 1 and 2 of one record each are anchored."""
    anchor, validator = stage.network.anchor, stage.network.roles.validator
    anchor.commitSampling(0, hashlib.sha256(b"secret").digest(), sender=validator)
    head = bytes(32)
    for sequence, root in enumerate((ROOT_1, ROOT_2)):
        next_head = hashlib.sha256(root).digest()
        anchor.anchorBatch(head, next_head, sequence, sequence, root, 1, 0, sender=validator)
        head = next_head
    return stage


def test_a_node_comes_online(stage: Stage) -> None:
    node_id = stage.stake()
    stage.report((node_id, True, 0))
    assert stage.events() == [
        ("NodeOnline", {"nodeId": node_id, "weight": WEIGHT, "totalWeight": WEIGHT}),
        ("LivenessReported", {"batch": 0, "changes": 1, "totalWeight": WEIGHT}),
    ]
    assert tuple(stage.rewards.node(node_id)) == (WEIGHT, 0, True, True, False)
    assert (stage.rewards.weightOf(node_id), stage.rewards.totalWeight()) == (WEIGHT, WEIGHT)
    assert (stage.rewards.lastReportAt(), stage.rewards.isFresh()) == (now(), True)


def test_a_node_goes_offline_and_earns_nothing_from_that_block_on(streaming: Stage, node: int) -> None:
    pass_time(1_000)
    streaming.report((node, False, 0))
    assert streaming.events()[2:] == [
        ("NodeOffline", {"nodeId": node, "totalWeight": 0}),
        ("LivenessReported", {"batch": 0, "changes": 1, "totalWeight": 0}),
    ]
    assert tuple(streaming.rewards.node(node)) == (WEIGHT, 0, False, False, False)
    assert streaming.rewards.weightOf(node) == 0
    pass_time(1_000)
    streaming.report()
    assert streaming.earned(node) == bootstrap_wei(1_000)


@pytest.mark.parametrize(("tier", "tenths"), [(1, 10), (2, 20), (3, 25), (4, 30)])
def test_a_node_weighs_its_stake_times_the_multiplier_of_its_tier(stage: Stage, tier: int, tenths: int) -> None:
    node_id = stage.stake(stake_wei=3 * STAKE_WEI + 1, tier=tier)
    stage.online(node_id)
    assert stage.rewards.weightOf(node_id) == (3 * STAKE_WEI + 1) * tenths


def test_a_first_report_of_a_node_that_is_offline_learns_its_weight(stage: Stage) -> None:
    node_id = stage.stake()
    stage.offline(node_id)
    assert [name for name, _ in stage.events()] == ["LivenessReported"]
    assert tuple(stage.rewards.node(node_id)) == (WEIGHT, 0, False, False, False)


def test_changes_are_applied_in_order_and_may_repeat(stage: Stage) -> None:
    first, second = stage.stake("first"), stage.stake("second")
    stage.report((first, True, 0), (second, True, 0), (first, False, 0), (first, False, 0), (second, True, 0))
    assert stage.events() == [
        ("NodeOnline", {"nodeId": first, "weight": WEIGHT, "totalWeight": WEIGHT}),
        ("NodeOnline", {"nodeId": second, "weight": WEIGHT, "totalWeight": 2 * WEIGHT}),
        ("NodeOffline", {"nodeId": first, "totalWeight": WEIGHT}),
        ("LivenessReported", {"batch": 0, "changes": 5, "totalWeight": WEIGHT}),
    ]


def test_an_empty_report_keeps_nodes_earning(streaming: Stage, node: int) -> None:
    pass_time(20_000)
    streaming.report()
    assert streaming.logged("LivenessReported") == [{"batch": 0, "changes": 0, "totalWeight": WEIGHT}]
    pass_time(20_000)
    assert streaming.earned(node) == bootstrap_wei(40_000)


def test_reports_name_newer_batches_or_the_same_one_again(anchored: Stage) -> None:
    for batch in (BATCH_0, (1, ROOT_1), (1, ROOT_1), (2, ROOT_2)):
        anchored.report(batch=batch)
        assert anchored.rewards.lastReportedBatch() == batch[0]


def test_a_report_that_names_an_older_batch_is_refused(anchored: Stage) -> None:
    anchored.report(batch=(2, ROOT_2))
    with anchored.refused("rewards: batch is older than the last one reported"):
        anchored.report(batch=(1, ROOT_1))


@pytest.mark.parametrize("batch", [(3, ROOT_2), (2, ROOT_1), (0, bytes(32)), (3, bytes(32)), (2**256 - 1, ROOT_2)])
def test_a_batch_that_was_not_anchored_or_has_another_root_is_refused(
    anchored: Stage, batch: tuple[int, bytes]
) -> None:
    node_id = anchored.stake()
    with anchored.refused("rewards: batch is not anchored"):
        anchored.report((node_id, True, 0), batch=batch)


@pytest.mark.parametrize("role", ["owner", "guardian", "validator", "settler", "deployer"])
def test_nobody_but_the_reporter_may(stage: Stage, role: str) -> None:
    node_id = stage.stake()
    with stage.refused("rewards: caller is not the liveness reporter"):
        stage.rewards.reportLiveness(*BATCH_0, [(node_id, True, 0)], sender=getattr(stage.network.roles, role))


def test_a_stranger_may_not(stage: Stage) -> None:
    with stage.refused("rewards: caller is not the liveness reporter"):
        stage.rewards.reportLiveness(*BATCH_0, [], sender=stranger())


@pytest.mark.parametrize("node_id", [0, 2, 2**256 - 1])
@pytest.mark.parametrize("online", [False, True])
def test_a_node_that_never_was_is_refused_with_all_the_others(stage: Stage, node_id: int, online: bool) -> None:
    known = stage.stake()
    with stage.refused("rewards: no such node"):
        stage.report((known, True, 0), (node_id, online, 0))


def test_while_paused_reports_are_refused(stage: Stage) -> None:
    stage.rewards.pause(sender=stage.guardian)
    with stage.refused("rewards: liveness is paused"):
        stage.report()


@pytest.mark.parametrize("slots", [8_641, 2**256 - 1])
def test_more_voided_slots_than_a_day_has_are_refused(stage: Stage, slots: int) -> None:
    node_id = stage.stake()
    with stage.refused("rewards: too many voided slots"):
        stage.report((node_id, True, slots))


def test_a_node_that_is_cooling_down_counts_as_offline(streaming: Stage, node: int) -> None:
    streaming.retire(node)
    streaming.report((node, True, 0))
    assert [name for name, _ in streaming.events()] == ["LivenessReported"]
    assert tuple(streaming.rewards.node(node)) == (WEIGHT, 0, False, False, True)


def test_a_node_whose_stake_was_withdrawn_counts_as_offline(streaming: Stage, node: int) -> None:
    streaming.retire(node)
    pass_time(604_800)
    streaming.network.locker.withdrawStake(node, sender=streaming.owner_of(node))
    streaming.report((node, True, 0))
    assert tuple(streaming.rewards.node(node)) == (WEIGHT, 0, False, False, True)


def test_a_node_that_retired_before_its_first_report_never_weighs_anything(stage: Stage) -> None:
    node_id = stage.stake()
    stage.retire(node_id)
    stage.report((node_id, True, 0))
    assert tuple(stage.rewards.node(node_id)) == (0, 0, False, False, True)


def test_500_changes_fit_in_one_report(stage: Stage) -> None:
    node_ids = [stage.stake() for _ in range(50)]
    stage.report(*((node_id, turn % 2 == 0, 0) for turn in range(10) for node_id in node_ids))
    assert stage.logged("LivenessReported") == [{"batch": 0, "changes": 500, "totalWeight": 0}]


@pytest.mark.parametrize(("count", "taken"), [(500, True), (501, False)])
def test_501_changes_do_not(stage: Stage, count: int, taken: bool) -> None:
    node_id = stage.stake()
    before = stage.everything()
    report = stage.rewards.reportLiveness.prepare_calldata(*BATCH_0, [(node_id, True, 0)])
    call = boa.env.execute_code(
        to_address=stage.rewards.address, sender=stage.liveness, data=with_its_change_repeated(report, count)
    )
    assert call.is_error is not taken
    assert (stage.everything() != before) is taken


def with_its_change_repeated(report: bytes, count: int) -> bytes:
    """The calldata ends with the number of changes, 1, and the one change of three words."""
    words, change = report[: -4 * 32], report[-3 * 32 :]
    return words + count.to_bytes(32, "big") + change * count
