"""What the contracts have said, as the engine hears it: facts of confirmed blocks, in the chain's order.

Amounts are wei, times Unix seconds, accounts EIP-55 addresses, hashes 0x-hex. `event_id` is the transaction's hash and
the log's index in its block: the chain's own name for one thing that happened once.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class NodeStaked(msgspec.Struct, frozen=True, kw_only=True):
    """NodeRegistered of the locker."""

    node_id: int
    owner: str
    stake_wei: int
    hardware_tier: int
    node_key_hash: str


class NodeUnstaking(msgspec.Struct, frozen=True, kw_only=True):
    """UnstakeRequested of the locker."""

    node_id: int
    withdrawable_at: int


class NodeWithdrawn(msgspec.Struct, frozen=True, kw_only=True):
    """StakeWithdrawn of the locker."""

    node_id: int


class Deposited(msgspec.Struct, frozen=True, kw_only=True):
    """`deposit_wei` is the account's whole deposit after it, as in the facts below."""

    event_id: str
    account: str
    amount_wei: int
    deposit_wei: int


class WithdrawalAsked(msgspec.Struct, frozen=True, kw_only=True):
    """WithdrawalRequested of the vault; replaces an earlier request."""

    account: str
    amount_wei: int


class WithdrawalTakenBack(msgspec.Struct, frozen=True, kw_only=True):
    account: str


class Withdrawn(msgspec.Struct, frozen=True, kw_only=True):
    """`cleared`: with the settler's clearance of this `nonce`; else by the account's own request."""

    event_id: str
    account: str
    amount_wei: int
    deposit_wei: int
    nonce: int
    cleared: bool


class LimitSet(msgspec.Struct, frozen=True, kw_only=True):
    """A lower limit holds from `effective_from`, a higher one at once."""

    account: str
    limit_wei: int
    effective_from: int


class SpendingSettled(msgspec.Struct, frozen=True, kw_only=True):
    """`cumulative_wei` is all that was ever settled of the account."""

    event_id: str
    account: str
    amount_wei: int
    cumulative_wei: int
    deposit_wei: int


class BatchAnchored(msgspec.Struct, frozen=True, kw_only=True):
    """`reference` is the hash of the transaction."""

    number: int
    merkle_root: str
    reference: str


class NodeWentOnline(msgspec.Struct, frozen=True, kw_only=True):
    """NodeOnline of the rewards contract, as are the facts below."""

    node_id: int


class NodeWentOffline(msgspec.Struct, frozen=True, kw_only=True):
    node_id: int


class SlotsVoided(msgspec.Struct, frozen=True, kw_only=True):
    node_id: int
    slots: int


class LivenessReported(msgspec.Struct, frozen=True, kw_only=True):
    """`at` is the time of its block."""

    batch: int
    at: int


ChainFact: TypeAlias = (
    NodeStaked
    | NodeUnstaking
    | NodeWithdrawn
    | Deposited
    | WithdrawalAsked
    | WithdrawalTakenBack
    | Withdrawn
    | LimitSet
    | SpendingSettled
    | BatchAnchored
    | NodeWentOnline
    | NodeWentOffline
    | SlotsVoided
    | LivenessReported
)
