"""Verified uptime in ten-second slots. A slot is credited at most once; a rejected attempt voids the slots it spanned.

Kept as one bitmap of 360 slots for each node and hour. What is credited is written each minute, not with each
heartbeat: the countersigned receipts that operators keep restore what a crash loses. What is voided is written at once,
so that no receipt can bring it back.
"""

from __future__ import annotations

from collections.abc import Iterable

from parallelix.engine.rows import UptimeRow

SLOT_MS = 10_000
SLOTS_PER_HOUR = 360
HOURS_KEPT = 3
"""Hours in memory: this one, the last one, and one more for a clock that lags."""


def oldest_slot(now: int) -> int:
    """The first slot that is kept at Unix millisecond `now`."""
    return (now // SLOT_MS // SLOTS_PER_HOUR - HOURS_KEPT) * SLOTS_PER_HOUR


class Uptime:
    def __init__(self) -> None:
        self._credited: dict[tuple[int, int], int] = {}
        self._voided: dict[tuple[int, int], int] = {}
        self._changed: set[tuple[int, int]] = set()

    def credit(self, node_id: int, unix_ms: int) -> tuple[int, bool]:
        """(slot, whether it was newly credited)."""
        slot = unix_ms // SLOT_MS
        place, bit = (node_id, slot // SLOTS_PER_HOUR), 1 << slot % SLOTS_PER_HOUR
        before = self._credited.get(place, 0)
        if before & bit:
            return slot, False
        self._credited[place] = before | bit
        self._changed.add(place)
        return slot, True

    def is_open(self, node_id: int, slot: int) -> bool:
        """Neither credited nor voided."""
        place, bit = (node_id, slot // SLOTS_PER_HOUR), 1 << slot % SLOTS_PER_HOUR
        return not (self._credited.get(place, 0) | self._voided.get(place, 0)) & bit

    def restore_slots(self, node_id: int, slots: Iterable[int]) -> int:
        """Credits slots that were lost; gives how many. One that is voided, or was credited already, is passed over."""
        restored = 0
        for slot in slots:
            if self.is_open(node_id, slot):
                restored += 1
                self.credit(node_id, slot * SLOT_MS)
        return restored

    def void(self, node_id: int, since_ms: int, until_ms: int) -> int:
        """Voids every slot that the span touches, as far back as is kept; gives how many were not voided before. They
        stay voided whatever is credited later."""
        last = until_ms // SLOT_MS
        first = max(since_ms // SLOT_MS, oldest_slot(until_ms))
        voided = 0
        for slot in range(first, last + 1):
            place, bit = (node_id, slot // SLOTS_PER_HOUR), 1 << slot % SLOTS_PER_HOUR
            known = self._voided.get(place, 0)
            if not known & bit:
                self._voided[place] = known | bit
                self._changed.add(place)
                voided += 1
        return voided

    def counted(self, node_id: int, hour: int) -> int:
        """Slots of the hour that are credited and not voided."""
        place = (node_id, hour)
        return (self._credited.get(place, 0) & ~self._voided.get(place, 0)).bit_count()

    def last_credited_ms(self) -> dict[int, int]:
        """When the last slot began that is credited to each node, as far back as is kept."""
        last: dict[int, int] = {}
        for (node_id, hour), bitmap in self._credited.items():
            if bitmap:
                began = (hour * SLOTS_PER_HOUR + bitmap.bit_length() - 1) * SLOT_MS
                last[node_id] = max(began, last.get(node_id, 0))
        return last

    def take_rows(self, now: int) -> list[UptimeRow]:
        """The hours that changed since the last call; forgets hours long written."""
        rows = [self._row(place) for place in sorted(self._changed)]
        self._changed.clear()
        oldest = oldest_slot(now) // SLOTS_PER_HOUR
        for bitmap in (self._credited, self._voided):
            for place in [place for place in bitmap if place[1] < oldest]:
                del bitmap[place]
        return rows

    def take_rows_of(self, node_id: int) -> list[UptimeRow]:
        """The hours of one node that changed since they were last taken."""
        places = sorted(place for place in self._changed if place[0] == node_id)
        self._changed.difference_update(places)
        return [self._row(place) for place in places]

    def _row(self, place: tuple[int, int]) -> UptimeRow:
        node_id, hour = place
        return UptimeRow(
            node_id=str(node_id),
            hour=hour,
            credited=f"{self._credited.get(place, 0):x}",
            voided=f"{self._voided.get(place, 0):x}",
        )

    def restore(self, rows: tuple[UptimeRow, ...]) -> None:
        for row in rows:
            place = (int(row.node_id), row.hour)
            self._credited[place], self._voided[place] = int(row.credited, 16), int(row.voided, 16)
