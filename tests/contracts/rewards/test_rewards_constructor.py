from __future__ import annotations

from typing import Any

import boa
import pytest
from harness import revert_reason
from network import BOOTSTRAP_SECONDS, BOOTSTRAP_WEI, MULTIPLIERS_TENTHS, STALE_SECONDS, Network
from rewards_stage import NOBODY, PRLX, Stage
from sources import deployer_of


def deploy_with(network: Network, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "token": network.token.address,
        "locker": network.locker.address,
        "anchor": network.anchor.address,
        "liveness": network.roles.liveness,
        "guardian": network.roles.guardian,
        "bootstrap_wei": BOOTSTRAP_WEI,
        "bootstrap_seconds": BOOTSTRAP_SECONDS,
        "multipliers_tenths": MULTIPLIERS_TENTHS,
        "stale_seconds": STALE_SECONDS,
    }
    return deployer_of("OperatorStakeRewardsV2")(*(values | changes).values())


def refusal_of(network: Network, **changes: Any) -> str:
    with pytest.raises(boa.BoaError) as caught:
        deploy_with(network, **changes)
    return revert_reason(caught.value)


def test_a_new_contract_is_what_it_was_told_to_be(network: Network) -> None:
    rewards = deploy_with(network)
    assert (rewards.token(), rewards.locker()) == (network.token.address, network.locker.address)
    assert (rewards.anchor(), rewards.liveness()) == (network.anchor.address, network.roles.liveness)
    assert (rewards.guardian(), rewards.owner()) == (network.roles.guardian, boa.env.eoa)
    assert (rewards.bootstrapAmount(), rewards.bootstrapSeconds()) == (BOOTSTRAP_WEI, BOOTSTRAP_SECONDS)
    assert [rewards.multiplierTenths(tier) for tier in (1, 2, 3, 4)] == MULTIPLIERS_TENTHS
    assert (rewards.staleSeconds(), rewards.paused(), rewards.isFresh()) == (STALE_SECONDS, False, False)


def test_it_begins_with_nothing(stage: Stage) -> None:
    rewards = stage.rewards
    assert (rewards.index(), rewards.totalWeight(), rewards.ratePerSecond()) == (0, 0, 0)
    assert (rewards.held(), rewards.bootstrapHeld(), rewards.undistributed()) == (0, 0, 0)
    assert (rewards.lastUpdateAt(), rewards.lastReportAt(), rewards.lastReportedBatch()) == (0, 0, 0)
    assert (rewards.lockup(), rewards.streamId()) == (NOBODY, 0)


def test_its_first_roles_are_logged(network: Network) -> None:
    rewards = deploy_with(network)
    logged = [(type(log).__name__, log.current) for log in rewards.get_logs() if hasattr(log, "current")]
    assert logged == [
        ("LivenessChanged", network.roles.liveness),
        ("GuardianChanged", network.roles.guardian),
    ]


@pytest.mark.parametrize("place", ["token", "locker", "anchor", "liveness", "guardian"])
def test_the_zero_address_is_refused_in_each_place(network: Network, place: str) -> None:
    assert refusal_of(network, **{place: NOBODY}) == "rewards: zero address"


@pytest.mark.parametrize("tier", [1, 2, 3, 4])
@pytest.mark.parametrize("tenths", [0, 101, 2**256 - 1])
def test_a_multiplier_outside_its_bounds_is_refused(network: Network, tier: int, tenths: int) -> None:
    multipliers = [*MULTIPLIERS_TENTHS[: tier - 1], tenths, *MULTIPLIERS_TENTHS[tier:]]
    assert refusal_of(network, multipliers_tenths=multipliers) == "rewards: multiplier out of range"


@pytest.mark.parametrize("seconds", [0, 86_401, 2**256 - 1])
def test_a_stale_window_outside_its_bounds_is_refused(network: Network, seconds: int) -> None:
    assert refusal_of(network, stale_seconds=seconds) == "rewards: stale window out of range"


@pytest.mark.parametrize(
    "bootstrap",
    [
        {"bootstrap_wei": 0},
        {"bootstrap_wei": 100_000_000 * PRLX + 1},
        {"bootstrap_seconds": 0},
        {"bootstrap_seconds": 2**32},
    ],
)
def test_a_bootstrap_outside_its_bounds_is_refused(network: Network, bootstrap: dict[str, int]) -> None:
    assert refusal_of(network, **bootstrap) == "rewards: bootstrap out of range"


@pytest.mark.parametrize(
    "bounds",
    [
        {"bootstrap_wei": 1, "bootstrap_seconds": 1, "multipliers_tenths": [1] * 4, "stale_seconds": 1},
        {
            "bootstrap_wei": 100_000_000 * PRLX,
            "bootstrap_seconds": 2**32 - 1,
            "multipliers_tenths": [100] * 4,
            "stale_seconds": 86_400,
        },
    ],
)
def test_all_bounds_themselves_are_taken(network: Network, bounds: dict[str, Any]) -> None:
    rewards = deploy_with(network, **bounds)
    assert rewards.bootstrapAmount() == bounds["bootstrap_wei"]
    assert rewards.staleSeconds() == bounds["stale_seconds"]


def test_it_refuses_to_be_where_the_transfer_tax_goes(network: Network) -> None:
    deployer = boa.env.generate_address("deployer of rewards")
    with boa.env.prank(deployer):
        with boa.env.anchor():
            own_address = deploy_with(network).address
        taxing = deployer_of("PRLX")(own_address, sender=network.roles.deployer)
        assert refusal_of(network, token=taxing.address) == "rewards: would receive the transfer tax"
