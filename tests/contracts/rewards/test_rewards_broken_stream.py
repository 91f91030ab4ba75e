"""Whatever a Lockup does, what is held is paid, income is booked, and no exit waits."""

from __future__ import annotations

import enum
from typing import Any

import boa
import pytest
from hostile_contracts import hostile_deployer
from network import BOOTSTRAP_WEI
from rewards_stage import (
    BOOTSTRAP_SOURCE,
    DAY_SECONDS,
    INCOME_SOURCE,
    PRLX,
    STAKE_WEI,
    Stage,
    bootstrap_wei,
    go_to_midnight,
    pass_time,
    stranger,
)


class LockupMode(enum.IntEnum):
    """What `HostileLockup` does with whatever it is asked."""

    REVERT = 1
    BURN_GAS = 2
    ANSWER_AT_LENGTH = 3
    ANSWER_SHORTLY = 4
    COUNT_TOO_MUCH = 5
    COUNT_BACKWARDS = 6
    COUNT_WITHOUT_PAYING = 7
    KEEP_THE_FEE = 8
    REENTER = 9
    ASK_A_FEE_AND_BURN_GAS = 10


EVERY_MODE = pytest.mark.parametrize("mode", list(LockupMode))
WITH_AND_WITHOUT_ETHER = pytest.mark.parametrize("ether_wei", [0, 10**15])
HONEST_WEI = 1_000 * PRLX
"""What the stream paid before it went bad: bootstrap for about 42 minutes."""


@pytest.fixture
def hostile(stage: Stage) -> Any:
    """A bound Lockup that has behaved so far, and paid HONEST_WEI; twice as much is still to come."""
    roles, rewards = stage.network.roles, stage.rewards
    lockup = hostile_deployer("HostileLockup")(stage.token.address, rewards.address, BOOTSTRAP_WEI)
    stage.token.addExemption(lockup.address, sender=roles.owner)
    stage.token.transfer(lockup.address, 3 * HONEST_WEI, sender=roles.deployer)
    lockup.release(HONEST_WEI)
    rewards.bindStream(lockup.address, 1, sender=roles.owner)
    assert rewards.bootstrapHeld() == HONEST_WEI
    lockup.release(2 * HONEST_WEI)
    return lockup


@pytest.fixture
def earning(stage: Stage, hostile: Any) -> int:
    """A node online and alone, on a day that pays income of 1 PRLX a second beside the bootstrap."""
    node_id = stage.stake()
    stage.fund(86_400 * PRLX)
    hostile.behave(LockupMode.REVERT, node_id)
    go_to_midnight()
    stage.report()
    go_to_midnight()
    stage.online(node_id)
    return node_id


@EVERY_MODE
@WITH_AND_WITHOUT_ETHER
def test_what_is_held_is_earned_and_claimed(
    stage: Stage, hostile: Any, earning: int, mode: LockupMode, ether_wei: int
) -> None:
    hostile.behave(mode, earning)
    boa.env.set_balance(stage.rewards.address, ether_wei)
    pass_time(1_000)
    assert stage.claim(earning) == bootstrap_wei(1_000) + 1_000 * PRLX
    assert stage.rewards.held() <= stage.token.balanceOf(stage.rewards.address)


@EVERY_MODE
@WITH_AND_WITHOUT_ETHER
def test_an_exit_is_told_and_the_stake_comes_back(
    stage: Stage, hostile: Any, earning: int, mode: LockupMode, ether_wei: int
) -> None:
    hostile.behave(mode, earning)
    boa.env.set_balance(stage.rewards.address, ether_wei)
    stage.retire(earning)
    assert "RewardsNotTold" not in {type(log).__name__ for log in stage.network.locker.get_logs()}
    assert stage.rewards.totalWeight() == 0
    pass_time(604_800)
    owner = stage.owner_of(earning)
    stage.network.locker.withdrawStake(earning, sender=owner)
    assert stage.token.balanceOf(owner) == STAKE_WEI


@EVERY_MODE
def test_income_is_booked_and_reports_go_on(stage: Stage, hostile: Any, earning: int, mode: LockupMode) -> None:
    hostile.behave(mode, earning)
    stage.fund(5 * PRLX)
    stage.report()
    funded = stage.funded()
    arrived_wei = stage.token.balanceOf(stage.rewards.address) - HONEST_WEI - 86_400 * PRLX
    assert sum(funded.values()) == arrived_wei in (5 * PRLX, 5 * PRLX + 2 * HONEST_WEI)
    assert stage.rewards.held() == stage.token.balanceOf(stage.rewards.address)
    assert stage.rewards.isFresh()


@EVERY_MODE
def test_nothing_that_was_not_paid_is_counted_as_bootstrap(
    stage: Stage, hostile: Any, earning: int, mode: LockupMode
) -> None:
    hostile.behave(mode, earning)
    stage.pull()
    assert stage.rewards.bootstrapHeld() in (HONEST_WEI, 3 * HONEST_WEI)
    assert stage.rewards.undistributed() == stage.rewards.held() == stage.token.balanceOf(stage.rewards.address)


@pytest.mark.parametrize("mode", [LockupMode.ANSWER_SHORTLY, LockupMode.COUNT_BACKWARDS])
def test_what_arrives_from_a_stream_whose_count_cannot_be_had_is_income(
    stage: Stage, hostile: Any, earning: int, mode: LockupMode
) -> None:
    """Never a lump: it is paid over the next day, like all that comes from nobody knows where."""
    hostile.behave(mode, earning)
    stage.pull()
    assert stage.funded() == {INCOME_SOURCE: 2 * HONEST_WEI}
    assert stage.earned(earning) == 0


@pytest.mark.parametrize("mode", [LockupMode.REVERT, LockupMode.BURN_GAS, LockupMode.ANSWER_SHORTLY])
def test_what_a_stream_cannot_tell_properly_is_not_earned(
    stage: Stage, hostile: Any, earning: int, mode: LockupMode
) -> None:
    stage.active(2 * DAY_SECONDS)
    stage.claim(earning)
    assert stage.rewards.bootstrapHeld() == 0
    hostile.behave(mode, earning)
    pass_time(1_000)
    assert stage.earned(earning) == 0
    with stage.refused("rewards: nothing earned"):
        stage.claim(earning)


def test_a_count_beyond_the_whole_stream_is_cut_to_it_and_to_what_arrived(
    stage: Stage, hostile: Any, earning: int
) -> None:
    hostile.behave(LockupMode.COUNT_TOO_MUCH, earning)
    stage.pull()
    assert stage.funded() == {BOOTSTRAP_SOURCE: 2 * HONEST_WEI}
    hostile.release(7 * PRLX)
    stage.fund(7 * PRLX)
    stage.pull()
    assert stage.funded() == {INCOME_SOURCE: 7 * PRLX}


def test_a_lockup_that_is_gone_altogether_is_no_trouble(stage: Stage, hostile: Any, earning: int) -> None:
    boa.env.set_code(hostile.address, b"")
    pass_time(1_000)
    stage.report()
    assert stage.claim(earning) == bootstrap_wei(1_000) + 1_000 * PRLX
    stage.retire(earning)
    assert stage.rewards.totalWeight() == 0


def test_a_stream_that_recovers_goes_on_where_it_was(stage: Stage, hostile: Any, earning: int) -> None:
    hostile.behave(LockupMode.REVERT, earning)
    stage.active(DAY_SECONDS)
    assert stage.rewards.bootstrapHeld() == 0
    assert stage.earned(earning) == HONEST_WEI + 86_400 * PRLX
    hostile.behave(0, earning)
    stage.pull()
    assert stage.funded() == {BOOTSTRAP_SOURCE: 2 * HONEST_WEI}
    pass_time(1_000)
    assert stage.earned(earning) == HONEST_WEI + 86_400 * PRLX + bootstrap_wei(1_000)


def test_nothing_of_the_rewards_can_be_entered_from_the_stream(stage: Stage, hostile: Any, earning: int) -> None:
    hostile.behave(LockupMode.REENTER, earning)
    pass_time(1_000)
    stage.pull()
    assert (hostile.reentriesTried(), hostile.reentriesDone()) == (5, 0)


def test_the_most_a_stream_can_take_is_the_ether_that_was_given_for_fees(
    stage: Stage, hostile: Any, earning: int
) -> None:
    hostile.behave(LockupMode.KEEP_THE_FEE, earning)
    boa.env.set_balance(stage.rewards.address, 10**18)
    before = stage.rewards.held()
    stage.pull()
    assert (boa.env.get_balance(stage.rewards.address), stage.rewards.held()) == (0, before)


def test_a_wei_of_ether_from_a_stranger_makes_no_call_dearer(streaming: Stage, node: int) -> None:
    def gas_of_a_pull(ether_wei: int) -> int:
        with boa.env.anchor():
            boa.env.set_balance(streaming.rewards.address, ether_wei)
            pass_time(1_000)
            streaming.pull()
            return streaming.rewards._computation.get_gas_used()

    assert gas_of_a_pull(1) <= gas_of_a_pull(0)


def test_no_amount_of_gas_makes_a_call_succeed_while_its_withdrawal_fails(streaming: Stage, node: int) -> None:
    """Or else a stranger could have the pool run dry, and put everybody's rewards off, by calling with little gas."""
    pass_time(1_000)
    call = streaming.rewards.sync.prepare_calldata(node)
    outcomes: set[str] = set()
    for gas in range(40_000, 260_000, 2_000):
        with boa.env.anchor():
            done = boa.env.execute_code(
                to_address=streaming.rewards.address, sender=stranger(), data=call, gas=gas, is_modifying=True
            )
            drawn = streaming.rewards.bootstrapHeld() == bootstrap_wei(4_600) - bootstrap_wei(1_000)
            assert done.is_error or drawn, gas
            outcomes.add("refused" if done.is_error else "drawn")
    assert outcomes == {"refused", "drawn"}
