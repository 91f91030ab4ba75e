"""Ways to tamper with exported records, as somebody might who can make every hash anew, and how far each reaches."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import msgspec

from parallelix.protocol import merkle
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.record_export import Header, lines_of, read_line
from parallelix.protocol.records import (
    AuditRecord,
    Batch,
    ExecutionRecord,
    Record,
    Verdict,
    record_hash,
    record_hash_bytes,
)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Records from the first on, and the batches that the chain has; the last records may be in none."""

    header: Header
    batches: tuple[Batch, ...]
    records: tuple[Record, ...]

    @property
    def anchored(self) -> int:
        """How many records are in batches."""
        return sum(batch.count for batch in self.batches)

    def lines(self) -> list[bytes]:
        return [*lines_of(self.header, self.batches, self.records)]


def cut(records: Sequence[Record], sizes: Sequence[int], *, number: int = 1) -> list[Batch]:
    """Batches of these sizes from the first record on, as far as there are any; what is left over is in none."""
    batches: list[Batch] = []
    first = 0
    for size in sizes:
        if records[first : first + size]:
            batches.append(batch_of(number + len(batches), records[first : first + size]))
        first += size
    return batches


def batch_of(number: int, members: Sequence[Record]) -> Batch:
    return Batch(
        number=number,
        previous_hash=members[0].previous_hash,
        head_hash=record_hash(members[-1]),
        first=members[0].sequence,
        last=members[-1].sequence,
        count=len(members),
        merkle_root=to_hex(merkle.root([record_hash_bytes(each) for each in members])),
    )


Lines: TypeAlias = "list[bytes]"
Span: TypeAlias = "tuple[int, int]"
Edit: TypeAlias = "Callable[[random.Random, Export, Lines], tuple[Lines, Span, bool]]"
"""Gives the edited lines, the records of which one at least has to be named, and whether that has to be exact."""


def record_places(lines: Lines, export: Export) -> list[int]:
    """Where the anchored records stand."""
    return [at for at, line in enumerate(lines) if b'"sequence":' in line and sequence_of(line) < export.anchored]


def sequence_of(line: bytes) -> int:
    record = read_line(line)
    assert isinstance(record, ExecutionRecord | AuditRecord)
    return record.sequence


def leaf_paths(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, dict):
        return [each for key, inner in value.items() for each in leaf_paths(inner, (*path, str(key)))]  # pyright: ignore
    return [path]


def with_altered_field(chance: random.Random, line: bytes) -> bytes:
    whole: Any = json.loads(line)
    path = chance.choice(leaf_paths(whole))
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    old = inner[path[-1]]
    inner[path[-1]] = altered(chance, old)
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def altered(chance: random.Random, old: Any) -> Any:
    if isinstance(old, int):
        return chance.choice([old + 1, max(old - 1, 0) if old else old + 2, old + chance.randrange(1, 10**6)])
    at = chance.randrange(len(old))
    return old[:at] + chance.choice([each for each in "0123456789abcdef" if each != old[at]]) + old[at + 1 :]


def edit_a_field(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.choice(record_places(lines, export))
    sequence = sequence_of(lines[at])
    return [*lines[:at], with_altered_field(chance, lines[at]), *lines[at + 1 :]], (sequence, sequence), True


def edit_the_written_form(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.choice(record_places(lines, export))
    sequence = sequence_of(lines[at])
    whole: Any = json.loads(lines[at])
    forms = [
        json.dumps(whole, sort_keys=True).encode() + b"\n",
        msgspec.json.encode(whole | {"note": "x"}, order="sorted") + b"\n",
        lines[at][:-2] + b"\n",
        b"\n",
        b"\xff" + lines[at],
    ]
    return [*lines[:at], chance.choice(forms), *lines[at + 1 :]], (sequence, sequence), True


def drop(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.choice(record_places(lines, export))
    sequence = sequence_of(lines[at])
    return [*lines[:at], *lines[at + 1 :]], (sequence, sequence), True


def duplicate(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.choice(record_places(lines, export))
    to = chance.randrange(1, len(lines) + 1)
    sequence = sequence_of(lines[at])
    return [*lines[:to], lines[at], *lines[to:]], (sequence, sequence), True


def swap(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    one, other = sorted(chance.sample(record_places(lines, export), 2))
    edited = [*lines]
    edited[one], edited[other] = edited[other], edited[one]
    return edited, (sequence_of(lines[one]), sequence_of(lines[other])), False


def move_to_another_batch(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.choice(record_places(lines, export))
    sequence = sequence_of(lines[at])
    own = next(each for each in export.batches if each.first <= sequence <= each.last)
    rest = [*lines[:at], *lines[at + 1 :]]
    others = [place for place in record_places(rest, export) if not own.first <= sequence_of(rest[place]) <= own.last]
    to = chance.choice(others)
    return [*rest[:to], lines[at], *rest[to:]], (sequence, sequence), True


def exported_anew(export: Export, records: Sequence[Record], *, honest_batches: bool) -> Lines:
    """As a liar would write it: every hash behind the edit made anew, and if they like, every batch line too."""
    batches = export.batches if honest_batches else cut(records, [batch.count for batch in export.batches])
    return [*lines_of(export.header, batches, records)]


def linked_anew(records: Sequence[Record], first: int) -> list[Record]:
    """Numbers and links from `first` on follow from what stands before."""
    linked = [*records[:first]]
    for each in records[first:]:
        linked.append(
            msgspec.structs.replace(each, sequence=len(linked), previous_hash=record_hash(linked[-1]))
            if linked
            else each
        )
    return linked


def edit_and_hash_anew(chance: random.Random, export: Export, _lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.randrange(export.anchored)
    old = export.records[at]
    fields: list[Any] = [{"finished_at": old.finished_at + 1}]
    if isinstance(old, ExecutionRecord):
        fields += [
            {"usage": msgspec.structs.replace(old.usage, completion_tokens=chance.randrange(10**6))},
            {"result_hash": altered(chance, old.result_hash)},
        ]
    else:
        fields += [
            {"verdict": chance.choice([each for each in get_args(Verdict) if each != old.verdict])},
            {"execution_hash": altered(chance, old.execution_hash)},
        ]
    records = [*export.records]
    records[at] = msgspec.structs.replace(old, **chance.choice(fields))
    records = linked_anew(records, at + 1)
    return exported_anew(export, records, honest_batches=chance.random() < 0.5), (at, at), False


def insert_and_hash_anew(chance: random.Random, export: Export, _lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.randrange(1, export.anchored)
    forged: Record = msgspec.structs.replace(export.records[0], finished_at=chance.randrange(10**12))
    records = linked_anew([*export.records[:at], forged, *export.records[at:]], at)
    return exported_anew(export, records, honest_batches=chance.random() < 0.5), (at, at), False


def drop_and_hash_anew(chance: random.Random, export: Export, _lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.randrange(export.anchored)
    records = linked_anew([*export.records[:at], *export.records[at + 1 :]], max(at, 1))
    return exported_anew(export, records, honest_batches=chance.random() < 0.5), (at, at), False


def replace_in_a_batch(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    places = [at for at, line in enumerate(lines) if line.startswith(b'{"batch":{')]
    at = chance.choice(places)
    batch = export.batches[places.index(at)]
    whole: Any = json.loads(lines[at])
    name = chance.choice([*whole["batch"], "merkle_root", "merkle_root"])
    whole["batch"][name] = altered(chance, whole["batch"][name])
    edited = msgspec.json.encode(whole, order="sorted") + b"\n"
    return [*lines[:at], edited, *lines[at + 1 :]], (batch.first, batch.last), False


def drop_a_batch_line(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    places = [at for at, line in enumerate(lines) if line.startswith(b'{"batch":{')]
    at = chance.choice(places)
    batch = export.batches[places.index(at)]
    return [*lines[:at], *lines[at + 1 :]], (batch.first, batch.last), False


def cut_the_end_off(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    places = record_places(lines, export)
    kept = chance.choice([0, *range(len(places))])
    return lines[: places[kept]], (sequence_of(lines[places[kept]]), export.anchored - 1), False


def drop_a_whole_batch(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    batch = chance.choice(export.batches)
    begin = next(at for at, line in enumerate(lines) if line == written_batch(batch))
    return [*lines[:begin], *lines[begin + 1 + batch.count :]], (batch.first, batch.last), False


def swap_two_batches(chance: random.Random, export: Export, lines: Lines) -> tuple[Lines, Span, bool]:
    blocks: list[Lines] = []
    for batch in export.batches:
        begin = lines.index(written_batch(batch))
        blocks.append(lines[begin : begin + 1 + batch.count])
    one, other = sorted(chance.sample(range(len(blocks)), 2))
    blocks[one], blocks[other] = blocks[other], blocks[one]
    rest = lines[1 + sum(map(len, blocks)) :]
    edited = [lines[0], *(line for block in blocks for line in block), *rest]
    return edited, (export.batches[one].first, export.batches[other].last), False


def written_batch(batch: Batch) -> bytes:
    return b'{"batch":' + msgspec.json.encode(batch, order="sorted") + b"}\n"


EVERY_EDIT: tuple[Edit, ...] = (
    edit_a_field, edit_a_field, edit_a_field, edit_the_written_form, drop, duplicate, swap, move_to_another_batch,
    edit_and_hash_anew, insert_and_hash_anew, drop_and_hash_anew, replace_in_a_batch, replace_in_a_batch,
    drop_a_batch_line, cut_the_end_off, drop_a_whole_batch, swap_two_batches,
)  # fmt: skip
