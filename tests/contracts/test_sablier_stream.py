"""The real Sablier behaves as the rewards contract assumes."""

from __future__ import annotations

from typing import Any

import boa
import pytest
from network import BOOTSTRAP_SECONDS, BOOTSTRAP_WEI, Network
from sablier import DOLLAR, ask_fee, open_stream


@pytest.fixture
def stream(network: Network, lockup: Any) -> int:
    """A stream to an account of its own, so that nothing but Sablier is looked at."""
    network.token.addExemption(lockup.address, sender=network.roles.owner)
    network.token.addExemption(network.roles.infrastructure, sender=network.roles.owner)
    return open_stream(
        lockup,
        network.token,
        funder=network.roles.deployer,
        recipient=network.roles.infrastructure,
        amount_wei=BOOTSTRAP_WEI,
        start=boa.env.timestamp,
        duration_seconds=BOOTSTRAP_SECONDS,
    )


def test_the_stream_is_what_a_recipient_can_check(network: Network, lockup: Any, stream: int) -> None:
    assert lockup.getRecipient(stream) == network.roles.infrastructure
    assert lockup.getUnderlyingToken(stream) == network.token.address
    assert lockup.getDepositedAmount(stream) == BOOTSTRAP_WEI
    assert not lockup.isCancelable(stream)
    with boa.reverts():
        lockup.cancel(stream, sender=network.roles.deployer)


def test_it_pays_the_share_of_the_time_that_passed_and_all_of_it_at_the_end(
    network: Network, lockup: Any, stream: int
) -> None:
    recipient = network.roles.infrastructure
    boa.env.time_travel(seconds=86_401)
    lockup.withdrawMax(stream, recipient, sender=recipient)
    assert network.token.balanceOf(recipient) == BOOTSTRAP_WEI * 86_401 // BOOTSTRAP_SECONDS
    assert lockup.getWithdrawnAmount(stream) == network.token.balanceOf(recipient)
    boa.env.time_travel(seconds=BOOTSTRAP_SECONDS)
    lockup.withdrawMax(stream, recipient, sender=recipient)
    assert network.token.balanceOf(recipient) == BOOTSTRAP_WEI
    assert lockup.withdrawableAmountOf(stream) == 0


def test_it_refuses_when_there_is_nothing_and_pays_nobody_but_the_recipient(
    network: Network, lockup: Any, stream: int
) -> None:
    recipient, stranger = network.roles.infrastructure, boa.env.generate_address("stranger")
    with boa.reverts():
        lockup.withdrawMax(stream, recipient, sender=recipient)
    boa.env.time_travel(seconds=10)
    with boa.reverts():
        lockup.withdrawMax(stream, stranger, sender=stranger)
    lockup.withdrawMax(stream, recipient, sender=stranger)
    assert network.token.balanceOf(recipient) == lockup.getWithdrawnAmount(stream) > 0


def test_a_fee_that_sablier_asks_has_to_be_sent_along(network: Network, lockup: Any, stream: int) -> None:
    recipient = network.roles.infrastructure
    boa.env.time_travel(seconds=10)
    assert lockup.calculateMinFeeWei(stream) == 0
    fee_wei = ask_fee(lockup, 1 * DOLLAR, coin_price_usd=2_000 * DOLLAR)
    assert lockup.calculateMinFeeWei(stream) == fee_wei == 10**18 // 2_000
    boa.env.set_balance(recipient, fee_wei)
    with boa.reverts():
        lockup.withdrawMax(stream, recipient, sender=recipient, value=fee_wei - 1)
    lockup.withdrawMax(stream, recipient, sender=recipient, value=fee_wei)
    assert network.token.balanceOf(recipient) > 0


def test_the_rewards_of_a_whole_network_draw_on_the_production_stream(
    network: Network, lockup: Any, stream_id: int
) -> None:
    boa.env.time_travel(seconds=3_600)
    network.rewards.pull(sender=boa.env.generate_address("anyone"))
    assert network.token.balanceOf(network.rewards.address) == BOOTSTRAP_WEI * 3_600 // BOOTSTRAP_SECONDS
    assert lockup.getWithdrawnAmount(stream_id) == network.token.balanceOf(network.rewards.address)
