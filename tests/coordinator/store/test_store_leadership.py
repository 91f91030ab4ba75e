"""One coordinator leads a store, whatever else is started beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from parallelix.coordinator.store.errors import LeaseLost, StoreBusy
from parallelix.coordinator.store.store import Store
from parallelix.engine.rows import BalanceRow

LEADER = """
import sys
from parallelix.coordinator.store.store import Store
store = Store.open(sys.argv[1])
store.acquire("the other process")
print("leads", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process_leads(url: str) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", LEADER, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leads\n"
        yield process
        process.kill()


def acquire_once_the_server_noticed(store: Store) -> int:
    """PostgreSQL ends a dead client's session when it next reads from it."""
    for _ in range(10_000):
        try:
            return store.acquire("the successor")
        except StoreBusy:
            continue
    return store.acquire("the successor")


def test_a_second_process_is_told_who_leads_and_takes_over_when_that_dies(url: str) -> None:
    with another_process_leads(url) as process, closing(Store.open(url)) as store:
        with pytest.raises(StoreBusy, match=f"pid {process.pid}.*the other process"):
            store.acquire("the second")
        process.kill()
        process.wait()
        assert acquire_once_the_server_noticed(store) == 2


def test_a_second_store_in_the_same_process_is_refused_too(url: str, store: Store) -> None:
    with closing(Store.open(url)) as second:
        with pytest.raises(StoreBusy):
            second.acquire("the second")
        store.close()
        assert second.acquire("the second") == 2


def test_a_refused_store_leaves_the_leader_its_lead(url: str, store: Store) -> None:
    for _ in range(3):
        with closing(Store.open(url)) as refused, pytest.raises(StoreBusy):
            refused.acquire("refused")
    assert store.commit([BalanceRow(account="ada", balance_wei="1")]) == 1


def test_a_lock_file_that_was_removed_still_leaves_one_leader(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with closing(Store.open(url)) as first, closing(Store.open(url)) as second:
        first.acquire("the first")
        (tmp_path / "store.db.lock").unlink()
        second.acquire("the second")
        second.commit([BalanceRow(account="ada", balance_wei="2")])
        with pytest.raises(LeaseLost, match="epoch 1"):
            first.commit([BalanceRow(account="ada", balance_wei="1")])


VISITOR = """
import sys
from parallelix.coordinator.store.store import Store
Store.open(sys.argv[1]).close()
"""


def test_a_command_that_opens_and_closes_the_store_takes_nothing_from_its_leader(url: str, store: Store) -> None:
    """On SQLite, the last process to close deletes the log; locks tell it whether it is the last."""
    store.commit([BalanceRow(account="before", balance_wei="1")])
    with closing(Store.open(url)) as beside:
        subprocess.run([sys.executable, "-c", VISITOR, url], check=True)
        store.commit([BalanceRow(account="after", balance_wei="2")])
        assert {row.account for row in beside.load(now=0).balances} == {"before", "after"}
    with closing(Store.open(url)) as fresh:
        assert {row.account for row in fresh.load(now=0).balances} == {"before", "after"}


def test_a_command_can_tell_whether_anybody_will_apply_it(url: str) -> None:
    with closing(Store.open(url)) as command:
        assert not command.is_led()
        with another_process_leads(url):
            assert command.is_led()
