"""Records as a file that anyone can keep and check: one line of canonical JSON each, in the order of the chain.

The first line is the header. A batch is one line `{"batch": …}` before its records; `{"batch": null}` comes before the
records that are in no batch yet. SHA-256 over a record's line is its hash. Nothing in the file is to be believed by
itself: `parallelix.chain.records_audit` compares it with what the chain keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import msgspec

from parallelix.protocol import canonical
from parallelix.protocol.canonical import Count
from parallelix.protocol.errors import Malformed
from parallelix.protocol.records import Batch, Record, decode_record

LINE_BYTES_MAX = 16 * 1024
"""A record has less than one KiB; a name or a hash would have to be sixteen times as long as any of ours."""

_SECTION = b'{"batch":'


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Where the records' batches are kept: a contract's address, or "local" where the coordinator keeps them."""

    version: Literal[1] = 1
    kind: Literal["parallelix-records"] = "parallelix-records"
    chain_id: Count
    anchor: str


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """What the records below it are said to be in; none for records that no batch has yet."""

    batch: Batch | None


Line: TypeAlias = Header | Section | Record


def read_line(data: bytes, *, first: bool = False) -> Line:
    """What one line says. Raises `Malformed` unless it is exactly the canonical form of that."""
    line = data.removesuffix(b"\n")
    if len(line) > LINE_BYTES_MAX:
        raise Malformed(f"{len(line)} bytes; a line has at most {LINE_BYTES_MAX}")
    if first:
        return canonical.decode(line, Header)
    return canonical.decode(line, Section) if line.startswith(_SECTION) else decode_record(line)


def written(line: Line) -> bytes:
    return canonical.encode(line) + b"\n"


def lines_of(header: Header, batches: Iterable[Batch], records: Iterable[Record]) -> Iterator[bytes]:
    """The lines of an export: `batches` and `records` in their own order, from the first on."""
    yield written(header)
    remaining = iter(records)
    record = next(remaining, None)
    for batch in batches:
        yield written(Section(batch=batch))
        while record is not None and record.sequence <= batch.last:
            yield written(record)
            record = next(remaining, None)
    if record is not None:
        yield written(Section(batch=None))
    while record is not None:
        yield written(record)
        record = next(remaining, None)
