"""Whether audits were drawn as was promised, from public data alone: all records in their order, and what is public
of the epochs. Pure: whether the records are those that were anchored is asked of `parallelix.chain.records_audit`.

    rate        every execution's is one that there is, and not below the floor
    draw        where the secret is out and is the one that was committed to, every draw is recomputed: what was drawn
                has exactly one audit record, whatever its verdict, and what was not has none
    epoch       an execution belongs to the epoch of its dispatch. An attempt may outlive its epoch, so a record may
                name the epoch before the newest; never an older one, because an epoch begins only when the secret of
                the last but one is out, and that comes out only when no attempt of it is open
    share       of what is drawn by chance about as much is drawn as the rates say. No single draw shows a coordinator
                that knows the secret and keeps back what is drawn, picks the epoch, or lets a friend pick the
                commitment; their number does
    blocks      where a chain keeps the epochs: an execution is anchored after its epoch was committed to, and before
                the secret was out. Who knows the secret could choose a commitment that is not drawn

An audit takes time, so one that is not out when the records end is not missing yet. It is, once the network has been at
work for `PENDING_MS` since: time in which nothing was recorded counts for at most `QUIET_MS` at a stretch, so that a
coordinator that was down is not accused.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from parallelix.protocol import sampling
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.errors import Malformed
from parallelix.protocol.records import AuditRecord, ExecutionRecord, Record, record_hash_bytes
from parallelix.protocol.sampling import RATES_PERCENT, Epoch

FLOOR_PERCENT = 10
PENDING_MS = 24 * 3_600_000
"""Six nodes one after the other, each waited for and given the hour of a whole run, are done in half of it."""
QUIET_MS = 600_000
SHOWN_MAX = 100
"""Violations and unaudited executions that are named; the others are counted."""
FEW_CHANCE_MAX = 1e-9
"""How unlikely it must be that so few are drawn. At a rate of 10 % nothing drawn of 208 is."""

ViolationKind: TypeAlias = Literal[
    "rate", "missing", "not_drawn", "twice", "unknown", "epoch", "secret", "uncommitted", "late", "few"
]
"""rate: none that there is, or below the floor. missing: drawn, and no audit is recorded. not_drawn: audited and not
drawn. twice: a second audit of one execution. unknown: an audit of no execution before it. epoch: older than dispatch
allows. secret: not what was committed to. uncommitted: of an epoch that nobody committed to, or only later. late:
anchored when the secret was out, or not at all. few: far fewer were drawn by chance than the rates say."""
EpochState: TypeAlias = Literal["revealed", "open", "wrong", "unknown"]
"""open: its secret is not out yet. wrong: another secret than was committed to. unknown: nobody was asked of it, or
nobody committed to it."""


class PublicEpoch(msgspec.Struct, frozen=True, kw_only=True):
    """An epoch, and the blocks in which a chain was told of it; 0 where none was asked, or for not yet."""

    epoch: Epoch
    committed_block: int = 0
    revealed_block: int = 0


class AnchoredUntil(msgspec.Struct, frozen=True, kw_only=True):
    """A batch on a chain: its last record, and its block."""

    last: int
    block: int


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """Something that breaks the rules, in the records `first` to `last`, where it is about records."""

    kind: ViolationKind
    message: str
    epoch: int | None = None
    first: int | None = None
    last: int | None = None


class UnauditedExecution(msgspec.Struct, frozen=True, kw_only=True):
    """Drawn, and not audited: the numbers of both records, and why."""

    execution: int
    audit: int
    epoch: int
    reason: str


class EpochAudits(msgspec.Struct, frozen=True, kw_only=True):
    """What the records say of one epoch. `drawn` and `pending` are null where the draws cannot be recomputed."""

    epoch: int
    state: EpochState
    executions: int
    lowest_rate: int
    drawn: int | None
    recorded: int
    agree: int
    disagree: int
    inconclusive: int
    unaudited: int
    pending: int | None


class AuditLog(msgspec.Struct, frozen=True, kw_only=True):
    """`violations` and `unaudited` are the first hundred; `found` counts all violations, `reasons` all unaudited."""

    floor_percent: int
    epochs: tuple[EpochAudits, ...]
    violations: tuple[Violation, ...]
    found: int
    unaudited: tuple[UnauditedExecution, ...]
    reasons: dict[str, int]

    @property
    def holds(self) -> bool:
        return self.found == 0

    def count(
        self, name: Literal["executions", "drawn", "recorded", "unaudited", "pending"], *states: EpochState
    ) -> int:
        """Over all epochs, or those in these states; what is not known counts nothing."""
        return sum(getattr(each, name) or 0 for each in self.epochs if not states or each.state in states)


def check(
    records: Iterable[Record],
    epochs: Sequence[PublicEpoch] | None,
    *,
    floor_percent: int = FLOOR_PERCENT,
    only_epoch: int | None = None,
    pending_ms: int = PENDING_MS,
    batches: Sequence[AnchoredUntil] | None = None,
    until_block: int = 0,
) -> AuditLog:
    """Checks all records from the first on. `epochs` are all that are public, or None where nobody was asked.

    With `batches`, all that a chain has up to `until_block`, the blocks are compared too. With `only_epoch`, everything
    is read and only what concerns that epoch is told.
    """
    checking = _Checking(
        {each.epoch.epoch: each for each in epochs} if epochs is not None else None,
        floor_percent=floor_percent,
        only_epoch=only_epoch,
        batches=batches,
        until_block=until_block,
    )
    for record in records:
        checking.take(record)
    return checking.ended(pending_ms)


@dataclass(slots=True)
class _Execution:
    sequence: int
    epoch: int
    drawn: bool | None
    active_ms: int
    """How long the network had been at work by then."""
    audit: int = -1


@dataclass(slots=True)
class _Count:
    executions: int = 0
    lowest_rate: int = 100
    drawn: int = 0
    drawn_by_chance: int = 0
    expected_percent: int = 0
    """The sum of the rates below 100 that draws were made again at."""
    pending: int = 0
    agree: int = 0
    disagree: int = 0
    inconclusive: int = 0
    unaudited: int = 0


@dataclass(slots=True)
class _Run:
    """Neighbours that break one rule in one way, which are told together."""

    kind: ViolationKind
    epoch: int
    words: str
    first: int
    last: int


class _Checking:
    """One pass. In memory is a little of each execution, by the hash of its record."""

    def __init__(
        self,
        epochs: Mapping[int, PublicEpoch] | None,
        *,
        floor_percent: int,
        only_epoch: int | None,
        batches: Sequence[AnchoredUntil] | None,
        until_block: int,
    ) -> None:
        self._epochs = epochs
        self._floor_percent = floor_percent
        self._rates = {*RATES_PERCENT, floor_percent}
        self._only_epoch = only_epoch
        self._batches = batches
        self._lasts = [each.last for each in batches or ()]
        self._until_block = until_block
        self._secrets: dict[int, bytes] = {}
        self._wrong: set[int] = set()
        self._executions: dict[bytes, _Execution] = {}
        self._counts: dict[int, _Count] = {}
        self._newest_epoch = 0
        self._newest_ms = 0
        self._active_ms = 0
        self._runs: dict[str, _Run] = {}
        self._violations: list[Violation] = []
        self._found = 0
        self._unaudited: list[UnauditedExecution] = []
        self._reasons: dict[str, int] = {}
        for public in (epochs or {}).values():
            self._take_secret(public)

    def _take_secret(self, public: PublicEpoch) -> None:
        epoch = public.epoch
        is_out = bool(epoch.secret) and (self._batches is None or public.revealed_block <= self._until_block)
        if not is_out:
            return
        try:
            secret = from_hex(epoch.secret, name="secret", length_bytes=sampling.SECRET_BYTES)
        except Malformed:
            secret = b""
        if to_hex(sampling.commitment(secret)) == epoch.commitment:
            self._secrets[epoch.epoch] = secret
            return
        self._wrong.add(epoch.epoch)
        self._find("secret", f"epoch {epoch.epoch}: its secret is not the one that was committed to", epoch.epoch)

    # Record by record -------------------------------------------------------------------------------------------------

    def take(self, record: Record) -> None:
        if self._newest_ms:
            self._active_ms += min(max(record.finished_at - self._newest_ms, 0), QUIET_MS)
        self._newest_ms = max(self._newest_ms, record.finished_at)
        if isinstance(record, AuditRecord):
            self._take_audit(record)
        else:
            self._take_execution(record)

    def _take_execution(self, record: ExecutionRecord) -> None:
        count = self._counts.setdefault(record.epoch, _Count())
        count.executions += 1
        count.lowest_rate = min(count.lowest_rate, record.rate)
        drawn = self._drawn(record)
        count.drawn += drawn is True
        if drawn is not None and 0 < record.rate < 100:
            count.drawn_by_chance += drawn
            count.expected_percent += record.rate
        self._executions[record_hash_bytes(record)] = _Execution(record.sequence, record.epoch, drawn, self._active_ms)
        self._check_rate(record)
        self._check_epoch(record)
        self._check_blocks(record)

    def _drawn(self, record: ExecutionRecord) -> bool | None:
        """At 0 and at 100 no secret is needed."""
        if record.rate <= 0 or record.rate >= 100:
            return record.rate > 0
        secret = self._secrets.get(record.epoch)
        if secret is None:
            return None
        try:
            return sampling.drawn(sampling.draw(secret, record.poe_commitment), record.rate)
        except Malformed:
            # Nothing can be drawn by what is no hash: whoever recorded it must audit it.
            return True

    def _check_rate(self, record: ExecutionRecord) -> None:
        words = ""
        if record.rate < self._floor_percent:
            words = f"a rate of {record.rate} %, below the floor of {self._floor_percent} %"
        elif record.rate not in self._rates:
            words = f"a rate of {record.rate} %, which is none of {', '.join(map(str, RATES_PERCENT))} %"
        self._extend("rate", record, words)

    def _check_epoch(self, record: ExecutionRecord) -> None:
        words = ""
        if record.epoch < self._newest_epoch - 1:
            words = (
                f"of epoch {record.epoch}, though epoch {self._newest_epoch} had begun, which it does only when the "
                f"last attempt of epoch {self._newest_epoch - 2} is over"
            )
        self._newest_epoch = max(self._newest_epoch, record.epoch)
        self._extend("epoch", record, words)

    def _check_blocks(self, record: ExecutionRecord) -> None:
        public = (self._epochs or {}).get(record.epoch)
        if record.rate == 0:
            # It was drawn by nothing, whatever epoch it names.
            return
        if public is None:
            is_asked = self._epochs is not None
            words = f"of epoch {record.epoch}, which nobody committed to" if is_asked else ""
            self._extend("uncommitted", record, words)
        if public is None or self._batches is None:
            return
        at = bisect_left(self._lasts, record.sequence)
        block = self._batches[at].block if at < len(self._batches) else None
        early = block is not None and block < public.committed_block
        self._extend(
            "uncommitted",
            record,
            f"anchored in block {block}, before epoch {record.epoch} was committed to in block {public.committed_block}"
            if early
            else "",
        )
        out = public.revealed_block if 0 < public.revealed_block <= self._until_block else None
        words = ""
        if out is not None and (block is None or block > out):
            where = "not anchored" if block is None else f"anchored in block {block}"
            words = f"{where}, though the secret of epoch {record.epoch} was out in block {out}"
        self._extend("late", record, words)

    def _take_audit(self, record: AuditRecord) -> None:
        execution = self._executions.get(_raw(record.execution_hash))
        if execution is None:
            self._find(
                "unknown",
                f"record {record.sequence}: an audit of {record.execution_hash}, which is no execution before it",
                None,
                record.sequence,
            )
            return
        if execution.audit >= 0:
            self._find(
                "twice",
                f"record {record.sequence}: a second audit of record {execution.sequence}; the first is record "
                f"{execution.audit}",
                execution.epoch,
                record.sequence,
            )
            return
        execution.audit = record.sequence
        count = self._counts[execution.epoch]
        setattr(count, record.verdict, getattr(count, record.verdict) + 1)
        if execution.drawn is False:
            self._find(
                "not_drawn",
                f"record {record.sequence}: an audit of record {execution.sequence}, which was not drawn",
                execution.epoch,
                record.sequence,
            )
        if record.verdict == "unaudited" and self._is_told(execution.epoch):
            self._reasons[record.reason] = self._reasons.get(record.reason, 0) + 1
            if len(self._unaudited) < SHOWN_MAX:
                self._unaudited.append(
                    UnauditedExecution(
                        execution=execution.sequence,
                        audit=record.sequence,
                        epoch=execution.epoch,
                        reason=record.reason,
                    )
                )

    # The end ----------------------------------------------------------------------------------------------------------

    def ended(self, pending_ms: int) -> AuditLog:
        for run in self._runs.values():
            self._tell(run)
        self._runs.clear()
        for each in self._executions.values():
            if each.drawn is not True or each.audit >= 0:
                continue
            if self._active_ms - each.active_ms <= pending_ms:
                self._counts[each.epoch].pending += 1
            else:
                words = f"record {each.sequence}: was drawn, and no audit of it is recorded"
                self._find("missing", words, each.epoch, each.sequence)
        self._check_shares()
        return AuditLog(
            floor_percent=self._floor_percent,
            epochs=tuple(
                self._audits_of(epoch, count) for epoch, count in sorted(self._counts.items()) if self._is_told(epoch)
            ),
            violations=tuple(sorted(self._violations, key=lambda each: -1 if each.first is None else each.first)),
            found=self._found,
            unaudited=tuple(self._unaudited),
            reasons=self._reasons,
        )

    def _check_shares(self) -> None:
        """Of each epoch, and of all together where no single one stands out."""
        told = {epoch: count for epoch, count in self._counts.items() if self._is_told(epoch)}
        few = {epoch: words for epoch, count in told.items() if (words := _few([count]))}
        for epoch, words in sorted(few.items()):
            self._find("few", f"epoch {epoch}: {words}", epoch)
        if not few and (words := _few(told.values())):
            self._find("few", f"all epochs: {words}", None)

    def _audits_of(self, epoch: int, count: _Count) -> EpochAudits:
        is_known = epoch in self._secrets
        return EpochAudits(
            epoch=epoch,
            state=self._state(epoch),
            executions=count.executions,
            lowest_rate=count.lowest_rate,
            drawn=count.drawn if is_known else None,
            recorded=count.agree + count.disagree + count.inconclusive + count.unaudited,
            agree=count.agree,
            disagree=count.disagree,
            inconclusive=count.inconclusive,
            unaudited=count.unaudited,
            pending=count.pending if is_known else None,
        )

    def _state(self, epoch: int) -> EpochState:
        if epoch in self._secrets:
            return "revealed"
        if epoch in self._wrong:
            return "wrong"
        return "open" if epoch in (self._epochs or {}) else "unknown"

    # Violations -------------------------------------------------------------------------------------------------------

    def _extend(self, kind: ViolationKind, record: ExecutionRecord, words: str) -> None:
        """Goes on with what the executions before broke in the same way; no `words` say that this one does not."""
        run = self._runs.get(kind)
        if run is not None and (run.words, run.epoch) == (words, record.epoch):
            run.last = record.sequence
            return
        if run is not None:
            self._tell(self._runs.pop(kind))
        if words:
            self._runs[kind] = _Run(kind, record.epoch, words, record.sequence, record.sequence)

    def _tell(self, run: _Run) -> None:
        span = f"record {run.first}" if run.first == run.last else f"records {run.first} to {run.last}"
        self._find(run.kind, f"{span}: {run.words}", run.epoch, run.first, run.last)

    def _find(
        self, kind: ViolationKind, message: str, epoch: int | None, first: int | None = None, last: int | None = None
    ) -> None:
        if epoch is not None and not self._is_told(epoch):
            return
        self._found += 1
        if len(self._violations) < SHOWN_MAX:
            last = first if last is None else last
            self._violations.append(Violation(kind=kind, message=message, epoch=epoch, first=first, last=last))

    def _is_told(self, epoch: int) -> bool:
        return self._only_epoch is None or epoch == self._only_epoch


def _few(counts: Iterable[_Count]) -> str:
    """What is to be said of so few drawn, or nothing. By Chernoff's bound, which holds for rates of all kinds."""
    counted = list(counts)
    drawn, expected = (
        sum(each.drawn_by_chance for each in counted),
        sum(each.expected_percent for each in counted) / 100,
    )
    if drawn >= expected:
        return ""
    logarithm = drawn - expected + (drawn * math.log(expected / drawn) if drawn else 0.0)
    if logarithm >= math.log(FEW_CHANCE_MAX):
        return ""
    return f"{drawn} drawn where the rates let {expected:.0f} be expected, by a chance of e^{logarithm:.0f} at most"


def _raw(digest: str) -> bytes:
    try:
        return from_hex(digest, name="execution_hash", length_bytes=32)
    except Malformed:
        return b""
