"""Rows to SQL text and parameters.

One statement writes many rows: a driver gives the interpreter up and takes it back once for each statement, and beside
a busy event loop each taking back can wait for a whole switch interval. Sizes are powers of two, so that the drivers'
caches of prepared statements stay small and warm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec

from parallelix.coordinator.store.schema import ROW_TYPES
from parallelix.engine.rows import Row

Statement: TypeAlias = tuple[str, Sequence[Any]]

ROWS_PER_STATEMENT_MAX = 64
"""28 columns times this stays far below the parameters that SQLite (32,766) and PostgreSQL (65,535) take."""

STATEMENTS_CACHED = 512
"""Every size of every table, and room for the reads."""


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    """Removes the row of `row_type` whose key is `key`, if it is there. Append-only rows are never removed."""

    row_type: type[Row]
    key: tuple[Any, ...]

    def __post_init__(self) -> None:
        assert not self.row_type.append_only, f"{self.row_type.table} is append-only"
        assert len(self.key) == len(self.row_type.key), (self.row_type.table, self.key)

    def map_key(self) -> Any:
        """As `attrgetter` gives a row's key: bare when it is one column."""
        return self.key if len(self.key) > 1 else next(iter(self.key))


Change: TypeAlias = Row | Delete
_NONE: dict[Any, Row | None] = {}


class TableStatements:
    """The statements of one table. `mark` is the driver's placeholder."""

    def __init__(self, row_type: type[Row], mark: str) -> None:
        self.row_type = row_type
        self.fields = row_type.__struct_fields__
        self.values = attrgetter(*self.fields)
        self.key_of: attrgetter[Any] = attrgetter(*row_type.key)
        self._mark = mark
        # Each size is made once: a few dozen texts a table.
        self.insert = cache(self._insert)
        self.delete = cache(self._delete)

    def _insert(self, count: int) -> str:
        values = _repeated(self._group(len(self.fields)), count)
        return f"INSERT INTO {self.row_type.table} ({', '.join(self.fields)}) VALUES {values}{self._on_conflict()}"

    def _on_conflict(self) -> str:
        if self.row_type.append_only:
            return ""
        changed = ", ".join(f"{field} = excluded.{field}" for field in self.fields if field not in self.row_type.key)
        return f" ON CONFLICT ({', '.join(self.row_type.key)}) DO UPDATE SET {changed}"

    def _delete(self, count: int) -> str:
        key = self.row_type.key
        if len(key) == 1:
            return f"DELETE FROM {self.row_type.table} WHERE {key[0]} IN {self._group(count)}"
        keys = _repeated(self._group(len(key)), count)
        return f"DELETE FROM {self.row_type.table} WHERE ({', '.join(key)}) IN (VALUES {keys})"

    def _group(self, count: int) -> str:
        return f"({_repeated(self._mark, count)})"


class Statements:
    """All tables. `of` gives a group's statements in the order in which foreign keys allow them."""

    def __init__(self, mark: str) -> None:
        self._tables = {row_type: TableStatements(row_type, mark) for row_type in ROW_TYPES}

    def of(self, changes: Iterable[Change]) -> list[Statement]:
        """What the changes leave, in order: of those with the same key only the last, but every append."""
        latest: dict[type[Row], dict[Any, Row | None]] = {}
        appended: dict[type[Row], list[Row]] = {}
        for change in changes:
            if isinstance(change, Delete):
                latest.setdefault(change.row_type, {})[change.map_key()] = None
                continue
            row_type = type(change)
            if row_type.append_only:
                appended.setdefault(row_type, []).append(change)
            else:
                latest.setdefault(row_type, {})[self._tables[row_type].key_of(change)] = change
        return [*self._inserts(latest, appended), *self._deletes(latest)]

    def _inserts(
        self, latest: dict[type[Row], dict[Any, Row | None]], appended: dict[type[Row], list[Row]]
    ) -> Iterator[Statement]:
        for row_type, table in self._tables.items():
            rows = appended.get(row_type) or [row for row in latest.get(row_type, _NONE).values() if row is not None]
            for part in _in_sizes(rows):
                yield table.insert(len(part)), list(chain.from_iterable(map(table.values, part)))

    def _deletes(self, latest: dict[type[Row], dict[Any, Row | None]]) -> Iterator[Statement]:
        for row_type in reversed(ROW_TYPES):
            keys = [key for key, row in latest.get(row_type, _NONE).items() if row is None]
            for part in _in_sizes(keys):
                values = part if len(row_type.key) == 1 else list(chain.from_iterable(part))
                yield self._tables[row_type].delete(len(part)), values


def _in_sizes(items: list[Any]) -> Iterator[list[Any]]:
    """`items` in parts of powers of two, the largest first."""
    start, size = 0, ROWS_PER_STATEMENT_MAX
    while start < len(items):
        while size > len(items) - start:
            size //= 2
        yield items[start : start + size]
        start += size


def _repeated(text: str, count: int) -> str:
    return ", ".join([text] * count)
