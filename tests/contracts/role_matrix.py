"""I13: whoever may call a function can, and nobody else. Checked role by role on one stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import boa
from chain_storage import all_of
from every_call import CALLS, ROLES, Arguments, Call, Stage, deploy_stage, owner_call
from harness import Mutant, revert_reason
from locker_scene import key_hash
from network import BOOTSTRAP_SECONDS, BOOTSTRAP_WEI, EMPTY_ROOT
from sablier import open_stream

ZERO_HASH = bytes(32)

VIEWS: dict[str, dict[str, Arguments]] = {
    "PRLX": {
        "DOMAIN_SEPARATOR": (),
        "TAX_BPS": (),
        "allowance": ("stranger", "locker"),
        "balanceOf": ("stranger",),
        "decimals": (),
        "eip712Domain": (),
        "isExempt": ("locker",),
        "name": (),
        "nonces": ("stranger",),
        "owner": (),
        "pending_owner": (),
        "symbol": (),
        "taxOn": ("stranger", "validator", 100),
        "taxRecipient": (),
        "totalSupply": (),
    },
    "ExecutionAnchor": {
        "batchCount": (),
        "commitmentOf": (0,),
        "committedEpochs": (),
        "head": (),
        "holds": (0, EMPTY_ROOT),
        "newestEpoch": (),
        "nextSequence": (),
        "owner": (),
        "pending_owner": (),
        "revealedEpochs": (),
        "rootOf": (0,),
        "secretOf": (0,),
        "validator": (),
        "verify": (0, ZERO_HASH, 0, 1, []),
    },
    "NodeRegistryLocker": {
        "COOLDOWN_SECONDS": (),
        "MINIMUM_STAKE": (),
        "deployer": (),
        "nodeCount": (),
        "nodeOfKey": (ZERO_HASH,),
        "nodes": (1,),
        "ownerOf": (1,),
        "registration": (1,),
        "rewards": (),
        "token": (),
        "totalPrincipal": (),
        "treasury": (),
    },
    "OperatorStakeRewardsV2": {
        "anchor": (),
        "bootstrapAmount": (),
        "bootstrapHeld": (),
        "bootstrapSeconds": (),
        "earned": (1,),
        "guardian": (),
        "held": (),
        "index": (),
        "isFresh": (),
        "lastReportAt": (),
        "lastReportedBatch": (),
        "lastUpdateAt": (),
        "liveness": (),
        "locker": (),
        "lockup": (),
        "multiplierTenths": (1,),
        "node": (1,),
        "owner": (),
        "paused": (),
        "pending_owner": (),
        "ratePerSecond": (),
        "staleSeconds": (),
        "streamId": (),
        "token": (),
        "totalWeight": (),
        "undistributed": (),
        "weightOf": (1,),
    },
    "CreditVault": {
        "DOMAIN_SEPARATOR": (),
        "dailyLimit": ("stranger",),
        "defaultDailyLimit": (),
        "deposits": ("stranger",),
        "eip712Domain": (),
        "guardian": (),
        "infrastructure": (),
        "nonces": ("stranger",),
        "owner": (),
        "paused": (),
        "pendingDailyLimit": ("stranger",),
        "pendingWithdrawal": ("stranger",),
        "pending_owner": (),
        "rewards": (),
        "settled": ("stranger",),
        "settledToday": ("stranger",),
        "settler": (),
        "token": (),
        "totalDeposits": (),
        "treasury": (),
        "withdrawalDelaySeconds": (),
    },
}
"""Every view, with arguments that it answers: names of roles stand for their addresses. Anyone may ask."""


def everything(stage: Stage) -> dict[str, Any]:
    """All that is stored in the contracts, as far as the stage's accounts and its few nodes, epochs and batches go."""
    keys: dict[str, Sequence[int | str]] = {
        "address": list(stage.names),
        "uint256": range(6),
        "uint64": range(4),
        "bytes32": [int.from_bytes(key_hash(number), "big") for number in range(10)],
    }
    contracts = [*stage.network.contracts(), ("unbound", stage.unbound_locker)]
    return {name: all_of(contract, keys) for name, contract in contracts}


def check_call(stage: Stage, call: Call) -> None:
    for role in ROLES:
        with boa.env.anchor():
            check_role(stage, call, role)


def check_role(stage: Stage, call: Call, role: str) -> None:
    caller = stage.accounts[role]
    arguments = call.arrange(stage, caller)
    refusal = call.refusal_of(role)
    if refusal is None:
        call.make(stage, caller, arguments)
        return
    before = everything(stage)
    try:
        call.make(stage, caller, arguments)
    except boa.BoaError as error:
        assert revert_reason(error) == refusal, f"{call} by {role}: {revert_reason(error)!r} instead of {refusal!r}"
    else:
        raise AssertionError(f"{call} by {role} succeeded instead of being refused with {refusal!r}")
    assert everything(stage) == before, f"{call} by {role} changed something"


def answers(stage: Stage, contract: str, view: str) -> Iterator[Any]:
    """What each role is told."""
    arguments = [stage.accounts[each] if isinstance(each, str) else each for each in VIEWS[contract][view]]
    for role in ROLES:
        yield getattr(stage.network.contract(contract), view)(*arguments, sender=stage.accounts[role])


def stream_call(lockup: Any) -> Call:
    """Binding a stream of this Lockup to the stage's rewards."""
    return owner_call("OperatorStakeRewardsV2", "bindStream", lambda stage, caller: opened_stream(stage, lockup))


def opened_stream(stage: Stage, lockup: Any) -> Arguments:
    """The production stream, running since now, and still to be bound."""
    network = stage.network
    network.token.addExemption(lockup.address, sender=network.roles.owner)
    stream_id = open_stream(
        lockup,
        network.token,
        funder=network.roles.deployer,
        recipient=network.rewards.address,
        amount_wei=BOOTSTRAP_WEI,
        start=boa.env.timestamp,
        duration_seconds=BOOTSTRAP_SECONDS,
    )
    return lockup.address, stream_id


def check_roles_of(name: str) -> Callable[[], None]:
    """Checks the function of that name, `contract.function`, on a stage of its own."""

    def check() -> None:
        with boa.env.anchor():
            stage = deploy_stage()
            check_call(stage, next(each for each in CALLS if str(each) == name))

    return check


def planted(contract: str, name: str, before: str, after: str, function: str) -> Mutant:
    return Mutant(
        invariant="I13",
        name=name,
        contract=contract,
        before=before,
        after=after,
        check=check_roles_of(f"{contract}.{function}"),
    )


SOMEBODY = "msg.sender != empty(address)"

MUTANTS = (
    planted(
        "PRLX",
        "anybody-exempts",
        "    ownable._check_owner()\n    assert account",
        "    assert account",
        "addExemption",
    ),
    planted("ExecutionAnchor", "anybody-anchors", "msg.sender == self.validator", SOMEBODY, "anchorBatch"),
    planted("NodeRegistryLocker", "anybody-binds", "msg.sender == deployer", SOMEBODY, "bindRewards"),
    planted(
        "NodeRegistryLocker",
        "deployer-withdraws",
        "msg.sender == registration.owner",
        "msg.sender in [registration.owner, deployer]",
        "withdrawStake",
    ),
    planted("OperatorStakeRewardsV2", "anybody-reports", "msg.sender == self.liveness", SOMEBODY, "reportLiveness"),
    planted(
        "CreditVault",
        "guardian-settles",
        "msg.sender == self.settler",
        "msg.sender in [self.settler, self.guardian]",
        "settle",
    ),
    planted(
        "CreditVault",
        "owner-cannot-pause",
        "msg.sender in [self.guardian, ownable.owner]",
        "msg.sender == self.guardian",
        "pause",
    ),
)
