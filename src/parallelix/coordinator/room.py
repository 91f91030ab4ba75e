"""Room for bodies that are still on their way: one bound over all connections, since each alone is small."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from parallelix.coordinator.errors import Unavailable

RETRY_SECONDS = 5.0


class Room:
    """A body that is there at once takes none. One that comes in parts takes what has come, until it is whole."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken_bytes = 0

    @contextmanager
    def part(self) -> Generator[Part]:
        part = Part(self)
        try:
            yield part
        finally:
            self.taken_bytes -= part.taken_bytes


class Part:
    def __init__(self, room: Room) -> None:
        self._room = room
        self.taken_bytes = 0

    def take(self, count: int) -> None:
        """Raises `Unavailable` when too much is on its way already."""
        room = self._room
        if room.taken_bytes + count > room.bytes_max:
            raise Unavailable(
                f"body: {room.taken_bytes} bytes of other bodies are on their way, at most {room.bytes_max}; try again",
                retry_after_seconds=RETRY_SECONDS,
            )
        room.taken_bytes += count
        self.taken_bytes += count
