"""The registry as a JSON file that somebody edits: `[{node_id, owner, stake_wei, hardware_tier, node_key_hash, state,
cooldown_ends_at}]`. It stands in for NodeRegistryLocker where there is no chain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from parallelix.coordinator.ports import RegistryChanges, RegistryUnreadable
from parallelix.protocol.registry import MINIMUM_STAKE_WEI, Registration

FILE_BYTES_MAX = 256 * 1024 * 1024
"""A million registrations of 256 bytes."""


class RegistryFile:
    """Reads the file again whenever its time or size changed. A version that cannot be read changes nothing, and
    `unreadable` is told why."""

    def __init__(self, path: Path, *, poll_seconds: float, unreadable: Callable[[str], None]) -> None:
        self._path = path
        self._poll_seconds = poll_seconds
        self._unreadable = unreadable
        self._known: dict[int, Registration] = {}
        self._seen: tuple[int, int, int] = (0, 0, 0)

    async def load(self) -> tuple[Registration, ...]:
        """Everyone in the file; nobody while there is none. Raises `RegistryUnreadable`."""
        self._seen = self._fingerprint()
        self._known = parse(self._read(), source=str(self._path))
        return tuple(self._known.values())

    async def changes(self) -> AsyncIterator[RegistryChanges]:
        while True:
            await asyncio.sleep(self._poll_seconds)
            seen = self._fingerprint()
            if seen == self._seen:
                continue
            try:
                found = parse(self._read(), source=str(self._path))
            except RegistryUnreadable as error:
                self._unreadable(str(error))
                self._seen = seen
                continue
            self._seen = seen
            before, self._known = self._known, found
            changes = difference(before, found)
            if changes.registrations or changes.removed:
                yield changes

    def _fingerprint(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _read(self) -> bytes:
        try:
            if self._path.stat().st_size > FILE_BYTES_MAX:
                raise RegistryUnreadable(f"{self._path}: larger than {FILE_BYTES_MAX} bytes")
            return self._path.read_bytes()
        except FileNotFoundError:
            return b"[]"
        except OSError as error:
            raise RegistryUnreadable(f"{self._path}: cannot be read ({error.strerror})") from error


def parse(data: bytes, *, source: str = "registry") -> dict[int, Registration]:
    """The registrations by node id. Raises `RegistryUnreadable` naming `source` and the entry at fault."""
    try:
        found = msgspec.json.decode(data, type=list[Registration])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryUnreadable(f"{source}: {error}") from error
    registrations: dict[int, Registration] = {}
    keys: dict[str, int] = {}
    for each in found:
        node_id = int(each.node_id)
        if node_id in registrations:
            raise RegistryUnreadable(f"{source}: node {node_id} is listed twice")
        if each.state == "active" and int(each.stake_wei) < MINIMUM_STAKE_WEI:
            raise RegistryUnreadable(
                f"{source}: node {node_id} stakes {each.stake_wei} wei, at least {MINIMUM_STAKE_WEI} are needed"
            )
        if each.state != "retired" and keys.setdefault(each.node_key_hash, node_id) != node_id:
            raise RegistryUnreadable(
                f"{source}: nodes {keys[each.node_key_hash]} and {node_id} share one key; each node has its own"
            )
        registrations[node_id] = each
    return registrations


def difference(before: dict[int, Registration], after: dict[int, Registration]) -> RegistryChanges:
    return RegistryChanges(
        registrations=tuple(each for node_id, each in after.items() if before.get(node_id) != each),
        removed=tuple(node_id for node_id in before if node_id not in after),
    )
