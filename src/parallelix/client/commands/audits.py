"""`audit verify`: whether all audits were drawn as was promised, from an export and what is public of the epochs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, get_args

import msgspec

from parallelix.client import audits
from parallelix.client import config as configs
from parallelix.client.answers import AuditsAnswer
from parallelix.client.commands.extras import needing
from parallelix.client.commands.opening import run
from parallelix.client.commands.records import audited, lines_in
from parallelix.client.errors import EXIT_UNVERIFIED, FileRefused
from parallelix.protocol import audit_log
from parallelix.protocol.audit_log import AnchoredUntil, AuditLog, EpochAudits, PublicEpoch
from parallelix.protocol.record_export import read_line
from parallelix.protocol.records import AuditRecord, ExecutionRecord, Record, Verdict

if TYPE_CHECKING:
    from parallelix.chain.anchored import Anchored
    from parallelix.chain.records_audit import Audit
    from parallelix.client.sdk import Client
    from parallelix.terminal import Console

EPOCHS_SHOWN = 30
UNAUDITED_SHOWN = 10
HEADINGS = ("epoch", "secret", "executions", "lowest", "drawn", "audits", "unaudited", "pending")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Public:
    """What was found out besides the export: the batches of a chain, and the epochs; None where nobody was asked."""

    anchored: Anchored | None = None
    epochs: tuple[PublicEpoch, ...] | None = None


def verify(
    console: Console,
    path: Path,
    *,
    deployment: Path | None,
    rpc: str,
    confirmations: int,
    coordinator: str,
    floor_percent: int,
    only_epoch: int | None,
    pending_hours: float,
) -> int:
    def told(public: _Public) -> int:
        export = audited(path, public.anchored)
        log = _checked(path, public, floor_percent, only_epoch, pending_hours) if export.holds else None
        return _told(console, path, export, log, public, floor_percent)

    if deployment is None:
        return told(_Public(epochs=_of_coordinator(console, coordinator) if coordinator else None))
    with needing("chain"):
        from parallelix.chain.anchored import read_anchored, read_epochs
        from parallelix.chain.rpc import Rpc
        from parallelix.client.commands.on_chain import deployment_of, ended, on_chain, require_rpc

    def work() -> int:
        found = deployment_of(deployment)

        async def read(endpoint: Rpc) -> _Public:
            anchored = await read_anchored(endpoint, found, confirmations=confirmations)
            return _Public(anchored=anchored, epochs=await read_epochs(endpoint, found))

        console.live("reading batches and epochs from the chain")
        public = on_chain(require_rpc(rpc), read)
        console.clear_live()
        return told(public)

    return ended(console, work)


def _of_coordinator(console: Console, url: str) -> tuple[PublicEpoch, ...]:
    async def read(client: Client) -> tuple[PublicEpoch, ...]:
        return tuple(PublicEpoch(epoch=each) for each in (await client.epochs()).data)

    return run(console, read, msgspec.structs.replace(configs.load(url=url), api_key=""))


def _checked(path: Path, public: _Public, floor_percent: int, only_epoch: int | None, pending_hours: float) -> AuditLog:
    anchored = public.anchored
    batches: list[AnchoredUntil] | None = None
    if anchored is not None:
        batches = [AnchoredUntil(last=each.batch.last, block=each.block) for each in anchored.batches]
    try:
        with path.open("rb") as file:
            return audit_log.check(
                _records(file),
                public.epochs,
                floor_percent=floor_percent,
                only_epoch=only_epoch,
                pending_ms=round(pending_hours * 3_600_000),
                batches=batches,
                until_block=anchored.block if anchored is not None else 0,
            )
    except OSError as error:
        raise FileRefused(f"{path}: cannot be read ({error.strerror}); give a file of `records export`") from error


def _records(file: IO[bytes]) -> Iterator[Record]:
    for number, line in enumerate(lines_in(file)):
        read = read_line(line, first=number == 0)
        if isinstance(read, ExecutionRecord | AuditRecord):
            yield read


def _told(
    console: Console, path: Path, export: Audit, log: AuditLog | None, public: _Public, floor_percent: int
) -> int:
    passed = log is not None and log.holds
    anchored = public.anchored
    console.heading(f"audits in {path}")
    console.pair("in the file", f"{export.records} records")
    if anchored is None:
        epochs = "nobody was asked" if public.epochs is None else "the coordinator's word"
        console.pair("epochs", epochs)
    else:
        console.pair("epochs", f"of chain {anchored.chain_id}, as of block {anchored.block}")
    console.pair("floor", f"{floor_percent} %")
    if log is None:
        for finding in export.findings[:UNAUDITED_SHOWN]:
            console.cross(finding.message)
        console.cross("these are not the records that were anchored: see `parallelix records verify`")
    else:
        _print(console, log, export, public)
    console.value(_answer(export, log, public, floor_percent))
    return 0 if passed else EXIT_UNVERIFIED


def _print(console: Console, log: AuditLog, export: Audit, public: _Public) -> None:
    _print_table(console, log.epochs)
    for each in log.violations:
        console.cross(each.message)
    if log.found > len(log.violations):
        console.cross(f"and {log.found - len(log.violations)} more")
    _print_unaudited(console, log)
    revealed = [each for each in log.epochs if each.state == "revealed"]
    drawn, executed = _sum(revealed, "drawn"), _sum(revealed, "executions")
    if revealed and log.holds:
        console.done(
            f"every draw of {_counted(len(revealed), 'revealed epoch')} recomputed: {drawn} of "
            f"{_counted(executed, 'execution')} drawn, no audit missing and none too many"
        )
    for words in _left_open(log, export, public):
        console.warn(words)


def _left_open(log: AuditLog, export: Audit, public: _Public) -> Iterator[str]:
    pending = _sum(log.epochs, "pending")
    if pending:
        yield f"pending: {_counted(pending, 'execution')} drawn so lately that the audit may still be on its way"
    unknown = [each for each in log.epochs if each.state == "unknown"]
    if unknown and public.epochs is None:
        yield "draws not recomputed: nobody was asked for the epochs; give --deployment and --rpc, or --coordinator"
    being_drawn = [each for each in log.epochs if each.state == "open"]
    if being_drawn:
        names = ", ".join(str(each.epoch) for each in being_drawn[:4]) + (" …" if len(being_drawn) > 4 else "")
        executed = _counted(_sum(being_drawn, "executions"), "execution")
        yield f"open: the secret of epoch {names} is not out yet: draws of {executed} not recomputed"
    if public.anchored is None and public.epochs is not None:
        yield "not proven: that the secrets were fixed before the answers: only the coordinator says so"
    if export.uncovered and public.anchored is not None:
        yield f"{_counted(export.uncovered, 'record')} in no batch that is this deep: not proven to stay as they are"
    if log.holds:
        yield "not proven: that an auditor was honest, or that every answer ever given has a record"


def _print_table(console: Console, epochs: Sequence[EpochAudits]) -> None:
    rows = [HEADINGS] + [
        (
            str(each.epoch),
            {"revealed": "out", "open": "not out", "wrong": "wrong", "unknown": "unknown"}[each.state],
            str(each.executions),
            f"{each.lowest_rate} %",
            "?" if each.drawn is None else str(each.drawn),
            str(each.recorded),
            str(each.unaudited),
            "?" if each.pending is None else str(each.pending),
        )
        for each in epochs[-EPOCHS_SHOWN:]
    ]
    if len(rows) == 1:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    if len(epochs) > EPOCHS_SHOWN:
        console.plain(f"   {len(epochs) - EPOCHS_SHOWN} earlier epochs: --epoch N, or --json")
    for row in rows:
        console.plain("   " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)))
    counts = {name: _sum(epochs, name) for name in get_args(Verdict)}
    totals = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    console.pair("verdicts", totals or "none yet")


def _print_unaudited(console: Console, log: AuditLog) -> None:
    for reason, count in sorted(log.reasons.items()):
        why = audits.REASONS.get(reason, reason)
        shown = [each.execution for each in log.unaudited if each.reason == reason]
        named = ", ".join(map(str, shown[:UNAUDITED_SHOWN])) + (" …" if count > UNAUDITED_SHOWN else "")
        console.warn(f"not audited though drawn, because {why}: {_counted(count, 'execution')}, record {named}")


def _sum(epochs: Iterable[EpochAudits], name: str) -> int:
    return sum(getattr(each, name) or 0 for each in epochs)


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _answer(export: Audit, log: AuditLog | None, public: _Public, floor_percent: int) -> AuditsAnswer:
    anchored = public.anchored
    return AuditsAnswer(
        passed=log is not None and log.holds,
        export_holds=export.holds,
        told_by="nobody" if public.epochs is None else "coordinator" if anchored is None else "chain",
        chain_id=None if anchored is None else anchored.chain_id,
        anchor="" if anchored is None else anchored.anchor,
        block=None if anchored is None else anchored.block,
        floor_percent=floor_percent,
        records=export.records,
        uncovered=export.uncovered,
        epochs=log.epochs if log is not None else (),
        found=log.found if log is not None else 0,
        violations=log.violations if log is not None else (),
        unaudited=log.unaudited if log is not None else (),
        reasons=log.reasons if log is not None else {},
    )
