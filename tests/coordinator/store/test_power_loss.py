"""The power goes at any write: what was acknowledged is there, and nothing is there by half.

The controls are the same store with a weaker `synchronous`. They must lose acknowledged commits; if they do not, the
disk of this test forgets nothing and its first result means nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from forgetful_disk import Acknowledged, Disk, Event, Synced, recording

from parallelix.coordinator.store import sqlite
from parallelix.coordinator.store.errors import StoreError
from parallelix.coordinator.store.store import Store
from parallelix.engine.rows import BalanceRow

COMMITS = 150
CUTS = 120
SEED = 20_260_101
CHECKPOINT_PAGES = 40
"""Far smaller than in service, so that many of the cuts fall into a checkpoint."""


@pytest.fixture(autouse=True)
def nothing_is_written_beside_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A name that this disk passed on wrongly would be that of a file in the current folder."""
    empty = tmp_path / "current folder"
    empty.mkdir()
    monkeypatch.chdir(empty)
    yield
    assert list(empty.iterdir()) == []


def recorded_load(folder: Path) -> list[Event]:
    """Everything the disk was asked for while the store was made, written, and each commit acknowledged."""
    folder.mkdir()
    with recording() as events, closing(Store.open(f"sqlite:///{folder / 'store.db'}")) as store:
        store.acquire("before the cut")
        for number in range(1, COMMITS + 1):
            store.commit([BalanceRow(account=f"{number}:{half}", balance_wei="0" * 700) for half in "ab"])
            events.append(Acknowledged(number))
        # Closing would write everything back in good order.
        return list(events)


def cuts(events: list[Event], folder: Path) -> list[tuple[int, set[int] | None]]:
    """(the last commit acknowledged, the commits found after) for cuts all along; None for a store beyond repair."""
    randomness = random.Random(SEED)
    first = next(index for index, event in enumerate(events) if isinstance(event, Acknowledged))
    chosen = {*randomness.sample(range(first, len(events)), CUTS - 1), len(events) - 1}
    disk, acknowledged = Disk(), 0
    found: list[tuple[int, set[int] | None]] = []
    for index, event in enumerate(events):
        disk.play(event)
        if isinstance(event, Acknowledged):
            acknowledged = event.number
        if index in chosen:
            after = folder / f"cut {index}"
            after.mkdir()
            disk.cut(after, randomness)
            found.append((acknowledged, commits_in(after)))
    return found


def commits_in(folder: Path) -> set[int] | None:
    try:
        with closing(Store.open(f"sqlite:///{folder / 'store.db'}")) as store:
            store.acquire("after the cut")
            halves = [row.account.split(":") for row in store.load(now=0).balances]
    except StoreError:
        return None
    whole = {number for number, _ in halves}
    assert len(halves) == 2 * len(whole), "a commit was written by half"
    return {int(number) for number in whole}


def test_a_cut_of_the_power_loses_nothing_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sqlite.PRAGMAS, "wal_autocheckpoint", CHECKPOINT_PAGES)
    events = recorded_load(tmp_path / "before")
    checkpoints = [event for event in events if event == Synced("store.db")]
    assert len(checkpoints) > 10, "too few checkpoints for cuts to fall into"
    for acknowledged, commits in cuts(events, tmp_path):
        assert commits is not None, f"the store is damaged after {acknowledged} commits"
        assert commits >= set(range(1, acknowledged + 1))
        assert commits <= set(range(1, acknowledged + 2)), "more than the one commit in flight"


@pytest.mark.parametrize(("name", "synchronous"), [("NORMAL", 1), ("OFF", 0)])
def test_with_less_than_full_synchronous_acknowledged_commits_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, synchronous: int
) -> None:
    monkeypatch.setitem(sqlite.PRAGMAS, "synchronous", synchronous)
    events = recorded_load(tmp_path / "before")
    monkeypatch.undo()
    lost = [acknowledged - len(commits or ()) for acknowledged, commits in cuts(events, tmp_path)]
    assert max(lost) > 0, f"synchronous={name} lost nothing, so this disk forgets nothing"
