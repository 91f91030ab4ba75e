"""Every function of all five contracts that changes state: who may call it, with what it refuses everybody else, and a
stage on which it succeeds. A function that is missing here fails the tests that walk over this table."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import boa
from eth_account.signers.local import LocalAccount
from hostile_contracts import hostile_deployer
from locker_scene import COOLDOWN_SECONDS, MINIMUM_STAKE_WEI, key_hash
from network import EMPTY_ROOT, WITHDRAWAL_DELAY_SECONDS, Network, deploy_network, make_roles
from permits import signer
from sources import deployer_of
from vault_scene import Clearance, permit_of

PRLX = 10**18
DAY_SECONDS, HOUR_SECONDS = 86_400, 3_600
FUNDS_WEI = 1_000_000 * PRLX
DEPOSIT_WEI = 1_000 * PRLX
SURPLUS_WEI = 7
INCOME_WEI = 8_640 * PRLX
SPENT_WEI = 101
CLEARED_WEI = 5 * PRLX
KEYED_ROLES = (
    "stranger",
    "node owner",
    "validator",
    "liveness",
    "settler",
    "guardian",
    "owner",
    "pending owner",
    "deployer",
)
ROLES = (*KEYED_ROLES, "locker")
ANYONE = frozenset(ROLES)
ACTIVE_NODE, COOLED_NODE, SILENT_NODE = 1, 2, 3
"""One that earns, one whose cooldown is over, and one that was never reported."""


@functools.cache
def signer_of(role: str) -> LocalAccount:
    return signer(1_000 + KEYED_ROLES.index(role))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A network at work: nodes, earnings, deposits, surpluses, and an owner named who has not accepted yet."""

    network: Network
    accounts: dict[str, str]
    """The address of each role."""
    unbound_locker: Any
    its_rewards: Any

    @property
    def names(self) -> dict[str, str]:
        """Whose address it is, for roles, contracts, and those that are only ever paid."""
        contracts = {contract.address: name for name, contract in self.network.contracts()}
        paid = {self.network.roles.treasury: "treasury", self.network.roles.infrastructure: "infrastructure"}
        return {address: role for role, address in self.accounts.items()} | contracts | paid


Arguments = tuple[Any, ...]
Arrange = Callable[[Stage, str], Arguments]
"""Makes the call possible for this caller, where that takes something, and gives the arguments."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    contract: str
    function: str
    allowed: frozenset[str]
    refusal: str | None
    """What everybody else is told."""
    arrange: Arrange
    exceptions: Mapping[str, str]
    """Roles that are told something else."""
    target: Callable[[Stage], Any] | None
    value_wei: int

    def __str__(self) -> str:
        return f"{self.contract}.{self.function}"

    def refusal_of(self, role: str) -> str | None:
        if role in self.exceptions:
            return self.exceptions[role]
        return None if role in self.allowed else self.refusal

    def contract_on(self, stage: Stage) -> Any:
        return self.target(stage) if self.target else stage.network.contract(self.contract)

    def make(self, stage: Stage, caller: str, arguments: Arguments) -> list[Any]:
        """Makes the call, and returns what it and all that it called have logged."""
        contract = self.contract_on(stage)
        if self.function == "fallback":
            computation = boa.env.raw_call(contract.address, sender=caller, value=self.value_wei)
            return contract.get_logs(computation, strict=False)
        getattr(contract, self.function)(*arguments, sender=caller, value=self.value_wei)
        return contract.get_logs(strict=False)


# The stage


def deploy_stage() -> Stage:
    keyed: dict[str, str] = {role: signer_of(role).address for role in KEYED_ROLES}
    named = {role: keyed[role] for role in ("deployer", "owner", "validator", "liveness", "settler", "guardian")}
    network = deploy_network(make_roles(**named))
    with boa.env.prank(keyed["deployer"]):
        unbound = deployer_of("NodeRegistryLocker")(network.token.address, network.roles.treasury)
        its_rewards = hostile_deployer("HostileRewards")(unbound.address)
    accounts = keyed | {"locker": str(network.locker.address)}
    stage = Stage(network=network, accounts=accounts, unbound_locker=unbound, its_rewards=its_rewards)
    fund_accounts(stage)
    start_work(stage)
    for contract in network.owned():
        contract.transfer_ownership(accounts["pending owner"], sender=accounts["owner"])
    return stage


def fund_accounts(stage: Stage) -> None:
    """Everybody has tokens, a deposit in the vault, and coins to pay fees with; the locker has them as a surplus."""
    network, deployer = stage.network, stage.accounts["deployer"]
    for account in stage.accounts.values():
        boa.env.set_balance(account, PRLX)
        network.token.transfer(account, FUNDS_WEI, sender=deployer)
        for holder in (network.locker, network.vault):
            network.token.approve(holder.address, 2**256 - 1, sender=account)
        network.vault.deposit(DEPOSIT_WEI, sender=account)
    network.token.transfer(network.vault.address, SURPLUS_WEI, sender=deployer)


def start_work(stage: Stage) -> None:
    """Leaves an hour of income on the first node, and two epochs committed."""
    network, owner = stage.network, stage.accounts["node owner"]
    for number in (ACTIVE_NODE, COOLED_NODE, SILENT_NODE):
        network.locker.registerNode(MINIMUM_STAKE_WEI, 1, key_hash(number), sender=owner)
    network.locker.requestUnstake(COOLED_NODE, sender=owner)
    network.token.transfer(network.rewards.address, INCOME_WEI, sender=stage.accounts["deployer"])
    network.rewards.pull()
    boa.env.time_travel(seconds=COOLDOWN_SECONDS)
    network.rewards.reportLiveness(0, EMPTY_ROOT, [(ACTIVE_NODE, True, 0)], sender=stage.accounts["liveness"])
    boa.env.time_travel(seconds=HOUR_SECONDS)
    for epoch in (0, 1):
        network.anchor.commitSampling(epoch, hash_of(secret(epoch)), sender=stage.accounts["validator"])


def hash_of(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


def secret(epoch: int) -> bytes:
    return hash_of(b"secret of epoch %d" % epoch)


# What calls need first


def with_allowance(stage: Stage, caller: str) -> Arguments:
    owner = stage.accounts["node owner"]
    stage.network.token.approve(caller, PRLX, sender=owner)
    return owner, stage.accounts["validator"], PRLX


def with_permit(stage: Stage, caller: str) -> Arguments:
    owner, spender, deadline = signer_of("node owner"), stage.accounts["stranger"], boa.env.timestamp
    signature = permit_of(owner, stage.network.token, spender, PRLX, deadline)
    return owner.address, spender, PRLX, deadline, *signature


def with_own_permit(stage: Stage, caller: str) -> Arguments:
    """The locker has no key: its permit fails, and its allowance decides."""
    role, deadline = stage.names[caller], boa.env.timestamp
    holder = signer_of(role) if role in KEYED_ROLES else signer_of("stranger")
    return PRLX, deadline, *permit_of(holder, stage.network.token, stage.network.vault.address, PRLX, deadline)


def with_clearance(stage: Stage, caller: str) -> Arguments:
    clearance = Clearance(
        account=caller, amount=CLEARED_WEI, cumulative_spent=SPENT_WEI, nonce=0, expiry=boa.env.timestamp
    )
    return clearance.arguments(stage.network.vault.address, signer=signer_of("settler"))


def with_request(stage: Stage, caller: str) -> Arguments:
    stage.network.vault.requestWithdrawal(CLEARED_WEI, sender=caller)
    return ()


def with_request_that_waited(stage: Stage, caller: str) -> Arguments:
    with_request(stage, caller)
    boa.env.time_travel(seconds=WITHDRAWAL_DELAY_SECONDS)
    return ()


def while_paused(contract: str) -> Arrange:
    def arrange(stage: Stage, caller: str) -> Arguments:
        stage.network.contract(contract).pause(sender=stage.accounts["guardian"])
        return ()

    return arrange


def first_batch(stage: Stage, caller: str) -> Arguments:
    return bytes(32), hash_of(b"record 2"), 0, 2, hash_of(b"root"), 3, 0


def given(*arguments: Any) -> Arrange:
    return lambda stage, caller: arguments


NOTHING = given()


def another_account(stage: Stage, caller: str) -> Arguments:
    return (boa.env.generate_address("successor"),)


# The table


def call(
    contract: str,
    function: str,
    *allowed: str,
    refusal: str | None = None,
    arrange: Arrange = NOTHING,
    exceptions: Mapping[str, str] | None = None,
    target: Callable[[Stage], Any] | None = None,
    value_wei: int = 0,
) -> Call:
    """Without a role it is a call that anyone may make."""
    return Call(
        contract=contract,
        function=function,
        allowed=frozenset(allowed) or ANYONE,
        refusal=refusal,
        arrange=arrange,
        exceptions=exceptions or {},
        target=target,
        value_wei=value_wei,
    )


def ownership(contract: str) -> tuple[Call, ...]:
    return (
        owner_call(contract, "transfer_ownership", another_account),
        call(
            contract,
            "accept_ownership",
            "pending owner",
            refusal="ownable_2step: caller is not the new owner",
        ),
    )


def owner_call(contract: str, function: str, arrange: Arrange) -> Call:
    return call(contract, function, "owner", refusal="ownable: caller is not the owner", arrange=arrange)


def prlx(function: str, arrange: Arrange) -> Call:
    return call("PRLX", function, arrange=arrange)


def anchor(function: str, arrange: Arrange) -> Call:
    refusal = "anchor: caller is not the validator"
    return call("ExecutionAnchor", function, "validator", refusal=refusal, arrange=arrange)


def node_owner(function: str, node_id: int) -> Call:
    refusal = "locker: caller is not the owner of the node"
    return call("NodeRegistryLocker", function, "node owner", refusal=refusal, arrange=given(node_id))


def rewards(function: str, arrange: Arrange = NOTHING, *, value_wei: int = 0) -> Call:
    return call("OperatorStakeRewardsV2", function, arrange=arrange, value_wei=value_wei)


def vault(function: str, arrange: Arrange = NOTHING) -> Call:
    return call("CreditVault", function, arrange=arrange)


def pause(contract: str, prefix: str) -> Call:
    return call(contract, "pause", "guardian", "owner", refusal=f"{prefix}: caller is not the guardian")


CALLS = (
    prlx("approve", lambda stage, caller: (stage.accounts["stranger"], PRLX)),
    prlx("permit", with_permit),
    prlx("transfer", lambda stage, caller: (stage.accounts["validator"], PRLX)),
    prlx("transferFrom", with_allowance),
    owner_call("PRLX", "addExemption", another_account),
    *ownership("PRLX"),
    anchor("anchorBatch", first_batch),
    anchor("commitSampling", given(2, hash_of(secret(2)))),
    anchor("revealSampling", given(0, secret(0))),
    owner_call("ExecutionAnchor", "setValidator", another_account),
    *ownership("ExecutionAnchor"),
    call(
        "NodeRegistryLocker",
        "registerNode",
        arrange=given(MINIMUM_STAKE_WEI, 4, key_hash(9)),
        # What it pays itself does not arrive.
        exceptions={"locker": "locker: below minimum stake"},
    ),
    call("NodeRegistryLocker", "recoverSurplus"),
    node_owner("requestUnstake", ACTIVE_NODE),
    node_owner("withdrawStake", COOLED_NODE),
    call(
        "NodeRegistryLocker",
        "bindRewards",
        "deployer",
        refusal="locker: caller is not the deployer",
        arrange=lambda stage, caller: (stage.its_rewards.address,),
        target=lambda stage: stage.unbound_locker,
    ),
    rewards("claim", given(ACTIVE_NODE)),
    rewards("pull", value_wei=1),
    rewards("fallback", value_wei=1),
    rewards("sync", given(ACTIVE_NODE)),
    call(
        "OperatorStakeRewardsV2",
        "nodeRetired",
        "locker",
        refusal="rewards: caller is not the locker",
        arrange=given(SILENT_NODE),
    ),
    call(
        "OperatorStakeRewardsV2",
        "reportLiveness",
        "liveness",
        refusal="rewards: caller is not the liveness reporter",
        arrange=given(0, EMPTY_ROOT, [(ACTIVE_NODE, False, 0), (SILENT_NODE, True, 1)]),
    ),
    pause("OperatorStakeRewardsV2", "rewards"),
    owner_call("OperatorStakeRewardsV2", "unpause", while_paused("OperatorStakeRewardsV2")),
    owner_call("OperatorStakeRewardsV2", "setLiveness", another_account),
    owner_call("OperatorStakeRewardsV2", "setGuardian", another_account),
    *ownership("OperatorStakeRewardsV2"),
    vault("deposit", given(PRLX)),
    vault("depositWithPermit", with_own_permit),
    vault("withdrawWithClearance", with_clearance),
    vault("requestWithdrawal", given(PRLX)),
    vault("cancelWithdrawal", with_request),
    vault("withdraw", with_request_that_waited),
    vault("setDailyLimit", given(PRLX)),
    vault("recoverSurplus"),
    call(
        "CreditVault",
        "settle",
        "settler",
        refusal="vault: caller is not the settler",
        arrange=lambda stage, caller: ([(stage.accounts["stranger"], SPENT_WEI)],),
    ),
    pause("CreditVault", "vault"),
    owner_call("CreditVault", "unpause", while_paused("CreditVault")),
    owner_call("CreditVault", "setSettler", another_account),
    owner_call("CreditVault", "setGuardian", another_account),
    *ownership("CreditVault"),
)

STREAM_CALL = "OperatorStakeRewardsV2.bindStream"
"""Takes a stream of the real Sablier, and so has tests of its own."""


def changing_functions(contract: Any) -> set[str]:
    """From the contract's ABI; the default function, which has no name, is the fallback."""
    entries = [entry for entry in contract.abi if entry["type"] in ("function", "fallback", "receive")]
    return {entry.get("name", entry["type"]) for entry in entries if entry["stateMutability"] not in ("view", "pure")}


def viewing_functions(contract: Any) -> set[str]:
    entries = [entry for entry in contract.abi if entry["type"] == "function"]
    return {entry["name"] for entry in entries if entry["stateMutability"] in ("view", "pure")}
