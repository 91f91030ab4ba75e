"""The chain of records and its batches. Nothing here is ever edited."""

from __future__ import annotations

from collections.abc import Iterable

from parallelix.engine.rows import BatchRow, RecordRow
from parallelix.protocol import canonical, merkle
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.records import GENESIS_HASH, Batch, ExecutionRecord, Record, decode_record, record_hash


class Recorder:
    """`head_hash` is the hash of the last record, `sequence` the next one's number, `next_batch` the next batch's.

    A batch's epoch is the newest that one of its records, or of those before it, was drawn in: it never goes back."""

    def __init__(self, *, first_batch: int = 0) -> None:
        self.sequence = 0
        self.head_hash = GENESIS_HASH
        self.next_batch = self._first_batch = first_batch
        self.unconfirmed: dict[int, Batch] = {}
        self.confirmed_through = -1
        """The last sequence that a confirmed batch covers."""
        self.batches_confirmed = 0
        self._open: list[bytes] = []
        self._open_first = 0
        self._open_previous = GENESIS_HASH
        self.opened_at = 0
        self._epoch = 0
        self._epochs: dict[int, int] = {}
        self._last_of_epoch: dict[int, int] = {}
        self._last_restored = -1

    @property
    def batches_closed(self) -> int:
        return self.next_batch - self._first_batch

    @property
    def open_count(self) -> int:
        return len(self._open)

    def epoch_of(self, number: int) -> int:
        """Of a batch that is not confirmed."""
        return self._epochs[number]

    def confirmed_all_of(self, epoch: int) -> bool:
        """Whether confirmed batches hold every execution recorded in the epoch so far."""
        return self.confirmed_through >= max(self._last_of_epoch.get(epoch, -1), self._last_restored)

    def forget(self, epoch: int) -> None:
        """Nothing is asked of the epoch any more."""
        self._last_of_epoch.pop(epoch, None)

    def append(self, record: Record, *, request_id: str, now: int) -> RecordRow:
        """Adds the next record, of an execution of `request_id` or of its audit. It names the present head and
        sequence."""
        assert record.sequence == self.sequence and record.previous_hash == self.head_hash, record
        digest = record_hash(record)
        if not self._open:
            self._open_first, self._open_previous, self.opened_at = self.sequence, self.head_hash, now
        self._open.append(from_hex(digest, name="record_hash", length_bytes=32))
        self.sequence, self.head_hash = self.sequence + 1, digest
        self._note_epoch(record)
        return RecordRow(
            sequence=record.sequence,
            record_hash=digest,
            request_id=request_id,
            body=canonical.encode(record),
        )

    def close(self, *, now: int) -> tuple[Batch, BatchRow] | None:
        """Closes the open batch, if it holds anything."""
        if not self._open:
            return None
        batch = Batch(
            number=self.next_batch,
            previous_hash=self._open_previous,
            head_hash=self.head_hash,
            first=self._open_first,
            last=self.sequence - 1,
            count=len(self._open),
            merkle_root=to_hex(merkle.root(self._open)),
        )
        self._open = []
        self.next_batch += 1
        self.unconfirmed[batch.number] = batch
        self._epochs[batch.number] = self._epoch
        return batch, batch_row(batch, closed_at=now, epoch=self._epoch)

    def confirm(self, number: int, *, reference: str, closed_at: int, now: int) -> tuple[Batch, BatchRow] | None:
        """Marks a batch as anchored. Batches are confirmed in order; a repeat changes nothing."""
        if number not in self.unconfirmed or number != min(self.unconfirmed):
            return None
        batch = self.unconfirmed.pop(number)
        self.confirmed_through = batch.last
        self.batches_confirmed += 1
        epoch = self._epochs.pop(number)
        return batch, batch_row(batch, closed_at=closed_at, confirmed_at=now, reference=reference, epoch=epoch)

    def restore(self, batches: Iterable[BatchRow], records: Iterable[RecordRow], now: int) -> None:
        """Rebuilds from the stored batches (the last ones at least) and the records that are in none."""
        for row in sorted(batches, key=lambda each: each.number):
            batch = batch_of(row)
            self._epoch = max(self._epoch, row.epoch)
            assert batch.number >= self._first_batch, f"batch {batch.number}: the first one here is {self._first_batch}"
            self.next_batch = batch.number + 1
            self.sequence, self.head_hash = batch.last + 1, batch.head_hash
            if row.confirmed_at:
                self.confirmed_through = batch.last
                self.batches_confirmed = batch.number + 1 - self._first_batch
            else:
                self.unconfirmed[batch.number] = batch
                self._epochs[batch.number] = row.epoch
                # Of which epochs its records are is not looked up again.
                self._last_restored = batch.last
        for row in sorted(records, key=lambda each: each.sequence):
            record = decode_record(row.body)
            assert row.sequence == self.sequence, (row.sequence, self.sequence)
            if not self._open:
                self._open_first, self._open_previous, self.opened_at = row.sequence, self.head_hash, now
            self._open.append(from_hex(row.record_hash, name="record_hash", length_bytes=32))
            self.sequence, self.head_hash = row.sequence + 1, row.record_hash
            self._note_epoch(record)

    def _note_epoch(self, record: Record) -> None:
        if isinstance(record, ExecutionRecord):
            self._epoch = max(self._epoch, record.epoch)
            self._last_of_epoch[record.epoch] = record.sequence


def batch_row(batch: Batch, *, closed_at: int, confirmed_at: int = 0, reference: str = "", epoch: int) -> BatchRow:
    return BatchRow(
        number=batch.number,
        previous_hash=batch.previous_hash,
        head_hash=batch.head_hash,
        first=batch.first,
        last=batch.last,
        count=batch.count,
        merkle_root=batch.merkle_root,
        closed_at=closed_at,
        confirmed_at=confirmed_at,
        reference=reference,
        epoch=epoch,
    )


def batch_of(row: BatchRow) -> Batch:
    return Batch(
        number=row.number,
        previous_hash=row.previous_hash,
        head_hash=row.head_hash,
        first=row.first,
        last=row.last,
        count=row.count,
        merkle_root=row.merkle_root,
    )
