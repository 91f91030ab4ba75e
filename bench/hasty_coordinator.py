"""`python -m bench.hasty_coordinator FOLDER`: the coordinator with one fault, made to be caught.

It acknowledges a request before the commit that holds it. Its commits are slow, as those of a busy disk are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence

from parallelix.coordinator import __main__
from parallelix.coordinator.store.journal import Journal
from parallelix.coordinator.store.rows import PayloadRow
from parallelix.coordinator.store.statements import Change, Delete
from parallelix.coordinator.store.store import Store
from parallelix.engine.rows import Row

COMMIT_SECONDS = 0.3

_append, _wait, _commit = Journal.append, Journal.wait, Store.commit
_hasty: set[int] = set()


def append(
    self: Journal, rows: Sequence[Row], deletes: Iterable[Delete] = (), *, after: Callable[[], None] | None = None
) -> int:
    ticket = _append(self, rows, deletes, after=after)
    if any(isinstance(row, PayloadRow) for row in rows):
        _hasty.add(ticket)
    return ticket


async def wait(self: Journal, ticket: int) -> None:
    if ticket not in _hasty:
        await _wait(self, ticket)


def commit(self: Store, changes: Sequence[Change]) -> int:
    time.sleep(COMMIT_SECONDS)
    return _commit(self, changes)


if __name__ == "__main__":
    Journal.append, Journal.wait, Store.commit = append, wait, commit
    sys.exit(__main__.main(sys.argv[1:]))
