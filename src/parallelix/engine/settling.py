"""12 Anchor, 14 Settle: records join the chain and go out in batches, the rest of a hold is released, a charge posts.

A charge posts once a confirmed batch holds its record and, where the execution was drawn, its audit has ended too. So
what an audit overturns was never charged: it goes back from what is held.
"""

from __future__ import annotations

from collections.abc import Iterable

from parallelix.engine import effects, events
from parallelix.engine.challenges import Challenges
from parallelix.engine.effects import Answer
from parallelix.engine.entities import ApiKey, Request
from parallelix.engine.ledger import USAGE, available, held, split_usage
from parallelix.engine.lifecycle import RequestState
from parallelix.engine.rows import RecordRow
from parallelix.protocol.records import Record


class Settling(Challenges):
    def settled(self, record_sequence: int) -> bool:
        """Whether the charge of the record has posted, or it will never be."""
        return 0 <= record_sequence <= self.recorder.confirmed_through and record_sequence not in self._uncharged

    # 12 Anchor --------------------------------------------------------------------------------------------------------

    def _append_record(self, record: Record, request_id: str) -> RecordRow:
        """`record` is of an execution of the request, or of its audit. Its batch closes when it is full, or in its
        time."""
        recorder = self.recorder
        row = recorder.append(record, request_id=request_id, now=self._now)
        self._rows.append(row)
        if recorder.open_count == 1:
            self._timers.set(self._now + self.settings.batch_ms, "batch", recorder.next_batch)
        if recorder.open_count >= self.settings.batch_records_max:
            self._close_batch()
        return row

    def _close_batch(self) -> None:
        closed = self.recorder.close(now=self._now)
        if closed is not None:
            batch, row = closed
            self._closed_at[batch.number] = self._now
            self._rows.append(row)
            self._effects.append(effects.AnchorBatch(batch=batch, epoch=row.epoch))

    # 14 Settle --------------------------------------------------------------------------------------------------------

    def _batch_confirmed(self, event: events.BatchConfirmed) -> Answer:
        """The batch is anchored: charge every execution in it that no audit is open of, and share out what was
        charged."""
        closed_at = self._closed_at.get(event.number, 0)
        confirmed = self.recorder.confirm(event.number, reference=event.reference, closed_at=closed_at, now=self._now)
        if confirmed is None:
            return None
        batch, row = confirmed
        self._closed_at.pop(batch.number, None)
        self._rows.append(row)
        charged: list[Request] = []
        for sequence in range(batch.first, batch.last + 1):
            request = self._unsettled.pop(sequence, None)
            if request is not None and request.request_id in self._audit_of_request:
                self._uncharged[sequence] = request
            elif request is not None:
                charged.append(request)
        self._charge(charged, because=str(batch.number))
        return None

    def _charge_after_audit(self, request: Request) -> None:
        """Its audit is over; where its batch was not confirmed yet, the charge waits for that."""
        if self._uncharged.pop(request.record_sequence, None) is not None:
            self._charge([request], because=request.request_id)

    def _charge(self, requests: Iterable[Request], *, because: str) -> None:
        """What a deposit pays the vault splits when it is settled; the rest is shared out here."""
        total_wei = 0
        keys: dict[str, ApiKey] = {}
        for request in requests:
            total_wei += self._charge_one(request, keys)
        for account, share_wei in split_usage(total_wei):
            if share_wei:
                self._post(f"split:{because}:{account}", USAGE, account, share_wei, "")
        self._rows.extend(key.row() for key in keys.values())

    def _charge_one(self, request: Request, keys: dict[str, ApiKey]) -> int:
        """Gives what is to be shared out."""
        charge_wei = request.charge_wei
        from_deposit = self.lives_from_deposit(request.account)
        if charge_wei and from_deposit:
            self._charge_deposit(request.account, charge_wei, request.request_id)
        elif charge_wei:
            self._post(f"charge:{request.request_id}", held(request.account), USAGE, charge_wei, request.request_id)
        key = self.keys.get(request.key_id)
        if key is not None:
            key.committed_wei -= charge_wei
            key.spent_wei += charge_wei
            keys[key.key_id] = key
        return 0 if from_deposit else charge_wei

    def _refund(self, request: Request) -> int:
        """Gives back what a drawn execution was to cost, which is held still; gives how much."""
        refunded_wei = request.charge_wei
        if not refunded_wei:
            return 0
        request.charge_wei = 0
        key = self.keys.get(request.key_id)
        if key is not None:
            key.committed_wei -= refunded_wei
        self._rows.append(request.row())
        self._free(request, refunded_wei, transfer_id=f"refund:{request.request_id}")
        return refunded_wei

    def _free(self, request: Request, amount_wei: int, *, transfer_id: str) -> None:
        account = request.account
        self._post(transfer_id, held(account), available(account), amount_wei, request.request_id)
        if self.lives_from_deposit(account):
            self._write_off(account, because=transfer_id)

    # How a request ends -----------------------------------------------------------------------------------------------

    def _finish(self, request: Request, state: RequestState, reason: str) -> None:
        """The one way out: release what is not charged, write the end, tell whoever waits."""
        self.queue.discard(request.request_id)
        request.become(state, now=self._now, reason=reason)
        released_wei = request.hold_wei - request.charge_wei
        if released_wei:
            self._free(request, released_wei, transfer_id=f"release:{request.request_id}")
        key = self.keys.get(request.key_id)
        if key is not None:
            key.open_requests -= 1
            key.committed_wei -= released_wei
        self.open_of_account[request.account] -= 1
        if not self.open_of_account[request.account]:
            del self.open_of_account[request.account]
        del self.requests[request.request_id]
        self._rows.append(request.row())
        self._progress(request, "finished", state=state.value, reason=reason)
        if state in (RequestState.FAILED, RequestState.EXPIRED):
            self._log(
                "request.failed",
                request_id=request.request_id,
                state=state.value,
                reason=reason,
                attempts=len(request.attempts),
            )
        self._shown_by(request)
