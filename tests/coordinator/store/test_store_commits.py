from __future__ import annotations

import random
from contextlib import closing

import pytest
import store_scenes as scenes

from parallelix.coordinator.store import queries
from parallelix.coordinator.store.errors import LeaseLost, StoreConflict, StoreFailed
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.rows import PayloadRow
from parallelix.coordinator.store.statements import ROWS_PER_STATEMENT_MAX, Delete
from parallelix.coordinator.store.store import Store
from parallelix.engine.rows import BalanceRow


def balances(store: Store) -> dict[str, str]:
    return {row.account: row.balance_wei for row in store.load(now=scenes.NOW).balances}


def balance(account: str, wei: int) -> BalanceRow:
    return BalanceRow(account=account, balance_wei=str(wei))


def take_over(url: str) -> None:
    """What another leader does first of all."""
    with closing(Store.open(url)) as other, other.backend.engine.begin() as connection:
        connection.exec_driver_sql(other.backend.query(queries.TAKE_LEAD), {"instance": "another"})


def test_commits_are_numbered_across_restarts(url: str) -> None:
    for expected in (1, 2, 3):
        with closing(Store.open(url)) as store:
            assert store.acquire("the test") == expected
            assert store.commit([balance("ada", expected)]) == expected


def test_a_row_replaces_the_one_with_its_key(store: Store) -> None:
    store.commit([balance("ada", 1), balance("ben", 2)])
    store.commit([balance("ada", 10**60)])
    assert balances(store) == {"ada": str(10**60), "ben": "2"}


def test_of_rows_with_one_key_in_a_group_the_last_is_written(store: Store) -> None:
    store.commit([balance("ada", wei) for wei in range(100)])
    assert balances(store) == {"ada": "99"}


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 3 * ROWS_PER_STATEMENT_MAX + 7])
def test_a_group_of_any_size_is_written_whole(store: Store, count: int) -> None:
    expected = {f"account {number}": str(number) for number in range(count)}
    store.commit([balance(account, int(wei)) for account, wei in expected.items()])
    assert balances(store) == expected


async def test_what_comes_last_holds_whether_row_or_delete(store: Store, readers: Readers) -> None:
    delete = Delete(row_type=PayloadRow, key=(scenes.request_id(1),))
    store.commit([scenes.request(1), scenes.payload(1), delete])
    assert await readers.payload(scenes.request_id(1)) is None
    store.commit([delete, scenes.payload(1)])
    assert await readers.payload(scenes.request_id(1)) == scenes.payload(1)
    store.commit([delete])
    assert await readers.payload(scenes.request_id(1)) is None


def test_a_delete_of_what_is_not_there_changes_nothing(store: Store) -> None:
    assert store.commit([Delete(row_type=PayloadRow, key=(scenes.request_id(1),))]) == 1


def test_a_key_of_two_columns_can_be_deleted(store: Store) -> None:
    hour = scenes.NOW // scenes.HOUR_MS
    kept = scenes.uptime("7", hour=hour)
    gone = [scenes.uptime("7", hour=hour - 1), scenes.uptime("8", hour=hour), scenes.uptime("9", hour=hour)]
    store.commit([kept, *gone])
    store.commit([Delete(row_type=type(row), key=(row.node_id, row.hour)) for row in gone])
    assert store.load(now=scenes.NOW).uptime == (kept,)


def test_a_repeated_append_is_a_conflict_and_writes_nothing_of_its_group(url: str, store: Store) -> None:
    store.commit([scenes.transfer("grant:1"), balance("ada", 1)])
    with pytest.raises(StoreConflict, match="transfers"):
        store.commit([balance("ada", 2), scenes.transfer("grant:2"), scenes.transfer("grant:1")])
    with pytest.raises(StoreFailed, match="earlier commit failed"):
        store.commit([balance("ada", 3)])
    store.close()
    with closing(Store.open(url)) as again:
        again.acquire("the next one")
        assert balances(again) == {"ada": "1"}
        again.commit([scenes.transfer("grant:2")])


def test_the_same_append_twice_in_one_group_is_a_conflict(store: Store) -> None:
    with pytest.raises(StoreConflict):
        store.commit([scenes.transfer("grant:1"), scenes.transfer("grant:1")])


def test_an_attempt_of_no_request_is_a_conflict(store: Store) -> None:
    with pytest.raises(StoreConflict):
        store.commit([scenes.attempt(1, of=1)])


def test_parents_may_come_after_their_children_in_a_group(store: Store) -> None:
    rows = [scenes.envelope(1, of=1), scenes.attempt(1, of=1), scenes.payload(1), scenes.request(1)]
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        store.commit(rows)


def test_a_commit_after_another_took_the_lead_writes_nothing(url: str, store: Store) -> None:
    store.commit([balance("ada", 1)])
    take_over(url)
    with pytest.raises(LeaseLost):
        store.commit([balance("ada", 2)])
    store.close()
    with closing(Store.open(url)) as third:
        assert third.acquire("the third") == 3
        assert balances(third) == {"ada": "1"}
        assert third.commit([balance("ada", 3)]) == 2


async def test_every_value_comes_back_as_it_was(store: Store, readers: Readers) -> None:
    request = scenes.request(
        1,
        attached=True,
        deadline_ms=2**62,
        queue_ms=-1,
        reason="Größe: 10 % 'of' \"it\"; :name %s %(x)s \N{SNOWMAN} \U0001f600\n",
        hold_wei=str(2**256 - 1),
    )
    payload = scenes.payload(1, sealed=bytes(range(256)) * 1000, wrapped_keys=b"")
    store.commit([request, payload])
    assert await readers.request(request.request_id) == request
    assert await readers.payload(request.request_id) == payload
