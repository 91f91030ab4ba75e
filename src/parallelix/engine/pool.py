"""Who can do what, and who is free: the nodes, indexed so that a match costs the same at 100 nodes and at 100,000.

Nodes that can do the same work (class, weights, tier, context, features) form a group. Inside a group the free ones
stand in order of measured speed, so the smallest that clears a deadline is one bisection away.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sortedcontainers import SortedList, SortedSet

from parallelix.engine.catalogue import WORKLOAD_CLASSES
from parallelix.engine.rows import NodeRow
from parallelix.engine.settings import EngineSettings
from parallelix.protocol.messages import Manifest, ModelInfo
from parallelix.protocol.registry import Registration

DRAWS_MAX = 32
"""Tries to draw somebody who is not excluded; then all are looked through."""
SPEED_WEIGHT = 0.3
"""How much the newest measurement counts: three or four units forget a cold start."""
REPUTATION_AT_LAUNCH = 1.0
"""The fourth signal is there and weighs nothing yet: everybody's is the same."""

_LAUNCH_RANK = -REPUTATION_AT_LAUNCH

Fit: TypeAlias = tuple[float, float, int]
"""(tokens per second, reputation below zero, node id): the smallest that clears a deadline is the best fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a unit asks of a node. `tokens` within `deadline_ms` is the speed it needs."""

    workload_class: str
    digests: tuple[str, ...]
    tier: int
    context_tokens: int
    features: frozenset[str]
    tokens: int
    deadline_ms: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens * 1000 / self.deadline_ms


def _fits() -> SortedList[Fit]:
    return SortedList()


def _ids() -> SortedSet[int]:
    return SortedSet()


@dataclass(slots=True, eq=False)
class Group:
    """Nodes of one kind. `capable` counts the eligible ones, free or busy; the two lists hold the free ones."""

    workload_class: str
    digest: str
    tier: int
    context_tokens: int
    features: frozenset[str]
    runtime: str
    capable: SortedSet[int] = field(default_factory=_ids)
    """In order, so that one can be drawn by chance."""
    unmeasured: OrderedDict[int, None] = field(default_factory=OrderedDict[int, None])
    measured: SortedList[Fit] = field(default_factory=_fits)

    def suits(self, need: Need) -> bool:
        return self.tier >= need.tier and self.context_tokens >= need.context_tokens and self.features >= need.features

    def slowest_that_clears(self, need: Need, excluded: frozenset[int]) -> Fit | None:
        fits = self.measured
        for at in range(fits.bisect_left((need.tokens_per_second, -math.inf, -1)), len(fits)):
            if fits[at][2] not in excluded:
                return fits[at]
        return None

    def any_unmeasured(self, excluded: frozenset[int]) -> int | None:
        return next((node_id for node_id in self.unmeasured if node_id not in excluded), None)


@dataclass(slots=True)
class Node:
    """One attached node. `reserved` holds the attempts that occupy its slots."""

    node_id: int
    session: str
    manifest: Manifest
    manifest_json: str
    public_key: str
    issued_at: int
    attached_at: int
    registration: Registration | None
    last_seen: int = 0
    last_heartbeat_ms: int = 0
    online: bool = False
    paused: bool = False
    removed_until: int = 0
    benched: bool = False
    """Did not show that it is as fast as its tier, or that it takes up work: it does not count as online."""
    held: bool = False
    """It gets nothing new until what it runs is done: a challenge is due."""
    reputation: float = REPUTATION_AT_LAUNCH
    reserved: set[str] = field(default_factory=set[str])
    speeds: dict[str, float] = field(default_factory=dict[str, float])
    measured_at: dict[str, int] = field(default_factory=dict[str, int])
    rejections: deque[int] = field(default_factory=deque[int])
    places: list[tuple[Group, str]] = field(default_factory=list[tuple[Group, str]])

    @property
    def runtime(self) -> str:
        """What it runs models with; empty where its manifest does not say."""
        return self.manifest.runtimes[0].name if self.manifest.runtimes else ""

    @property
    def models(self) -> Iterable[ModelInfo]:
        """One for each weights, that with the longest context: however often a manifest names them, they take one place
        in the index."""
        best: dict[str, ModelInfo] = {}
        for model in self.manifest.models:
            known = best.get(model.digest)
            if known is None or model.context_tokens > known.context_tokens:
                best[model.digest] = model
        return best.values()

    @property
    def tier(self) -> int:
        """What it may serve: never more than the stake was registered for, nor than the machine has."""
        registered = self.registration.hardware_tier if self.registration else 0
        return min(registered, self.manifest.hardware_tier)

    @property
    def slots_free(self) -> int:
        return 0 if self.held else self.manifest.slots - len(self.reserved)

    @property
    def counts_as_online(self) -> bool:
        return self.online and not self.benched

    @property
    def penalised(self) -> bool:
        return self.benched or self.removed_until > 0

    @property
    def registered(self) -> bool:
        return self.registration is not None and self.registration.state == "active"

    @property
    def cooling(self) -> bool:
        return self.registration is not None and self.registration.state == "cooling"

    def row(self) -> NodeRow:
        return NodeRow(
            node_id=str(self.node_id),
            session=self.session,
            manifest=self.manifest_json,
            public_key=self.public_key,
            issued_at=self.issued_at,
            attached_at=self.attached_at,
            removed_until=self.removed_until,
        )


class Pool:
    """All attached nodes. A penalised node stands aside and serves only what nobody else can."""

    def __init__(self, settings: EngineSettings, digests: Iterable[str]) -> None:
        self._settings = settings
        self._digests = frozenset(digests)
        self._groups: dict[tuple[str, str], list[Group]] = {}
        self._group_of: dict[tuple[str, str, int, int, frozenset[str], str], Group] = {}
        self._penalised: dict[int, Node] = {}
        self.nodes: dict[int, Node] = {}

    @property
    def groups(self) -> int:
        """Kinds of nodes; every match passes those of its weights."""
        return len(self._group_of)

    def find(self, node_id: int) -> Node | None:
        return self.nodes.get(node_id)

    def put(self, node: Node) -> None:
        """Adds a node, or takes over a node's new session with the slots it already holds."""
        before = self.nodes.get(node.node_id)
        if before is not None:
            self._take_out(before)
        self.nodes[node.node_id] = node
        self.refresh(node)

    def refresh(self, node: Node) -> None:
        """Brings the index up to date after anything about the node changed but its free slots."""
        self._take_out(node)
        if not (node.online and node.registered and not node.paused):
            return
        if node.penalised:
            self._penalised[node.node_id] = node
            return
        for model in node.models:
            if model.digest in self._digests:
                for workload_class in self._classes(node):
                    group = self._group(
                        workload_class, model.digest, node.tier, model.context_tokens, model.features, node.runtime
                    )
                    group.capable.add(node.node_id)
                    node.places.append((group, model.digest))
        if node.slots_free > 0:
            self._offer_slots(node)

    def reserve(self, node: Node, attempt_id: str) -> None:
        assert node.slots_free > 0, node.node_id
        node.reserved.add(attempt_id)
        if node.slots_free == 0:
            self._withhold_slots(node)

    def release(self, node: Node, attempt_id: str) -> None:
        was_full = node.slots_free <= 0
        node.reserved.discard(attempt_id)
        if was_full and node.slots_free > 0 and node.places:
            self._offer_slots(node)

    def measure(self, node: Node, digest: str, tokens_per_second: float) -> None:
        """Takes a new end-to-end speed into the running average."""
        before = node.speeds.get(digest)
        self._set_speed(
            node, digest, tokens_per_second if before is None else before + SPEED_WEIGHT * (tokens_per_second - before)
        )

    def forget_speed(self, node: Node, digest: str) -> None:
        """From now on its speed is not known, as at the beginning."""
        self._set_speed(node, digest, None)

    def _set_speed(self, node: Node, digest: str, speed: float | None) -> None:
        groups = [group for group, group_digest in node.places if group_digest == digest and node.slots_free > 0]
        for group in groups:
            _leave(group, node, digest)
        if speed is None:
            node.speeds.pop(digest, None)
        else:
            node.speeds[digest] = speed
        for group in groups:
            _join(group, node, digest)

    def match(self, need: Need, excluded: frozenset[int], *, penalised: bool = True) -> Node | None:
        """The smallest qualifying free node: lowest tier first, in it whoever has not been measured yet, then the
        slowest that clears the deadline, and among equals the one of most repute. Where nobody else can, the least bad
        of the `penalised`."""
        groups = [group for group in self._groups_for(need) if group.suits(need)]
        for tier in sorted({group.tier for group in groups}):
            of_tier = [group for group in groups if group.tier == tier]
            for group in of_tier:
                newcomer = group.any_unmeasured(excluded)
                if newcomer is not None:
                    return self.nodes[newcomer]
            clearing = [found for group in of_tier if (found := group.slowest_that_clears(need, excluded))]
            if clearing:
                return self.nodes[min(clearing)[2]]
        if penalised and all(group.capable <= excluded for group in groups):
            return self._least_bad(need, excluded)
        return None

    def draw(self, need: Need, excluded: frozenset[int], *, below: Callable[[int], int], runtime: str) -> int | None:
        """One of all eligible nodes that could do it, free or busy, each as likely as another: of those with this
        `runtime` where there are any. `below(n)` is a random number from 0 to n - 1."""
        groups = [group for group in self._groups_for(need) if group.suits(need)]
        alike = [group for group in groups if group.runtime == runtime]
        drawn = _drawn(alike, excluded, below) if runtime else None
        return drawn if drawn is not None else _drawn(groups, excluded, below)

    def is_capable(self, node_id: int, need: Need) -> bool:
        """Whether the node is eligible and could do it, were it free."""
        return any(node_id in group.capable for group in self._groups_for(need) if group.suits(need))

    def could_take(self, node: Node, need: Need) -> bool:
        """Whether the node, with a slot free, is one that `match` might give this unit to. Its class is not looked at:
        see `serves`."""
        if node.penalised:
            return self._can(node, need)
        for group, digest in node.places:
            if digest in need.digests and group.suits(need):
                speed = node.speeds.get(digest)
                if speed is None or speed >= need.tokens_per_second:
                    return True
        return False

    def any_capable(self, need: Need, excluded: frozenset[int], *, penalised: bool = True) -> bool:
        """Whether some node could do it, were it free; of the `penalised` too, who serve where nobody else can."""
        if not all(group.capable <= excluded for group in self._groups_for(need) if group.suits(need)):
            return True
        if not penalised:
            return False
        return any(node.node_id not in excluded and self._can(node, need) for node in self._penalised.values())

    def capable_nodes(self, need: Need, excluded: frozenset[int] = frozenset()) -> int:
        """How many eligible nodes could do it, were they free."""
        return len(self._capable(need) - excluded)

    def features_lacking(self, need: Need) -> frozenset[str]:
        """What is asked for and no node that has the model can do, be it busy or of another tier; empty when one can do
        it all, and while none has the model."""
        lacks = [need.features - group.features for group in self._groups_for(need) if group.capable]
        return min(lacks, key=lambda lack: (len(lack), sorted(lack)), default=frozenset[str]())

    def has_free_slot(self, need: Need, excluded: frozenset[int]) -> bool:
        """Whether some capable node is free, fast enough or not."""
        for group in self._groups_for(need):
            if group.suits(need):
                if group.any_unmeasured(excluded) is not None:
                    return True
                if any(node_id not in excluded for _, _, node_id in group.measured):
                    return True
        return False

    def slots(self, need: Need) -> tuple[int, int]:
        """(all, free) slots of the nodes that could do it."""
        nodes = [self.nodes[node_id] for node_id in self._capable(need)]
        return sum(node.manifest.slots for node in nodes), sum(max(0, node.slots_free) for node in nodes)

    def serves(self, node: Node) -> list[tuple[str, str, frozenset[str]]]:
        """(workload class, weights, features) of everything that is on offer here and the node has."""
        return [
            (workload_class, model.digest, frozenset(model.features))
            for workload_class in self._classes(node)
            for model in node.models
            if model.digest in self._digests
        ]

    def model_for(self, node: Node, need: Need) -> ModelInfo:
        """Which of the node's models takes the unit that it was matched with: one that suits, if it can be one that
        is fast enough or not measured yet."""
        suiting = [model for model in node.models if _suits(model, need)]
        assert suiting, (node.node_id, need)
        return next(
            (each for each in suiting if node.speeds.get(each.digest, math.inf) >= need.tokens_per_second), suiting[0]
        )

    def penalised(self) -> list[Node]:
        return list(self._penalised.values())

    def _groups_for(self, need: Need) -> Iterator[Group]:
        for digest in need.digests:
            yield from self._groups.get((need.workload_class, digest), ())

    def _capable(self, need: Need) -> set[int]:
        return {node_id for group in self._groups_for(need) if group.suits(need) for node_id in group.capable}

    def _least_bad(self, need: Need, excluded: frozenset[int]) -> Node | None:
        candidates = [
            node
            for node in self._penalised.values()
            if node.node_id not in excluded and node.slots_free > 0 and self._can(node, need)
        ]
        return min(
            candidates, key=lambda node: (node.removed_until > 0, len(node.rejections), node.node_id), default=None
        )

    def only(self, node_id: int, need: Need) -> Node | None:
        """The node itself, penalised or not, where it can take this unit now."""
        node = self.nodes.get(node_id)
        if (
            node is None
            or not (node.online and node.registered)
            or node.paused
            or len(node.reserved) >= node.manifest.slots
        ):
            return None
        return node if self._can(node, need) else None

    def _can(self, node: Node, need: Need) -> bool:
        return (
            node.tier >= need.tier
            and need.workload_class in node.manifest.workload_classes
            and any(_suits(model, need) for model in node.models)
        )

    def _classes(self, node: Node) -> set[str]:
        return set(node.manifest.workload_classes).intersection(WORKLOAD_CLASSES)

    def _group(
        self,
        workload_class: str,
        digest: str,
        tier: int,
        context_tokens: int,
        features: tuple[str, ...],
        runtime: str,
    ) -> Group:
        key = (workload_class, digest, tier, context_tokens, frozenset(features), runtime)
        group = self._group_of.get(key)
        if group is None:
            group = Group(
                workload_class=workload_class,
                digest=digest,
                tier=tier,
                context_tokens=context_tokens,
                features=key[4],
                runtime=runtime,
            )
            self._group_of[key] = group
            self._groups.setdefault((workload_class, digest), []).append(group)
        return group

    def _offer_slots(self, node: Node) -> None:
        for group, digest in node.places:
            _join(group, node, digest)

    def _withhold_slots(self, node: Node) -> None:
        for group, digest in node.places:
            _leave(group, node, digest)

    def _take_out(self, node: Node) -> None:
        self._penalised.pop(node.node_id, None)
        for group, digest in node.places:
            group.capable.discard(node.node_id)
            _leave(group, node, digest)
            if not group.capable:
                self._forget(group)
        node.places.clear()

    def _forget(self, group: Group) -> None:
        """Every match looks at all groups of its weights, so what nobody is in must not pile up there."""
        kind = (group.workload_class, group.digest, group.tier, group.context_tokens, group.features, group.runtime)
        del self._group_of[kind]
        self._groups[(group.workload_class, group.digest)].remove(group)


def _drawn(groups: Sequence[Group], excluded: frozenset[int], below: Callable[[int], int]) -> int | None:
    count = sum(len(group.capable) for group in groups)
    for _ in range(DRAWS_MAX if count else 0):
        at = below(count)
        for group in groups:
            if at < len(group.capable):
                if group.capable[at] not in excluded:
                    return group.capable[at]
                break
            at -= len(group.capable)
    left = [node_id for group in groups for node_id in group.capable if node_id not in excluded]
    return left[below(len(left))] if left else None


def _suits(model: ModelInfo, need: Need) -> bool:
    return (
        model.digest in need.digests
        and model.context_tokens >= need.context_tokens
        and need.features <= frozenset(model.features)
    )


def _rank(node: Node) -> float:
    # One object for everybody: comparing a hundred thousand equal numbers through as many pointers misses every cache.
    return _LAUNCH_RANK if node.reputation == REPUTATION_AT_LAUNCH else -node.reputation


def _join(group: Group, node: Node, digest: str) -> None:
    speed = node.speeds.get(digest)
    if speed is None:
        group.unmeasured[node.node_id] = None
    else:
        group.measured.add((speed, _rank(node), node.node_id))


def _leave(group: Group, node: Node, digest: str) -> None:
    speed = node.speeds.get(digest)
    if speed is None:
        group.unmeasured.pop(node.node_id, None)
    else:
        group.measured.discard((speed, _rank(node), node.node_id))
