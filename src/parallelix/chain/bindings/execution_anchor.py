"""Bindings of ExecutionAnchor, made by scripts/make_bindings.py: change the contract, then run that again.

Amounts are in wei, times in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from parallelix.chain.abi import Address, Call, Event, Field, Function, Layout
from parallelix.chain.ports import Calls, Views

CONTRACT = "ExecutionAnchor"

CONSTRUCTOR = ("address",)


class BatchAnchored(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "BatchAnchored",
        (
            Field("number", "uint256", True),
            Field("previousHash", "bytes32", False),
            Field("headHash", "bytes32", True),
            Field("first", "uint64", False),
            Field("last", "uint64", False),
            Field("count", "uint64", False),
            Field("merkleRoot", "bytes32", False),
            Field("epoch", "uint64", False),
        ),
    )

    number: int
    previous_hash: bytes
    head_hash: bytes
    first: int
    last: int
    count: int
    merkle_root: bytes
    epoch: int


class SamplingCommitted(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "SamplingCommitted",
        (
            Field("epoch", "uint64", True),
            Field("commitment", "bytes32", False),
        ),
    )

    epoch: int
    commitment: bytes


class SamplingRevealed(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "SamplingRevealed",
        (
            Field("epoch", "uint64", True),
            Field("secret", "bytes32", False),
        ),
    )

    epoch: int
    secret: bytes


class ValidatorChanged(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout(
        "ValidatorChanged",
        (
            Field("previous", "address", True),
            Field("current", "address", True),
        ),
    )

    previous: Address
    current: Address


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
    BatchAnchored,
    SamplingCommitted,
    SamplingRevealed,
    ValidatorChanged,
    OwnershipTransferred,
    OwnershipTransferStarted,
)

_ACCEPT_OWNERSHIP = Function("accept_ownership", ())
_OWNER = Function("owner", (), ("address",))
_PENDING_OWNER = Function("pending_owner", (), ("address",))
_TRANSFER_OWNERSHIP = Function("transfer_ownership", ("address",))
_BATCH_COUNT = Function("batchCount", (), ("uint256",))
_NEXT_SEQUENCE = Function("nextSequence", (), ("uint256",))
_NEWEST_EPOCH = Function("newestEpoch", (), ("uint256",))
_ROOT_OF = Function("rootOf", ("uint256",), ("bytes32",))
_COMMITMENT_OF = Function("commitmentOf", ("uint64",), ("bytes32",))
_SECRET_OF = Function("secretOf", ("uint64",), ("bytes32",))
_HOLDS = Function("holds", ("uint256", "bytes32"), ("bool",))
_VERIFY = Function("verify", ("uint256", "bytes32", "uint64", "uint64", "bytes32[]"), ("bool",))
_ANCHOR_BATCH = Function(
    "anchorBatch", ("bytes32", "bytes32", "uint64", "uint64", "bytes32", "uint64", "uint64"), ("uint256",)
)
_COMMIT_SAMPLING = Function("commitSampling", ("uint64", "bytes32"))
_REVEAL_SAMPLING = Function("revealSampling", ("uint64", "bytes32"))
_SET_VALIDATOR = Function("setValidator", ("address",))
_VALIDATOR = Function("validator", (), ("address",))
_HEAD = Function("head", (), ("bytes32",))
_COMMITTED_EPOCHS = Function("committedEpochs", (), ("uint64",))
_REVEALED_EPOCHS = Function("revealedEpochs", (), ("uint64",))


class ExecutionAnchorViews(Views):
    """What ExecutionAnchor tells anybody."""

    async def owner(self) -> Address:
        return await self._one(_OWNER)

    async def pending_owner(self) -> Address:
        return await self._one(_PENDING_OWNER)

    async def batch_count(self) -> int:
        """How many batches there are, batch 0 among them: also the number of the next."""
        return await self._one(_BATCH_COUNT)

    async def next_sequence(self) -> int:
        """The number of the first record that is not anchored, which is how many are."""
        return await self._one(_NEXT_SEQUENCE)

    async def newest_epoch(self) -> int:
        """The epoch of the newest batch; 0 before the first."""
        return await self._one(_NEWEST_EPOCH)

    async def root_of(self, number: int) -> bytes:
        """The Merkle root of a batch; empty where there is none."""
        return await self._one(_ROOT_OF, number)

    async def commitment_of(self, epoch: int) -> bytes:
        """SHA-256 of the sampling secret of an epoch; empty until it is committed."""
        return await self._one(_COMMITMENT_OF, epoch)

    async def secret_of(self, epoch: int) -> bytes:
        """The sampling secret of an epoch; empty until it is revealed."""
        return await self._one(_SECRET_OF, epoch)

    async def holds(self, number: int, merkle_root: bytes) -> bool:
        """Whether batch `number` is anchored, with this root."""
        return await self._one(_HOLDS, number, merkle_root)

    async def verify(self, number: int, record_hash: bytes, index: int, count: int, proof: Sequence[bytes]) -> bool:
        """Whether a record is in a batch: the tree is RFC 6962's over SHA-256."""
        return await self._one(_VERIFY, number, record_hash, index, count, proof)

    async def validator(self) -> Address:
        return await self._one(_VALIDATOR)

    async def head(self) -> bytes:
        return await self._one(_HEAD)

    async def committed_epochs(self) -> int:
        return await self._one(_COMMITTED_EPOCHS)

    async def revealed_epochs(self) -> int:
        return await self._one(_REVEALED_EPOCHS)


class ExecutionAnchorCalls(Calls):
    """What an account can ask ExecutionAnchor to do."""

    def accept_ownership(self) -> Call:
        return self._call(_ACCEPT_OWNERSHIP)

    def transfer_ownership(self, new_owner: Address) -> Call:
        return self._call(_TRANSFER_OWNERSHIP, new_owner)

    def anchor_batch(
        self, previous_hash: bytes, head_hash: bytes, first: int, last: int, merkle_root: bytes, count: int, epoch: int
    ) -> Call:
        """Anchors the records `first` to `last`."""
        return self._call(_ANCHOR_BATCH, previous_hash, head_hash, first, last, merkle_root, count, epoch)

    def commit_sampling(self, epoch: int, commitment: bytes) -> Call:
        """Binds the validator to the sampling secret of an epoch that has not begun."""
        return self._call(_COMMIT_SAMPLING, epoch, commitment)

    def reveal_sampling(self, epoch: int, secret: bytes) -> Call:
        """Shows the sampling secret of an epoch, so that anybody can recompute which executions were drawn."""
        return self._call(_REVEAL_SAMPLING, epoch, secret)

    def set_validator(self, validator: Address) -> Call:
        """Names another validator, at once; the one before can do nothing from then on."""
        return self._call(_SET_VALIDATOR, validator)
