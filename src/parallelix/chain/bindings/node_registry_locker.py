"""Bindings of NodeRegistryLocker, made by scripts/make_bindings.py: change the contract, then run that again.

Amounts are in wei, times in Unix seconds.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from parallelix.chain.abi import Address, Call, Event, Field, Function, Layout
from parallelix.chain.ports import Calls, Views

CONTRACT = "NodeRegistryLocker"

CONSTRUCTOR = ("address", "address")


class Node(msgspec.Struct, frozen=True, kw_only=True):
    owner: Address
    stake: int
    hardware_tier: int
    state: int
    node_key_hash: bytes
    withdrawable_at: int


class RewardsBound(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("RewardsBound", (Field("rewards", "address", True),))

    rewards: Address


class NodeRegistered(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "NodeRegistered",
        (
            Field("nodeId", "uint256", True),
            Field("owner", "address", True),
            Field("nodeKeyHash", "bytes32", True),
            Field("stake", "uint256", False),
            Field("hardwareTier", "uint256", False),
            Field("totalPrincipal", "uint256", False),
        ),
    )

    node_id: int
    owner: Address
    node_key_hash: bytes
    stake: int
    hardware_tier: int
    total_principal: int


class UnstakeRequested(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "UnstakeRequested",
        (
            Field("nodeId", "uint256", True),
            Field("owner", "address", True),
            Field("withdrawableAt", "uint256", False),
        ),
    )

    node_id: int
    owner: Address
    withdrawable_at: int


class RewardsNotTold(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("RewardsNotTold", (Field("nodeId", "uint256", True),))

    node_id: int


class StakeWithdrawn(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "StakeWithdrawn",
        (
            Field("nodeId", "uint256", True),
            Field("owner", "address", True),
            Field("amount", "uint256", False),
            Field("totalPrincipal", "uint256", False),
        ),
    )

    node_id: int
    owner: Address
    amount: int
    total_principal: int


class SurplusRecovered(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("SurplusRecovered", (Field("amount", "uint256", False),))

    amount: int


EVENTS: tuple[type[Event], ...] = (
    RewardsBound,
    NodeRegistered,
    UnstakeRequested,
    RewardsNotTold,
    StakeWithdrawn,
    SurplusRecovered,
)

_REGISTER_NODE = Function("registerNode", ("uint256", "uint256", "bytes32"), ("uint256",))
_RECOVER_SURPLUS = Function("recoverSurplus", (), ("uint256",))
_REQUEST_UNSTAKE = Function("requestUnstake", ("uint256",))
_WITHDRAW_STAKE = Function("withdrawStake", ("uint256",))
_BIND_REWARDS = Function("bindRewards", ("address",))
_OWNER_OF = Function("ownerOf", ("uint256",), ("address",))
_REGISTRATION = Function("registration", ("uint256",), ("address", "uint256", "uint256", "uint256"))
_NODE_COUNT = Function("nodeCount", (), ("uint256",))
_NODES = Function("nodes", ("uint256",), ("(address,uint256,uint256,uint256,bytes32,uint256)",))
_NODE_OF_KEY = Function("nodeOfKey", ("bytes32",), ("uint256",))
_MINIMUM_STAKE = Function("MINIMUM_STAKE", (), ("uint256",))
_COOLDOWN_SECONDS = Function("COOLDOWN_SECONDS", (), ("uint256",))
_TOKEN = Function("token", (), ("address",))
_TREASURY = Function("treasury", (), ("address",))
_DEPLOYER = Function("deployer", (), ("address",))
_REWARDS = Function("rewards", (), ("address",))
_TOTAL_PRINCIPAL = Function("totalPrincipal", (), ("uint256",))


class NodeRegistryLockerViews(Views):
    """What NodeRegistryLocker tells anybody."""

    async def owner_of(self, node_id: int) -> Address:
        """The account that staked for the node, also after the withdrawal; the zero address when there is no
        such node."""
        return await self._one(_OWNER_OF, node_id)

    async def registration(self, node_id: int) -> tuple[Address, int, int, int]:
        """Owner, stake in wei, hardware tier and state (0 none, 1 active, 2 cooling, 3 withdrawn) of a node."""
        return await self._all(_REGISTRATION, node_id)

    async def node_count(self) -> int:
        """The highest node id so far; ids are 1, 2, ..."""
        return await self._one(_NODE_COUNT)

    async def nodes(self, node_id: int) -> Node:
        """All that is stored of a node: nothing of it is forgotten when the stake was withdrawn."""
        found = await self._one(_NODES, node_id)
        return Node(
            owner=found[0],
            stake=found[1],
            hardware_tier=found[2],
            state=found[3],
            node_key_hash=found[4],
            withdrawable_at=found[5],
        )

    async def node_of_key(self, node_key_hash: bytes) -> int:
        """The id of the active node with this key hash; 0 when there is none."""
        return await self._one(_NODE_OF_KEY, node_key_hash)

    async def minimum_stake(self) -> int:
        return await self._one(_MINIMUM_STAKE)

    async def cooldown_seconds(self) -> int:
        return await self._one(_COOLDOWN_SECONDS)

    async def token(self) -> Address:
        return await self._one(_TOKEN)

    async def treasury(self) -> Address:
        return await self._one(_TREASURY)

    async def deployer(self) -> Address:
        return await self._one(_DEPLOYER)

    async def rewards(self) -> Address:
        return await self._one(_REWARDS)

    async def total_principal(self) -> int:
        return await self._one(_TOTAL_PRINCIPAL)


class NodeRegistryLockerCalls(Calls):
    """What an account can ask NodeRegistryLocker to do."""

    def register_node(self, stake_amount: int, hardware_tier: int, node_key_hash: bytes) -> Call:
        """Stakes PRLX for one new node of the caller, who must have approved this contract for the amount."""
        return self._call(_REGISTER_NODE, stake_amount, hardware_tier, node_key_hash)

    def recover_surplus(self) -> Call:
        """Sends what was transferred here without being a stake to the treasury."""
        return self._call(_RECOVER_SURPLUS)

    def request_unstake(self, node_id: int) -> Call:
        """Retires the caller's node for good and starts the cooldown of seven days."""
        return self._call(_REQUEST_UNSTAKE, node_id)

    def withdraw_stake(self, node_id: int) -> Call:
        """Pays the whole stake of a retired node to the caller, its owner, once its cooldown is over."""
        return self._call(_WITHDRAW_STAKE, node_id)

    def bind_rewards(self, rewards_contract: Address) -> Call:
        """Names the rewards contract, once and for good."""
        return self._call(_BIND_REWARDS, rewards_contract)
