"""Five cycles of `make crash`, and every control of it but the slowest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import crash
from bench.books import audit, read_books

CYCLES = 5
UP_SECONDS = (0.5, 2.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[crash.Run]:
    folder = tmp_path_factory.mktemp("crash")
    cycles = crash.cycles_of_crashes(folder, CYCLES, crash.RATE, seed=1, say=print, up_seconds=UP_SECONDS)
    yield asyncio.run(cycles)


@pytest.mark.slow
def test_five_crashes_lose_nothing_and_charge_nothing_twice(run: crash.Run) -> None:
    assert not run.findings, run.findings
    assert run.cycles == CYCLES
    assert len(run.acknowledged) > CYCLES
    assert run.met_open > 0, "no kill met an open request, so nothing was tried"
    assert run.receipts_verified > 0 and run.states["completed"] > 0


@pytest.mark.slow
def test_an_acknowledged_request_that_is_not_there_counts_as_lost(run: crash.Run) -> None:
    assert run.phantom_caught
    books = read_books(f"sqlite:///{run.store}")
    assert audit(books, {"nobody": ["req_" + "ab" * 32]}).lost
    one, other = list(run.acknowledged.items())[:2]
    assert audit(books, {one[0]: [*one[1], *other[1]]}).lost, "one intent that became two requests"


@pytest.mark.slow
def test_every_fault_in_a_store_is_noticed(run: crash.Run, tmp_path: Path) -> None:
    assert [name for name, caught in crash.store_controls(run, tmp_path) if not caught] == []
