"""11 Sample: which results are audited, what their auditors' answers lead to, and what is known of nodes by it.

Nothing here places an audit: what needs a node is given back to the layer above as a unit to be placed.
"""

from __future__ import annotations

import msgspec

from parallelix.engine import effects, events
from parallelix.engine.admission import FREE
from parallelix.engine.effects import Answer
from parallelix.engine.entities import Attempt, Audit, Request
from parallelix.engine.lifecycle import AttemptState, RequestState
from parallelix.engine.pool import Need, Node
from parallelix.engine.rows import AuditRow, EpochRow
from parallelix.engine.settings import DAY_MS
from parallelix.engine.settling import Settling
from parallelix.engine.trust import Role
from parallelix.engine.verdicts import (
    UNAUDITABLE,
    AskSecond,
    AskThird,
    Ends,
    Missing,
    RunWhole,
    Stage,
    answered,
    rendered_otherwise,
    ruling,
)
from parallelix.protocol import ids, sampling
from parallelix.protocol.records import AuditRecord
from parallelix.protocol.spot_check import PROBES_DEFAULT

_POSITIONS = PROBES_DEFAULT + 1
_PERCENT_BYTES = 4
RENDERING_RUNTIMES = frozenset({"ollama", "llama_cpp"})
"""Those that have templates of their own. A name that nobody knows excuses nothing."""
UNUSABLE_WORDS_MAX = 20_000
"""Pairs of a node and an account of one day, near 200 bytes each. Who fills it lets words count again, each of which
costs a request of another account."""


class Auditing(Settling):
    def audit_of(self, request_id: str) -> AuditRow | None:
        """The audit of a request's result while it is open, and for some time after; its `verdict` is empty while it is
        open. None where there was none, or it is long over: the store knows."""
        audit = self.audits.get(self._audit_of_request.get(request_id, ""))
        return audit.row() if audit is not None else self._audits_ended.get(request_id)

    # Epochs -----------------------------------------------------------------------------------------------------------

    def oldest_open_epoch(self) -> int:
        """The oldest that an open attempt at a request belongs to; the present one where none is open."""
        opened = (
            attempt.epoch for attempt in self._attempts.values() if not self.requests[attempt.request_id].audit_id
        )
        return min(opened, default=self.epoch)

    def epochs_revealable(self) -> tuple[int, ...]:
        """Past epochs whose secrets can be made public, in their order: no draw can be made in them any more, and all
        that was is in confirmed batches. So nobody can add an execution later that the secret is known not to draw."""
        oldest, found = self.oldest_open_epoch(), list[int]()
        for epoch in sorted(self.epochs):
            if epoch >= oldest or not self.recorder.confirmed_all_of(epoch):
                break
            found.append(epoch)
        return tuple(found)

    def _epoch_began(self, event: events.EpochBegan) -> Answer:
        assert event.epoch >= self.epoch, f"epoch {event.epoch} began after {self.epoch}"
        if event.epoch not in self.epochs:
            self.epoch = event.epoch
            row = EpochRow(epoch=event.epoch, commitment=event.commitment, secret="", began_at=self._now, revealed_at=0)
            self.epochs[event.epoch] = row
            self._rows.append(row)
            self._log("audit.epoch_began", epoch=event.epoch)
        return None

    def _epoch_revealed(self, event: events.EpochRevealed) -> Answer:
        row = self.epochs.get(event.epoch)
        if row is None:
            return None
        assert event.epoch < self.oldest_open_epoch(), f"epoch {event.epoch} is revealed while draws may be made in it"
        self._rows.append(msgspec.structs.replace(row, secret=event.secret, revealed_at=self._now))
        del self.epochs[event.epoch]
        self.recorder.forget(event.epoch)
        self._log("audit.epoch_revealed", epoch=event.epoch)
        return None

    # 11 Sample --------------------------------------------------------------------------------------------------------

    def draws(self, attempt_id: str, draw: int) -> bool:
        """Whether a result of this open attempt at a request would be audited with this draw."""
        attempt = self._attempts.get(attempt_id)
        return attempt is not None and sampling.drawn(draw, self._rate_percent(attempt))

    def _rate_percent(self, attempt: Attempt) -> int:
        """0 where nothing may be drawn: audits are off, or nobody is bound to a secret yet."""
        if not self.settings.audits or attempt.epoch not in self.epochs:
            return 0
        return self.trust.rate_percent(attempt.node_id)

    def _sample(self, request: Request, attempt: Attempt, facts: events.ExecutionFacts, rate: int) -> list[Request]:
        """After the execution was recorded: opens its audit where it is drawn. Gives units to be placed."""
        if not sampling.drawn(facts.draw, rate):
            return []
        audit_id = self._fresh_audit_id()
        stage: Stage = "first" if facts.spot_check else "whole"
        audit = Audit(
            audit_id=audit_id,
            request=request,
            attempt_id=attempt.attempt_id,
            node_id=attempt.node_id,
            model_digest=attempt.model_digest,
            execution_sequence=request.record_sequence,
            execution_hash=request.record_hash,
            opened_at=self._now,
            stage=stage,
            rate_percent=rate,
            whole=stage == "whole",
            partial=attempt.state is AttemptState.CANCELLED,
            unit=self._unit(audit_id, request, attempt.model_digest, attempt.node_id, whole=stage == "whole"),
        )
        if audit.partial and stage == "whole":
            self._end(audit, UNAUDITABLE)
            return []
        if len(self.audits) >= self.settings.audits_open_max or not facts.has_room:
            self._end(audit, Ends(verdict="unaudited", reason="too_many_open"))
            return []
        return [self._open(audit)]

    def _audit_again(self, row: AuditRow, request: Request, executed: Attempt) -> Audit:
        """An audit that was open when we went down, as at its beginning. `executed` is the attempt that it is of."""
        return Audit(
            audit_id=row.audit_id,
            request=request,
            attempt_id=executed.attempt_id,
            node_id=executed.node_id,
            model_digest=executed.model_digest,
            execution_sequence=row.execution_sequence,
            execution_hash=row.execution_hash,
            opened_at=row.opened_at,
            prepared_from=row.prepared_from,
            stage="whole" if row.whole else "first",
            whole=row.whole,
            partial=executed.state is AttemptState.CANCELLED,
            unit=self._unit(row.audit_id, request, executed.model_digest, executed.node_id, whole=row.whole),
        )

    def _fresh_audit_id(self) -> str:
        return ids.sub_task_id(ids.fresh_bytes(ids.UNIT_ID_BYTES, self._now, self._random))

    def _unit(self, audit_id: str, request: Request, digest: str, *barred: int, whole: bool = False) -> Request:
        """For any node but the `barred` ones and what else their owners have."""
        need = self._audit_need(request.need, digest, request.kind, whole=whole)
        return Request(
            request_id=audit_id,
            audit_id=audit_id,
            account="",
            key_id="",
            workload_class=request.workload_class,
            kind=request.kind,
            model=request.model,
            priority="standard",
            need=need,
            price=FREE,
            queue_ms=self.settings.audit_queue_ms,
            admitted_at=self._now,
            prompt_tokens_max=request.prompt_tokens_max,
            completion_tokens_max=need.tokens,
            hold_wei=0,
            attached=False,
            idempotency_key="",
            fingerprint="",
            waiting_since=self._now,
            barred_nodes=frozenset(barred),
            barred_owners=self._owners_of(*barred),
            runtime=self._runtime_of(barred[0]),
        )

    def _audit_need(self, need: Need, digest: str, kind: str, *, whole: bool) -> Need:
        """Exactly the weights that the executor claims to have used, on whatever machine."""
        features = need.features if kind == "embedding" else need.features | {"logprobs"}
        if not (whole or kind == "embedding"):
            features |= {"probe"}
        deadline_ms = self.settings.audit_deadline_ms
        return Need(
            workload_class=need.workload_class,
            digests=(digest,),
            tier=1,
            context_tokens=need.context_tokens,
            features=features,
            tokens=need.tokens if whole else min(need.tokens, _POSITIONS),
            deadline_ms=max(deadline_ms, need.deadline_ms) if whole else deadline_ms,
        )

    def _open(self, audit: Audit) -> Request:
        """Gives the unit to be placed."""
        self.audits[audit.audit_id] = audit
        if not audit.prepared_from:
            self._audit_of_request[audit.request.request_id] = audit.audit_id
        self.requests[audit.audit_id] = audit.unit
        self._rows.append(audit.row())
        self._effects.append(
            effects.OpenAudit(
                audit_id=audit.audit_id,
                request_id=audit.request.request_id,
                attempt_id=audit.attempt_id,
                prepared_from=audit.prepared_from,
                whole=audit.whole,
            )
        )
        self._timers.set(self._now + self._audit_life_ms(audit), "audit", audit.audit_id)
        self._log("audit.opened", audit_id=audit.audit_id, node_id=str(audit.node_id))
        return audit.unit

    def _audit_life_ms(self, audit: Audit) -> int:
        """However often it is placed again, an audit is over by then, and a charge that waits for it goes on."""
        settings = self.settings
        return 2 * (settings.audit_queue_ms + settings.audit_deadline_ms + audit.request.need.deadline_ms)

    def _owners_of(self, *node_ids: int) -> frozenset[str]:
        known = (self.registrations.get(node_id) for node_id in node_ids)
        return frozenset(registration.owner for registration in known if registration is not None)

    # Answers ----------------------------------------------------------------------------------------------------------

    def _audit_answer(self, audit: Audit, attempt: Attempt, event: events.AuditAnswered) -> list[Request]:
        """A verified answer, of `attempt` at the unit. Gives units to be placed."""
        finding, third = event.finding, event.third
        compared = audit.stage in ("third", "prepared")
        assert compared == (third is not None), f"{audit.audit_id}: stage {audit.stage}, third {third}"
        if audit.stage == "third":
            audit.third_id = attempt.node_id
        else:
            audit.auditor_id, audit.auditor_attempt_id = attempt.node_id, attempt.attempt_id
        audit.unit.become(RequestState.VALIDATING, now=self._now)
        outcome = answered(audit.stage, finding, alike=self._alike(audit, audit.unit.runtime, attempt.node_id))
        between = third.outcome if third is not None else None
        differently = third is not None and rendered_otherwise(third)
        if differently and not self._alike(audit, audit.auditor_runtime, attempt.node_id):
            between = "unusable"
        if audit.stage != "third":
            audit.auditor_runtime = self._runtime_of(attempt.node_id)
        follows = ruling(audit.stage, outcome, between)
        self._log(
            "audit.answered",
            audit_id=audit.audit_id,
            stage=audit.stage,
            node_id=str(attempt.node_id),
            outcome=finding.outcome,
            reason=finding.reason,
            distance=round(finding.distance, 4),
        )
        if isinstance(follows, RunWhole) and audit.partial:
            # No whole run equals a part.
            follows = UNAUDITABLE
        if isinstance(follows, Ends):
            return self._end(audit, follows, finding.reason)
        return [self._next_stage(audit, follows)]

    def _alike(self, audit: Audit, runtime: str, node_id: int) -> bool:
        """Whether a node with `runtime` and the other surely make the same tokens of the request. A chat's template is
        the runtime's own matter, which weights do not decide."""
        other = self._runtime_of(node_id)
        known = {runtime, other} <= RENDERING_RUNTIMES
        return audit.request.kind != "chat" or not known or runtime == other

    def _runtime_of(self, node_id: int) -> str:
        node = self.pool.find(node_id)
        return node.runtime if node is not None else ""

    def _audit_unanswered(self, audit: Audit, missing: Missing) -> None:
        follows = ruling(audit.stage, missing)
        assert isinstance(follows, Ends), follows
        self._end(audit, follows)

    def _next_stage(self, audit: Audit, follows: AskSecond | AskThird | RunWhole) -> Request:
        unit = audit.unit
        if isinstance(follows, RunWhole):
            audit.stage, audit.whole = "whole", True
            unit.need = self._audit_need(audit.request.need, audit.model_digest, unit.kind, whole=True)
            unit.completion_tokens_max = unit.need.tokens
            # Who found nothing to compare may run it all the same.
            unit.barred_nodes, unit.barred_owners = frozenset({audit.node_id}), self._owners_of(audit.node_id)
            self._effects.append(effects.RunAgain(audit_id=audit.audit_id))
        else:
            audit.stage = "second" if isinstance(follows, AskSecond) else "third"
            unit.barred_nodes |= {audit.auditor_id}
            unit.barred_owners |= self._owners_of(audit.auditor_id)
        unit.become(RequestState.QUEUED, now=self._now)
        unit.waiting_since = self._now
        self._rows.append(audit.row())
        return unit

    # Verdicts ---------------------------------------------------------------------------------------------------------

    def _end(self, audit: Audit, ends: Ends, found: str = "") -> list[Request]:
        """The one way out of an audit. `found` is the finding's reason, where an answer ends it. Gives units to be
        placed."""
        unit, request, reason = audit.unit, audit.request, ends.reason or found
        prepared = self._prepared(audit, ends)
        self.queue.discard(unit.request_id)
        answered = unit.state is RequestState.VALIDATING
        unit.become(RequestState.COMPLETED if answered else RequestState.EXPIRED, now=self._now)
        self.requests.pop(audit.audit_id, None)
        self.audits.pop(audit.audit_id, None)
        sequence, refunded_wei = -1, 0
        if not audit.prepared_from:
            self._audit_of_request.pop(request.request_id, None)
            sequence = self._record_verdict(audit, ends, reason)
            refunded_wei = self._refund(request) if ends.verdict == "disagree" else 0
            self._charge_after_audit(request)
        row = audit.row(
            verdict=ends.verdict, reason=reason, finished_at=self._now, refunded_wei=refunded_wei, sequence=sequence
        )
        self._rows.append(row)
        if not audit.prepared_from:
            self._remember_ended(row)
        self._effects.append(
            effects.AuditEnded(
                audit_id=audit.audit_id,
                request_id=request.request_id,
                verdict=ends.verdict,
                reason=reason,
                refunded_wei=refunded_wei,
            )
        )
        self._log(
            "audit.ended",
            audit_id=audit.audit_id,
            verdict=ends.verdict,
            reason=reason,
            node_id=row.node_id,
            auditor_id=row.auditor_id,
            third_id=row.third_id,
            flagged=ends.flagged,
            prepared=bool(audit.prepared_from),
        )
        self._judge(audit, ends, reason)
        return prepared

    def _record_verdict(self, audit: Audit, ends: Ends, reason: str) -> int:
        recorder = self.recorder
        record = AuditRecord(
            sequence=recorder.sequence,
            previous_hash=recorder.head_hash,
            execution_hash=audit.execution_hash,
            verdict=ends.verdict,
            reason=reason,
            finished_at=self._now,
        )
        self._append_record(record, audit.request.request_id)
        return record.sequence

    def _remember_ended(self, row: AuditRow) -> None:
        self._audits_ended[row.request_id] = row
        if len(self._audits_ended) > self.settings.answers_remembered_max:
            self._audits_ended.popitem(last=False)

    def _prepared(self, audit: Audit, ends: Ends) -> list[Request]:
        """Some audits that agreed are put to another auditor, as one whose right answer is known."""
        if audit.stage != "first" or ends.verdict != "agree" or len(self.audits) >= self.settings.audits_open_max:
            return []
        if int.from_bytes(self._random(_PERCENT_BYTES), "big") % 100 >= self.settings.prepared_percent:
            return []
        audit_id = self._fresh_audit_id()
        prepared = Audit(
            audit_id=audit_id,
            request=audit.request,
            attempt_id=audit.attempt_id,
            node_id=audit.node_id,
            model_digest=audit.model_digest,
            execution_sequence=audit.execution_sequence,
            execution_hash=audit.execution_hash,
            opened_at=self._now,
            stage="prepared",
            auditor_runtime=audit.auditor_runtime,
            prepared_from=audit.audit_id,
            unit=self._unit(audit_id, audit.request, audit.model_digest, audit.node_id, audit.auditor_id),
        )
        return [self._open(prepared)]

    # What is known of nodes -------------------------------------------------------------------------------------------

    def _judge(self, audit: Audit, ends: Ends, reason: str) -> None:
        """What a verdict says of those who took part. Whoever is overturned or overruled is told."""
        request = audit.request
        if not audit.prepared_from:
            self._count(audit.node_id, ends)
        if ends.executor == "bad":
            self._tell(audit.node_id, audit.attempt_id, request.request_id, f"audit_disagreed: {reason}")
        if ends.executor:
            self._weigh(audit.node_id, "executor", bad=ends.executor == "bad", rate_percent=audit.rate_percent)
        if ends.comparable == "good" or (ends.comparable and self._first_word(audit.node_id, request.account)):
            self._weigh(audit.node_id, "unusable", bad=ends.comparable == "bad")
        if ends.auditor == "bad":
            self._tell(audit.auditor_id, audit.auditor_attempt_id, audit.audit_id, f"audit_overruled: {reason}")
        if ends.auditor:
            self._weigh(audit.auditor_id, "auditor", bad=ends.auditor == "bad")

    def _count(self, node_id: int, ends: Ends) -> None:
        """The rate follows: lower after audits that were passed, and back to the full one after any that was not."""
        if ends.verdict == "unaudited":
            return
        trust = self.trust.of(node_id)
        trust.audited += 1
        trust.disagreed += ends.verdict == "disagree"
        trust.passes = trust.passes + 1 if ends.verdict == "agree" else 0
        self.trust.changed(node_id)

    def _sample_fully(self, node_id: int) -> None:
        trust = self.trust.known(node_id)
        if trust is not None and trust.passes:
            trust.passes = 0
            self.trust.changed(node_id)

    def _first_word(self, node_id: int, account: str) -> bool:
        """What can be compared of a result hangs on what was asked for. So one requester can say one thing in a day
        against one node; who makes itself unauditable does so to everybody."""
        words = self._unusable_words
        while words and (len(words) >= UNUSABLE_WORDS_MAX or next(iter(words.values())) <= self._now - DAY_MS):
            words.popitem(last=False)
        if (node_id, account) in words:
            return False
        words[node_id, account] = self._now
        return True

    def _weigh(self, node_id: int, role: Role, *, bad: bool, rate_percent: int = 0) -> None:
        convicted = self.trust.observe(node_id, role, against=bad, rate_percent=rate_percent)
        if bad:
            millinats = self.trust.of(node_id).millinats(role)
            self._log("node.marked", node_id=str(node_id), role=role, millinats=millinats)
        node = self.pool.find(node_id)
        if convicted and node is not None and not node.removed_until:
            self._log("node.convicted", node_id=str(node_id), role=role)
            self._remove(node)

    def _tell(self, node_id: int, attempt_id: str, unit_id: str, reason: str) -> None:
        self._effects.append(
            effects.TellRejection(
                node_id=node_id, attempt_id=attempt_id, request_id=unit_id, reason=reason, at=self._now
            )
        )

    def _remove(self, node: Node) -> None:
        """Off the pool for a day, from which it returns as a new node. It serves only what nobody else can, and audits
        nothing: penalties never empty the pool, but a verdict is worth no more than the word that it rests on."""
        if node.removed_until:
            return
        node.removed_until = self._now + self.settings.removal_ms
        self._rows.append(node.row())
        self._timers.set(node.removed_until, "return", node.node_id)
        self.pool.refresh(node)
        self._log("node.removed", node_id=str(node.node_id), until=node.removed_until, rejections=len(node.rejections))
