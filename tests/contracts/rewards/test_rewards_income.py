"""What arrives on one day is paid evenly over the next, or over the next 86,400 seconds in which somebody earns."""

from __future__ import annotations

import boa
from network import STALE_SECONDS, deploy_rewards
from rewards_stage import DAY_SECONDS, INCOME_SOURCE, PRLX, Stage, bootstrap_wei, go_to_midnight, pass_time

WEI_PER_SECOND = PRLX
"""What `paid_by_income` earns: 86,400 PRLX were booked the day before."""


def test_income_of_a_day_is_paid_evenly_over_the_next(stage: Stage, paid_by_income: int) -> None:
    for seconds in (1, 2, 3_599, 18_000 - 3_602):
        earned_before_wei = stage.earned(paid_by_income)
        pass_time(seconds)
        assert stage.earned(paid_by_income) - earned_before_wei == seconds * WEI_PER_SECOND
    assert stage.rewards.ratePerSecond() == WEI_PER_SECOND


def test_after_its_day_it_is_paid_to_the_last_wei(stage: Stage, paid_by_income: int) -> None:
    stage.active(DAY_SECONDS)
    assert stage.earned(paid_by_income) == 86_400 * PRLX
    assert (stage.rewards.undistributed(), stage.rewards.ratePerSecond()) == (0, 0)
    stage.active(DAY_SECONDS)
    assert stage.earned(paid_by_income) == 86_400 * PRLX


def test_an_amount_that_no_second_divides_is_paid_to_the_last_wei(stage: Stage) -> None:
    node_id = stage.stake()
    stage.fund(86_401)
    stage.pull()
    go_to_midnight()
    stage.online(node_id)
    for seconds in (1, 100, 86_400 - 101):
        stage.active(seconds)
    assert stage.earned(node_id) == 86_401


def test_nothing_of_it_is_paid_on_its_own_day(stage: Stage) -> None:
    go_to_midnight()
    node_id = stage.stake()
    stage.online(node_id)
    stage.fund(PRLX)
    stage.pull()
    assert stage.funded() == {INCOME_SOURCE: PRLX}
    stage.active(DAY_SECONDS - 1)
    assert stage.earned(node_id) == 0
    assert stage.rewards.undistributed() == PRLX


def test_all_income_of_one_day_is_one_rate_however_it_came(stage: Stage) -> None:
    go_to_midnight()
    node_id = stage.stake()
    for _ in range(4):
        stage.fund(21_600 * PRLX)
        stage.pull()
        pass_time(DAY_SECONDS // 8)
    go_to_midnight()
    stage.online(node_id)
    pass_time(1_000)
    assert stage.earned(node_id) == 1_000 * PRLX


def test_income_belongs_to_the_day_on_which_a_call_found_it(stage: Stage) -> None:
    node_id = stage.stake()
    go_to_midnight(seconds_before=1)
    stage.fund(86_400 * PRLX)
    pass_time(1)
    stage.online(node_id)
    assert stage.funded() == {INCOME_SOURCE: 86_400 * PRLX}
    pass_time(STALE_SECONDS)
    assert stage.earned(node_id) == 0


def test_no_transfer_needs_a_call_to_be_counted_in_the_end(stage: Stage, paid_by_income: int) -> None:
    stage.fund(PRLX)
    earned_wei = stage.earned(paid_by_income)
    pass_time(10)
    assert stage.earned(paid_by_income) == earned_wei + 10 * WEI_PER_SECOND
    assert stage.rewards.held() == 86_400 * PRLX
    stage.pull()
    assert stage.rewards.held() == 86_401 * PRLX


def test_a_taxed_transfer_is_booked_as_it_arrived(stage: Stage) -> None:
    """To rewards that are not exempt: those of the network are, and nothing on its way there is taxed."""
    network = stage.network
    taxed = deploy_rewards(network.token, network.locker, network.anchor, network.roles)
    payer = boa.env.generate_address("payer")
    network.token.transfer(payer, 100 * PRLX, sender=network.roles.deployer)
    network.token.transfer(taxed.address, 100 * PRLX, sender=payer)
    taxed.pull()
    assert taxed.held() == taxed.undistributed() == 96 * PRLX


def test_an_idle_stretch_lengthens_the_tail_of_income_too(stage: Stage, paid_by_income: int) -> None:
    pass_time(1_000)
    stage.offline(paid_by_income)
    pass_time(30 * DAY_SECONDS)
    stage.online(paid_by_income)
    assert stage.earned(paid_by_income) == 1_000 * WEI_PER_SECOND
    pass_time(1_000)
    assert stage.earned(paid_by_income) == 2_000 * WEI_PER_SECOND


def test_a_stale_stretch_lengthens_the_tail_of_income_too(stage: Stage, paid_by_income: int) -> None:
    pass_time(30 * DAY_SECONDS)
    stage.report()
    assert stage.earned(paid_by_income) == STALE_SECONDS * WEI_PER_SECOND
    pass_time(1_000)
    assert stage.earned(paid_by_income) == (STALE_SECONDS + 1_000) * WEI_PER_SECOND


def test_days_of_income_that_piled_up_are_paid_one_active_day_each_in_order(stage: Stage) -> None:
    node_id = stage.stake()
    for day in (1, 2, 3):
        stage.fund(day * 86_400 * PRLX)
        stage.pull()
        go_to_midnight()
    pass_time(5 * DAY_SECONDS + 77)
    stage.online(node_id)
    totals: list[int] = []
    for _ in range(4):
        stage.active(DAY_SECONDS)
        totals.append(stage.earned(node_id) // (86_400 * PRLX))
    assert totals == [1, 3, 6, 6]


def test_one_checkpoint_can_end_one_day_of_income_and_begin_the_next(stage: Stage) -> None:
    node_id = stage.stake()
    for day in (1, 2):
        stage.fund(day * 86_400 * PRLX)
        stage.pull()
        go_to_midnight()
    stage.online(node_id)
    stage.active(DAY_SECONDS - 100)
    pass_time(300)
    assert stage.earned(node_id) == (86_400 + 200 * 2) * PRLX


def test_a_day_without_income_is_a_gap(stage: Stage, paid_by_income: int) -> None:
    """Income of the second day is not paid before the third, even when nothing else is there to pay."""
    stage.active(DAY_SECONDS)
    stage.fund(86_400 * PRLX)
    stage.pull()
    stage.active(DAY_SECONDS)
    assert stage.earned(paid_by_income) == 86_400 * PRLX
    pass_time(10)
    assert stage.earned(paid_by_income) == 86_410 * PRLX


def test_bootstrap_and_income_are_paid_side_by_side(streaming: Stage) -> None:
    node_id = streaming.stake()
    streaming.fund(86_400 * PRLX)
    streaming.pull()
    go_to_midnight()
    streaming.online(node_id)
    pass_time(1_000)
    assert streaming.earned(node_id) == bootstrap_wei(1_000) + 1_000 * PRLX
    assert streaming.rewards.ratePerSecond() == bootstrap_wei(1) + PRLX
