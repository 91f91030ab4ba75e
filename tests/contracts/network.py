"""All five contracts deployed together in the order of a real deployment, each role an account of its own."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import boa
from sources import deployer_of

BOOTSTRAP_WEI = 25_000_000 * 10**18
BOOTSTRAP_SECONDS = 731 * 86_400
MULTIPLIERS_TENTHS = [10, 20, 25, 30]
STALE_SECONDS = 21_600
WITHDRAWAL_DELAY_SECONDS = 86_400
DEFAULT_DAILY_LIMIT_WEI = 10_000 * 10**18
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The Merkle root of batch 0, which is anchored from the start."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    deployer: str
    owner: str
    validator: str
    liveness: str
    settler: str
    guardian: str
    treasury: str
    infrastructure: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    token: Any
    anchor: Any
    locker: Any
    rewards: Any
    vault: Any
    roles: Roles

    def contracts(self) -> Iterator[tuple[str, Any]]:
        """Name and contract, in the order of deployment."""
        yield "PRLX", self.token
        yield "ExecutionAnchor", self.anchor
        yield "NodeRegistryLocker", self.locker
        yield "OperatorStakeRewardsV2", self.rewards
        yield "CreditVault", self.vault

    def contract(self, name: str) -> Any:
        return dict(self.contracts())[name]

    def owned(self) -> tuple[Any, ...]:
        """The contracts that have an owner: all but the locker."""
        return (self.token, self.anchor, self.rewards, self.vault)


def make_roles(**given: str) -> Roles:
    """An address for each role; those not given are new ones."""
    names = [field.name for field in dataclasses.fields(Roles)]
    return Roles(**{name: given.get(name) or boa.env.generate_address(name) for name in names})


def deploy_network(roles: Roles | None = None, *, exempt_locker: bool = True) -> Network:
    """Deploys and binds all five, exempts those that hold money, and hands the ownership over to `roles.owner`."""
    accounts = roles or make_roles()
    with boa.env.prank(accounts.deployer):
        token = deployer_of("PRLX")(accounts.treasury)
        anchor = deployer_of("ExecutionAnchor")(accounts.validator)
        locker = deployer_of("NodeRegistryLocker")(token.address, accounts.treasury)
        rewards = deploy_rewards(token, locker, anchor, accounts)
        locker.bindRewards(rewards.address)
        vault = deploy_vault(token, rewards, accounts)
        for holder in (locker, rewards, vault)[not exempt_locker :]:
            token.addExemption(holder.address)
    network = Network(token=token, anchor=anchor, locker=locker, rewards=rewards, vault=vault, roles=accounts)
    hand_over(network)
    return network


def deploy_rewards(token: Any, locker: Any, anchor: Any, accounts: Roles) -> Any:
    return deployer_of("OperatorStakeRewardsV2")(
        token.address,
        locker.address,
        anchor.address,
        accounts.liveness,
        accounts.guardian,
        BOOTSTRAP_WEI,
        BOOTSTRAP_SECONDS,
        MULTIPLIERS_TENTHS,
        STALE_SECONDS,
    )


def deploy_vault(token: Any, rewards: Any, accounts: Roles) -> Any:
    return deployer_of("CreditVault")(
        token.address,
        rewards.address,
        accounts.treasury,
        accounts.infrastructure,
        accounts.settler,
        accounts.guardian,
        WITHDRAWAL_DELAY_SECONDS,
        DEFAULT_DAILY_LIMIT_WEI,
    )


def hand_over(network: Network) -> None:
    for contract in network.owned():
        contract.transfer_ownership(network.roles.owner, sender=network.roles.deployer)
        contract.accept_ownership(sender=network.roles.owner)
