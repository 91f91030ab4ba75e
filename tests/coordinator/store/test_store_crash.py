"""kill -9 in the middle of the load. (It shows nothing about power: `test_power_loss.py` does.)"""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

from parallelix.coordinator.store.errors import StoreBusy
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.store import Store

CHILD = Path(__file__).with_name("crash_child.py")
ACKNOWLEDGED_BEFORE_THE_KILL = (1, 137, 400)


def acknowledged_until_killed(url: str, at_least: int) -> set[str]:
    """Kills the child once it acknowledged so many, and gives everything that it acknowledged."""
    with subprocess.Popen([sys.executable, CHILD, url], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        seen = [child.stdout.readline() for _ in range(at_least)]
        child.kill()
        seen.extend(child.stdout)
    names = {line.rstrip("\n") for line in seen if line.endswith("\n")}
    assert len(names) >= at_least, "the child ended by itself"
    return names


def acquire_once_the_server_noticed(store: Store) -> None:
    for _ in range(10_000):
        try:
            store.acquire("the parent")
        except StoreBusy:
            continue
        return
    raise AssertionError("the dead child still leads the store")


async def test_nothing_acknowledged_is_lost_and_nothing_is_written_by_half(url: str) -> None:
    acknowledged: set[str] = set()
    for at_least in ACKNOWLEDGED_BEFORE_THE_KILL:
        acknowledged |= acknowledged_until_killed(url, at_least)
        with closing(Store.open(url)) as store:
            acquire_once_the_server_noticed(store)
            balances = {row.account.removeprefix("available:") for row in store.load(now=0).balances}
        readers = Readers.open(url)
        transfers = {transfer.transfer_id async for transfer in readers.transfers()}
        await readers.close()
        assert acknowledged <= transfers
        assert balances == transfers
