"""PostgreSQL: the lead is an advisory lock of the writer's session, so it ends with that connection.

A group is two round trips: everything in one pipeline, then COMMIT once the guard is seen to hold.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import psycopg
from psycopg.types.numeric import Int8BinaryDumper
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

LEAD_LOCK = 0x7061726C  # "parl"
MIGRATION_LOCK = LEAD_LOCK + 1
CONNECT_SECONDS_MAX = 10
APPLICATION_NAME_MAX = 63
"""PostgreSQL cuts it there."""
REQUIRED_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")

_LEADER = """
SELECT activity.application_name
FROM pg_locks AS locks JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 1
    AND locks.classid = 0 AND locks.objid = %s AND activity.datname = current_database()
"""


class PostgreSQLBackend(Backend):
    mark = "%s"
    begin_snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    begin_write = "BEGIN"
    driver_error = psycopg.Error

    def __init__(self, url: URL) -> None:
        super().__init__()
        self._url = url.set(drivername="postgresql")
        self._shown = self._url.render_as_string(hide_password=True)
        self.engine = create_engine(
            url.set(drivername="postgresql+psycopg"), creator=self._open, poolclass=NullPool, use_native_hstore=False
        )

    def connect(self) -> DriverConnection:
        connection = self._open(autocommit=True)
        for setting in REQUIRED_SETTINGS:
            (value,) = connection.execute(f"SHOW {setting}").fetchone() or ("off",)
            if value == "off":
                raise StoreUnsafe(f"PostgreSQL's {setting}", value, "on", "change it in postgresql.conf")
        return cast(DriverConnection, connection)

    def connect_reader(self) -> DriverConnection:
        connection = self._open(autocommit=True)
        connection.execute("SET default_transaction_read_only = on")
        return cast(DriverConnection, connection)

    def _open(self, *, autocommit: bool = False) -> psycopg.Connection:
        try:
            connection = psycopg.connect(
                self._url.render_as_string(hide_password=False),
                autocommit=autocommit,
                connect_timeout=CONNECT_SECONDS_MAX,
                application_name="parallelix-coordinator",
            )
        except psycopg.Error as error:
            raise StoreUnreachable(f"{self._shown}: {error}") from error
        # A number's own size would be part of a prepared statement's type, and so each mix of sizes a new statement.
        connection.adapters.register_dumper(int, Int8BinaryDumper)
        connection.prepare_threshold = 2
        connection.prepared_max = STATEMENTS_CACHED
        return connection

    def lead(self, connection: DriverConnection, instance: str) -> Callable[[], None]:
        session = _driver(connection)
        name = f"pid {os.getpid()} on {socket.gethostname()}, {instance}"
        session.execute("SELECT set_config('application_name', %s, false)", (name[:APPLICATION_NAME_MAX],))
        taken = session.execute("SELECT pg_try_advisory_lock(%s)", (LEAD_LOCK,)).fetchone()
        if taken != (True,):
            holder = session.execute(_LEADER, (LEAD_LOCK,)).fetchone()
            raise StoreBusy(
                f"{self._shown} is led by another coordinator, {holder[0] if holder else 'unknown'}: stop it first"
            )
        return lambda: _unlock(session)

    def begin_migration(self, connection: Connection) -> None:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))

    def verify(self, connection: DriverConnection) -> None:
        """PostgreSQL checks its own pages, where the cluster was made with checksums."""

    def transact(
        self, connection: DriverConnection, guard: tuple[str, Mapping[str, Any]], statements: Sequence[Statement]
    ) -> bool:
        session = _driver(connection)
        guarding, writing = connection.cursor(), connection.cursor()
        try:
            with session.pipeline():
                writing.execute(self.begin_write)
                guarding.execute(*guard)
                for sql, values in statements:
                    writing.execute(sql, values)
            if guarding.rowcount != 1:
                session.execute("ROLLBACK")
                return False
            session.execute("COMMIT")
        except psycopg.Error as error:
            if not session.closed:
                session.rollback()
            raise self.ours(error, StoreFailed) from error
        return True

    def close(self) -> None:
        self.engine.dispose()

    def ours(self, error: Exception, otherwise: type[StoreError]) -> StoreError:
        if isinstance(error, psycopg.IntegrityError):
            return StoreConflict(f"{self._shown}: {error}")
        if isinstance(error, psycopg.errors.DataCorrupted | psycopg.errors.IndexCorrupted):
            return StoreCorrupt(f"{self._shown} is damaged, {error}: restore it from a copy")
        return otherwise(f"{self._shown}: {' '.join(str(error).split())}")


def _driver(connection: DriverConnection) -> psycopg.Connection:
    return cast(psycopg.Connection, connection)


def _unlock(connection: psycopg.Connection) -> None:
    # A session that has ended has given up its lock.
    with suppress(psycopg.OperationalError):
        connection.execute("SELECT pg_advisory_unlock(%s)", (LEAD_LOCK,))
