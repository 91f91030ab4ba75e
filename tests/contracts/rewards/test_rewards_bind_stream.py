from __future__ import annotations

from typing import Any

import boa
import pytest
from network import BOOTSTRAP_SECONDS, BOOTSTRAP_WEI
from rewards_stage import (
    BOOTSTRAP_SOURCE,
    DAY_SECONDS,
    INCOME_SOURCE,
    PRLX,
    Stage,
    bootstrap_wei,
    now,
    pass_time,
    stranger,
)
from sablier import open_stream
from sources import deployer_of


def open_with(stage: Stage, lockup: Any, **changes: Any) -> int:
    """A stream that may be bound, but for the changes."""
    values: dict[str, Any] = {
        "token": stage.token,
        "funder": stage.network.roles.deployer,
        "recipient": stage.rewards.address,
        "amount_wei": BOOTSTRAP_WEI,
        "start": now(),
        "duration_seconds": BOOTSTRAP_SECONDS,
    }
    return open_stream(lockup, **(values | changes))


@pytest.fixture
def exempt_lockup(stage: Stage, lockup: Any) -> Any:
    stage.token.addExemption(lockup.address, sender=stage.owner)
    return lockup


def bind(stage: Stage, lockup: Any, stream_id: int) -> None:
    stage.rewards.bindStream(lockup.address, stream_id, sender=stage.owner)


def test_the_owner_binds_a_stream(stage: Stage, exempt_lockup: Any) -> None:
    stream_id = open_with(stage, exempt_lockup)
    bind(stage, exempt_lockup, stream_id)
    assert stage.events() == [("StreamBound", {"lockup": exempt_lockup.address, "streamId": stream_id})]
    assert (stage.rewards.lockup(), stage.rewards.streamId()) == (exempt_lockup.address, stream_id)


def test_what_a_running_stream_has_released_by_then_is_bootstrap(stage: Stage, exempt_lockup: Any) -> None:
    stream_id = open_with(stage, exempt_lockup)
    pass_time(1_000)
    exempt_lockup.withdraw(stream_id, stage.rewards.address, 7 * PRLX, sender=stranger())
    bind(stage, exempt_lockup, stream_id)
    assert stage.funded() == {BOOTSTRAP_SOURCE: bootstrap_wei(1_000)}
    assert stage.rewards.bootstrapHeld() == bootstrap_wei(1_000)


def test_what_it_had_paid_here_and_was_booked_as_income_stays_income(stage: Stage, exempt_lockup: Any) -> None:
    stream_id = open_with(stage, exempt_lockup)
    pass_time(1_000)
    exempt_lockup.withdraw(stream_id, stage.rewards.address, 7 * PRLX, sender=stranger())
    stage.pull()
    assert stage.funded() == {INCOME_SOURCE: 7 * PRLX}
    bind(stage, exempt_lockup, stream_id)
    assert stage.funded() == {BOOTSTRAP_SOURCE: bootstrap_wei(1_000) - 7 * PRLX}
    assert stage.rewards.held() == stage.rewards.undistributed() == bootstrap_wei(1_000)


def test_only_the_owner_may(stage: Stage, exempt_lockup: Any) -> None:
    stream_id = open_with(stage, exempt_lockup)
    with stage.refused("ownable: caller is not the owner"):
        stage.rewards.bindStream(exempt_lockup.address, stream_id, sender=stage.network.roles.deployer)


def test_a_second_stream_is_refused(streaming: Stage, lockup: Any) -> None:
    second = open_with(streaming, lockup)
    with streaming.refused("rewards: stream already bound"):
        bind(streaming, lockup, second)


def test_a_stream_to_somebody_else_is_refused(stage: Stage, exempt_lockup: Any) -> None:
    stream_id = open_with(stage, exempt_lockup, recipient=stranger())
    with stage.refused("rewards: stream pays somebody else"):
        bind(stage, exempt_lockup, stream_id)


def test_a_stream_of_another_token_is_refused(stage: Stage, exempt_lockup: Any) -> None:
    deployer = stage.network.roles.deployer
    with boa.env.prank(deployer):
        other = deployer_of("PRLX")(deployer)
    stream_id = open_with(stage, exempt_lockup, token=other)
    with stage.refused("rewards: stream is of another token"):
        bind(stage, exempt_lockup, stream_id)


@pytest.mark.parametrize("amount_wei", [BOOTSTRAP_WEI - 1, BOOTSTRAP_WEI + 1])
def test_a_stream_of_another_amount_is_refused(stage: Stage, exempt_lockup: Any, amount_wei: int) -> None:
    stream_id = open_with(stage, exempt_lockup, amount_wei=amount_wei)
    with stage.refused("rewards: stream is of another amount"):
        bind(stage, exempt_lockup, stream_id)


def open_cancelable(stage: Stage, lockup: Any) -> int:
    deployer = stage.network.roles.deployer
    stage.token.approve(lockup.address, BOOTSTRAP_WEI, sender=deployer)
    stream = (deployer, stage.rewards.address, BOOTSTRAP_WEI, stage.token.address, True, False, "")
    return int(lockup.createWithDurationsLL(stream, (0, 0), 1, (0, BOOTSTRAP_SECONDS), sender=deployer))


def test_a_stream_that_its_sender_could_cancel_is_refused(stage: Stage, exempt_lockup: Any) -> None:
    stream_id = open_cancelable(stage, exempt_lockup)
    with stage.refused("rewards: stream is cancelable"):
        bind(stage, exempt_lockup, stream_id)


def test_a_stream_that_was_cancelled_is_refused(stage: Stage, exempt_lockup: Any) -> None:
    stream_id = open_cancelable(stage, exempt_lockup)
    pass_time(1_000)
    exempt_lockup.cancel(stream_id, sender=stage.network.roles.deployer)
    with stage.refused("rewards: stream is of another amount"):
        bind(stage, exempt_lockup, stream_id)


def test_a_stream_that_paid_somebody_else_before_is_refused(stage: Stage, exempt_lockup: Any) -> None:
    deployer, receiver = stage.network.roles.deployer, boa.env.generate_address("first recipient")
    stage.token.approve(exempt_lockup.address, BOOTSTRAP_WEI, sender=deployer)
    stream = (deployer, receiver, BOOTSTRAP_WEI, stage.token.address, False, True, "")
    stream_id = int(exempt_lockup.createWithDurationsLL(stream, (0, 0), 1, (0, BOOTSTRAP_SECONDS), sender=deployer))
    pass_time(1_000)
    exempt_lockup.withdrawMaxAndTransfer(stream_id, stage.rewards.address, sender=receiver)
    with stage.refused("rewards: stream was paid out elsewhere"):
        bind(stage, exempt_lockup, stream_id)


def test_a_lockup_whose_payments_are_taxed_is_refused(stage: Stage, lockup: Any) -> None:
    # Its deposit comes from an exempt account, and so arrives whole.
    stream_id = open_with(stage, lockup)
    with stage.refused("rewards: not exempt from the transfer tax"):
        bind(stage, lockup, stream_id)


def test_rewards_that_would_be_taxed_are_refused(stage: Stage, exempt_lockup: Any) -> None:
    roles, network = stage.network.roles, stage.network
    taxed = deployer_of("OperatorStakeRewardsV2")(
        network.token.address,
        network.locker.address,
        network.anchor.address,
        roles.liveness,
        roles.guardian,
        BOOTSTRAP_WEI,
        BOOTSTRAP_SECONDS,
        [10, 20, 25, 30],
        21_600,
    )
    stream_id = open_with(stage, exempt_lockup, recipient=taxed.address)
    with stage.refused("rewards: not exempt from the transfer tax"):
        taxed.bindStream(exempt_lockup.address, stream_id)


def test_what_it_had_paid_here_may_have_been_claimed_by_then(stage: Stage, exempt_lockup: Any) -> None:
    """Or else a stranger could make the production stream impossible to bind."""
    stream_id = open_with(stage, exempt_lockup)
    pass_time(1_000)
    exempt_lockup.withdrawMax(stream_id, stage.rewards.address, sender=stranger())
    node_id = stage.stake()
    stage.online(node_id)
    stage.active(2 * DAY_SECONDS)
    assert stage.claim(node_id) == bootstrap_wei(1_000)
    bind(stage, exempt_lockup, stream_id)
    assert stage.rewards.held() == bootstrap_wei(2 * DAY_SECONDS + 1_000) - bootstrap_wei(1_000)
