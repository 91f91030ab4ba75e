"""`records export` and `records verify`: all records in a file, and whether they are those that were anchored."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import IO, TYPE_CHECKING

from parallelix.chain.records_audit import Audit, audit
from parallelix.client import config as configs
from parallelix.client.answers import ExportAnswer, FindingAnswer, RecordsAnswer
from parallelix.client.commands.extras import needing
from parallelix.client.commands.opening import run
from parallelix.client.errors import EXIT_UNVERIFIED, ConfigRefused, FileRefused
from parallelix.protocol.record_export import LINE_BYTES_MAX, Header, Section, written
from parallelix.protocol.records import Batch

if TYPE_CHECKING:
    from parallelix.chain.anchored import Anchored
    from parallelix.client.sdk import Client
    from parallelix.terminal import Console

SHOWN_EVERY = 1_000


def export(console: Console, path: Path, *, url: str) -> None:
    chosen = configs.load(url=url)
    if path.exists():
        raise FileRefused(f"{path}: exists already, and an export never takes the place of another; choose a new name")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        with temporary.open("xb") as file:
            answer = run(console, lambda client: _exported(console, client, file, path), chosen)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        raise FileRefused(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)
    console.clear_live()
    console.done(f"{answer.records} records in {answer.batches} batches are in {path}")
    if answer.unbatched:
        console.warn(f"{answer.unbatched} more are in no batch yet; they are there too")
    console.remark(f"check them: parallelix records verify {path} --deployment FILE --rpc URL")
    console.remark(f"and their audits: parallelix audit verify {path} --deployment FILE --rpc URL")
    console.value(answer)


async def _exported(console: Console, client: Client, file: IO[bytes], path: Path) -> ExportAnswer:
    """Writes as it reads, so that a million records take no more memory than a page of them. Batches come first: of
    each, the records are there by then."""
    network = await client.network()
    file.write(written(Header(chain_id=network.chain_id, anchor=network.anchor)))
    batches = [batch async for batch in _batches(client)]
    upcoming = iter(batches)
    batch = next(upcoming, None)
    section: Batch | None = None
    count = 0
    async with aclosing(client.records()) as records:
        async for record in records:
            if batch is not None and record.sequence == batch.first:
                file.write(written(Section(batch=batch)))
                section, batch = batch, next(upcoming, None)
            elif (section is not None and record.sequence == section.last + 1) or count == 0:
                file.write(written(Section(batch=None)))
            file.write(written(record))
            count += 1
            if count % SHOWN_EVERY == 0:
                console.live(f"{count} records")
    return ExportAnswer(
        path=str(path),
        chain_id=network.chain_id,
        anchor=network.anchor,
        batches=len(batches),
        records=count,
        unbatched=count - (batches[-1].last + 1 if batches else 0),
    )


async def _batches(client: Client) -> AsyncIterator[Batch]:
    """In order. The first has number 0 where the coordinator keeps its batches itself, and else 1: a contract's own
    batch 0 is the empty one."""
    batch = await client.batch(0) or await client.batch(1)
    while batch is not None:
        yield batch
        batch = await client.batch(batch.number + 1)


def verify(
    console: Console, path: Path, *, deployment: Path | None, rpc: str, confirmations: int, at_block: int | None
) -> int:
    if deployment is None:
        if at_block is not None:
            raise ConfigRefused("at-block: says nothing without a chain; give --deployment FILE and --rpc URL too")
        return _told(console, path, audited(path, None), None)
    with needing("chain"):
        from parallelix.chain.anchored import read_anchored
        from parallelix.client.commands.on_chain import deployment_of, ended, on_chain, require_rpc

    def work() -> int:
        found = deployment_of(deployment)
        console.live("reading the batches from the chain")
        anchored = on_chain(
            require_rpc(rpc),
            lambda endpoint: read_anchored(endpoint, found, confirmations=confirmations, block=at_block),
        )
        console.clear_live()
        return _told(console, path, audited(path, anchored), anchored)

    return ended(console, work)


def audited(path: Path, anchored: Anchored | None) -> Audit:
    try:
        with path.open("rb") as file:
            if anchored is None:
                return audit(lines_in(file), [])
            batches = [each.batch for each in anchored.batches]
            return audit(lines_in(file), batches, chain_id=anchored.chain_id, anchor=anchored.anchor)
    except OSError as error:
        raise FileRefused(f"{path}: cannot be read ({error.strerror}); give a file of `records export`") from error


def lines_in(file: IO[bytes]) -> Iterator[bytes]:
    """Pieces of what has no line breaks are no records either."""
    while line := file.readline(LINE_BYTES_MAX + 2):
        yield line


def _told(console: Console, path: Path, found: Audit, anchored: Anchored | None) -> int:
    console.heading(f"records of {path}")
    console.pair("in the file", f"{found.records} records")
    if anchored is None:
        console.pair("on a chain", "not asked")
    else:
        console.pair("on the chain", f"{found.anchored} records in {found.batches} batches")
        console.pair("as of block", f"{anchored.block} of chain {anchored.chain_id}, {anchored.head} being the newest")
        console.pair("anchor", anchored.anchor)
    for finding in found.findings:
        console.cross(finding.message)
    if found.found > len(found.findings):
        console.cross(f"and {found.found - len(found.findings)} more of this kind")
    _print_what_holds(console, found, asked=anchored is not None)
    console.value(_answer(found, anchored))
    return 0 if found.holds else EXIT_UNVERIFIED


def _print_what_holds(console: Console, found: Audit, *, asked: bool) -> None:
    if not asked:
        if found.holds:
            console.done("the records follow from one another")
        console.warn("not proven: that they are the ones that were anchored: give --deployment and --rpc")
        return
    if found.covered:
        console.done(f"{found.covered} records are exactly those that were anchored")
    if found.uncovered:
        console.warn(f"{found.uncovered} newer ones are not covered: no batch that is this deep has them yet")
    if found.holds:
        console.warn("not proven: that the answers are good, or that every answer ever given has a record")


def _answer(found: Audit, anchored: Anchored | None) -> RecordsAnswer:
    return RecordsAnswer(
        passed=found.holds,
        chain_id=None if anchored is None else anchored.chain_id,
        anchor="" if anchored is None else anchored.anchor,
        block=None if anchored is None else anchored.block,
        records=found.records,
        covered=found.covered,
        uncovered=found.uncovered,
        anchored=found.anchored,
        batches=found.batches,
        found=found.found,
        findings=tuple(
            FindingAnswer(kind=each.kind, message=each.message, first=each.first, last=each.last, batch=each.batch)
            for each in found.findings
        ),
    )
