"""After a restart: the engine as the store knows it, with every open request going on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from parallelix.engine import effects
from parallelix.engine.admission import BYTES_PER_TOKEN_GUESS
from parallelix.engine.catalogue import ModelEntry, Price, Priority
from parallelix.engine.challenges import ACCOUNT
from parallelix.engine.deadlines import Deadlines
from parallelix.engine.entities import ApiKey, Attempt, Request
from parallelix.engine.ledger import Ledger
from parallelix.engine.lifecycle import FINAL_ATTEMPT_STATES, FINAL_REQUEST_STATES, AttemptState, RequestState
from parallelix.engine.pool import Need, Node
from parallelix.engine.settings import MINUTE_MS
from parallelix.engine.snapshot import Snapshot
from parallelix.engine.state import RandomBytes, Step
from parallelix.engine.uptime import SLOT_MS
from parallelix.engine.verdicts import Ends
from parallelix.protocol.messages import Manifest
from parallelix.protocol.registry import Registration
from parallelix.protocol.work import Usage


class Restoring(Deadlines):
    def restore(
        self, snapshot: Snapshot, registrations: Iterable[Registration], now: int, random_bytes: RandomBytes
    ) -> Step:
        """Takes up where the store left off. Every open request goes on; every attempt gets some time more."""
        assert not self.requests, "an engine is restored once, before its first step"
        self._now, self._random = now, random_bytes
        for registration in registrations:
            self._enrol(registration)
        self._restore_chain(snapshot)
        self.ledger = Ledger({row.account: int(row.balance_wei) for row in snapshot.balances})
        self.keys = {row.key_id: ApiKey.of(row) for row in snapshot.keys}
        self.uptime.restore(snapshot.uptime)
        self.trust.restore(snapshot.trust)
        self.epochs = {row.epoch: row for row in snapshot.epochs}
        self.epoch = max(self.epochs, default=0)
        self._timers.set(now + MINUTE_MS, "uptime", None)
        self._restore_records(snapshot)
        self._restore_liveness(snapshot)
        self._restore_nodes(snapshot)
        for known in snapshot.idempotent:
            self._idempotent[(known.account, known.idempotency_key)] = (
                known.fingerprint,
                known.request_id,
                known.admitted_at,
            )
        self._restore_audits(snapshot, self._restore_requests(snapshot))
        return self._take_step(None)

    def _restore_chain(self, snapshot: Snapshot) -> None:
        assert self.settings.on_chain or snapshot.cursor is None, "this store belongs to a network on a chain"
        self.mirror.restore(snapshot.cursor, snapshot.vault_accounts, snapshot.clearances)
        self._owing = set(self.mirror.accounts)
        for row in snapshot.registrations:
            self._enrol(
                Registration(
                    node_id=row.node_id,
                    owner=row.owner,
                    stake_wei=row.stake_wei,
                    hardware_tier=row.hardware_tier,
                    node_key_hash=row.node_key_hash,
                    state=cast("Any", row.state),
                    cooldown_ends_at=row.cooldown_ends_at,
                )
            )

    def _restore_records(self, snapshot: Snapshot) -> None:
        self.recorder.restore(
            snapshot.batches,
            snapshot.records,
            self._now,
        )
        self._closed_at = {row.number: row.closed_at for row in snapshot.batches if not row.confirmed_at}
        self._effects.extend(
            effects.AnchorBatch(batch=batch, epoch=self.recorder.epoch_of(number))
            for number, batch in sorted(self.recorder.unconfirmed.items())
        )
        if self.recorder.open_count:
            self._timers.set(self._now + self.settings.batch_ms, "batch", self.recorder.next_batch)

    def _restore_liveness(self, snapshot: Snapshot) -> None:
        confirmed = [row for row in snapshot.batches if row.confirmed_at]
        self.liveness.restore(
            snapshot.liveness,
            batch=(confirmed[-1].number, confirmed[-1].merkle_root) if confirmed else None,
            chain_time=snapshot.cursor.block_time if snapshot.cursor is not None else 0,
            # Nobody could reach us while we were away, nor in the time that it takes to attach again.
            since_slot=(self._now + self.settings.restart_grace_ms) // SLOT_MS,
        )

    def _restore_nodes(self, snapshot: Snapshot) -> None:
        online = self._were_online(snapshot)
        for row in snapshot.nodes:
            node = Node(
                node_id=int(row.node_id),
                session=row.session,
                manifest=msgspec.json.decode(row.manifest, type=Manifest),
                manifest_json=row.manifest,
                public_key=row.public_key,
                issued_at=row.issued_at,
                attached_at=row.attached_at,
                registration=self.registrations.get(int(row.node_id)),
                last_seen=self._now,
                # Who was online keeps its place for as long as a silent node would.
                online=row.node_id in online,
                removed_until=row.removed_until,
            )
            self._expect_proof(node, restored=True)
            self.pool.put(node)
            if node.online:
                self._timers.set(self._now + self.settings.offline_ms, "offline", node.node_id)
            if node.removed_until:
                self._timers.set(node.removed_until, "return", node.node_id)
        for fault in snapshot.faults:
            node = self.pool.find(int(fault.node_id))
            if node is not None and fault.at > self._now - self.settings.rejection_window_ms:
                node.rejections.append(fault.at)

    def _were_online(self, snapshot: Snapshot) -> set[str]:
        """Who was online when we went down, however long ago that is: who was heard of when the others were, or has
        work. What is heard of nodes is written each minute."""
        credited = self.uptime.last_credited_ms()
        heard = {row.node_id: max(row.attached_at, credited.get(int(row.node_id), 0)) for row in snapshot.nodes}
        since = max(heard.values(), default=0) - MINUTE_MS - self.settings.offline_ms
        busy = {row.node_id for row in snapshot.attempts if AttemptState(row.state) not in FINAL_ATTEMPT_STATES}
        return {node_id for node_id, at in heard.items() if at >= since} | busy

    def _restore_requests(self, snapshot: Snapshot) -> dict[str, Request]:
        """Gives all of them, those too that only their charge is missing of."""
        known: dict[str, Request] = {}
        drawn = {row.request_id for row in snapshot.audits if not row.prepared_from}
        attempts: dict[str, list[Attempt]] = {}
        for row in snapshot.attempts:
            attempts.setdefault(row.request_id, []).append(Attempt.of(row))
        waiting: list[Request] = []
        for row in snapshot.requests:
            request = self._request_of(row, attempts.get(row.request_id, []))
            if request is None:
                continue
            known[request.request_id] = request
            key = self.keys.get(request.key_id)
            if request.final:
                unconfirmed = request.record_sequence > self.recorder.confirmed_through
                if unconfirmed or request.request_id in drawn:
                    (self._unsettled if unconfirmed else self._uncharged)[request.record_sequence] = request
                    if key is not None:
                        key.committed_wei += request.charge_wei
                continue
            self._take_in(request, key)
            self._timers.set(request.admitted_at + self.settings.lifetime_ms, "lifetime", request.request_id)
            if request.attached:
                self._orphans.add(request.request_id)
                self._timers.set(self._now + self.settings.orphan_ms, "orphan", request.request_id)
            attempt = request.open_attempt
            if attempt is None:
                waiting.append(request)
            else:
                self._resume(request, attempt)
        for request in sorted(waiting, key=self._queue_key):
            self._place(request)
        return known

    def _restore_audits(self, snapshot: Snapshot, requests: dict[str, Request]) -> None:
        """Each begins anew at its first stage: what was asked of auditors before is forgotten. Of a prepared one the
        right answer is forgotten too."""
        for row in snapshot.audits:
            if not row.prepared_from:
                self._audit_of_request[row.request_id] = row.audit_id
        for row in snapshot.audits:
            request = requests[row.request_id]
            executed = request.attempts[-1]
            audit = self._audit_again(row, request, executed)
            if audit.prepared_from:
                self._end(audit, Ends(verdict="unaudited", reason="restarted"))
            else:
                self._place(self._open(audit))

    def _resume(self, request: Request, attempt: Attempt) -> None:
        """An attempt that was open when we went down: its node may still be at it."""
        node = self.pool.nodes[attempt.node_id]
        self._attempts[attempt.attempt_id] = attempt
        attempt.resumed = True
        node.reserved.add(attempt.attempt_id)
        self.pool.refresh(node)
        earliest = self._now + self.settings.restart_grace_ms
        if attempt.state is AttemptState.OFFERED:
            request.state = RequestState.DISPATCHED
            self._send_offer(request, attempt, node)
            self._timers.set(earliest, "acknowledge", attempt.attempt_id)
        else:
            request.state = RequestState.RUNNING
            attempt.deadline_at = max(attempt.deadline_at, earliest)
            self._timers.set(attempt.deadline_at, "deadline", attempt.attempt_id)
            if request.cancelling:
                self._ask_for_partial(request, attempt)

    def _request_of(self, row: Any, attempts: list[Attempt]) -> Request | None:
        state = RequestState(row.state)
        if state in FINAL_REQUEST_STATES and row.record_sequence < 0:
            return None
        model: ModelEntry | None = self.catalogue.find(row.model)
        priority: Priority = row.priority
        last_end = max((attempt.finished_at for attempt in attempts), default=0)
        context = row.prompt_tokens_max // BYTES_PER_TOKEN_GUESS + row.completion_tokens_max
        return Request(
            request_id=row.request_id,
            account=row.account,
            key_id=row.key_id,
            workload_class=row.workload_class,
            kind=row.kind,
            model=row.model,
            priority=priority,
            need=Need(
                workload_class=row.workload_class,
                digests=model.digests if model else (),
                tier=row.hardware_tier,
                context_tokens=min(context, model.context_tokens) if model else context,
                features=frozenset(filter(None, row.features.split(","))),
                tokens=row.completion_tokens_max,
                deadline_ms=row.deadline_ms,
            ),
            price=Price(prompt_wei=int(row.prompt_price_wei), completion_wei=int(row.completion_price_wei)),
            queue_ms=row.queue_ms,
            admitted_at=row.admitted_at,
            prompt_tokens_max=row.prompt_tokens_max,
            completion_tokens_max=row.completion_tokens_max,
            hold_wei=int(row.hold_wei),
            attached=row.attached,
            cancelling=row.cancelling,
            idempotency_key=row.idempotency_key,
            fingerprint=row.fingerprint,
            state=state,
            reason=row.reason,
            waiting_since=max(row.admitted_at, last_end),
            attempts=attempts,
            finished_at=row.finished_at,
            charge_wei=int(row.charge_wei),
            usage=Usage(prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens),
            record_sequence=row.record_sequence,
            only_node=attempts[-1].node_id if row.account == ACCOUNT and attempts else None,
        )
