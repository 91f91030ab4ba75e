"""The steps of a deployment in their order, without any sending: which contract with which arguments, then which calls.

The order follows from who must know whom: rewards know locker and anchor, the vault knows rewards, and nothing takes
money before it is exempt from the transfer tax. Ownership goes last, since the steps before need it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from parallelix.chain.abi import Address, Call, Function, encode
from parallelix.chain.bindings import (
    credit_vault,
    execution_anchor,
    node_registry_locker,
    operator_stake_rewards,
    prlx,
)
from parallelix.chain.bindings.credit_vault import CreditVaultCalls, CreditVaultViews
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls, ExecutionAnchorViews
from parallelix.chain.bindings.node_registry_locker import NodeRegistryLockerCalls, NodeRegistryLockerViews
from parallelix.chain.bindings.operator_stake_rewards import OperatorStakeRewardsV2Calls, OperatorStakeRewardsV2Views
from parallelix.chain.bindings.prlx import PRLXCalls, PRLXViews
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.ports import Chain, Receipt
from parallelix_contracts import artifact

TOKEN = prlx.CONTRACT
ANCHOR = execution_anchor.CONTRACT
LOCKER = node_registry_locker.CONTRACT
REWARDS = operator_stake_rewards.CONTRACT
VAULT = credit_vault.CONTRACT
CONTRACTS = (TOKEN, ANCHOR, LOCKER, REWARDS, VAULT)
"""In the order of their deployment."""
EXEMPT = (LOCKER, REWARDS, VAULT)
"""Those that hold other people's tokens."""
CONSTRUCTORS = {
    each.CONTRACT: each.CONSTRUCTOR
    for each in (prlx, execution_anchor, node_registry_locker, operator_stake_rewards, credit_vault)
}

CREATE_STREAM_STEP = "create stream"
CREATE_STREAM = Function(
    "createWithDurationsLL",
    (
        "(address,address,uint128,address,bool,bool,string)",
        "(uint128,uint128)",
        "uint40",
        "(uint40,uint40)",
    ),
    ("uint256",),
)
"""Sablier Lockup: (sender, recipient, amount, token, cancelable, transferable, shape), (unlocked at the start, at the
cliff), granularity, (seconds to the cliff, in all)."""
EVERY_SECOND = 0
"""The granularity that Sablier takes for one second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Deploys the contract `name`. What `arguments` needs of earlier steps is in the deployment by then."""

    name: str
    arguments: Callable[[Deployment], tuple[object, ...]]

    def data(self, deployment: Deployment) -> bytes:
        """The transaction's data: creation bytecode, then constructor arguments."""
        given = encode(CONSTRUCTORS[self.name], self.arguments(deployment), what=f"{self.name} constructor")
        return artifact(self.name).creation_bytecode + given


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Calls a contract that is deployed by then; `is_done` says whether that has had its effect."""

    name: str
    call: Callable[[Deployment], Call]
    is_done: Callable[[Chain, Deployment], Awaitable[bool]]


Step: TypeAlias = Create | Ask


def steps_of(deployment: Deployment) -> list[Step]:
    """Every step, done or not. Depends on parameters and deployer alone."""
    parameters = deployment.parameters
    return [
        Create(name=TOKEN, arguments=lambda _: (parameters.treasury,)),
        Create(name=ANCHOR, arguments=lambda _: (parameters.validator,)),
        Create(name=LOCKER, arguments=lambda now: (now.address(TOKEN), parameters.treasury)),
        Create(name=REWARDS, arguments=_rewards_arguments),
        Ask(name="bind rewards", call=_bind_rewards, is_done=_rewards_bound),
        Create(name=VAULT, arguments=_vault_arguments),
        *(_exempt(f"exempt {name}", name) for name in EXEMPT),
        *(_stream_steps() if parameters.lockup else ()),
        *(_hand_over(name) for name in OWNED if parameters.owner != deployment.deployer),
    ]


def after(deployment: Deployment, step: Step, receipt: Receipt) -> Deployment:
    """With what a later step needs to know of this one."""
    if step.name != CREATE_STREAM_STEP:
        return deployment
    # Sablier's creation event is the only log of the Lockup with the id first, and indexed.
    ids = [
        int.from_bytes(log.topics[1], "big")
        for log in receipt.logs
        if log.address == deployment.parameters.lockup and len(log.topics) == 2
    ]
    return msgspec.structs.replace(deployment, stream_id=ids[-1])


def _rewards_arguments(now: Deployment) -> tuple[object, ...]:
    parameters = now.parameters
    return (
        now.address(TOKEN),
        now.address(LOCKER),
        now.address(ANCHOR),
        parameters.liveness,
        parameters.guardian,
        int(parameters.bootstrap_amount),
        parameters.bootstrap_seconds,
        parameters.multipliers_tenths,
        parameters.stale_seconds,
    )


def _vault_arguments(now: Deployment) -> tuple[object, ...]:
    parameters = now.parameters
    return (
        now.address(TOKEN),
        now.address(REWARDS),
        parameters.treasury,
        parameters.infrastructure,
        parameters.settler,
        parameters.guardian,
        parameters.withdrawal_delay_seconds,
        int(parameters.default_daily_limit),
    )


def _bind_rewards(now: Deployment) -> Call:
    return NodeRegistryLockerCalls(now.address(LOCKER)).bind_rewards(now.address(REWARDS))


async def _rewards_bound(chain: Chain, now: Deployment) -> bool:
    return await NodeRegistryLockerViews(chain, now.address(LOCKER)).rewards() == now.address(REWARDS)


def _exempt(step: str, contract: str) -> Ask:
    """`contract` is one of ours, or empty for the Lockup."""

    def account(now: Deployment) -> Address:
        return now.address(contract) if contract else now.parameters.lockup

    def call(now: Deployment) -> Call:
        return PRLXCalls(now.address(TOKEN)).add_exemption(account(now))

    async def is_done(chain: Chain, now: Deployment) -> bool:
        return await PRLXViews(chain, now.address(TOKEN)).is_exempt(account(now))

    return Ask(name=step, call=call, is_done=is_done)


def _stream_steps() -> list[Step]:
    return [
        _exempt("exempt lockup", ""),
        Ask(name="approve lockup", call=_approve_lockup, is_done=_lockup_approved),
        Ask(name=CREATE_STREAM_STEP, call=_create_stream, is_done=_never),
        Ask(name="bind stream", call=_bind_stream, is_done=_stream_bound),
    ]


def _approve_lockup(now: Deployment) -> Call:
    return PRLXCalls(now.address(TOKEN)).approve(now.parameters.lockup, int(now.parameters.bootstrap_amount))


async def _lockup_approved(chain: Chain, now: Deployment) -> bool:
    allowed = await PRLXViews(chain, now.address(TOKEN)).allowance(now.deployer, now.parameters.lockup)
    return allowed == int(now.parameters.bootstrap_amount)


def _create_stream(now: Deployment) -> Call:
    """A second one could not be paid: the allowance is exactly one stream's amount."""
    parameters = now.parameters
    stream = (
        now.deployer,
        now.address(REWARDS),
        int(parameters.bootstrap_amount),
        now.address(TOKEN),
        False,
        False,
        "",
    )
    arguments = (stream, (0, 0), EVERY_SECOND, (0, parameters.bootstrap_seconds))
    return Call(to=parameters.lockup, function=CREATE_STREAM, arguments=arguments)


async def _never(_chain: Chain, _now: Deployment) -> bool:
    return False


def _bind_stream(now: Deployment) -> Call:
    assert now.stream_id is not None
    return OperatorStakeRewardsV2Calls(now.address(REWARDS)).bind_stream(now.parameters.lockup, now.stream_id)


async def _stream_bound(chain: Chain, now: Deployment) -> bool:
    return await OperatorStakeRewardsV2Views(chain, now.address(REWARDS)).lockup() == now.parameters.lockup


OWNED = {
    TOKEN: (PRLXViews, PRLXCalls),
    ANCHOR: (ExecutionAnchorViews, ExecutionAnchorCalls),
    REWARDS: (OperatorStakeRewardsV2Views, OperatorStakeRewardsV2Calls),
    VAULT: (CreditVaultViews, CreditVaultCalls),
}
"""The locker has no owner."""


def accept_ownership(now: Deployment, contract: str) -> Call:
    """What the new owner of a contract sends to own it."""
    _, calls = OWNED[contract]
    return calls(now.address(contract)).accept_ownership()


def _hand_over(contract: str) -> Ask:
    views, calls = OWNED[contract]

    def call(now: Deployment) -> Call:
        return calls(now.address(contract)).transfer_ownership(now.parameters.owner)

    async def is_done(chain: Chain, now: Deployment) -> bool:
        found = views(chain, now.address(contract))
        return now.parameters.owner in (await found.pending_owner(), await found.owner())

    return Ask(name=f"hand over {contract}", call=call, is_done=is_done)
