"""Edits of the records that a real run left behind, against what its chain keeps: each must be noticed and placed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.books import read_books
from bench.chain_stage import CONFIRMATIONS
from bench.chain_world import ChainWorld
from bench.record_edits import EVERY_EDIT, Export, edit_and_hash_anew
from parallelix.chain.anchored import read_anchored
from parallelix.chain.records_audit import Audit, audit
from parallelix.chain.rpc import connected
from parallelix.protocol.errors import Malformed
from parallelix.protocol.record_export import Header, read_line
from parallelix.protocol.records import AuditRecord, ExecutionRecord, decode_record, verify_chain

RECORDS_MAX = 300
"""Anchored ones, which an audit reads in a few hundredths of a second."""
UNANCHORED_MAX = 5
BATCHES_MIN = 2
"""Some edits move a record from one batch to another."""


class TooFew(Exception):
    """The run left too few batches for these edits."""


@dataclass(kw_only=True)
class TamperRun:
    """`untouched` exports were audited too; each that was accused is a false alarm."""

    edits: int = 0
    detected: int = 0
    untouched: int = 0
    false_alarms: int = 0
    records: int = 0
    hashes_alone_miss_it: bool = False
    """A check that looks only at whether hashes follow from one another passes an edit that the audit finds."""
    missed: list[str] = field(default_factory=list[str])


def tampered(world: ChainWorld, store: Path, edits: int, seed: int) -> TamperRun:
    """Takes the oldest batches of the chain, as if it had no others: what is anchored never changes."""
    export = asyncio.run(exported(world, store))
    run, chance = TamperRun(records=len(export.records)), random.Random(seed)
    lines = export.lines()
    for claimed in range(len(export.batches) + 1):
        older = Export(header=export.header, batches=export.batches[:claimed], records=export.records)
        run.untouched += 1
        run.false_alarms += not audited(older.lines(), export).holds
    for number in range(edits):
        edit = EVERY_EDIT[number % len(EVERY_EDIT)]
        edited, (first, last), _ = edit(chance, export, [*lines])
        run.edits += 1
        if edited != lines and names(audited(edited, export), first, last):
            run.detected += 1
        else:
            run.missed.append(f"edit {number}, {edit.__name__}, of records {first} to {last}")
    run.hashes_alone_miss_it = any(missed_by_hashes(chance, export) for _ in range(len(EVERY_EDIT)))
    return run


async def exported(world: ChainWorld, store: Path) -> Export:
    async with connected(world.anvil.url) as rpc:
        found = await read_anchored(rpc, world.deployed, confirmations=CONFIRMATIONS)
        batches = tuple(each.batch for each in found.batches if each.batch.last < RECORDS_MAX)
        if len(batches) < BATCHES_MIN:
            raise TooFew(f"{len(batches)} batches of at most {RECORDS_MAX} records in all, at least {BATCHES_MIN}")
    rows = read_books(f"sqlite:///{store}").records[: batches[-1].last + 1 + UNANCHORED_MAX]
    records = tuple(decode_record(row.body) for row in rows)
    return Export(header=Header(chain_id=found.chain_id, anchor=found.anchor), batches=batches, records=records)


def audited(lines: Sequence[bytes], export: Export) -> Audit:
    return audit(lines, export.batches, chain_id=export.header.chain_id, anchor=export.header.anchor)


def names(found: Audit, first: int, last: int) -> bool:
    """Whether something is found among these records."""
    spans = [(each.first, each.last) for each in found.findings]
    return any(begin is not None and end is not None and begin <= last and first <= end for begin, end in spans)


def missed_by_hashes(chance: random.Random, export: Export) -> bool:
    edited, (first, last), _ = edit_and_hash_anew(chance, export, export.lines())
    records = [each for line in edited[1:] if isinstance(each := read_line(line), ExecutionRecord | AuditRecord)]
    claimed = [line for line in edited if line.startswith(b'{"batch":{')]
    honest = [line for line in export.lines() if line.startswith(b'{"batch":{')]
    try:
        verify_chain(records)
    except Malformed:
        return False
    return claimed != honest and names(audited(edited, export), first, last)
