"""Work that waits for a candidate, in order: Urgent before Expedited before Standard, small before large, and old
before new, so that nothing starves.

The order is one number fixed at admission: the time, plus what the priority and the size cost. It never has to be
recomputed, because everybody ages at the same rate.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from sortedcontainers import SortedList

from parallelix.engine.catalogue import Priority
from parallelix.engine.settings import EngineSettings


def queue_key(settings: EngineSettings, *, admitted_at: int, priority: Priority, complexity_tokens: int) -> int:
    """Virtual milliseconds; the smallest goes first."""
    age_ms = {"urgent": 0, "expedited": settings.expedited_age_ms, "standard": settings.standard_age_ms}[priority]
    size_ms = min(complexity_tokens // settings.complexity_tokens_per_ms, settings.complexity_age_ms_max)
    return admitted_at + age_ms + size_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Requests that the same nodes can serve wait in one lane. Audits have lanes of their own: none of `barred_owners`
    may have what waits there. Those that wait for one node have its `auditor_lane`, so that nobody else looks at
    them."""

    workload_class: str
    model: str
    tier: int
    features: frozenset[str]
    barred_owners: frozenset[str] = frozenset()


AUDITOR = "auditor"
"""In the place of a workload class: audits that wait for one node."""


def auditor_lane(node_id: int, tier: int, features: frozenset[str]) -> Lane:
    return Lane(workload_class=AUDITOR, model=str(node_id), tier=tier, features=features)


class Queue:
    def __init__(self) -> None:
        self._lanes: dict[Lane, SortedList[tuple[int, str]]] = {}
        self._of_model: dict[tuple[str, str], set[Lane]] = {}
        self._entries: dict[str, tuple[Lane, tuple[int, str]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def add(self, request_id: str, lane: Lane, key: int) -> None:
        assert request_id not in self._entries, request_id
        entry = (key, request_id)
        if lane not in self._lanes:
            self._lanes[lane] = SortedList()
            self._of_model.setdefault((lane.workload_class, lane.model), set()).add(lane)
        self._lanes[lane].add(entry)
        self._entries[request_id] = (lane, entry)

    def discard(self, request_id: str) -> None:
        found = self._entries.pop(request_id, None)
        if found is None:
            return
        lane, entry = found
        waiting = self._lanes[lane]
        waiting.remove(entry)
        if not waiting:
            del self._lanes[lane]
            self._of_model[(lane.workload_class, lane.model)].discard(lane)

    def lane_of(self, request_id: str) -> Lane | None:
        """Where it waits; None where it does not."""
        found = self._entries.get(request_id)
        return found[0] if found is not None else None

    def position(self, request_id: str) -> int:
        """How many of its lane stand before it."""
        lane, entry = self._entries[request_id]
        return self._lanes[lane].bisect_left(entry)

    def waiting(self, workload_class: str, model: str) -> int:
        return sum(len(self._lanes[lane]) for lane in self._of_model.get((workload_class, model), ()))

    def first(
        self,
        served: Mapping[tuple[str, str], Sequence[frozenset[str]]],
        *,
        tier: int,
        wanted: int,
        scanned_max: int,
        suits: Callable[[str], bool],
        open_to: Callable[[Lane], bool] = lambda _: True,
    ) -> list[str]:
        """The first `wanted` requests, best first, that a node of `tier` may serve: those of its (class, model) pairs,
        each with the sets of features it has them with, in lanes that are `open_to` it, that `suits` lets through.
        Looks at `scanned_max` at most."""
        lanes = [
            self._lanes[lane]
            for pair, features in served.items()
            for lane in self._of_model.get(pair, ())
            if lane.tier <= tier and any(lane.features <= each for each in features) and open_to(lane)
        ]
        merged: Iterator[tuple[int, str]] = heapq.merge(*lanes)
        suitable = (request_id for _, request_id in islice(merged, scanned_max) if suits(request_id))
        return list(islice(suitable, wanted))
