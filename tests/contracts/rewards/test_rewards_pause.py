from __future__ import annotations

import pytest
from rewards_stage import DAY_SECONDS, PRLX, Stage, bootstrap_wei, go_to_midnight, pass_time, stranger


@pytest.mark.parametrize("role", ["guardian", "owner"])
def test_the_guardian_or_the_owner_pauses(stage: Stage, role: str) -> None:
    account = getattr(stage.network.roles, role)
    stage.rewards.pause(sender=account)
    assert stage.events() == [("Paused", {"account": account})]
    assert (stage.rewards.paused(), stage.rewards.isFresh()) == (True, False)


@pytest.mark.parametrize("role", ["liveness", "validator", "settler", "deployer"])
def test_nobody_else_does(stage: Stage, role: str) -> None:
    with stage.refused("rewards: caller is not the guardian"):
        stage.rewards.pause(sender=getattr(stage.network.roles, role))


def test_a_second_pause_is_refused(stage: Stage) -> None:
    stage.rewards.pause(sender=stage.guardian)
    with stage.refused("rewards: already paused"):
        stage.rewards.pause(sender=stage.owner)


def test_accrual_stops_with_the_block_of_the_pause(streaming: Stage, node: int) -> None:
    pass_time(1_000)
    streaming.rewards.pause(sender=streaming.guardian)
    assert streaming.earned(node) == bootstrap_wei(1_000)
    pass_time(1_000)
    streaming.pull()
    assert streaming.earned(node) == bootstrap_wei(1_000)
    assert streaming.rewards.ratePerSecond() == 0


def test_it_goes_on_with_the_first_report_after_the_pause_and_not_before(streaming: Stage, node: int) -> None:
    streaming.rewards.pause(sender=streaming.guardian)
    pass_time(1_000)
    streaming.rewards.unpause(sender=streaming.owner)
    assert streaming.events()[-1] == ("Unpaused", {"account": streaming.owner})
    pass_time(1_000)
    assert streaming.earned(node) == 0
    streaming.report()
    assert streaming.earned(node) == 0
    pass_time(1_000)
    assert streaming.earned(node) == bootstrap_wei(1_000)


def test_a_pause_lengthens_the_tail(stage: Stage, paid_by_income: int) -> None:
    pass_time(1_000)
    stage.rewards.pause(sender=stage.guardian)
    pass_time(10 * DAY_SECONDS)
    stage.rewards.unpause(sender=stage.owner)
    stage.report()
    stage.active(DAY_SECONDS - 1_000)
    assert stage.earned(paid_by_income) == 86_400 * PRLX


def test_while_paused_anybody_still_pulls_and_syncs_and_income_is_booked(streaming: Stage, node: int) -> None:
    go_to_midnight()
    streaming.rewards.pause(sender=streaming.guardian)
    streaming.fund(5 * PRLX)
    streaming.pull()
    streaming.rewards.sync(node, sender=stranger())
    assert streaming.rewards.held() == streaming.token.balanceOf(streaming.rewards.address)
    assert streaming.rewards.weightOf(node) > 0


@pytest.mark.parametrize("role", ["guardian", "liveness", "deployer"])
def test_only_the_owner_ends_a_pause(stage: Stage, role: str) -> None:
    stage.rewards.pause(sender=stage.guardian)
    with stage.refused("ownable: caller is not the owner"):
        stage.rewards.unpause(sender=getattr(stage.network.roles, role))


def test_ending_a_pause_that_is_none_is_refused(stage: Stage) -> None:
    with stage.refused("rewards: not paused"):
        stage.rewards.unpause(sender=stage.owner)
