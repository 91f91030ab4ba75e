"""SQLite: one file, one writer, every commit synced before it is told.

In WAL mode with synchronous=FULL a commit returns after its frames are synced, and readers see it only then. Under
NORMAL a power cut loses the last commits. kill -9 never shows that; a disk that forgets unsynced writes does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.pool import NullPool

from parallelix.coordinator.store.backend import Backend, DriverConnection
from parallelix.coordinator.store.errors import (
    StoreBusy,
    StoreConflict,
    StoreCorrupt,
    StoreError,
    StoreFailed,
    StoreUnreachable,
    StoreUnsafe,
)
from parallelix.coordinator.store.statements import STATEMENTS_CACHED, Statement

SYNCHRONOUS_FULL = 2
BUSY_TIMEOUT_MS = 10_000
"""The only other writer is a command on this machine, which writes one row."""
CHECKPOINT_PAGES = 4_000
"""16 MiB of log: often enough to keep it short, seldom enough that hot pages are written back once for many commits."""
CACHE_KIB = 64 * 1024
CHECKED_BYTES_MAX = 256 * 1024 * 1024
"""A larger file is not checked at every start: the check reads all of it, near a second for each 256 MiB."""

PRAGMAS: dict[str, int | str] = {
    "journal_mode": "wal",
    "synchronous": SYNCHRONOUS_FULL,
    # Only macOS has it: there a plain fsync leaves the data in the drive's cache.
    "fullfsync": 1,
    "checkpoint_fullfsync": 1,
    "foreign_keys": 1,
    "cell_size_check": 1,
    "busy_timeout": BUSY_TIMEOUT_MS,
    "wal_autocheckpoint": CHECKPOINT_PAGES,
    "cache_size": -CACHE_KIB,
}


class SQLiteBackend(Backend):
    mark = "?"
    begin_snapshot = "BEGIN"
    begin_write = "BEGIN IMMEDIATE"
    driver_error = sqlite3.Error

    def __init__(self, url: URL) -> None:
        super().__init__()
        if url.database is None or url.database in {"", ":memory:"}:
            raise StoreUnreachable("a store in memory forgets what it acknowledged: name a file, sqlite:///<file>")
        self.path = Path(url.database).expanduser().absolute()
        self.engine = create_engine(
            url.set(drivername="sqlite+pysqlite", database=str(self.path)),
            creator=self._open,
            poolclass=NullPool,
            paramstyle="named",
        )

    def connect(self) -> DriverConnection:
        return self._open()

    def connect_reader(self) -> DriverConnection:
        connection = self._open()
        connection.execute("PRAGMA query_only = 1")
        return connection

    def _open(self) -> sqlite3.Connection:
        try:
            _create_private(self.path)
            connection = sqlite3.connect(
                self.path,
                isolation_level=None,
                # Opened by whoever starts the coordinator, then used by the writer's thread alone.
                check_same_thread=False,
                cached_statements=STATEMENTS_CACHED,
                timeout=BUSY_TIMEOUT_MS / 1000,
            )
            for name, value in PRAGMAS.items():
                _set_pragma(connection, name, value)
        except (OSError, sqlite3.Error) as error:
            raise self.ours(error, StoreUnreachable) from error
        return connection

    def lead(self, connection: DriverConnection, instance: str) -> Callable[[], None]:
        lock = self.path.with_name(self.path.name + ".lock")
        # flock, not lockf: it holds between two stores of one process, and closing another handle does not drop it.
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise StoreBusy(f"{self.path} is led by another coordinator, {holder}: stop it first") from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()} ({instance})\n".encode(), 0)
        return lambda: os.close(handle)

    def begin_migration(self, connection: Connection) -> None:
        connection.exec_driver_sql(self.begin_write)

    def verify(self, connection: DriverConnection) -> None:
        size_bytes = self.path.stat().st_size
        if size_bytes > CHECKED_BYTES_MAX:
            return
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA quick_check(1)")
            found = cursor.fetchall()
        except sqlite3.Error as error:
            raise self.ours(error, StoreFailed) from error
        if found != [("ok",)]:
            raise StoreCorrupt(f"{self.path} is damaged, {found[0][0]}: restore it from a copy")

    def transact(
        self, connection: DriverConnection, guard: tuple[str, Mapping[str, Any]], statements: Sequence[Statement]
    ) -> bool:
        assert isinstance(connection, sqlite3.Connection)
        execute = connection.execute
        try:
            execute(self.begin_write)
            if execute(*guard).rowcount != 1:
                execute("ROLLBACK")
                return False
            for sql, values in statements:
                execute(sql, values)
            execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.rollback()
            raise self.ours(error, StoreFailed) from error
        return True

    def close(self) -> None:
        self.engine.dispose()

    def ours(self, error: Exception, otherwise: type[StoreError]) -> StoreError:
        if isinstance(error, StoreError):
            return error
        if isinstance(error, sqlite3.IntegrityError):
            return StoreConflict(f"{self.path}: {error}")
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return StoreCorrupt(f"{self.path} is damaged, {error}: restore it from a copy")
        return otherwise(f"{self.path}: {error}")


def _create_private(path: Path) -> None:
    """SQLite gives the log and its index the file's own mode.

    A file that is there is not opened: closing any handle to it would drop the locks that this process holds through
    SQLite, and the next process to close the store would take itself for the last and delete the log under us.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _set_pragma(connection: sqlite3.Connection, name: str, value: int | str) -> None:
    connection.execute(f"PRAGMA {name} = {value}")
    (found,) = connection.execute(f"PRAGMA {name}").fetchone()
    if found != value:
        raise StoreUnsafe(f"SQLite's {name}", found, value, "use a local file system and SQLite 3.37 or later")
