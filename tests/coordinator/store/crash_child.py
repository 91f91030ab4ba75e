"""Writes until it is killed, and says on its standard output what is durable. Run by `test_store_crash.py`."""

from __future__ import annotations

import asyncio
import os
import sys

import store_scenes as scenes

from parallelix.coordinator.store.journal import Journal
from parallelix.coordinator.store.store import Store
from parallelix.engine.rows import BalanceRow

WRITERS = 20


def end(error: BaseException) -> None:
    os.write(2, f"{error!r}\n".encode())
    os._exit(1)


async def write(journal: Journal, writer: int) -> None:
    number = 0
    while True:
        name = f"{os.getpid()}:{writer}:{number}"
        ticket = journal.append(
            [scenes.transfer(name, amount_wei="1"), BalanceRow(account=f"available:{name}", balance_wei="1")]
        )
        await journal.wait(ticket)
        os.write(1, f"{name}\n".encode())
        number += 1


async def main(url: str) -> None:
    store = Store.open(url)
    store.acquire("the child")
    journal = Journal(store, on_fatal=end)
    journal.start()
    await asyncio.gather(*(write(journal, writer) for writer in range(WRITERS)))


asyncio.run(main(sys.argv[1]))
