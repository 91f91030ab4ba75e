"""A disk that can lose its power: it records every write and sync that SQLite makes, and rebuilds what a cut leaves.

It sits beneath the very library that Python's `sqlite3` uses, as a VFS of it, so nothing above it is changed. Whatever
SQLite asks for is done in the real file too, except the sync, which is only recorded. A cut keeps what was synced, and
of the rest any writes at all, the last of them torn at a sector.

Not modelled: a file whose name is lost with its directory (SQLite syncs the directory when it first syncs a new file),
and a disk that says it has synced and has not.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_int64, c_void_p, cast, string_at
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import services

SECTOR_BYTES = 512
SQLITE_OK = 0

# A name stays a pointer: SQLite keeps it for as long as the file is open, and more than the name lies behind it.
Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
Delete = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class Methods(ctypes.Structure):
    """sqlite3_io_methods. What is not replaced is carried along as it is."""

    _fields_: ClassVar = [
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", Write),
        ("truncate", Truncate),
        ("sync", Sync),
        ("rest", c_void_p * 13),
    ]


class FileHandle(ctypes.Structure):
    """sqlite3_file."""

    _fields_: ClassVar = [("methods", POINTER(Methods))]


class Vfs(ctypes.Structure):
    """sqlite3_vfs."""

    _fields_: ClassVar = [
        ("version", c_int),
        ("handle_bytes", c_int),
        ("name_bytes_max", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", Open),
        ("delete", Delete),
        ("rest", c_void_p * 14),
    ]


@dataclass
class Written:
    file: str
    offset: int
    data: bytes


@dataclass
class Truncated:
    file: str
    size: int


@dataclass
class Synced:
    file: str


@dataclass
class Deleted:
    file: str


@dataclass
class Acknowledged:
    """Not the disk's: what the test was told is durable by then."""

    number: int


Event = Written | Truncated | Synced | Deleted | Acknowledged


@dataclass
class FileState:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Written | Truncated] = field(default_factory=list[Written | Truncated])

    def sync(self) -> None:
        for change in self.pending:
            apply(self.durable, change)
        self.pending.clear()

    def after_cut(self, keep: Callable[[int], list[bool]], randomness: random.Random) -> bytes:
        content = bytearray(self.durable)
        kept = [change for change, keeps in zip(self.pending, keep(len(self.pending)), strict=True) if keeps]
        for number, change in enumerate(kept):
            apply(content, torn(change, randomness) if number == len(kept) - 1 else change)
        return bytes(content)


def apply(content: bytearray, change: Written | Truncated) -> None:
    if isinstance(change, Truncated):
        del content[change.size :]
        return
    content.extend(b"\0" * (change.offset + len(change.data) - len(content)))
    content[change.offset : change.offset + len(change.data)] = change.data


def torn(change: Written | Truncated, randomness: random.Random) -> Written | Truncated:
    if isinstance(change, Truncated) or len(change.data) <= SECTOR_BYTES:
        return change
    sectors = randomness.randrange(1, len(change.data) // SECTOR_BYTES + 1)
    return Written(change.file, change.offset, change.data[: sectors * SECTOR_BYTES])


def file_name(pointer: int) -> str:
    return Path(os.fsdecode(string_at(pointer))).name


class Disk:
    """The state of the files after some events, each synced or not."""

    def __init__(self) -> None:
        self.files: dict[str, FileState] = {}

    def play(self, event: Event) -> None:
        match event:
            case Written() | Truncated():
                self.files.setdefault(event.file, FileState()).pending.append(event)
            case Synced():
                self.files.setdefault(event.file, FileState()).sync()
            case Deleted():
                self.files.pop(event.file, None)
            case Acknowledged():
                pass

    def cut(self, folder: Path, randomness: random.Random) -> None:
        """Leaves in `folder` what the disk holds when the power returns."""
        share = randomness.choice([0.0, 0.0, randomness.random(), 1.0])
        for name, state in self.files.items():
            content = state.after_cut(lambda count: [randomness.random() < share for _ in range(count)], randomness)
            (folder / name).write_bytes(content)


def library() -> Any:
    """The SQLite that Python's module is linked to, found through the module itself."""
    found: Any = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    if not hasattr(found, "sqlite3_vfs_find"):
        services.missing("a SQLite that Python shares", "use a Python that links SQLite as a shared library")
    found.sqlite3_vfs_find.restype = POINTER(Vfs)
    found.sqlite3_vfs_find.argtypes = [c_char_p]
    found.sqlite3_vfs_register.argtypes = [POINTER(Vfs), c_int]
    found.sqlite3_vfs_unregister.argtypes = [POINTER(Vfs)]
    return found


class Recorder:
    """The VFS. Its functions are called by SQLite, in whatever thread."""

    def __init__(self, beneath: Any) -> None:
        self.events: list[Event] = []
        self._beneath = beneath
        self._names: dict[int, str] = {}
        self._replaced: dict[int, Methods] = {}
        self.vfs = Vfs()
        ctypes.pointer(self.vfs)[0] = beneath[0]
        self.vfs.name = b"forgetful"
        self.vfs.open, self.vfs.delete = Open(self._open), Delete(self._delete)

    def _open(self, vfs: int, name: int | None, handle: int, flags: int, flags_out: int | None) -> int:
        answer = self._beneath[0].open(cast(self._beneath, c_void_p), name, handle, flags, flags_out)
        if answer == SQLITE_OK and name:
            self._names[handle] = file_name(name)
            file = cast(handle, POINTER(FileHandle))[0]
            address = ctypes.addressof(file.methods[0])
            file.methods = ctypes.pointer(self._methods(address))
        return answer

    def _methods(self, address: int) -> Methods:
        """A file's own methods but for those that change the disk. SQLite keeps a table for each way of locking."""
        if address not in self._replaced:
            original = Methods.from_address(address)
            replaced = Methods()
            ctypes.pointer(replaced)[0] = original
            replaced.write = Write(lambda *call: self._write(original, *call))
            replaced.truncate = Truncate(lambda *call: self._truncate(original, *call))
            replaced.sync = Sync(self._sync)
            self._replaced[address] = replaced
        return self._replaced[address]

    def _write(self, original: Methods, handle: int, data: int, count: int, offset: int) -> int:
        self.events.append(Written(self._names[handle], offset, string_at(data, count)))
        return original.write(handle, data, count, offset)

    def _truncate(self, original: Methods, handle: int, size: int) -> int:
        self.events.append(Truncated(self._names[handle], size))
        return original.truncate(handle, size)

    def _sync(self, handle: int, flags: int) -> int:
        self.events.append(Synced(self._names[handle]))
        return SQLITE_OK

    def _delete(self, vfs: int, name: int, sync_folder: int) -> int:
        self.events.append(Deleted(file_name(name)))
        return self._beneath[0].delete(cast(self._beneath, c_void_p), name, sync_folder)


@contextmanager
def recording() -> Generator[list[Event]]:
    """While the block lasts every database that this process opens is recorded, from its first byte."""
    sqlite = library()
    recorder = Recorder(sqlite.sqlite3_vfs_find(None))
    assert sqlite.sqlite3_vfs_register(byref(recorder.vfs), 1) == SQLITE_OK
    try:
        yield recorder.events
    finally:
        sqlite.sqlite3_vfs_unregister(byref(recorder.vfs))
