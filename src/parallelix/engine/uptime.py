"""Verified uptime in ten-second slots. A slot is credited at most once; a rejected attempt voids the slots it spanned.

Kept as one bitmap of 360 slots for each node and hour. Rows are written each minute, not with each heartbeat: the
countersigned receipts that operators keep restore what a crash loses.
"""

from __future__ import annotations

from parallelix.engine.rows import UptimeRow

SLOT_MS = 10_000
SLOTS_PER_HOUR = 360
HOURS_KEPT = 3
"""Hours in memory: this one, the last one, and one more for a clock that lags."""


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

    def void(self, node_id: int, since_ms: int, until_ms: int) -> int:
        """Voids every slot that the span touches; gives how many. They stay voided whatever is credited later."""
        slots = range(since_ms // SLOT_MS, until_ms // SLOT_MS + 1)
        for slot in slots:
            place = (node_id, slot // SLOTS_PER_HOUR)
            self._voided[place] = self._voided.get(place, 0) | 1 << slot % SLOTS_PER_HOUR
            self._changed.add(place)
        return len(slots)

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
        rows = [
            UptimeRow(
                node_id=str(node_id),
                hour=hour,
                credited=f"{self._credited.get((node_id, hour), 0):x}",
                voided=f"{self._voided.get((node_id, hour), 0):x}",
            )
            for node_id, hour in sorted(self._changed)
        ]
        self._changed.clear()
        oldest = now // SLOT_MS // SLOTS_PER_HOUR - HOURS_KEPT
        for bitmap in (self._credited, self._voided):
            for place in [place for place in bitmap if place[1] < oldest]:
                del bitmap[place]
        return rows

    def restore(self, rows: tuple[UptimeRow, ...]) -> None:
        for row in rows:
            place = (int(row.node_id), row.hour)
            self._credited[place], self._voided[place] = int(row.credited, 16), int(row.voided, 16)
