"""Operators on a real chain: their nodes come and go, are voided, claim and leave, over days that a test lets pass."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from itertools import pairwise

from chain_scene import PRLX, Ethereum, funded, key
from eth_account.signers.local import LocalAccount

from parallelix.chain.abi import Call, events_of
from parallelix.chain.bindings.node_registry_locker import NodeRegistered, NodeRegistryLockerCalls
from parallelix.chain.bindings.operator_stake_rewards import (
    LivenessChange,
    OperatorStakeRewardsV2Calls,
    OperatorStakeRewardsV2Views,
    RewardsClaimed,
)
from parallelix.chain.bindings.prlx import PRLXCalls
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.ports import Receipt
from parallelix.chain.rpc import Rpc
from parallelix.chain.wallet import Wallet
from parallelix.protocol import merkle

HOUR, DAY = 3_600, 86_400
STAKES = ((50_000, 1), (75_001, 2), (123_457, 3), (60_000, 4))
"""PRLX and tier of each node."""


@dataclass
class Seen:
    """What the contract said at the end of a block."""

    block: int
    time: int
    earned: dict[int, int]
    claimed: dict[int, int]


@dataclass
class Operators:
    """`checkpoints` are what was seen after each transaction, `midnights` at the very second in which a day ends; only
    while they are `watched`."""

    ethereum: Ethereum
    rpc: Rpc
    deployment: Deployment
    wallets: dict[str, Wallet] = field(default_factory=dict[str, Wallet])
    nodes: list[int] = field(default_factory=list[int])
    claimed: dict[int, int] = field(default_factory=dict[int, int])
    checkpoints: list[Seen] = field(default_factory=list[Seen])
    midnights: list[Seen] = field(default_factory=list[Seen])
    now: int = 0
    watched: bool = True

    def __post_init__(self) -> None:
        self.rewards = OperatorStakeRewardsV2Calls(self.deployment.address("OperatorStakeRewardsV2"))
        self.token = PRLXCalls(self.deployment.address("PRLX"))
        self.locker = NodeRegistryLockerCalls(self.deployment.address("NodeRegistryLocker"))

    def wallet(self, account: LocalAccount) -> Wallet:
        if account.address not in self.wallets:
            self.wallets[account.address] = Wallet(self.rpc, funded(self.ethereum.anvil, account))
        return self.wallets[account.address]

    async def send(self, name: str, call: Call, *, after: int = 12) -> Receipt:
        """In a block so many seconds from now, which the contract is asked about afterwards."""
        await self.pass_until(self.now + after)
        self.ethereum.anvil.ask("evm_setNextBlockTimestamp", self.now)
        receipt = await self.wallet(key(name)).send(call)
        for claim in events_of(receipt.logs, RewardsClaimed):
            self.claimed[claim.node_id] = self.claimed.get(claim.node_id, 0) + claim.amount
        if self.watched:
            self.checkpoints.append(await self.look(receipt.block_number))
        return receipt

    async def pass_until(self, time: int) -> None:
        """With an empty block at each midnight on the way."""
        while self.watched and (midnight := (self.now // DAY + 1) * DAY) < time:
            self.now = midnight
            self.ethereum.anvil.ask("evm_setNextBlockTimestamp", midnight)
            self.ethereum.anvil.ask("evm_mine")
            self.midnights.append(await self.look(await self.rpc.block_number()))
        self.now = time

    async def look(self, block: int) -> Seen:
        views = OperatorStakeRewardsV2Views(self.rpc, self.rewards.address, block=block)
        earned = {node: await views.earned(node) for node in self.nodes}
        return Seen(block=block, time=await self.rpc.block_time(block), earned=earned, claimed=dict(self.claimed))

    async def stake(self) -> None:
        self.now = await self.rpc.block_time()
        for number, (stake, tier) in enumerate(STAKES):
            name, stake_wei = f"operator {number}", stake * PRLX
            self.wallet(key(name))
            await self.send("deployer", self.token.transfer(key(name).address, stake_wei))
            await self.send(name, self.token.approve(self.locker.address, stake_wei))
            node_key_hash = hashlib.sha256(name.encode()).digest()
            receipt = await self.send(name, self.locker.register_node(stake_wei, tier, node_key_hash))
            (registered,) = events_of(receipt.logs, NodeRegistered)
            self.nodes.append(registered.node_id)

    async def report(self, *changes: tuple[int, bool, int], after: int = 12) -> None:
        given = [LivenessChange(node_id=node, online=on, voided_slots=voided) for node, on, voided in changes]
        await self.send("liveness", self.rewards.report_liveness(0, merkle.EMPTY_ROOT, given), after=after)

    async def live(self, chance: random.Random, *, steps: int) -> None:
        """Whatever comes, in whatever order. The last of the nodes leaves on the way."""
        await self.report(*((node, True, 0) for node in self.nodes))
        for step in range(steps):
            after = chance.choice([1, 12, 600, 600, HOUR, 4 * HOUR, 9 * HOUR, 30 * HOUR])
            node, other = chance.sample(self.nodes, 2)
            match (
                "leave"
                if step == steps // 2
                else chance.choice(
                    [
                        "flip",
                        "flip",
                        "flip",
                        "keep",
                        "void",
                        "claim",
                        "claim",
                        "pull",
                        "sync",
                        "income",
                        "income",
                        "pause",
                    ]
                )
            ):
                case "leave":
                    leaver = f"operator {len(self.nodes) - 1}"
                    await self.send(leaver, self.locker.request_unstake(self.nodes[-1]), after=after)
                case "flip":
                    await self.report((node, True, 0), (other, chance.random() < 0.5, 0), after=after)
                case "keep":
                    await self.report(after=after)
                case "void":
                    await self.report((node, True, chance.choice([1, 30, 700])), after=after)
                case "claim" if self.checkpoints[-1].earned[node]:
                    await self.send("anybody", self.rewards.claim(node), after=after)
                case "income":
                    wei = chance.choice([7, 10**9 + 1, 333 * PRLX + 1])
                    await self.send("deployer", self.token.transfer(self.rewards.address, wei), after=after)
                    await self.send("anybody", self.rewards.pull())
                case "pause":
                    await self.send("guardian", self.rewards.pause(), after=after)
                    await self.send("deployer", self.rewards.unpause(), after=HOUR)
                case "sync":
                    await self.send("anybody", self.rewards.sync(node), after=after)
                case _:
                    await self.send("anybody", self.rewards.pull(), after=after)
        assert all(one.time <= two.time for one, two in pairwise(self.checkpoints))
