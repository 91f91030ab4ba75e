"""Which nodes the rewards contract shall pay: what their heartbeats say, what the chain says, and the difference.

*Heartbeats*: a node goes online after a few consecutive credited slots and offline after a few missed ones, so that
one that is lost on the way is no transition. *The chain*: learned from the contract's own events and from nothing else,
so a report that was lost, doubled or sent by somebody else changes nothing here that it did not change there. Voided
slots wait for each node until an event says that the contract took them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from parallelix.engine.chain_facts import (
    BatchAnchored,
    ChainFact,
    LivenessReported,
    NodeWentOffline,
    NodeWentOnline,
    SlotsVoided,
)
from parallelix.engine.rows import NodeLivenessRow
from parallelix.protocol import merkle
from parallelix.protocol.encoding import to_hex

SLOT_SECONDS = 10
VOIDED_SLOTS_MAX = 8_640
"""The contract refuses more in one change, and lets no void last longer than a day from its report."""
VOID_SECONDS_MAX = VOIDED_SLOTS_MAX * SLOT_SECONDS

_NEVER = -(2**40)


class LivenessChange(NamedTuple):
    """One entry of a report, as the contract takes it."""

    node_id: int
    online: bool
    voided_slots: int


class LivenessReport(msgspec.Struct, frozen=True, kw_only=True):
    """`batch` is the newest anchored batch and `merkle_root` its root, 0x-hex. Without `changes` it still keeps nodes
    earning."""

    batch: int
    merkle_root: str
    changes: tuple[LivenessChange, ...]


@dataclass(slots=True)
class _Beats:
    """What the heartbeats of one node say. `run` counts the credited slots up to `last_slot` without a gap."""

    last_slot: int = _NEVER
    run: int = 0
    online: bool = False
    since_slot: int = _NEVER


@dataclass(slots=True)
class _OnChain:
    """One node in the rewards contract. `voids_pending` are slots that it has not been told of yet."""

    earning: bool = False
    voids_pending: int = 0
    void_until: int = 0


class Liveness:
    """`online_after_slots` and `offline_after_slots` are the hysteresis."""

    def __init__(self, *, online_after_slots: int, offline_after_slots: int) -> None:
        self.batch, self.merkle_root = 0, to_hex(merkle.EMPTY_ROOT)
        """The newest anchored batch; the contract begins with one of no records."""
        self.reported_batch = 0
        self.reported_at = 0
        """Of the last report on the chain, Unix seconds; 0 while none was seen."""
        self.chain_time = 0
        """Of the last confirmed block, Unix seconds."""
        self._online_after_slots = online_after_slots
        self._offline_after_slots = offline_after_slots
        self._since_slot = _NEVER
        self._beats: dict[int, _Beats] = {}
        self._on_chain: dict[int, _OnChain] = {}
        self._voiding: list[tuple[int, int]] = []
        self._changed: set[int] = set()

    # Heartbeats -------------------------------------------------------------------------------------------------------

    def credit(self, node_id: int, slot: int) -> None:
        """A heartbeat credited this slot. An older one than the last changes nothing."""
        beats = self._beats.setdefault(node_id, _Beats())
        if slot <= beats.last_slot:
            return
        if self._missed(beats, slot) >= self._offline_after_slots:
            beats.online = False
        beats.run = beats.run + 1 if slot == beats.last_slot + 1 else 1
        beats.last_slot = slot
        if beats.run >= self._online_after_slots and not beats.online:
            beats.online, beats.since_slot = True, slot

    def is_online(self, node_id: int, slot: int) -> bool:
        """Whether its heartbeats keep the node online while `slot` runs."""
        beats = self._beats.get(node_id)
        return beats is not None and beats.online and self._missed(beats, slot) < self._offline_after_slots

    def _missed(self, beats: _Beats, slot: int) -> int:
        """Slots over before `slot` that brought nothing. What was missed while we were away is not the node's fault."""
        return slot - 1 - max(beats.last_slot, self._since_slot)

    # The chain --------------------------------------------------------------------------------------------------------

    def void(self, node_id: int, slots: int) -> None:
        """These slots are to be told to the contract, once."""
        if slots > 0:
            self._node(node_id).voids_pending += slots
            self._changed.add(node_id)

    def apply(self, fact: ChainFact) -> None:
        """Takes in what a confirmed block says; facts that tell nothing of liveness are passed over."""
        match fact:
            case NodeWentOnline():
                self._set_earning(fact.node_id, earning=True)
            case NodeWentOffline():
                self._set_earning(fact.node_id, earning=False)
            case SlotsVoided():
                self._slots_voided(fact)
            case LivenessReported():
                self._reported(fact)
            case BatchAnchored():
                self.batch, self.merkle_root = fact.number, fact.merkle_root
            case _:
                pass

    def advance(self, chain_time: int) -> None:
        """The last confirmed block has this time, Unix seconds."""
        self.chain_time = max(self.chain_time, chain_time)

    def is_earning(self, node_id: int) -> bool:
        """Whether the contract pays the node, as far as confirmed blocks tell."""
        node = self._on_chain.get(node_id)
        return node is not None and node.earning

    def voids_pending(self, node_id: int) -> int:
        node = self._on_chain.get(node_id)
        return 0 if node is None else node.voids_pending

    def _set_earning(self, node_id: int, *, earning: bool) -> None:
        self._node(node_id).earning = earning
        self._changed.add(node_id)

    def _slots_voided(self, fact: SlotsVoided) -> None:
        node = self._node(fact.node_id)
        # Somebody with the reporter's key may void more than we asked for; that owes the node nothing here.
        node.voids_pending = max(0, node.voids_pending - fact.slots)
        self._changed.add(fact.node_id)
        self._voiding.append((fact.node_id, fact.slots))

    def _reported(self, fact: LivenessReported) -> None:
        """The report's event comes last in it and has the block's time, from which its voids run."""
        for node_id, slots in self._voiding:
            node = self._node(node_id)
            latest = max(node.void_until, fact.at + VOID_SECONDS_MAX)
            node.void_until = min(max(fact.at, node.void_until) + slots * SLOT_SECONDS, latest)
        self._voiding.clear()
        self.reported_batch, self.reported_at = fact.batch, fact.at
        self.advance(fact.at)

    def _node(self, node_id: int) -> _OnChain:
        return self._on_chain.setdefault(node_id, _OnChain())

    # The difference ---------------------------------------------------------------------------------------------------

    def report(
        self, *, slot: int, limit: int, is_active: Callable[[int], bool], may_earn: Callable[[int], bool]
    ) -> LivenessReport | None:
        """What to report while `slot` runs: at most `limit` changes, those that stop a payment first, then who has
        waited longest. None when nobody earns and nothing is to be said.

        `is_active` says whether the node has a live stake, `may_earn` whether anything speaks against it.
        """
        if self.batch < self.reported_batch:
            return None
        changes = [
            change
            for node_id in self._beats.keys() | self._on_chain.keys()
            if (change := self._change(node_id, slot, is_active(node_id), may_earn)) is not None
        ]
        if not changes and not any(node.earning for node in self._on_chain.values()):
            return None
        changes.sort(key=self._urgency)
        return LivenessReport(batch=self.batch, merkle_root=self.merkle_root, changes=tuple(changes[:limit]))

    def _change(self, node_id: int, slot: int, active: bool, may_earn: Callable[[int], bool]) -> LivenessChange | None:
        node = self._on_chain.get(node_id, _OnChain())
        if not active:
            # The locker tells the contract when a stake is taken back; where that failed, we do.
            return LivenessChange(node_id, online=False, voided_slots=0) if node.earning else None
        online = self.is_online(node_id, slot) and may_earn(node_id)
        voided_slots = min(node.voids_pending, self._room_slots(node))
        if voided_slots:
            return LivenessChange(node_id, online=online, voided_slots=voided_slots)
        if online == node.earning or (online and node.void_until > self.chain_time):
            return None
        return LivenessChange(node_id, online=online, voided_slots=0)

    def _room_slots(self, node: _OnChain) -> int:
        """How many slots the contract voids in full now: it cuts off what would last longer than a day, so that is kept
        for a later report. The block that takes the report has a later time than any we know, and so more room."""
        ahead_seconds = max(0, node.void_until - self.chain_time)
        return max(0, VOID_SECONDS_MAX - ahead_seconds) // SLOT_SECONDS

    def _urgency(self, change: LivenessChange) -> tuple[bool, int, int]:
        gains = change.online and not change.voided_slots
        since_slot = self._beats[change.node_id].since_slot if gains else 0
        return gains, since_slot, change.node_id

    # The store --------------------------------------------------------------------------------------------------------

    def take_rows(self) -> list[NodeLivenessRow]:
        """The nodes that changed on the chain, or owe it slots, since the last call."""
        rows = [
            NodeLivenessRow(
                node_id=str(node_id),
                online=self._on_chain[node_id].earning,
                voids_pending=self._on_chain[node_id].voids_pending,
                void_until=self._on_chain[node_id].void_until,
            )
            for node_id in sorted(self._changed)
        ]
        self._changed.clear()
        return rows

    def restore(
        self, rows: Iterable[NodeLivenessRow], *, batch: tuple[int, str] | None, chain_time: int, since_slot: int
    ) -> None:
        """Takes up where the store left off. Who earned keeps earning unless it is silent from `since_slot` on.

        `batch` is the newest confirmed one and its root, `chain_time` that of the last confirmed block.
        """
        if batch is not None:
            self.batch, self.merkle_root = batch
        self.chain_time, self._since_slot = chain_time, since_slot
        for row in rows:
            node_id = int(row.node_id)
            self._on_chain[node_id] = _OnChain(
                earning=row.online, voids_pending=row.voids_pending, void_until=row.void_until
            )
            if row.online:
                self._beats[node_id] = _Beats(online=True)
