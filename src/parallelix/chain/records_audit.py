"""Whether exported records are those that were anchored: every one, unaltered, in order, and none besides.

Pure: it takes the lines of an export and the batches as the chain has them, and asks nobody. What it finds is named by
record number. A hash leads from each record to the one before it, so from the head that a batch anchored every record
of the batch is known by its hash, last to first. Where a record was altered, the hash of the one before it is not told
any more: then the batch's Merkle root says whether all the others are right, and the altered ones are named exactly. If
even that is not possible, because several were altered or hashes were made anew behind an edit, the records among
which the edit lies are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from parallelix.protocol import merkle
from parallelix.protocol.encoding import is_hash
from parallelix.protocol.errors import Malformed
from parallelix.protocol.record_export import Header, Section, read_line
from parallelix.protocol.records import GENESIS_HASH, AuditRecord, Batch, ExecutionRecord, Record, record_hash

FINDINGS_MAX = 100
"""A file of something else altogether has one a line. Whoever reads a hundred needs no more to know it."""

Kind: TypeAlias = Literal["altered", "missing", "added", "order", "batch", "anchor", "header", "line", "unlinked"]
"""altered: another record was anchored. missing: it was anchored and is not here. added: it is here and was not
anchored at this place. order: not in the order of the chain. batch: the export's own word about a batch differs from
the chain's. anchor: the batch on the chain contradicts itself. header: of another chain or contract. line: cannot be
read. unlinked: records that no batch covers yet do not follow from one another."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it was anchored; it concerns the records `first` to `last`, where it can be told."""

    kind: Kind
    message: str
    first: int | None = None
    last: int | None = None
    batch: int | None = None


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """`findings` are the first hundred of `found`. `covered` records are exactly those that were anchored; of
    `uncovered` ones the chain says nothing yet. `anchored` is how many the chain has."""

    findings: tuple[Finding, ...]
    found: int
    records: int
    covered: int
    uncovered: int
    batches: int
    anchored: int

    @property
    def holds(self) -> bool:
        return self.found == 0


class _Entry(NamedTuple):
    sequence: int
    digest: str
    previous: str


def audit(
    lines: Iterable[bytes], anchored: Sequence[Batch], *, chain_id: int | None = None, anchor: str | None = None
) -> Audit:
    """Audits the lines of an export against all batches that are anchored, in the order of their numbers.

    With `chain_id` and `anchor`, the export must say that it is of these.
    """
    auditor = _Auditor(anchored)
    for number, line in enumerate(lines, start=1):
        auditor.take(number, line, chain_id=chain_id, anchor=anchor)
    return auditor.ended()


def require_consistent(anchored: Sequence[Batch]) -> None:
    """Raises `ValueError` unless the batches follow one another without a gap, as the contract sees to."""
    head, sequence = GENESIS_HASH, 0
    for batch in anchored:
        if (batch.previous_hash, batch.first) != (head, sequence) or batch.last - batch.first + 1 != batch.count:
            raise ValueError(f"batch {batch.number} does not follow from the one before it")
        head, sequence = batch.head_hash, batch.last + 1


class _Auditor:
    """One pass over an export; in memory are one batch of it and what is in no batch."""

    def __init__(self, anchored: Sequence[Batch]) -> None:
        require_consistent(anchored)
        self._anchored = anchored
        self._next_batch = 0
        """The place in `anchored` of the batch that must come next."""
        self._section: Section | None = None
        self._entries: list[_Entry] = []
        self._tail: list[_Entry] = []
        self._claimed: list[tuple[Batch, list[_Entry]]] = []
        self._findings: list[Finding] = []
        self._found = 0
        self._records = 0
        self._covered = 0
        self._has_header = False

    def take(self, number: int, line: bytes, *, chain_id: int | None, anchor: str | None) -> None:
        try:
            read = read_line(line, first=number == 1)
        except Malformed as error:
            self._find("line", f"line {number} is not what an export holds: {error.message}")
            return
        match read:
            case Header():
                self._take_header(read, chain_id=chain_id, anchor=anchor)
            case Section():
                self._take_section(number, read)
            case ExecutionRecord() | AuditRecord():
                self._take_record(number, read)

    def ended(self) -> Audit:
        self._close_section()
        self._check_tail()
        if not self._has_header and not self._found:
            self._find("header", "the file is empty; an export has at least its first line")
        end = self._anchored[-1].last + 1 if self._anchored else 0
        return Audit(
            findings=tuple(self._findings),
            found=self._found,
            records=self._records,
            covered=self._covered,
            uncovered=len({entry.sequence for entry in self._tail if entry.sequence >= end}),
            batches=len(self._anchored),
            anchored=end,
        )

    # Line by line -----------------------------------------------------------------------------------------------------

    def _take_header(self, header: Header, *, chain_id: int | None, anchor: str | None) -> None:
        self._has_header = True
        if chain_id is not None and header.chain_id != chain_id:
            self._find("header", f"the export says chain {header.chain_id}, the deployment is on chain {chain_id}")
        if anchor is not None and header.anchor.lower() != anchor.lower():
            self._find("header", f"the export says anchor {header.anchor}, the deployment's is {anchor}")

    def _take_section(self, number: int, section: Section) -> None:
        self._close_section()
        if self._section is not None and self._section.batch is None:
            self._find("order", f"line {number}: something follows the records that are in no batch")
        self._section = section

    def _take_record(self, number: int, record: Record) -> None:
        self._records += 1
        if self._section is None:
            self._find("order", f"line {number}: record {record.sequence} stands before any batch", record.sequence)
            self._section = Section(batch=None)
        self._entries.append(_Entry(record.sequence, record_hash(record), record.previous_hash))

    def _close_section(self) -> None:
        section, entries = self._section, self._entries
        self._entries = []
        if section is None:
            return
        claimed = section.batch
        if claimed is None:
            self._tail.extend(entries)
        elif self._anchored and claimed.number <= self._anchored[-1].number:
            self._close_anchored(claimed, entries)
        else:
            self._claimed.append((claimed, entries))
            self._tail.extend(entries)

    def _close_anchored(self, claimed: Batch, entries: list[_Entry]) -> None:
        place = claimed.number - self._anchored[0].number
        if place < self._next_batch:
            self._find("added", f"batch {claimed.number} stands here again, or too late", batch=claimed.number)
            self._say_added(entries)
            return
        self._miss_batches(self._anchored[self._next_batch : place])
        self._next_batch = place + 1
        batch = self._anchored[place]
        if claimed != batch:
            self._say_other_batch(claimed, batch)
        self._check_order(entries)
        self._check_batch(batch, entries)

    # Batch by batch ---------------------------------------------------------------------------------------------------

    def _check_batch(self, batch: Batch, entries: Sequence[_Entry]) -> None:
        by_sequence: dict[int, list[_Entry]] = {}
        for entry in entries:
            if batch.first <= entry.sequence <= batch.last:
                by_sequence.setdefault(entry.sequence, []).append(entry)
            else:
                self._find(
                    "added",
                    f"record {entry.sequence} stands in batch {batch.number}, which has "
                    f"{_span(batch.first, batch.last)}",
                    entry.sequence,
                    batch=batch.number,
                )
        for sequence, several in by_sequence.items():
            if len(several) > 1:
                self._find("added", f"record {sequence} stands here {len(several)} times", sequence, batch=batch.number)
        walk = _walked(batch, by_sequence)
        if not walk.wrong:
            self._check_sound(batch, walk)
        elif walk.root == batch.merkle_root:
            self._say_wrong(batch, walk.wrong, by_sequence)
            self._covered += batch.count - len(walk.wrong)
        else:
            self._say_among(batch, walk.wrong, by_sequence)
            self._covered += batch.last - walk.wrong[-1]

    def _check_sound(self, batch: Batch, walk: _Walk) -> None:
        """Every record is the one that the head leads to; else it is the validator who anchored two things at once."""
        if walk.root == batch.merkle_root and walk.before == batch.previous_hash:
            self._covered += batch.count
            return
        what = "Merkle root" if walk.root != batch.merkle_root else "previous hash"
        self._find(
            "anchor",
            f"batch {batch.number} contradicts itself on the chain: its {what} is not that of the records which its "
            "head leads to",
            batch.first,
            batch.last,
            batch=batch.number,
        )

    def _say_wrong(self, batch: Batch, wrong: Sequence[int], by_sequence: dict[int, list[_Entry]]) -> None:
        altered = [sequence for sequence in wrong if sequence in by_sequence]
        for first, last in _runs(altered):
            self._find(
                "altered", f"{_span(first, last)}: altered; another was anchored", first, last, batch=batch.number
            )
        for first, last in _runs([sequence for sequence in wrong if sequence not in by_sequence]):
            self._find("missing", f"{_span(first, last)}: missing", first, last, batch=batch.number)

    def _say_among(self, batch: Batch, wrong: Sequence[int], by_sequence: dict[int, list[_Entry]]) -> None:
        missing = [sequence for sequence in wrong if sequence not in by_sequence]
        self._say_wrong(batch, missing, by_sequence)
        first, last = batch.first, wrong[-1]
        while last in missing:
            last -= 1
        if first <= last:
            self._find(
                "altered",
                f"{_span(first, last)}: altered, or at least one of them: together they are not what batch "
                f"{batch.number} anchored",
                first,
                last,
                batch=batch.number,
            )

    def _miss_batches(self, missed: Sequence[Batch], *, at_the_end: bool = False) -> None:
        if not missed:
            return
        first, last = missed[0].first, missed[-1].last
        batches = f"batch {missed[0].number}"
        if len(missed) > 1:
            batches = f"batches {missed[0].number} to {missed[-1].number}"
        why = f" at the end: cut off, or exported before {batches} came" if at_the_end else f", all of {batches}"
        self._find("missing", f"{_span(first, last)}: missing{why}", first, last, batch=missed[0].number)

    def _say_other_batch(self, claimed: Batch, batch: Batch) -> None:
        for name in batch.__struct_fields__:
            said, kept = getattr(claimed, name), getattr(batch, name)
            if said != kept:
                self._find(
                    "batch",
                    f"batch {batch.number}: the export says {name} {said}, the chain {kept}",
                    batch.first,
                    batch.last,
                    batch=batch.number,
                )

    def _check_order(self, entries: Sequence[_Entry]) -> None:
        found = [entry.sequence for entry in entries]
        wanted = sorted(found)
        displaced = [each for at, each in enumerate(found) if each != wanted[at]]
        if displaced:
            first, last = min(displaced), max(displaced)
            self._find("order", f"{_span(first, last)}: not in the order of the chain", first, last)

    # The end ----------------------------------------------------------------------------------------------------------

    def _check_tail(self) -> None:
        """What stands in no batch of the chain: batches that came after the export was made, and newer records."""
        remaining = self._anchored[self._next_batch :]
        begin = remaining[0].first if remaining else (self._anchored[-1].last + 1 if self._anchored else 0)
        end = self._anchored[-1].last + 1 if self._anchored else 0
        self._say_added([entry for entry in self._tail if entry.sequence < begin])
        self._check_order(self._tail)
        there = {entry.sequence for entry in self._tail}
        while remaining and not any(remaining[-1].first <= each <= remaining[-1].last for each in there):
            remaining = remaining[:-1]
        for batch in remaining:
            entries = [entry for entry in self._tail if batch.first <= entry.sequence <= batch.last]
            self._check_batch(batch, entries)
        self._miss_batches(self._anchored[self._next_batch + len(remaining) :], at_the_end=True)
        self._check_links([entry for entry in self._tail if entry.sequence >= end], end)
        self._check_claims()

    def _check_links(self, entries: Sequence[_Entry], first: int) -> None:
        """Records that no batch covers can still be seen not to follow from one another."""
        head = self._anchored[-1].head_hash if self._anchored else GENESIS_HASH
        expected = first
        for entry in entries:
            if (entry.sequence, entry.previous) != (expected, head):
                self._find(
                    "unlinked",
                    f"record {entry.sequence} does not follow from what stands before it; no batch covers it yet",
                    entry.sequence,
                )
            expected, head = entry.sequence + 1, entry.digest

    def _check_claims(self) -> None:
        """Batches that the export has and the chain has not, yet: they must go on where the chain ends, and be of their
        own records."""
        last = self._anchored[-1] if self._anchored else None
        first = last.last + 1 if last is not None else 0
        number = last.number + 1 if last is not None else None
        for claimed, entries in self._claimed:
            follows = claimed.first == first and number in (None, claimed.number)
            if not follows or not _is_of(claimed, entries):
                self._find(
                    "batch",
                    f"batch {claimed.number}: it is not one of these records, or does not go on where the one before "
                    "it ends; no chain was found to have it",
                    claimed.first,
                    claimed.last,
                    batch=claimed.number,
                )
            first, number = claimed.last + 1, claimed.number + 1

    def _say_added(self, entries: Sequence[_Entry]) -> None:
        for first, last in _runs(sorted({entry.sequence for entry in entries})):
            self._find("added", f"{_span(first, last)}: here once more, or outside its batch", first, last)

    def _find(
        self, kind: Kind, message: str, first: int | None = None, last: int | None = None, *, batch: int | None = None
    ) -> None:
        self._found += 1
        if len(self._findings) < FINDINGS_MAX:
            last = first if last is None else last
            self._findings.append(Finding(kind=kind, message=message, first=first, last=last, batch=batch))


def _is_of(batch: Batch, entries: Sequence[_Entry]) -> bool:
    """Whether a batch is exactly of these records, in this order."""
    if not entries or len(entries) != batch.count:
        return False
    ends = (entries[0].sequence, entries[0].previous, entries[-1].sequence, entries[-1].digest)
    return ends == (batch.first, batch.previous_hash, batch.last, batch.head_hash) and (
        _root_of([entry.digest for entry in reversed(entries)]) == batch.merkle_root
    )


class _Walk(NamedTuple):
    """What came of following the hashes from a batch's head down to its first record."""

    wrong: list[int]
    """Records that are not there with the hash that is named, ascending."""
    root: str
    """Over the hashes that were named, and where none was, over those of the records that are there; empty if not even
    those are known."""
    before: str
    """What the first record names as the one before it."""


def _walked(batch: Batch, by_sequence: dict[int, list[_Entry]]) -> _Walk:
    named: str | None = batch.head_hash
    wrong: list[int] = []
    hashes: list[str | None] = []
    for sequence in range(batch.last, batch.first - 1, -1):
        entries = by_sequence.get(sequence, [])
        if named is None and entries:
            # What the record after it named is lost: take it as it is, and let the root say whether that was right.
            named = entries[0].digest
        hashes.append(named)
        match = next((entry for entry in entries if entry.digest == named), None)
        if match is None:
            wrong.append(sequence)
        named = match.previous if match is not None else None
    wrong.reverse()
    return _Walk(wrong, _root_of(hashes), named or "")


def _root_of(descending: Sequence[str | None]) -> str:
    known = [each for each in reversed(descending) if each is not None and is_hash(each)]
    return _hex(merkle.root([bytes.fromhex(each[2:]) for each in known])) if len(known) == len(descending) else ""


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _runs(ascending: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbours together, as (first, last)."""
    first = last = None
    for each in ascending:
        if first is None or last is None:
            first = last = each
        elif each == last + 1:
            last = each
        else:
            yield first, last
            first = last = each
    if first is not None and last is not None:
        yield first, last


def _span(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"
