"""Bindings of OperatorStakeRewardsV2, made by scripts/make_bindings.py: change the contract, then run that again.

Amounts are in wei, times in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from parallelix.chain.abi import Address, Call, Event, Field, Function, Layout
from parallelix.chain.ports import Calls, Views

CONTRACT = "OperatorStakeRewardsV2"

CONSTRUCTOR = ("address", "address", "address", "address", "address", "uint256", "uint256", "uint256[4]", "uint256")


class RewardsNode(msgspec.Struct, frozen=True, kw_only=True):
    weight: int
    void_until: int
    online: bool
    earning: bool
    retired: bool


class LivenessChange(msgspec.Struct, frozen=True, kw_only=True):
    node_id: int
    online: bool
    voided_slots: int


class RewardsFunded(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "RewardsFunded",
        (
            Field("source", "uint256", True),
            Field("amount", "uint256", False),
            Field("totalHeld", "uint256", False),
        ),
    )

    source: int
    amount: int
    total_held: int


class RewardsDistributed(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "RewardsDistributed",
        (
            Field("bootstrap", "uint256", False),
            Field("income", "uint256", False),
            Field("index", "uint256", False),
        ),
    )

    bootstrap: int
    income: int
    index: int


class RewardsClaimed(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "RewardsClaimed",
        (
            Field("nodeId", "uint256", True),
            Field("owner", "address", True),
            Field("amount", "uint256", False),
            Field("totalHeld", "uint256", False),
        ),
    )

    node_id: int
    owner: Address
    amount: int
    total_held: int


class NodeOnline(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "NodeOnline",
        (
            Field("nodeId", "uint256", True),
            Field("weight", "uint256", False),
            Field("totalWeight", "uint256", False),
        ),
    )

    node_id: int
    weight: int
    total_weight: int


class NodeOffline(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "NodeOffline",
        (
            Field("nodeId", "uint256", True),
            Field("totalWeight", "uint256", False),
        ),
    )

    node_id: int
    total_weight: int


class SlotsVoided(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "SlotsVoided",
        (
            Field("nodeId", "uint256", True),
            Field("slots", "uint256", False),
            Field("voidUntil", "uint256", False),
        ),
    )

    node_id: int
    slots: int
    void_until: int


class LivenessReported(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "LivenessReported",
        (
            Field("batch", "uint256", True),
            Field("changes", "uint256", False),
            Field("totalWeight", "uint256", False),
        ),
    )

    batch: int
    changes: int
    total_weight: int


class StreamBound(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "StreamBound",
        (
            Field("lockup", "address", True),
            Field("streamId", "uint256", True),
        ),
    )

    lockup: Address
    stream_id: int


class LivenessChanged(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "LivenessChanged",
        (
            Field("previous", "address", True),
            Field("current", "address", True),
        ),
    )

    previous: Address
    current: Address


class GuardianChanged(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "GuardianChanged",
        (
            Field("previous", "address", True),
            Field("current", "address", True),
        ),
    )

    previous: Address
    current: Address


class Paused(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("Paused", (Field("account", "address", True),))

    account: Address


class Unpaused(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("Unpaused", (Field("account", "address", True),))

    account: Address


class OwnershipTransferred(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "OwnershipTransferred",
        (
            Field("previous_owner", "address", True),
            Field("new_owner", "address", True),
        ),
    )

    previous_owner: Address
    new_owner: Address


class OwnershipTransferStarted(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "OwnershipTransferStarted",
        (
            Field("previous_owner", "address", True),
            Field("new_owner", "address", True),
        ),
    )

    previous_owner: Address
    new_owner: Address


EVENTS: tuple[type[Event], ...] = (
    RewardsFunded,
    RewardsDistributed,
    RewardsClaimed,
    NodeOnline,
    NodeOffline,
    SlotsVoided,
    LivenessReported,
    StreamBound,
    LivenessChanged,
    GuardianChanged,
    Paused,
    Unpaused,
    OwnershipTransferred,
    OwnershipTransferStarted,
)

_ACCEPT_OWNERSHIP = Function("accept_ownership", ())
_OWNER = Function("owner", (), ("address",))
_PENDING_OWNER = Function("pending_owner", (), ("address",))
_TRANSFER_OWNERSHIP = Function("transfer_ownership", ("address",))
_CLAIM = Function("claim", ("uint256",), ("uint256",))
_PULL = Function("pull", ())
_SYNC = Function("sync", ("uint256",))
_EARNED = Function("earned", ("uint256",), ("uint256",))
_NODE = Function("node", ("uint256",), ("(uint256,uint256,bool,bool,bool)",))
_WEIGHT_OF = Function("weightOf", ("uint256",), ("uint256",))
_LOCKUP = Function("lockup", (), ("address",))
_STREAM_ID = Function("streamId", (), ("uint256",))
_MULTIPLIER_TENTHS = Function("multiplierTenths", ("uint256",), ("uint256",))
_RATE_PER_SECOND = Function("ratePerSecond", (), ("uint256",))
_IS_FRESH = Function("isFresh", (), ("bool",))
_INDEX = Function("index", (), ("uint256",))
_TOTAL_WEIGHT = Function("totalWeight", (), ("uint256",))
_LAST_UPDATE_AT = Function("lastUpdateAt", (), ("uint256",))
_LAST_REPORT_AT = Function("lastReportAt", (), ("uint256",))
_LAST_REPORTED_BATCH = Function("lastReportedBatch", (), ("uint256",))
_PAUSED = Function("paused", (), ("bool",))
_HELD = Function("held", (), ("uint256",))
_BOOTSTRAP_HELD = Function("bootstrapHeld", (), ("uint256",))
_UNDISTRIBUTED = Function("undistributed", (), ("uint256",))
_NODE_RETIRED = Function("nodeRetired", ("uint256",))
_REPORT_LIVENESS = Function("reportLiveness", ("uint256", "bytes32", "(uint256,bool,uint256)[]"))
_PAUSE = Function("pause", ())
_UNPAUSE = Function("unpause", ())
_SET_LIVENESS = Function("setLiveness", ("address",))
_SET_GUARDIAN = Function("setGuardian", ("address",))
_BIND_STREAM = Function("bindStream", ("address", "uint256"))
_TOKEN = Function("token", (), ("address",))
_LOCKER = Function("locker", (), ("address",))
_ANCHOR = Function("anchor", (), ("address",))
_BOOTSTRAP_AMOUNT = Function("bootstrapAmount", (), ("uint256",))
_BOOTSTRAP_SECONDS = Function("bootstrapSeconds", (), ("uint256",))
_STALE_SECONDS = Function("staleSeconds", (), ("uint256",))
_LIVENESS = Function("liveness", (), ("address",))
_GUARDIAN = Function("guardian", (), ("address",))


class OperatorStakeRewardsV2Views(Views):
    """What OperatorStakeRewardsV2 tells anybody."""

    async def owner(self) -> Address:
        return await self._one(_OWNER)

    async def pending_owner(self) -> Address:
        return await self._one(_PENDING_OWNER)

    async def earned(self, node_id: int) -> int:
        """What a claim in this block would pay, in wei."""
        return await self._one(_EARNED, node_id)

    async def node(self, node_id: int) -> RewardsNode:
        """What is stored of a node."""
        found = await self._one(_NODE, node_id)
        return RewardsNode(
            weight=found[0],
            void_until=found[1],
            online=found[2],
            earning=found[3],
            retired=found[4],
        )

    async def weight_of(self, node_id: int) -> int:
        """The weight with which a node earns, in wei of stake x tenths; 0 while it does not."""
        return await self._one(_WEIGHT_OF, node_id)

    async def lockup(self) -> Address:
        """The Sablier Lockup whose stream funds the bootstrap; the zero address until it is bound."""
        return await self._one(_LOCKUP)

    async def stream_id(self) -> int:
        """The number of that stream."""
        return await self._one(_STREAM_ID)

    async def multiplier_tenths(self, hardware_tier: int) -> int:
        """What the stake of a tier counts, in tenths."""
        return await self._one(_MULTIPLIER_TENTHS, hardware_tier)

    async def rate_per_second(self) -> int:
        """What all nodes together earn in this second, in wei, rounded down."""
        return await self._one(_RATE_PER_SECOND)

    async def is_fresh(self) -> bool:
        """Whether the last report still keeps nodes earning."""
        return await self._one(_IS_FRESH)

    async def index(self) -> int:
        """What one unit of weight would have earned since the beginning, in wei x 10^36, as of the last
        checkpoint."""
        return await self._one(_INDEX)

    async def total_weight(self) -> int:
        """The sum of `weightOf` over all nodes."""
        return await self._one(_TOTAL_WEIGHT)

    async def last_update_at(self) -> int:
        """When the last checkpoint was, in seconds since 1970."""
        return await self._one(_LAST_UPDATE_AT)

    async def last_report_at(self) -> int:
        """When the last report came, in seconds since 1970; 0 before the first one, and from a pause to the
        next one."""
        return await self._one(_LAST_REPORT_AT)

    async def last_reported_batch(self) -> int:
        """The batch that the last report named."""
        return await self._one(_LAST_REPORTED_BATCH)

    async def paused(self) -> bool:
        """Whether reports are refused."""
        return await self._one(_PAUSED)

    async def held(self) -> int:
        """What was booked and not yet claimed, in wei, as of the last checkpoint."""
        return await self._one(_HELD)

    async def bootstrap_held(self) -> int:
        """The part of `held` that came from the stream and is not yet distributed, in wei, as of the last
        checkpoint."""
        return await self._one(_BOOTSTRAP_HELD)

    async def undistributed(self) -> int:
        """The part of `held` that no node has earned, in wei, as of the last checkpoint."""
        return await self._one(_UNDISTRIBUTED)

    async def token(self) -> Address:
        return await self._one(_TOKEN)

    async def locker(self) -> Address:
        return await self._one(_LOCKER)

    async def anchor(self) -> Address:
        return await self._one(_ANCHOR)

    async def bootstrap_amount(self) -> int:
        return await self._one(_BOOTSTRAP_AMOUNT)

    async def bootstrap_seconds(self) -> int:
        return await self._one(_BOOTSTRAP_SECONDS)

    async def stale_seconds(self) -> int:
        return await self._one(_STALE_SECONDS)

    async def liveness(self) -> Address:
        return await self._one(_LIVENESS)

    async def guardian(self) -> Address:
        return await self._one(_GUARDIAN)


class OperatorStakeRewardsV2Calls(Calls):
    """What an account can ask OperatorStakeRewardsV2 to do."""

    def accept_ownership(self) -> Call:
        return self._call(_ACCEPT_OWNERSHIP)

    def transfer_ownership(self, new_owner: Address) -> Call:
        return self._call(_TRANSFER_OWNERSHIP, new_owner)

    def claim(self, node_id: int) -> Call:
        """Pays the owner of a node what it earned, whoever asks, also while paused and after the stake was
        withdrawn."""
        return self._call(_CLAIM, node_id)

    def pull(self, value_wei: int = 0) -> Call:
        """Draws on the stream and books what arrived."""
        return self._call(_PULL, value_wei=value_wei)

    def sync(self, node_id: int) -> Call:
        """Lets a node earn again whose voided slots are over, and stops one that the locker has retired."""
        return self._call(_SYNC, node_id)

    def node_retired(self, node_id: int) -> Call:
        """Told by the locker when the owner of a node asks for the stake back: it earns nothing from now on,
        for good."""
        return self._call(_NODE_RETIRED, node_id)

    def report_liveness(self, batch: int, merkle_root: bytes, changes: Sequence[LivenessChange]) -> Call:
        """Applies changes in order, and keeps all nodes earning for another `staleSeconds`."""
        return self._call(_REPORT_LIVENESS, batch, merkle_root, changes)

    def pause(self) -> Call:
        """Refuses reports, and stops accrual with this block until the first report after the pause."""
        return self._call(_PAUSE)

    def unpause(self) -> Call:
        """Lets reports come in again."""
        return self._call(_UNPAUSE)

    def set_liveness(self, account: Address) -> Call:
        """Names who reports which nodes are online."""
        return self._call(_SET_LIVENESS, account)

    def set_guardian(self, account: Address) -> Call:
        """Names who may pause."""
        return self._call(_SET_GUARDIAN, account)

    def bind_stream(self, sablier_lockup: Address, sablier_stream_id: int) -> Call:
        """Names the stream that funds the bootstrap, once and for good."""
        return self._call(_BIND_STREAM, sablier_lockup, sablier_stream_id)
