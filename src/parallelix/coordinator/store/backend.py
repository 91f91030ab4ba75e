"""What SQLite and PostgreSQL do each in its own way; everything else is said once, in `store.py` and `readers.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, text

from parallelix.coordinator.store.errors import StoreError
from parallelix.coordinator.store.statements import Statement
from parallelix.engine.rows import Row

AnyRow = TypeVar("AnyRow", bound=Row)


class Cursor(Protocol):
    """As much of PEP 249 as is used here."""

    @property
    def rowcount(self) -> int: ...

    def execute(self, query: str, params: Any = ..., /) -> Any: ...
    def fetchall(self) -> list[tuple[Any, ...]]: ...


class DriverConnection(Protocol):
    def cursor(self) -> Cursor: ...
    def close(self) -> None: ...


class Backend(ABC):
    """One database and its driver. Connections are in the driver's autocommit: transactions are said aloud."""

    mark: ClassVar[str]
    begin_snapshot: ClassVar[str]
    """Begins a transaction in which all reads see the same state."""
    begin_write: ClassVar[str]

    driver_error: ClassVar[type[Exception]]
    """What everything that the driver raises inherits from."""

    engine: Engine

    def __init__(self) -> None:
        self._queries: dict[tuple[str, type[Row] | None], str] = {}

    def query(self, sql: str, row_type: type[Row] | None = None) -> str:
        """Named SQL in the driver's own way of writing parameters. Each is translated once."""
        found = self._queries.get((sql, row_type))
        if found is None:
            columns = "" if row_type is None else ", ".join(row_type.__struct_fields__)
            found = str(text(sql.replace("{columns}", columns)).compile(dialect=self.engine.dialect))
            self._queries[sql, row_type] = found
        return found

    @abstractmethod
    def ours(self, error: Exception, otherwise: type[StoreError]) -> StoreError:
        """The driver's error as one of ours: damage and conflicts by name, anything else as `otherwise`."""

    @abstractmethod
    def connect(self) -> DriverConnection:
        """A connection that writes, its settings verified. Raises `StoreUnreachable`, `StoreUnsafe`."""

    @abstractmethod
    def connect_reader(self) -> DriverConnection:
        """A connection that cannot write."""

    @abstractmethod
    def lead(self, connection: DriverConnection, instance: str) -> Callable[[], None]:
        """Takes the exclusive lead, for as long as the process lives or until what is returned is called.

        Raises `StoreBusy`, naming who has it.
        """

    @abstractmethod
    def begin_migration(self, connection: Connection) -> None:
        """Begins a transaction in which nobody else can change the schema."""

    @abstractmethod
    def verify(self, connection: DriverConnection) -> None:
        """What can be found out cheaply of damage. Raises `StoreCorrupt`."""

    @abstractmethod
    def transact(
        self, connection: DriverConnection, guard: tuple[str, Mapping[str, Any]], statements: Sequence[Statement]
    ) -> bool:
        """One durable transaction. False, with nothing written, when `guard` did not hit exactly one row.

        Raises `StoreConflict`, `StoreFailed`; then too nothing is known to be written.
        """

    @abstractmethod
    def close(self) -> None: ...


class Reading:
    """Named SQL on one connection. The driver's errors come as they are."""

    def __init__(self, backend: Backend, connection: DriverConnection) -> None:
        self._backend, self.connection = backend, connection

    def rows(self, row_type: type[AnyRow], sql: str, **parameters: object) -> list[AnyRow]:
        fields = row_type.__struct_fields__
        # Each value is checked against its field; SQLite has no booleans, and gives 0 and 1.
        return [
            msgspec.convert(dict(zip(fields, values, strict=True)), row_type, strict=False)
            for values in self._fetch(self._backend.query(sql, row_type), parameters)
        ]

    def row(self, row_type: type[AnyRow], sql: str, **parameters: object) -> AnyRow | None:
        rows = self.rows(row_type, sql, **parameters)
        assert len(rows) <= 1, sql
        return rows[0] if rows else None

    def values(self, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        return self._fetch(self._backend.query(sql), parameters)

    def execute(self, sql: str, **parameters: object) -> int:
        """How many rows were written."""
        cursor = self.connection.cursor()
        cursor.execute(self._backend.query(sql), parameters)
        return cursor.rowcount

    def _fetch(self, sql: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        cursor = self.connection.cursor()
        cursor.execute(sql, parameters)
        return cursor.fetchall()

    @contextmanager
    def transaction(self, begin: str) -> Generator[None]:
        self.execute(begin)
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")
