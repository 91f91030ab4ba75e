"""Whether a deployment is on the chain what its file says: code, who knows whom, exemptions, roles."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from parallelix.chain import plan
from parallelix.chain.abi import Address
from parallelix.chain.bindings.credit_vault import CreditVaultViews
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorViews
from parallelix.chain.bindings.node_registry_locker import NodeRegistryLockerViews
from parallelix.chain.bindings.operator_stake_rewards import OperatorStakeRewardsV2Views
from parallelix.chain.bindings.prlx import PRLXViews
from parallelix.chain.deployment import is_code_of, require_chain
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import DeploymentRefused
from parallelix.chain.plan import ANCHOR, CONTRACTS, REWARDS, VAULT
from parallelix.chain.rpc import Rpc
from parallelix_contracts import artifact


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `found` is what the chain says, `expected` what the file does.

    Roles and limits can be changed by the owner, so `may_change` ones that differ are news and no fault.
    """

    name: str
    found: str
    expected: str
    may_change: bool = False

    @property
    def holds(self) -> bool:
        return self.found == self.expected


async def inspect(rpc: Rpc, deployment: Deployment) -> list[Check]:
    """Every check, the failed ones too. Raises `WrongChain`, and `ChainUnreachable` without an answer."""
    await require_chain(rpc, deployment)
    code = await _code(rpc, deployment)
    if not all(check.holds for check in code) or len(code) < len(CONTRACTS):
        return code
    return [*code, *await _links(rpc, deployment), *await _roles(rpc, deployment), *await owners(rpc, deployment)]


async def _code(rpc: Rpc, deployment: Deployment) -> list[Check]:
    found: list[Check] = []
    for name, entry in deployment.contracts.items():
        code = await rpc.code(entry.address)
        shown = "as compiled" if is_code_of(code, artifact(name)) else "other code" if code else "no contract"
        found.append(Check(name=f"code of {name}", found=shown, expected="as compiled"))
    return found


async def _links(rpc: Rpc, deployment: Deployment) -> list[Check]:
    """What is for good."""
    at = deployment.address
    token, anchor, locker, rewards, vault = (at(name) for name in CONTRACTS)
    lockers, rewarding = NodeRegistryLockerViews(rpc, locker), OperatorStakeRewardsV2Views(rpc, rewards)
    vaults = CreditVaultViews(rpc, vault)
    wanted = [
        ("token of locker", await lockers.token(), token),
        ("token of rewards", await rewarding.token(), token),
        ("token of vault", await vaults.token(), token),
        ("rewards of locker", await lockers.rewards(), rewards),
        ("rewards of vault", await vaults.rewards(), rewards),
        ("locker of rewards", await rewarding.locker(), locker),
        ("anchor of rewards", await rewarding.anchor(), anchor),
        ("tax recipient", await PRLXViews(rpc, token).tax_recipient(), deployment.parameters.treasury),
    ]
    if deployment.parameters.lockup:
        wanted.append(("lockup of rewards", await rewarding.lockup(), deployment.parameters.lockup))
        wanted.append(("stream of rewards", str(await rewarding.stream_id()), str(deployment.stream_id)))
    exempt = [(f"{name} exempt", str(await PRLXViews(rpc, token).is_exempt(at(name))), "True") for name in plan.EXEMPT]
    return [Check(name=name, found=found, expected=expected) for name, found, expected in (*wanted, *exempt)]


async def _roles(rpc: Rpc, deployment: Deployment) -> list[Check]:
    parameters = deployment.parameters
    rewards = OperatorStakeRewardsV2Views(rpc, deployment.address(REWARDS))
    vault = CreditVaultViews(rpc, deployment.address(VAULT))
    anchor = ExecutionAnchorViews(rpc, deployment.address(ANCHOR))
    wanted = [
        ("validator", await anchor.validator(), parameters.validator),
        ("liveness", await rewards.liveness(), parameters.liveness),
        ("settler", await vault.settler(), parameters.settler),
        ("guardian of rewards", await rewards.guardian(), parameters.guardian),
        ("guardian of vault", await vault.guardian(), parameters.guardian),
    ]
    return [Check(name=name, found=found, expected=expected, may_change=True) for name, found, expected in wanted]


async def owners(rpc: Rpc, deployment: Deployment) -> list[Check]:
    """An owner that was named and has not accepted yet is news, too."""
    found: list[Check] = []
    for name, (views, _) in plan.OWNED.items():
        owner = await views(rpc, deployment.address(name)).owner()
        found.append(Check(name=f"owner of {name}", found=owner, expected=deployment.parameters.owner, may_change=True))
    return found


async def offered_to(rpc: Rpc, deployment: Deployment, account: Address) -> list[str]:
    """The contracts that wait for `account` to accept them; those that it owns already are left out.

    Raises `DeploymentRefused` for one that was offered to somebody else.
    """
    offered: list[str] = []
    for name, (views, _) in plan.OWNED.items():
        contract = views(rpc, deployment.address(name))
        if await contract.owner() == account:
            continue
        pending = await contract.pending_owner()
        if pending != account:
            raise DeploymentRefused(
                f"{name}: waits for {pending}, not for {account}; give the key of that account,"
                " or let the present owner offer it anew"
            )
        offered.append(name)
    return offered


def failed(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if not check.holds and not check.may_change]
