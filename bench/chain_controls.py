"""What `make chain-faults` must notice: faults in copies of a store, and coordinators that have one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import reorgs
from bench.chain_crashes import CrashRun, died_at
from bench.chain_reorgs import ReorgRun, replace_blocks
from bench.chain_stage import ChainStage, chain_stage, mining
from bench.chain_traffic import Crowd
from bench.chain_world import ChainWorld, chain_world
from bench.crash import copied
from bench.reorgs import Placing
from parallelix.devnet.processes import ProcessError

TRUSTING_REORGS = 10
FORGETFUL_SECONDS = 60.0
SEND_SECONDS = 1.5
"""For a coordinator to send what it has, or for blocks to take it."""
NOWHERE, NOWHERE_SECONDS = "no.such.point", 3.0


class NothingToSpoil(Exception):
    """The store has nothing that this fault could be put into."""


# Faults in a store ----------------------------------------------------------------------------------------------------


def move(store: sqlite3.Connection, debit: str, credit: str, amount_wei: int) -> None:
    """Changes two balances as a transfer would."""
    for account, change_wei in ((debit, -amount_wei), (credit, amount_wei)):
        found = store.execute("SELECT balance_wei FROM balances WHERE account = ?", (account,)).fetchone()
        balance_wei = str(int(found[0] if found else 0) + change_wei)
        store.execute("INSERT OR REPLACE INTO balances VALUES (?, ?)", (account, balance_wei))


def a_transfer(store: sqlite3.Connection, like: str) -> tuple[str, str, str, int]:
    found = store.execute(
        "SELECT transfer_id, debit_account, credit_account, amount_wei FROM transfers WHERE transfer_id LIKE ?", (like,)
    ).fetchone()
    if found is None:
        raise NothingToSpoil(f"no transfer {like}")
    return found[0], found[1], found[2], int(found[3])


def twice(store: sqlite3.Connection, like: str) -> None:
    """Posts a transfer again, so that ledger and balances still belong together."""
    transfer_id, debit, credit, amount_wei = a_transfer(store, like)
    store.execute(
        "INSERT INTO transfers SELECT ?, debit_account, credit_account, amount_wei, request_id, at FROM transfers"
        " WHERE transfer_id = ?",
        (f"{transfer_id}:again", transfer_id),
    )
    move(store, debit, credit, amount_wei)


def never(store: sqlite3.Connection, like: str) -> None:
    """As if a transfer had never been posted."""
    transfer_id, debit, credit, amount_wei = a_transfer(store, like)
    store.execute("DELETE FROM transfers WHERE transfer_id = ?", (transfer_id,))
    move(store, credit, debit, amount_wei)


def credited_twice_all_through(store: sqlite3.Connection) -> None:
    """Even what is remembered of the vault says so."""
    _, _, credit, amount_wei = a_transfer(store, "deposit:%")
    twice(store, "deposit:%")
    account = credit.partition(":")[2]
    row = store.execute("SELECT deposit_wei FROM vault_accounts WHERE account = ?", (account,)).fetchone()
    deposit_wei = str(int(row[0]) + amount_wei)
    store.execute("UPDATE vault_accounts SET deposit_wei = ? WHERE account = ?", (deposit_wei, account))


def a_wei_more(store: sqlite3.Connection) -> None:
    account = a_transfer(store, "deposit:%")[2]
    move(store, "source:grants", account, 1)
    store.execute(
        "INSERT INTO transfers VALUES ('grant:nobody', 'source:grants', ?, '1', '', 1)",
        (account,),
    )


def unexplained(store: sqlite3.Connection) -> None:
    store.execute("DELETE FROM intents WHERE intent_id = 'anchor:1'")


def two_for_one(store: sqlite3.Connection) -> None:
    """One intent claims the transaction of the next one too."""
    (reference,) = store.execute("SELECT reference FROM intents WHERE intent_id = 'anchor:2'").fetchone()
    store.execute("DELETE FROM intents WHERE intent_id = 'anchor:2'")
    attempts = json.dumps([{"transaction_hash": reference}])
    store.execute("UPDATE intents SET attempts = ? WHERE intent_id = 'anchor:1'", (attempts,))


FAULTS: Mapping[str, Callable[[sqlite3.Connection], object]] = {
    "a deposit credited twice": lambda store: twice(store, "deposit:%"),
    "a deposit credited twice, in the mirror of the vault too": credited_twice_all_through,
    "a deposit that was lost": lambda store: never(store, "deposit:%"),
    "a withdrawal that the ledger forgot": lambda store: never(store, "withdraw:%"),
    "a settlement posted twice": lambda store: twice(store, "settle:%"),
    "a wei more than the vault has": a_wei_more,
    "a transaction that no intent explains": unexplained,
    "a second transaction for one intent": two_for_one,
    "a batch that is anchored and not confirmed here": lambda store: store.execute(
        "UPDATE batches SET confirmed_at = 0 WHERE number = 1"
    ),
    "a stake that is not known here": lambda store: store.execute("DELETE FROM registrations WHERE node_id = '1'"),
}
"""Each leaves a store that a coordinator would open. The comparison with the contracts must notice each one."""


def store_controls(stage: ChainStage, store: Path) -> list[tuple[str, bool]]:
    """Expects the chain as it was when `store` was at rest, with an agreement between them."""
    controls: list[tuple[str, bool]] = []
    for number, (name, fault) in enumerate(FAULTS.items()):
        spoilt = copied(store, stage.folder / f"fault{number}")
        with contextlib.closing(sqlite3.connect(spoilt)) as connection, connection:
            fault(connection)
        controls.append((name, not stage.reader.beside(f"sqlite:///{spoilt}")))
    return controls


# Reorgs and crashes that are none -------------------------------------------------------------------------------------


def idle_reorg_is_not_counted(world: ChainWorld) -> bool:
    """One that brings every transaction back where it was."""
    world.do(world.person("ann"), world.vault.deposit(1))
    mined = reorgs.mined_in(world, world.head, world.head)
    kept = [Placing(mined=each, fate="kept", hash=each.hash, raw=each.raw, offset=each.offset) for each in mined]
    return bool(kept) and not reorgs.reorganise(world, kept, 1).counts


# Coordinators with a fault --------------------------------------------------------------------------------------------


async def trusting_is_caught(folder: Path, world: ChainWorld, seed: int) -> bool:
    """Whether reorgs show that a coordinator believes what is not confirmed."""
    run, chance = ReorgRun(), random.Random(seed)
    async with chain_stage(folder, world, coordinator="bench.trusting_coordinator") as stage:
        crowd = Crowd(stage, chance)
        crowd.people.deeds.staking = False
        try:
            await replace_blocks(stage, crowd, run, TRUSTING_REORGS, chance, say=lambda _: None)
        except ProcessError:
            # The store itself takes no deposit twice, so the coordinator may end where it tries.
            run.agreement.add(stage.agreement())
        finally:
            await crowd.aclose()
    return run.agreement.difference_wei > 0


async def forgetful_is_caught(folder: Path, world: ChainWorld, seed: int) -> tuple[bool, bool]:
    """Whether a crash shows that a coordinator does not remember what it sent; and whether a cycle whose point nobody
    reaches is left out."""
    run, chance = CrashRun(), random.Random(seed)
    async with chain_stage(folder, world, coordinator="bench.forgetful_coordinator") as stage:
        crowd = Crowd(stage, chance)
        crowd.start(acting=True)
        try:
            caught, deadline = False, time.monotonic() + FORGETFUL_SECONDS
            while not caught and time.monotonic() < deadline:
                caught = await sent_again(stage, run, chance)
            await stage.aclose()
            left_out = not await died_at(stage, run, NOWHERE, chance, seconds=NOWHERE_SECONDS)
        finally:
            await crowd.aclose()
    return caught, left_out


async def sent_again(stage: ChainStage, run: CrashRun, chance: random.Random) -> bool:
    """Whether one crash shows a second transaction. No block comes while what was sent may be sent once more: after
    one, the contract itself would refuse it."""
    assert stage.coordinator is not None
    stage.coordinator.kill()
    async with mining(stage):
        await died_at(stage, run, "outbox.sent", chance)
    await stage.start()
    await asyncio.sleep(SEND_SECONDS)
    async with mining(stage):
        await asyncio.sleep(SEND_SECONDS)
    return bool(stage.agreement().twice)


def live_controls(folder: Path, seed: int) -> list[tuple[str, bool]]:
    """Each coordinator on a chain of its own."""
    with chain_world(folder / "chain1") as world:
        idle = idle_reorg_is_not_counted(world)
        trusting = asyncio.run(trusting_is_caught(folder / "trusting", world, seed))
    with chain_world(folder / "chain2") as world:
        forgetful, left_out = asyncio.run(forgetful_is_caught(folder / "forgetful", world, seed))
    return [
        ("a reorg that replaces nothing, taken for one", idle),
        ("a coordinator that believes blocks before they are confirmed", trusting),
        ("a coordinator that forgets what it has sent", forgetful),
        ("a cycle whose point was not reached, taken for one", left_out),
    ]
