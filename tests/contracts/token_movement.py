"""I14: which function moves which tokens. Whatever a call moves beyond its entry here fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import boa
from chain_storage import stored
from every_call import (
    ACTIVE_NODE,
    CALLS,
    CLEARED_WEI,
    DEPOSIT_WEI,
    FUNDS_WEI,
    PRLX,
    SPENT_WEI,
    SURPLUS_WEI,
    Call,
    Stage,
    deploy_stage,
)
from harness import Mutant
from locker_scene import MINIMUM_STAKE_WEI

Movement = tuple[str, str, int]
"""From whom, to whom, how much in wei."""
Movements = Callable[[Stage], list[Movement]]

LOCKER, REWARDS, VAULT = "NodeRegistryLocker", "OperatorStakeRewardsV2", "CreditVault"
OPERATORS_SHARE_WEI = SPENT_WEI - SPENT_WEI * 10 // 100 - SPENT_WEI * 5 // 100
SPLIT = [
    (VAULT, REWARDS, OPERATORS_SHARE_WEI),
    (VAULT, "treasury", SPENT_WEI * 10 // 100),
    (VAULT, "infrastructure", SPENT_WEI * 5 // 100),
]
TAXED = 100 - 4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """The stream that a stage's rewards are bound to."""

    lockup: Any
    stream_id: int

    def released_wei(self) -> int:
        return int(self.lockup.withdrawableAmountOf(self.stream_id))


def exactly(*movements: Movement) -> Movements:
    return lambda stage: list(movements)


def what_the_node_earned(stage: Stage) -> list[Movement]:
    return [(REWARDS, "node owner", stage.network.rewards.earned(ACTIVE_NODE))]


MOVES: dict[str, Movements] = {
    "PRLX.transfer": exactly(("stranger", "treasury", PRLX * 4 // 100), ("stranger", "validator", PRLX * TAXED // 100)),
    "PRLX.transferFrom": exactly(
        ("node owner", "treasury", PRLX * 4 // 100), ("node owner", "validator", PRLX * TAXED // 100)
    ),
    "NodeRegistryLocker.registerNode": exactly(("stranger", LOCKER, MINIMUM_STAKE_WEI)),
    "NodeRegistryLocker.withdrawStake": exactly((LOCKER, "node owner", MINIMUM_STAKE_WEI)),
    "NodeRegistryLocker.recoverSurplus": exactly((LOCKER, "treasury", FUNDS_WEI - DEPOSIT_WEI)),
    "OperatorStakeRewardsV2.claim": what_the_node_earned,
    "CreditVault.deposit": exactly(("stranger", VAULT, PRLX)),
    "CreditVault.depositWithPermit": exactly(("stranger", VAULT, PRLX)),
    "CreditVault.withdrawWithClearance": exactly(*SPLIT, (VAULT, "stranger", CLEARED_WEI)),
    "CreditVault.withdraw": exactly((VAULT, "stranger", CLEARED_WEI)),
    "CreditVault.recoverSurplus": exactly((VAULT, "treasury", SURPLUS_WEI)),
    "CreditVault.settle": exactly(*SPLIT),
}

MOVE_NOTHING = frozenset(
    {
        "PRLX.accept_ownership",
        "PRLX.addExemption",
        "PRLX.approve",
        "PRLX.permit",
        "PRLX.transfer_ownership",
        "ExecutionAnchor.accept_ownership",
        "ExecutionAnchor.anchorBatch",
        "ExecutionAnchor.commitSampling",
        "ExecutionAnchor.revealSampling",
        "ExecutionAnchor.setValidator",
        "ExecutionAnchor.transfer_ownership",
        "NodeRegistryLocker.bindRewards",
        "NodeRegistryLocker.requestUnstake",
        "OperatorStakeRewardsV2.accept_ownership",
        "OperatorStakeRewardsV2.fallback",
        "OperatorStakeRewardsV2.nodeRetired",
        "OperatorStakeRewardsV2.pause",
        "OperatorStakeRewardsV2.pull",
        "OperatorStakeRewardsV2.reportLiveness",
        "OperatorStakeRewardsV2.setGuardian",
        "OperatorStakeRewardsV2.setLiveness",
        "OperatorStakeRewardsV2.sync",
        "OperatorStakeRewardsV2.transfer_ownership",
        "OperatorStakeRewardsV2.unpause",
        "CreditVault.accept_ownership",
        "CreditVault.cancelWithdrawal",
        "CreditVault.pause",
        "CreditVault.requestWithdrawal",
        "CreditVault.setDailyLimit",
        "CreditVault.setGuardian",
        "CreditVault.setSettler",
        "CreditVault.transfer_ownership",
        "CreditVault.unpause",
    }
)

PULL_FIRST = frozenset(
    {
        "NodeRegistryLocker.requestUnstake",
        "OperatorStakeRewardsV2.claim",
        "OperatorStakeRewardsV2.nodeRetired",
        "OperatorStakeRewardsV2.pause",
        "OperatorStakeRewardsV2.pull",
        "OperatorStakeRewardsV2.reportLiveness",
        "OperatorStakeRewardsV2.sync",
        "OperatorStakeRewardsV2.unpause",
    }
)
"""With a stream bound, these bring in first what it has released; a claim only where less is held than is due."""


def caller_of(call: Call) -> str:
    """A stranger where anyone may call."""
    return "stranger" if "stranger" in call.allowed else sorted(call.allowed)[0]


def check_movements(stage: Stage, call: Call, *, stream: Stream | None = None) -> None:
    """Makes the call, and compares the token's events and all balances with the table."""
    with boa.env.anchor():
        caller = stage.accounts[caller_of(call)]
        arguments = call.arrange(stage, caller)
        names = stage.names | ({stream.lockup.address: "Sablier"} if stream else {})
        expected = expected_of(stage, call, stream)
        expected_balances = balances(stage, names)
        for sender, receiver, amount_wei in expected:
            expected_balances[sender] -= amount_wei
            expected_balances[receiver] += amount_wei
        logs = call.make(stage, caller, arguments)
        assert list(movements(stage, logs, names)) == expected, str(call)
        assert balances(stage, names) == expected_balances, str(call)


def expected_of(stage: Stage, call: Call, stream: Stream | None) -> list[Movement]:
    expected = MOVES[str(call)](stage) if str(call) in MOVES else []
    released_wei = stream.released_wei() if stream and str(call) in PULL_FIRST else 0
    return [("Sablier", REWARDS, released_wei)] * (released_wei > 0) + expected


def movements(stage: Stage, logs: list[Any], names: dict[str, str]) -> Iterator[Movement]:
    """The token's transfers; an account that has no name keeps its address, and so never equals an expected one."""
    for log in logs:
        if log.address == stage.network.token.address and type(log).__name__ == "Transfer":
            sender, receiver = str(log.sender), str(log.receiver)
            yield names.get(sender, sender), names.get(receiver, receiver), int(log.value)


def balances(stage: Stage, names: dict[str, str]) -> dict[str, int]:
    return {name: stored(stage.network.token, "erc20", "balanceOf", key=address) for address, name in names.items()}


def check_movements_of(name: str) -> Callable[[], None]:
    """Checks the function of that name, `contract.function`, on a stage of its own."""

    def check() -> None:
        with boa.env.anchor():
            check_movements(deploy_stage(), next(each for each in CALLS if str(each) == name))

    return check


def planted(contract: str, name: str, before: str, after: str, function: str) -> Mutant:
    check = check_movements_of(f"{contract}.{function}")
    return Mutant(invariant="I14", name=name, contract=contract, before=before, after=after, check=check)


MUTANTS = (
    planted(
        LOCKER,
        "surplus-to-the-caller",
        "transfer(treasury, surplus_wei)",
        "transfer(msg.sender, surplus_wei)",
        "recoverSurplus",
    ),
    planted(
        LOCKER,
        "a-fee-for-leaving",
        "    self._tell_rewards(nodeId)\n",
        "    self._tell_rewards(nodeId)\n    extcall IERC20(token).transfer(treasury, 1)\n",
        "requestUnstake",
    ),
    planted(REWARDS, "pays-the-caller", "transfer(owner, amount_wei)", "transfer(msg.sender, amount_wei)", "claim"),
    planted(
        VAULT,
        "treasury-takes-more",
        "total * TREASURY_PERCENT // 100",
        "total * TREASURY_PERCENT // 100 + 1",
        "settle",
    ),
)
