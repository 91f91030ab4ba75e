from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import store_scenes as scenes

from parallelix.coordinator.errors import Unavailable
from parallelix.coordinator.store import queries
from parallelix.coordinator.store.backend import Reading
from parallelix.coordinator.store.backends import backend_of
from parallelix.coordinator.store.errors import LeaseLost, StoreConflict, StoreError
from parallelix.coordinator.store.journal import PENDING_HARD_FACTOR, Journal
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.rows import PayloadRow
from parallelix.coordinator.store.statements import Delete
from parallelix.coordinator.store.store import Store
from parallelix.engine.rows import BalanceRow


class Watched:
    """A running journal with what it told."""

    def __init__(self, store: Store, **bounds: Any) -> None:
        self.groups: list[int] = []
        self.fatal: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.journal = Journal(
            store,
            on_fatal=self.fatal.set_result,
            on_commit=lambda changes, seconds: self.groups.append(changes),
            **bounds,
        )
        self.journal.start()


@pytest.fixture
async def watched(store: Store) -> AsyncIterator[Watched]:
    watched = Watched(store)
    yield watched
    await watched.journal.close()


def balance(number: int) -> BalanceRow:
    return BalanceRow(account=f"account {number}", balance_wei="1")


async def some_turns_of_the_loop() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@contextmanager
def commits_held(url: str) -> Generator[None]:
    """As long as the block lasts, somebody else holds what every commit must write."""
    backend = backend_of(url)
    reading = Reading(backend, backend.connect())
    reading.execute(backend.begin_write)
    reading.execute("UPDATE leader SET instance = instance WHERE id = 1")
    try:
        yield
    finally:
        reading.execute("ROLLBACK")
        reading.connection.close()


async def test_what_was_waited_for_is_in_the_store(watched: Watched, readers: Readers) -> None:
    await watched.journal.wait(watched.journal.append([scenes.request(1), scenes.payload(1)]))
    assert await readers.payload(scenes.request_id(1)) == scenes.payload(1)
    await watched.journal.wait(watched.journal.append([], [Delete(row_type=PayloadRow, key=(scenes.request_id(1),))]))
    assert await readers.payload(scenes.request_id(1)) is None


async def test_steps_of_one_turn_of_the_loop_share_a_transaction(watched: Watched, store: Store) -> None:
    tickets = {watched.journal.append([balance(number)]) for number in range(50)}
    assert len(tickets) == 1
    await watched.journal.flushed()
    assert watched.groups == [50]
    assert store.commit_number == 1


async def test_what_comes_while_a_commit_is_in_flight_becomes_the_next_one(
    watched: Watched, store: Store, url: str
) -> None:
    with commits_held(url):
        first = watched.journal.append([balance(0)])
        for number in range(1, 30):
            await some_turns_of_the_loop()
            assert watched.journal.append([balance(number)]) == first + 1
        assert watched.journal.durable < first
    await watched.journal.flushed()
    assert watched.groups == [1, 29]
    assert store.commit_number == 2


async def test_a_waiter_is_answered_only_after_its_own_commit(watched: Watched, url: str) -> None:
    with commits_held(url):
        waiters = [asyncio.create_task(watched.journal.wait(watched.journal.append([balance(0)])))]
        await some_turns_of_the_loop()
        waiters.append(asyncio.create_task(watched.journal.wait(watched.journal.append([balance(1)]))))
        await some_turns_of_the_loop()
        assert not any(waiter.done() for waiter in waiters)
    await asyncio.gather(*waiters)


async def test_callbacks_run_in_the_order_of_the_appends_and_before_the_waiters(watched: Watched, url: str) -> None:
    told: list[str] = []

    async def wait(ticket: int, name: str) -> None:
        await watched.journal.wait(ticket)
        told.append(name)

    with commits_held(url):
        first = watched.journal.append([balance(0)], after=lambda: told.append("a"))
        waiter = asyncio.create_task(wait(first, "the first waiter"))
        await some_turns_of_the_loop()
        watched.journal.append([], after=lambda: told.append("b, with nothing to write"))
        watched.journal.append([balance(1)], after=lambda: told.append("c"))
        watched.journal.append([], after=lambda: told.append("d, with nothing to write"))
        await some_turns_of_the_loop()
        assert told == []
    await watched.journal.flushed()
    await waiter
    assert told == ["a", "b, with nothing to write", "the first waiter", "c", "d, with nothing to write"]


async def test_an_append_of_nothing_waits_for_what_came_before_it(watched: Watched, url: str) -> None:
    told: list[str] = []
    assert watched.journal.append([], after=lambda: told.append("at once")) == 0
    await watched.journal.wait(0)
    await some_turns_of_the_loop()
    assert told == ["at once"]
    ticket = watched.journal.append([balance(0)])
    assert watched.journal.append([]) == watched.journal.ticket == ticket
    await watched.journal.flushed()
    assert watched.journal.append([]) == watched.journal.ticket == ticket
    assert watched.groups == [1]


async def test_a_waiter_that_is_cancelled_cancels_no_other(watched: Watched, url: str) -> None:
    with commits_held(url):
        ticket = watched.journal.append([balance(0)])
        leaving, staying = (asyncio.create_task(watched.journal.wait(ticket)) for _ in range(2))
        await some_turns_of_the_loop()
        leaving.cancel()
        await some_turns_of_the_loop()
        assert leaving.cancelled()
    await staying


async def test_a_commit_that_fails_ends_everything_and_answers_nobody(watched: Watched) -> None:
    told: list[str] = []
    await watched.journal.wait(watched.journal.append([scenes.transfer("grant:1")]))
    twice = watched.journal.append([scenes.transfer("grant:1")], after=lambda: told.append("never"))
    waiters = [asyncio.create_task(watched.journal.wait(twice))]
    assert isinstance(await watched.fatal, StoreConflict)
    waiters.append(asyncio.create_task(watched.journal.wait(watched.journal.append([balance(1)]))))
    await some_turns_of_the_loop()
    assert not any(waiter.done() for waiter in waiters)
    assert (told, watched.groups) == ([], [1])
    for waiter in waiters:
        waiter.cancel()


async def test_a_lost_lease_ends_everything(watched: Watched, url: str) -> None:
    backend = backend_of(url)
    usurper = Reading(backend, backend.connect())
    usurper.execute(queries.TAKE_LEAD, instance="the usurper")
    usurper.connection.close()
    watched.journal.append([balance(0)])
    assert isinstance(await watched.fatal, LeaseLost)


async def test_an_effect_that_raises_ends_everything(watched: Watched) -> None:
    def explode() -> None:
        raise ZeroDivisionError

    ticket = watched.journal.append([balance(0)], after=explode)
    waiter = asyncio.create_task(watched.journal.wait(ticket))
    assert isinstance(await watched.fatal, ZeroDivisionError)
    await some_turns_of_the_loop()
    assert not waiter.done()
    waiter.cancel()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    store.acquire("the test")
    yield store
    store.close()


async def test_nothing_new_is_let_in_while_too_many_changes_wait(sqlite_store: Store) -> None:
    watched = Watched(sqlite_store, pending_changes_max=5)
    watched.journal.append([balance(number) for number in range(4)])
    watched.journal.require_room()
    watched.journal.append([balance(4)])
    with pytest.raises(Unavailable, match="at most 5") as refusal:
        watched.journal.require_room()
    assert (refusal.value.code, refusal.value.status) == ("overloaded", 503)
    assert refusal.value.retry_after_seconds
    await watched.journal.flushed()
    watched.journal.require_room()
    await watched.journal.close()


async def test_nothing_new_is_let_in_while_too_many_bytes_wait(sqlite_store: Store) -> None:
    watched = Watched(sqlite_store, pending_bytes_max=1000)
    rows = [scenes.request(1), scenes.payload(1, sealed=b"x" * 999)]
    watched.journal.append(rows)
    watched.journal.require_room()
    watched.journal.append([scenes.request(2), scenes.payload(2, sealed=b"x")])
    with pytest.raises(Unavailable):
        watched.journal.require_room()
    await watched.journal.close()


async def test_a_store_that_hangs_ends_everything(sqlite_store: Store) -> None:
    watched = Watched(sqlite_store, pending_changes_max=2)
    watched.journal.append([balance(number) for number in range(2 * PENDING_HARD_FACTOR + 1)])
    assert isinstance(await watched.fatal, StoreError)
    await watched.journal.close()


async def test_closing_writes_what_is_left(sqlite_store: Store) -> None:
    watched = Watched(sqlite_store)
    watched.journal.append([balance(0)])
    await watched.journal.close()
    assert watched.groups == [1]
