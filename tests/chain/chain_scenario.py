"""One life of the network from the first stake to the last withdrawal, on whatever chain it is given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import pytest
from chain_scene import PRLX, key
from eth_account.signers.local import LocalAccount

from parallelix.chain import errors
from parallelix.chain.abi import Address, Call, Event, Log, events_of, read_log, table_of
from parallelix.chain.bindings import (
    credit_vault,
    execution_anchor,
    node_registry_locker,
    operator_stake_rewards,
    prlx,
)
from parallelix.chain.bindings.credit_vault import (
    CreditVaultCalls,
    CreditVaultViews,
    Deposited,
    SettlementShort,
    Spend,
    SpendSettled,
    WithdrawalRequested,
    Withdrawn,
)
from parallelix.chain.bindings.execution_anchor import BatchAnchored, ExecutionAnchorCalls, ExecutionAnchorViews
from parallelix.chain.bindings.node_registry_locker import (
    NodeRegistered,
    NodeRegistryLockerCalls,
    NodeRegistryLockerViews,
    StakeWithdrawn,
    UnstakeRequested,
)
from parallelix.chain.bindings.operator_stake_rewards import (
    LivenessChange,
    NodeOffline,
    NodeOnline,
    OperatorStakeRewardsV2Calls,
    OperatorStakeRewardsV2Views,
    RewardsClaimed,
    RewardsFunded,
)
from parallelix.chain.bindings.prlx import PRLXCalls, PRLXViews
from parallelix.chain.clearance import Clearance, Permit, sign_clearance, sign_permit
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.ports import Chain, Receipt
from parallelix.protocol import merkle
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.records import GENESIS_HASH, ExecutionRecord, record_hash, record_hash_bytes
from parallelix.protocol.work import Usage

HOUR, DAY = 3_600, 86_400
E = TypeVar("E", bound=Event)
STAKE_WEI = 60_000 * PRLX
NODE_KEY_HASH = hashlib.sha256(b"a node's public key").digest()
BATCH_SIZES = (4, 1, 7)
NODES_BATCH = len(BATCH_SIZES)
EVENTS = {
    "PRLX": table_of(prlx.EVENTS),
    "ExecutionAnchor": table_of(execution_anchor.EVENTS),
    "NodeRegistryLocker": table_of(node_registry_locker.EVENTS),
    "OperatorStakeRewardsV2": table_of(operator_stake_rewards.EVENTS),
    "CreditVault": table_of(credit_vault.EVENTS),
}


class World(Protocol):
    """A chain with a deployment on it, a clock that can be put forward, and accounts that can pay."""

    @property
    def chain(self) -> Chain: ...

    @property
    def chain_id(self) -> int: ...

    async def send(self, account: LocalAccount, call: Call) -> Receipt: ...

    async def time_of(self, receipt: Receipt) -> int: ...

    async def pass_time(self, seconds: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Records as they are anchored together."""

    records: tuple[ExecutionRecord, ...]

    @property
    def hashes(self) -> list[bytes]:
        return [record_hash_bytes(record) for record in self.records]

    @property
    def root(self) -> bytes:
        return merkle.root(self.hashes)


def batches() -> list[Batch]:
    """A chain of records, cut into batches of `BATCH_SIZES`."""
    records: list[ExecutionRecord] = []
    for sequence in range(sum(BATCH_SIZES)):
        head = record_hash(records[-1]) if records else GENESIS_HASH
        records.append(record(sequence, head))
    remaining = iter(records)
    return [Batch(records=tuple(next(remaining) for _ in range(size))) for size in BATCH_SIZES]


def record(sequence: int, previous_hash: str) -> ExecutionRecord:
    digest = to_hex(hashlib.sha256(sequence.to_bytes(8, "big")).digest())
    return ExecutionRecord(
        sequence=sequence,
        previous_hash=previous_hash,
        request_id=f"req_{sequence:064x}",
        workload_class="ai.inference",
        model_digest=f"sha256:{digest[2:]}",
        input_hash=digest,
        result_hash=digest,
        poe_commitment=digest,
        usage=Usage(prompt_tokens=10, completion_tokens=20 + sequence),
        epoch=0,
        rate=0,
        started_at=1_790_000_000_000 + sequence,
        finished_at=1_790_000_000_500 + sequence,
    )


def only(receipt: Receipt, kind: type[E]) -> E:
    (event,) = events_of(receipt.logs, kind)
    return event


class Life:
    """The scenes, in their order. Each says what has to be true after it."""

    def __init__(self, world: World, deployment: Deployment) -> None:
        self.world = world
        self.deployment = deployment
        self.operator, self.requester = key("operator"), key("requester")
        address, chain = deployment.address, world.chain
        self.token = PRLXCalls(address("PRLX"))
        self.tokens = PRLXViews(chain, address("PRLX"))
        self.anchor = ExecutionAnchorCalls(address("ExecutionAnchor"))
        self.anchors = ExecutionAnchorViews(chain, address("ExecutionAnchor"))
        self.locker = NodeRegistryLockerCalls(address("NodeRegistryLocker"))
        self.lockers = NodeRegistryLockerViews(chain, address("NodeRegistryLocker"))
        self.rewards = OperatorStakeRewardsV2Calls(address("OperatorStakeRewardsV2"))
        self.rewarding = OperatorStakeRewardsV2Views(chain, address("OperatorStakeRewardsV2"))
        self.vault = CreditVaultCalls(address("CreditVault"))
        self.vaults = CreditVaultViews(chain, address("CreditVault"))
        self.logs: list[Log] = []

    async def live(self) -> None:
        await self.owner_accepts()
        await self.money_is_handed_out()
        await self.a_node_is_registered()
        await self.three_batches_are_anchored()
        await self.every_record_can_be_proven_and_no_other()
        await self.the_node_comes_online_and_earns()
        await self.the_requester_pays_and_leaves()
        await self.the_operator_leaves()
        self.every_event_was_seen()

    async def send(self, account: LocalAccount, call: Call) -> Receipt:
        receipt = await self.world.send(account, call)
        self.logs += receipt.logs
        return receipt

    async def balance(self, account: Address) -> int:
        return await self.tokens.balance_of(account)

    async def owner_accepts(self) -> None:
        owner = key("owner")
        for calls in (self.token, self.anchor, self.rewards, self.vault):
            await self.send(owner, calls.accept_ownership())
        for views in (self.tokens, self.anchors, self.rewarding, self.vaults):
            assert await views.owner() == owner.address

    async def money_is_handed_out(self) -> None:
        deployer = key("deployer")
        await self.send(deployer, self.token.transfer(self.operator.address, 100_000 * PRLX))
        await self.send(deployer, self.token.transfer(self.requester.address, 1_000 * PRLX))

        assert await self.balance(self.operator.address) == 100_000 * PRLX

    async def a_node_is_registered(self) -> None:
        with pytest.raises(errors.AllowanceTooLow):
            await self.send(self.operator, self.locker.register_node(STAKE_WEI, 2, NODE_KEY_HASH))
        await self.send(self.operator, self.token.approve(self.locker.address, STAKE_WEI))
        receipt = await self.send(self.operator, self.locker.register_node(STAKE_WEI, 2, NODE_KEY_HASH))

        assert only(receipt, NodeRegistered) == NodeRegistered(
            node_id=1,
            owner=self.operator.address,
            node_key_hash=NODE_KEY_HASH,
            stake=STAKE_WEI,
            hardware_tier=2,
            total_principal=STAKE_WEI,
        )
        assert await self.balance(self.locker.address) == STAKE_WEI
        assert (await self.lockers.nodes(1)).owner == self.operator.address
        assert await self.lockers.node_of_key(NODE_KEY_HASH) == 1

    async def three_batches_are_anchored(self) -> None:
        validator = key("validator")
        secrets = [hashlib.sha256(f"secret {epoch}".encode()).digest() for epoch in range(3)]
        for epoch, secret in enumerate(secrets):
            await self.send(validator, self.anchor.commit_sampling(epoch, hashlib.sha256(secret).digest()))
        head = await self.anchors.head()
        for epoch, batch in enumerate(batches()):
            first, last = batch.records[0].sequence, batch.records[-1].sequence
            call = self.anchor.anchor_batch(head, batch.hashes[-1], first, last, batch.root, len(batch.records), epoch)
            if epoch == 2:
                with pytest.raises(errors.EarlierEpochHidden):
                    await self.send(validator, call)
                await self.send(validator, self.anchor.reveal_sampling(0, secrets[0]))
            with pytest.raises(errors.NotValidator):
                await self.send(self.operator, call)
            anchored = only(await self.send(validator, call), BatchAnchored)
            assert (anchored.number, anchored.previous_hash, anchored.epoch) == (epoch + 1, head, epoch)
            head = batch.hashes[-1]

        assert await self.anchors.head() == head
        assert await self.anchors.next_sequence() == sum(BATCH_SIZES)
        assert await self.anchors.batch_count() == NODES_BATCH + 1

    async def every_record_can_be_proven_and_no_other(self) -> None:
        for number, batch in enumerate(batches(), start=1):
            for index, hash_ in enumerate(batch.hashes):
                proof = merkle.proof(batch.hashes, index)
                count = len(batch.records)
                assert await self.anchors.verify(number, hash_, index, count, proof)
                assert not await self.anchors.verify(number, hashlib.sha256(hash_).digest(), index, count, proof)
        with pytest.raises(errors.ProofTooShort):
            await self.anchors.verify(1, batches()[0].hashes[0], 0, BATCH_SIZES[0], [])

    async def report(self, *changes: LivenessChange) -> Receipt:
        root = batches()[-1].root
        return await self.send(key("liveness"), self.rewards.report_liveness(NODES_BATCH, root, list(changes)))

    async def the_node_comes_online_and_earns(self) -> None:
        parameters = self.deployment.parameters
        online = LivenessChange(node_id=1, online=True, voided_slots=0)
        with pytest.raises(errors.BatchNotAnchored):
            await self.send(key("liveness"), self.rewards.report_liveness(9, b"\x01" * 32, [online]))
        # The stream runs already. It must have paid out a little more than is due, or what it has paid is the bound.
        await self.world.pass_time(HOUR)
        since = await self.world.time_of(reported := await self.report(online))
        weight = STAKE_WEI * parameters.multipliers_tenths[1]
        assert only(reported, NodeOnline) == NodeOnline(node_id=1, weight=weight, total_weight=weight)
        await self.world.pass_time(HOUR)

        receipt = await self.send(key("anybody"), self.rewards.claim(1))

        online_seconds = await self.world.time_of(receipt) - since
        assert online_seconds >= HOUR
        earned = int(parameters.bootstrap_amount) * online_seconds // parameters.bootstrap_seconds
        claimed = only(receipt, RewardsClaimed)
        assert earned - 1 <= claimed.amount <= earned
        assert claimed.owner == self.operator.address
        assert await self.balance(self.operator.address) == 100_000 * PRLX - STAKE_WEI + claimed.amount
        await self.world.pass_time(HOUR)
        funded = only(await self.send(key("anybody"), self.rewards.pull()), RewardsFunded)
        assert funded.amount > 0
        assert await self.balance(self.rewards.address) == await self.rewarding.held() == funded.total_held

    async def the_requester_pays_and_leaves(self) -> None:
        settler, requester = key("settler"), self.requester
        await self.deposit_with_permit(500 * PRLX)
        balances = [await self.balance(each) for each in self.recipients]
        spends = [Spend(account=requester.address, cumulative_spent=100 * PRLX)]
        receipt = await self.send(settler, self.vault.settle(spends))
        assert only(receipt, SpendSettled) == SpendSettled(
            account=requester.address,
            amount=100 * PRLX,
            cumulative_settled=100 * PRLX,
            deposit=400 * PRLX,
        )
        gained = [await self.balance(each) - before for each, before in zip(self.recipients, balances, strict=True)]
        assert gained == [85 * PRLX, 10 * PRLX, 5 * PRLX]
        again = await self.send(settler, self.vault.settle(spends))
        assert only(again, SettlementShort).settled == 100 * PRLX
        await self.withdraw_with_clearance(amount=150 * PRLX, cumulative_spent=120 * PRLX)
        await self.withdraw_after_the_delay(amount=230 * PRLX)
        assert await self.vaults.deposits(requester.address) == 0
        assert await self.balance(self.vault.address) == await self.vaults.total_deposits() == 0
        assert await self.balance(requester.address) == 1_000 * PRLX - 120 * PRLX

    @property
    def recipients(self) -> Sequence[Address]:
        parameters = self.deployment.parameters
        return self.rewards.address, parameters.treasury, parameters.infrastructure

    async def deposit_with_permit(self, amount_wei: int) -> None:
        requester = self.requester
        permit = Permit(
            owner=requester.address,
            spender=self.vault.address,
            value=amount_wei,
            nonce=await self.tokens.nonces(requester.address),
            deadline=2**40,
        )
        forged = sign_permit(self.operator, permit, token=self.token.address, chain_id=self.world.chain_id)
        with pytest.raises(errors.AllowanceTooLow):
            call = self.vault.deposit_with_permit(amount_wei, permit.deadline, forged.v, forged.r, forged.s)
            await self.send(requester, call)
        signed = sign_permit(requester, permit, token=self.token.address, chain_id=self.world.chain_id)
        call = self.vault.deposit_with_permit(amount_wei, permit.deadline, signed.v, signed.r, signed.s)
        receipt = await self.send(requester, call)

        assert only(receipt, Deposited) == Deposited(account=requester.address, amount=amount_wei, deposit=amount_wei)

    async def withdraw_with_clearance(self, *, amount: int, cumulative_spent: int) -> None:
        requester, settler = self.requester, key("settler")
        clearance = Clearance(
            account=requester.address,
            amount=amount,
            cumulative_spent=cumulative_spent,
            nonce=await self.vaults.nonces(requester.address),
            expiry=2**40,
        )
        for signer, chain_id in ((requester, self.world.chain_id), (settler, self.world.chain_id + 1)):
            with pytest.raises(errors.ClearanceNotFromSettler):
                await self.send(requester, self.cleared(clearance, signer, chain_id))
        receipt = await self.send(requester, self.cleared(clearance, settler, self.world.chain_id))
        withdrawn = only(receipt, Withdrawn)
        assert (withdrawn.amount, withdrawn.cleared) == (amount, True)
        assert await self.vaults.settled(requester.address) == cumulative_spent
        with pytest.raises(errors.ClearanceNonceNotNext):
            await self.send(requester, self.cleared(clearance, settler, self.world.chain_id))

    def cleared(self, clearance: Clearance, signer: LocalAccount, chain_id: int) -> Call:
        signed = sign_clearance(signer, clearance, vault=self.vault.address, chain_id=chain_id)
        return self.vault.withdraw_with_clearance(
            clearance.amount,
            clearance.cumulative_spent,
            clearance.nonce,
            clearance.expiry,
            signed.v,
            signed.r,
            signed.s,
        )

    async def withdraw_after_the_delay(self, *, amount: int) -> None:
        receipt = await self.send(self.requester, self.vault.request_withdrawal(amount))
        requested = only(receipt, WithdrawalRequested)
        assert requested.available_at == await self.world.time_of(receipt) + DAY
        with pytest.raises(errors.DelayNotOver):
            await self.send(self.requester, self.vault.withdraw())
        await self.world.pass_time(DAY)
        withdrawn = only(await self.send(self.requester, self.vault.withdraw()), Withdrawn)
        assert (withdrawn.amount, withdrawn.cleared) == (amount, False)

    async def the_operator_leaves(self) -> None:
        await self.report()
        await self.world.pass_time(HOUR)
        with pytest.raises(errors.NotNodeOwner):
            await self.send(self.requester, self.locker.request_unstake(1))
        receipt = await self.send(self.operator, self.locker.request_unstake(1))
        leaves_at = await self.world.time_of(receipt)
        assert only(receipt, UnstakeRequested) == UnstakeRequested(
            node_id=1, owner=self.operator.address, withdrawable_at=leaves_at + 7 * DAY
        )
        assert only(receipt, NodeOffline) == NodeOffline(node_id=1, total_weight=0)
        with pytest.raises(errors.CooldownNotOver):
            await self.send(self.operator, self.locker.withdraw_stake(1))
        earned = await self.rewarding.earned(1)
        assert earned > 0
        await self.world.pass_time(7 * DAY)
        before = await self.balance(self.operator.address)
        withdrawn = only(await self.send(self.operator, self.locker.withdraw_stake(1)), StakeWithdrawn)
        assert withdrawn.amount == STAKE_WEI
        assert await self.balance(self.operator.address) == before + STAKE_WEI
        assert await self.rewarding.earned(1) == earned
        await self.send(key("anybody"), self.rewards.claim(1))
        assert await self.balance(self.operator.address) == before + STAKE_WEI + earned
        assert await self.balance(self.locker.address) == await self.lockers.total_principal() == 0

    def every_event_was_seen(self) -> None:
        names = {entry.address: name for name, entry in self.deployment.contracts.items()}
        seen = [read_log(log, EVENTS[names[log.address]]) for log in self.logs if log.address in names]

        assert None not in seen
        assert {type(each).__name__ for each in seen} >= {
            "NodeRegistered", "UnstakeRequested", "StakeWithdrawn", "NodeOnline", "NodeOffline", "RewardsFunded",
            "RewardsClaimed", "Deposited", "WithdrawalRequested", "Withdrawn", "SpendSettled", "SettlementShort",
            "BatchAnchored", "SamplingCommitted", "SamplingRevealed",
        }  # fmt: skip
