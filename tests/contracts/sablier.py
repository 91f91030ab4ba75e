"""Sablier's real contracts under titanoboa: a Lockup, linear streams out of it, and the fee that its owners may ask."""

from __future__ import annotations

import functools
import json
from typing import Any

import boa
from hostile_contracts import hostile_deployer
from network import BOOTSTRAP_SECONDS, BOOTSTRAP_WEI, Network

import services
from parallelix.chain import sablier

DOLLAR = 10**8
"""Sablier counts US dollars with 8 decimals."""
LOCKUP_PROTOCOL = 2
"""Its number among the protocols that Sablier's comptroller sets fees for: Airdrops, Flow, Lockup, Staking, Bob."""


@functools.cache
def packages() -> sablier.Packages:
    return sablier.read_packages(services.sablier_folder())


@functools.cache
def _contract_at(name: str) -> Any:
    abi = {"SablierLockup": packages().lockup_abi, "SablierComptroller": packages().comptroller_abi}[name]
    return boa.loads_abi(json.dumps(abi), name=name)


def deploy_sablier() -> Any:
    """A Lockup, whose comptroller belongs to the caller (`boa.env.eoa`) and asks no fee."""
    deployed = sablier.deploy(packages(), _create, admin=boa.env.eoa)
    return _contract_at("SablierLockup").at(deployed.lockup)


def _create(code: bytes) -> str:
    address, _ = boa.env.deploy_code(bytecode=code)
    return str(address)


def open_stream(
    lockup: Any, token: Any, *, funder: str, recipient: str, amount_wei: int, start: int, duration_seconds: int
) -> int:
    """The id of a linear stream that nobody can cancel. The funder's tokens must reach the Lockup untaxed."""
    token.approve(lockup.address, amount_wei, sender=funder)
    call = sablier.linear_stream(
        sender=funder,
        recipient=recipient,
        token=token.address,
        amount_wei=amount_wei,
        start=start,
        end=start + duration_seconds,
    )
    stream_id = int(lockup.nextStreamId())
    boa.env.raw_call(lockup.address, sender=funder, data=call)
    return stream_id


def ask_fee(lockup: Any, fee_usd: int, *, coin_price_usd: int = 2_000 * DOLLAR) -> int:
    """Has Sablier's admin ask this fee for each withdrawal from now on; returns it in wei."""
    comptroller = _contract_at("SablierComptroller").at(lockup.comptroller())
    admin = comptroller.admin()
    feed = hostile_deployer("PriceFeed")(coin_price_usd)
    comptroller.setOracle(feed.address, sender=admin)
    comptroller.setMinFeeUSD(LOCKUP_PROTOCOL, fee_usd, sender=admin)
    return int(comptroller.calculateMinFeeWei(LOCKUP_PROTOCOL))


def bind_stream(network: Network, lockup: Any) -> int:
    """Opens the production stream to the network's rewards, starting now, and binds it; returns its id."""
    roles = network.roles
    network.token.addExemption(lockup.address, sender=roles.owner)
    stream_id = open_stream(
        lockup,
        network.token,
        funder=roles.deployer,
        recipient=network.rewards.address,
        amount_wei=BOOTSTRAP_WEI,
        start=boa.env.timestamp,
        duration_seconds=BOOTSTRAP_SECONDS,
    )
    network.rewards.bindStream(lockup.address, stream_id, sender=roles.owner)
    return stream_id
