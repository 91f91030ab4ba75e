"""Lives of an honest coordinator, as far as the public sees them: what it records, and when epochs begin and end."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from parallelix.protocol import sampling
from parallelix.protocol.audit_log import QUIET_MS, AnchoredUntil, AuditLog, PublicEpoch, check
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.records import (
    GENESIS_HASH,
    AuditRecord,
    ExecutionRecord,
    Record,
    Verdict,
    record_hash,
)
from parallelix.protocol.sampling import Epoch
from parallelix.protocol.work import Usage

MASTER = b"\x07" * 32
HOUR_MS = 3_600_000
PATIENCE_MS = HOUR_MS
"""For how long an audit may be on its way in these lives; a day would only make them longer."""
VERDICTS: tuple[tuple[Verdict, str], ...] = (
    ("agree", "within"), ("agree", "within"), ("disagree", "far"), ("inconclusive", "no_third_node"),
    ("unaudited", "no_second_node"),
)  # fmt: skip


@dataclass
class Network:
    """An honest coordinator: it draws as it should, and records each audit some time after its execution."""

    chance: random.Random
    records: list[Record] = field(default_factory=list[Record])
    epochs: list[PublicEpoch] = field(default_factory=list[PublicEpoch])
    batches: list[AnchoredUntil] = field(default_factory=list[AnchoredUntil])
    block: int = 10
    now_ms: int = 1_790_000_000_000
    open_audits: list[str] = field(default_factory=list[str])
    said: list[tuple[Literal["commit", "reveal", "anchor"], int]] = field(
        default_factory=list[tuple[Literal["commit", "reveal", "anchor"], int]]
    )
    """What an anchor was told, in order: an epoch, or a batch by its place."""

    @property
    def newest(self) -> int:
        return len(self.epochs) - 1

    def begin_epoch(self) -> None:
        """The one before the last must be revealed by then."""
        if self.newest >= 1 and not self.epochs[self.newest - 1].epoch.secret:
            self.reveal(self.newest - 1)
        self.block += 1
        epoch = len(self.epochs)
        self.said.append(("commit", epoch))
        commitment = to_hex(sampling.commitment(sampling.epoch_secret(MASTER, epoch)))
        self.epochs.append(PublicEpoch(epoch=Epoch(epoch=epoch, commitment=commitment), committed_block=self.block))

    def reveal(self, epoch: int) -> None:
        """Everything is anchored before."""
        self.anchor()
        self.block += 1
        self.said.append(("reveal", epoch))
        known = self.epochs[epoch]
        out = msgspec.structs.replace(known.epoch, secret=to_hex(sampling.epoch_secret(MASTER, epoch)))
        self.epochs[epoch] = msgspec.structs.replace(known, epoch=out, revealed_block=self.block)

    def anchor(self) -> None:
        self.block += 1
        first = self.batches[-1].last + 1 if self.batches else 0
        if len(self.records) > first:
            self.said.append(("anchor", len(self.batches)))
            self.batches.append(AnchoredUntil(last=len(self.records) - 1, block=self.block))

    def execute(self) -> None:
        """Of the newest epoch, or of the one before while that is not revealed."""
        epoch = self.newest
        if epoch and not self.epochs[epoch - 1].epoch.secret and self.chance.random() < 0.4:
            epoch -= 1
        self.now_ms += self.chance.choice([5, 400, 20_000, QUIET_MS, 30 * HOUR_MS])
        record = execution(
            len(self.records),
            epoch=epoch,
            rate=self.chance.choice(sampling.RATES_PERCENT),
            finished_at=self.now_ms - self.chance.randrange(100),
            commitment=to_hex(self.chance.randbytes(32)),
        )
        digest = self._append(record)
        if is_drawn(record, sampling.epoch_secret(MASTER, epoch)):
            self.open_audits.append(digest)

    def audit(self) -> None:
        if self.open_audits:
            self.now_ms += self.chance.choice([5, 400, 20_000])
            verdict, reason = self.chance.choice(VERDICTS)
            about = self.open_audits.pop(self.chance.randrange(len(self.open_audits)))
            self._append(an_audit(len(self.records), about, verdict, reason, self.now_ms))

    def _append(self, record: Record) -> str:
        head = record_hash(self.records[-1]) if self.records else GENESIS_HASH
        self.records.append(msgspec.structs.replace(record, previous_hash=head))
        return record_hash(self.records[-1])

    def checked(self, **more: Any) -> AuditLog:
        return check(self.records, self.epochs, batches=self.batches, until_block=self.block, **more)


def execution(sequence: int, *, epoch: int, rate: int, finished_at: int, commitment: str) -> ExecutionRecord:
    digest = to_hex(hashlib.sha256(sequence.to_bytes(8, "big")).digest())
    return ExecutionRecord(
        sequence=sequence,
        previous_hash=GENESIS_HASH,
        request_id=f"req_{sequence:064x}",
        workload_class="ai.inference",
        model_digest=digest[2:],
        input_hash=digest,
        result_hash=digest,
        poe_commitment=commitment,
        usage=Usage(prompt_tokens=10, completion_tokens=20),
        epoch=epoch,
        rate=rate,
        started_at=finished_at - 5,
        finished_at=finished_at,
    )


def an_audit(sequence: int, about: str, verdict: Verdict, reason: str, finished_at: int) -> AuditRecord:
    return AuditRecord(
        sequence=sequence,
        previous_hash=GENESIS_HASH,
        execution_hash=about,
        verdict=verdict,
        reason=reason,
        finished_at=finished_at,
    )


def is_drawn(record: ExecutionRecord, secret: bytes) -> bool:
    return sampling.drawn(sampling.draw(secret, record.poe_commitment), record.rate)


def lived(seed: int, *, steps: int = 60, is_over: bool = False) -> Network:
    """A network after some life; when it `is_over`, every audit is out and every epoch revealed."""
    network = Network(random.Random(seed))
    network.begin_epoch()
    for _ in range(steps):
        network.chance.choices(
            [network.execute, network.audit, network.anchor, network.begin_epoch], weights=[10, 6, 3, 1]
        )[0]()
        while len(network.open_audits) > 4:
            network.audit()
    while is_over and network.open_audits:
        network.audit()
    if is_over:
        network.begin_epoch()
        network.reveal(network.newest - 1)
        # And some work after that, so that nothing can still be on its way.
        for _ in range(1 + PATIENCE_MS // QUIET_MS):
            network.now_ms += QUIET_MS
            network.execute()
        while network.open_audits:
            network.audit()
    return network


def executions(records: Sequence[Record]) -> list[ExecutionRecord]:
    return [each for each in records if isinstance(each, ExecutionRecord)]


def linked(records: Sequence[Record], first: int, *, instead_of: Record | None = None) -> list[Record]:
    """Numbers and links made anew from `first` on, and audits that name what has another hash now name it again; also
    record `first`, where it stands there instead of another."""
    made, renamed = [*records[:first]], dict[str, str]()
    for each in records[first:]:
        was = instead_of if instead_of is not None and len(made) == first else each
        head = record_hash(made[-1]) if made else GENESIS_HASH
        after: Record = msgspec.structs.replace(each, sequence=len(made), previous_hash=head)
        if isinstance(after, AuditRecord):
            after = msgspec.structs.replace(
                after, execution_hash=renamed.get(after.execution_hash, after.execution_hash)
            )
        made.append(after)
        renamed[record_hash(was)] = record_hash(after)
    return made
