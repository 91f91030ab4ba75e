"""Twenty cycles and thirty reorgs of `make chain-faults`, and every control of it but the coordinators with a fault."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import chain_faults
from bench.chain_controls import FAULTS, idle_reorg_is_not_counted
from bench.chain_crashes import POINTS
from bench.chain_faults import Run
from bench.chain_tamper import tampered
from bench.chain_world import chain_world
from bench.reorgs import DEPTH_MAX, FATES
from parallelix import points

CYCLES, REORGS, EDITS = 20, 30, 34
"""Of edits `tests/chain/test_records_audit.py` tries a thousand."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    run: Run
    idle_is_not_counted: bool


SOURCES = Path(points.__file__).parent


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("chain_faults")
    with chain_world(folder / "chain") as world:
        faults = chain_faults.faults(
            folder / "stage", world, cycles=CYCLES, reorgs=REORGS, seed=1, rest_every=CYCLES, say=print
        )
        run = asyncio.run(faults)
        run.tamper = tampered(world, run.crash.store, EDITS, seed=1)
        yield Ran(run=run, idle_is_not_counted=idle_reorg_is_not_counted(world))


def test_every_point_that_the_sources_name_is_tried() -> None:
    named = {
        name for path in SOURCES.rglob("*.py") for name in re.findall(r'\breached\("([a-z_.]+)"\)', path.read_text())
    }
    assert named == set(POINTS)


@pytest.mark.slow
@pytest.mark.service
def test_kill_at_every_point_neither_loses_nor_doubles_anything(ran: Ran) -> None:
    crash = ran.run.crash
    assert crash.sound, chain_faults.findings_of(ran.run)
    assert crash.cycles == CYCLES
    assert {point for point, result in crash.points.items() if result.cycles} == set(POINTS)
    assert crash.acknowledged > CYCLES and crash.rests > 0


@pytest.mark.slow
@pytest.mark.service
def test_reorgs_that_replace_transactions_leave_ledger_and_contracts_agreed(ran: Ran) -> None:
    reorgs = ran.run.reorgs
    assert reorgs.agreement, reorgs.agreement.findings
    assert reorgs.counted == reorgs.head_changed == REORGS
    assert set(reorgs.fates) == set(FATES)
    assert DEPTH_MAX // 2 < max(reorgs.depths) <= DEPTH_MAX and reorgs.compared > 0
    assert reorgs.replaced["deposit"] > 0


@pytest.mark.slow
@pytest.mark.service
def test_every_edit_of_what_was_recorded_is_noticed_and_nothing_else_is(ran: Ran) -> None:
    tamper = ran.run.tamper
    assert tamper.missed == []
    assert (tamper.edits, tamper.detected, tamper.false_alarms) == (EDITS, EDITS, 0)
    assert tamper.untouched > 1
    assert tamper.hashes_alone_miss_it


@pytest.mark.slow
@pytest.mark.service
def test_every_fault_in_a_store_is_noticed_beside_the_chain(ran: Ran) -> None:
    assert [name for name, caught in ran.run.controls if not caught] == []
    assert len(ran.run.controls) == len(FAULTS)
    assert ran.idle_is_not_counted
