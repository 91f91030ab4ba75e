"""What the owner of an account does with the contracts: deposit, limit, withdraw; stake, unstake, claim.

Each thing is one or two transactions. Whoever calls is told of each before it is sent, in words and with its contract,
and what a contract would refuse is refused before anything is paid for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec
from eth_account.signers.local import LocalAccount

from parallelix.chain.abi import Address, Call, Event, events_of
from parallelix.chain.bindings.credit_vault import (
    CreditVaultCalls,
    CreditVaultViews,
    DailyLimitSet,
    Deposited,
    WithdrawalRequested,
    Withdrawn,
)
from parallelix.chain.bindings.node_registry_locker import (
    Node,
    NodeRegistered,
    NodeRegistryLockerCalls,
    NodeRegistryLockerViews,
    StakeWithdrawn,
    UnstakeRequested,
)
from parallelix.chain.bindings.operator_stake_rewards import (
    OperatorStakeRewardsV2Calls,
    OperatorStakeRewardsV2Views,
    RewardsClaimed,
)
from parallelix.chain.bindings.prlx import PRLXCalls, PRLXViews
from parallelix.chain.clearance import Clearance, Permit, Signature, sign_permit
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import (
    AllowanceTooLow,
    BadResult,
    CooldownNotOver,
    NotMined,
    Reverted,
    WalletRefused,
    WrongChain,
)
from parallelix.chain.ports import Receipt
from parallelix.chain.rewards_table import moment
from parallelix.chain.rpc import Rpc
from parallelix.chain.wallet import Wallet

TOKEN, LOCKER, REWARDS, VAULT = "PRLX", "NodeRegistryLocker", "OperatorStakeRewardsV2", "CreditVault"
PERMIT_SECONDS = 1_800
"""From the newest block on. Its transaction is sent at once; half an hour is a chain under load."""
TIERS = (1, 2, 3, 4)
NODE_STATES = ("unknown", "active", "cooling down", "withdrawn")
E = TypeVar("E", bound=Event)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction: what it does, with how much, in which contract."""

    what: str
    amount_wei: int | None
    contract: str
    address: Address


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that is in a block."""

    step: Step
    transaction_hash: str
    block: int


class Told(Protocol):
    """Who is told of each transaction before and after. `before` answers whether it is to be sent."""

    def before(self, step: Step) -> bool: ...

    def after(self, done: Done) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What an account has, in wei, at the newest block; times in Unix seconds. Without a lower limit on its way,
    `lower_limit_from` is 0; without a request, `withdrawable_at` is."""

    account: Address
    fees_wei: int
    prlx_wei: int
    deposit_wei: int
    requested_wei: int
    withdrawable_at: int
    settled_wei: int
    limit_wei: int
    lower_limit_wei: int
    lower_limit_from: int
    at: int


async def require_contracts(rpc: Rpc, deployment: Deployment, *names: str) -> None:
    """Raises `WrongChain` unless the endpoint serves the deployment's chain, with contracts where it says."""
    chain_id = await rpc.chain_id()
    if chain_id != deployment.chain_id:
        raise WrongChain(
            f"the endpoint serves chain {chain_id}, the deployment is on chain {deployment.chain_id};"
            " give an endpoint of that chain"
        )
    for name in names:
        if not await rpc.code(deployment.address(name)):
            raise WrongChain(
                f"{name}: no contract stands at {deployment.address(name)}; the endpoint lags behind, or serves another"
                f" chain with the same id {chain_id}"
            )


async def look(rpc: Rpc, deployment: Deployment, account: Address) -> Holdings:
    await require_contracts(rpc, deployment, TOKEN, VAULT)
    vault = CreditVaultViews(rpc, deployment.address(VAULT))
    requested_wei, withdrawable_at = await vault.pending_withdrawal(account)
    lower_wei, lower_from = await vault.pending_daily_limit(account)
    return Holdings(
        account=account,
        fees_wei=await rpc.balance_wei(account),
        prlx_wei=await PRLXViews(rpc, deployment.address(TOKEN)).balance_of(account),
        deposit_wei=await vault.deposits(account),
        requested_wei=requested_wei,
        withdrawable_at=withdrawable_at,
        settled_wei=await vault.settled(account),
        limit_wei=await vault.daily_limit(account),
        lower_limit_wei=lower_wei,
        lower_limit_from=lower_from,
        at=await rpc.block_time(),
    )


async def earned(rpc: Rpc, deployment: Deployment, node_id: int) -> tuple[Node, int]:
    """A node, and the wei that it has earned and that nobody claimed. Raises `WalletRefused` for one there is not."""
    await require_contracts(rpc, deployment, LOCKER, REWARDS)
    node = await _node(rpc, deployment, node_id)
    return node, await OperatorStakeRewardsV2Views(rpc, deployment.address(REWARDS)).earned(node_id)


async def _node(rpc: Rpc, deployment: Deployment, node_id: int) -> Node:
    locker = NodeRegistryLockerViews(rpc, deployment.address(LOCKER))
    count = await locker.node_count()
    if not 1 <= node_id <= count:
        raise WalletRefused(f"node {node_id}: there is no such node; ids go from 1 to {count}")
    return await locker.nodes(node_id)


class Holder:
    """One account with its key. Every method raises `ChainError`; `Reverted` where a contract refuses."""

    def __init__(self, rpc: Rpc, deployment: Deployment, account: LocalAccount, told: Told) -> None:
        self._rpc = rpc
        self._deployment = deployment
        self._account = account
        self._told = told
        self._sender = Wallet(rpc, account)

    @property
    def address(self) -> Address:
        return self._account.address

    # Deposits ---------------------------------------------------------------------------------------------------------

    async def deposit(
        self, amount_wei: int, *, by_approval: bool = False, permit_seconds: int = PERMIT_SECONDS
    ) -> int | None:
        """What the account has in the vault afterwards; none where it was only explained.

        With a permit, which needs one transaction. Where the token does not take the permit, or with `by_approval`,
        an approval of exactly the amount comes first.
        """
        await self._require(amount_wei, TOKEN, VAULT)
        vault = CreditVaultCalls(self._deployment.address(VAULT))
        step = self._step("deposit", VAULT, amount_wei)
        if not by_approval:
            try:
                return await self._deposit_with_permit(vault, step, amount_wei, permit_seconds)
            except AllowanceTooLow:
                pass
        if not await self._allow(VAULT, amount_wei):
            self._told.before(step)
            return None
        receipt = await self._send(step, vault.deposit(amount_wei))
        return None if receipt is None else _the(receipt, Deposited).deposit

    async def _deposit_with_permit(
        self, vault: CreditVaultCalls, step: Step, amount_wei: int, permit_seconds: int
    ) -> int | None:
        deadline = await self._rpc.block_time() + permit_seconds
        signature = await self._permit(amount_wei, deadline)
        call = vault.deposit_with_permit(amount_wei, deadline, signature.v, signature.r, signature.s)
        receipt = await self._send(step, call)
        return None if receipt is None else _the(receipt, Deposited).deposit

    async def set_limit(self, limit_wei: int) -> DailyLimitSet | None:
        """Raising acts at once; lowering from `effective_from` (Unix seconds) on."""
        await self._require(0, VAULT)
        step = self._step("set the most that may be settled in a day", VAULT, limit_wei)
        receipt = await self._send(step, CreditVaultCalls(self._deployment.address(VAULT)).set_daily_limit(limit_wei))
        return None if receipt is None else _the(receipt, DailyLimitSet)

    async def request_withdrawal(self, amount_wei: int) -> WithdrawalRequested | None:
        await self._require(0, VAULT)
        step = self._step("ask for a withdrawal, which is paid after the vault's delay", VAULT, amount_wei)
        call = CreditVaultCalls(self._deployment.address(VAULT)).request_withdrawal(amount_wei)
        receipt = await self._send(step, call)
        return None if receipt is None else _the(receipt, WithdrawalRequested)

    async def take_withdrawal_back(self) -> bool:
        await self._require(0, VAULT)
        step = self._step("take the withdrawal request back", VAULT, None)
        call = CreditVaultCalls(self._deployment.address(VAULT)).cancel_withdrawal()
        return await self._send(step, call) is not None

    async def pay_out(self, requested_wei: int) -> Withdrawn | None:
        """Pays the open request, whose time has come."""
        await self._require(0, VAULT)
        step = self._step("pay out what was asked for", VAULT, requested_wei)
        receipt = await self._send(step, CreditVaultCalls(self._deployment.address(VAULT)).withdraw())
        return None if receipt is None else _the(receipt, Withdrawn)

    async def withdraw_cleared(self, clearance: Clearance, signature: Signature) -> Withdrawn | None:
        """Withdraws at once with the settler's clearance."""
        await self._require(0, VAULT)
        step = self._step("withdraw at once, with the coordinator's clearance", VAULT, clearance.amount)
        call = CreditVaultCalls(self._deployment.address(VAULT)).withdraw_with_clearance(
            clearance.amount,
            clearance.cumulative_spent,
            clearance.nonce,
            clearance.expiry,
            signature.v,
            signature.r,
            signature.s,
        )
        receipt = await self._send(step, call)
        return None if receipt is None else _the(receipt, Withdrawn)

    # Nodes ------------------------------------------------------------------------------------------------------------

    async def register(self, *, tier: int, stake_wei: int, node_key_hash: bytes) -> int | None:
        """The new node's id. The approval of exactly the stake comes first, so all that the locker would refuse is
        asked before."""
        await self._require(stake_wei, TOKEN, LOCKER)
        locker = NodeRegistryLockerViews(self._rpc, self._deployment.address(LOCKER))
        least_wei = await locker.minimum_stake()
        if tier not in TIERS:
            raise WalletRefused(f"tier {tier}: is not 1 to 4; the operator guide says which hardware has which")
        if stake_wei < least_wei:
            raise WalletRefused(f"stake {_prlx(stake_wei)}: at least {_prlx(least_wei)} a node")
        taken = await locker.node_of_key(node_key_hash)
        if taken:
            raise WalletRefused(f"node key hash: node {taken} has this key already; give each node a key of its own")
        step = self._step(f"stake for a new node of tier {tier}", LOCKER, stake_wei)
        if not await self._allow(LOCKER, stake_wei):
            self._told.before(step)
            return None
        call = NodeRegistryLockerCalls(self._deployment.address(LOCKER)).register_node(stake_wei, tier, node_key_hash)
        receipt = await self._send(step, call)
        return None if receipt is None else _the(receipt, NodeRegistered).node_id

    async def unstake(self, node_id: int) -> UnstakeRequested | None:
        """Retires a node for good; its stake can be withdrawn after the cooldown."""
        await self._require(0, LOCKER)
        node = await self._own_node(node_id)
        step = self._step(f"retire node {node_id} for good and ask for its stake", LOCKER, node.stake)
        call = NodeRegistryLockerCalls(self._deployment.address(LOCKER)).request_unstake(node_id)
        receipt = await self._send(step, call)
        return None if receipt is None else _the(receipt, UnstakeRequested)

    async def withdraw_stake(self, node_id: int) -> int | None:
        """The wei that were paid: the whole stake, once its cooldown is over."""
        await self._require(0, LOCKER)
        node = await self._own_node(node_id)
        step = self._step(f"withdraw the stake of node {node_id}", LOCKER, node.stake)
        call = NodeRegistryLockerCalls(self._deployment.address(LOCKER)).withdraw_stake(node_id)
        try:
            receipt = await self._send(step, call)
        except CooldownNotOver as error:
            raise WalletRefused(
                f"node {node_id}: its stake is free from {moment(node.withdrawable_at)} on; run the same command then"
            ) from error
        return None if receipt is None else _the(receipt, StakeWithdrawn).amount

    async def claim(self, node_id: int) -> int | None:
        """The wei that were paid to the node's owner, whoever claims."""
        _, due_wei = await earned(self._rpc, self._deployment, node_id)
        await self._require(0, REWARDS)
        step = self._step(f"claim what node {node_id} earned, for its owner", REWARDS, due_wei)
        receipt = await self._send(step, OperatorStakeRewardsV2Calls(self._deployment.address(REWARDS)).claim(node_id))
        return None if receipt is None else _the(receipt, RewardsClaimed).amount

    # ------------------------------------------------------------------------------------------------------------------

    async def _require(self, prlx_wei: int, *contracts: str) -> None:
        """Raises `WalletRefused` for what the account cannot pay."""
        await require_contracts(self._rpc, self._deployment, *contracts)
        if not await self._rpc.balance_wei(self.address):
            raise WalletRefused(f"{self.address}: has no ETH, which pays for transactions; send it some on this chain")
        if prlx_wei:
            has_wei = await PRLXViews(self._rpc, self._deployment.address(TOKEN)).balance_of(self.address)
            if has_wei < prlx_wei:
                raise WalletRefused(
                    f"{self.address}: has {_prlx(has_wei)}, {_prlx(prlx_wei)} are needed; give a smaller amount, or "
                    "send it more"
                )

    async def _own_node(self, node_id: int) -> Node:
        node = await _node(self._rpc, self._deployment, node_id)
        if node.owner != self.address:
            raise WalletRefused(
                f"node {node_id}: belongs to {node.owner}, and the key is of {self.address}; give the owner's key"
            )
        return node

    async def _allow(self, contract: str, amount_wei: int) -> bool:
        """Lets a contract take exactly the amount, where it may not yet. False where that was only explained."""
        spender = self._deployment.address(contract)
        token = self._deployment.address(TOKEN)
        if await PRLXViews(self._rpc, token).allowance(self.address, spender) >= amount_wei:
            return True
        step = self._step(f"allow {contract} to take", TOKEN, amount_wei)
        return await self._send(step, PRLXCalls(token).approve(spender, amount_wei)) is not None

    async def _permit(self, amount_wei: int, deadline: int) -> Signature:
        token = self._deployment.address(TOKEN)
        permit = Permit(
            owner=self.address,
            spender=self._deployment.address(VAULT),
            value=amount_wei,
            nonce=await PRLXViews(self._rpc, token).nonces(self.address),
            deadline=deadline,
        )
        return sign_permit(self._account, permit, token=token, chain_id=self._deployment.chain_id)

    def _step(self, what: str, contract: str, amount_wei: int | None) -> Step:
        return Step(what=what, amount_wei=amount_wei, contract=contract, address=self._deployment.address(contract))

    async def _send(self, step: Step, call: Call) -> Receipt | None:
        """Asks the chain whether it would go, says what it is, and sends it."""
        try:
            await self._rpc.estimate_gas(call.to, call.data, sender=self.address, value_wei=call.value_wei)
            if not self._told.before(step):
                return None
            receipt = await self._sender.send(call)
        except Reverted as error:
            raise error.during(step.what) from error
        except NotMined as error:
            raise WalletRefused(
                f"{step.what}: transaction {error.transaction_hash} is in no block yet; it may still be taken: look it "
                "up before you run this again, since that sends another one"
            ) from error
        self._told.after(Done(step=step, transaction_hash=receipt.transaction_hash, block=receipt.block_number))
        return receipt


def _prlx(wei: int) -> str:
    """All its digits, so that a refusal by one wei can be seen."""
    whole, part = divmod(wei, 10**18)
    return f"{whole}.{part:018d}".rstrip("0").rstrip(".") + " PRLX"


def _the(receipt: Receipt, kind: type[E]) -> E:
    """The one event of its kind. Raises `BadResult`."""
    found = events_of(receipt.logs, kind)
    if len(found) != 1:
        raise BadResult(kind.LAYOUT.signature, f"transaction {receipt.transaction_hash} has {len(found)} of these")
    return found[0]
