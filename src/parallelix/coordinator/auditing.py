"""What the shell keeps of open audits: what was claimed, what is asked of auditors, and what they answered.

The engine decides which results are drawn, who audits them and what follows. Here is what it must not know: the text.
An audit's payload is sealed like a request's, under keys of its own. Beside it lies a copy of the claim in the store,
sealed too, so that an audit outlives a restart; it goes with the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import msgspec

from parallelix.coordinator.live import LivePayload
from parallelix.coordinator.store.rows import ClaimRow
from parallelix.engine.comparators import Comparator, comparator_for
from parallelix.engine.effects import OpenAudit
from parallelix.engine.validator import Verified
from parallelix.protocol import calibration, envelope, spot_check, work
from parallelix.protocol.calibration import DEFAULT_CARD, Card
from parallelix.protocol.canonical import encode
from parallelix.protocol.errors import Malformed
from parallelix.protocol.spot_check import Answer, Claim, Finding
from parallelix.protocol.work import Entry, Payload, Probes

RandomBytes: TypeAlias = Callable[[int], bytes]
ENTRY_BYTES = 200
"""Of a token or an alternative, as an object."""
CARDS = "cards"
"""Folder of calibration cards, below the data folder."""


class CardRefused(Exception):
    """A calibration card cannot be used; the message names the file and why."""


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """A verified result and what was asked for: all that an audit of it needs. It is what a `ClaimRow` seals."""

    payload: Payload
    claim: Claim


@dataclass(slots=True, kw_only=True)
class Audit:
    """One that is open. `probes` is None where the unit is run again whole."""

    audit_id: str
    request_id: str
    execution: Execution
    comparator: Comparator
    card: Card
    probes: Probes | None
    sealed: LivePayload
    """What its next attempt gets."""
    known: Answer | None = None
    """Of a prepared audit: what two nodes said at these places before."""
    first: Answer | None = None
    """The first auditor's."""
    first_rerun: Claim | None = None
    agreed: Answer | None = None
    """The last answer that agreed with the claim."""
    attempt_ids: list[str] = field(default_factory=list[str])

    @property
    def size_bytes(self) -> int:
        """Near what it takes in memory."""
        entries = self.execution.claim.entries
        alternatives = sum(len(entry.top) for entry in entries)
        text_bytes = len(self.execution.claim.content)
        return 4 * (text_bytes + len(self.sealed.sealed)) + ENTRY_BYTES * (len(entries) + alternatives)

    @property
    def payload(self) -> Payload:
        return audit_payload(self.execution.payload, self.probes)

    @property
    def tokens_max(self) -> int:
        return self.payload.sampling.max_tokens


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    finding: Finding
    third: Finding | None


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit kept of its answers at one time."""

    first: Answer | None
    first_rerun: Claim | None
    agreed: Answer | None

    def undo(self, audit: Audit) -> None:
        audit.first, audit.first_rerun, audit.agreed = self.first, self.first_rerun, self.agreed


class Auditing:
    """Belongs to one coordinator, which makes these calls within its steps."""

    def __init__(self, *, cards: Mapping[str, Card], storage_key: bytes, random_bytes: RandomBytes) -> None:
        self._cards = cards
        self._storage_key = storage_key
        self._random = random_bytes
        self._audits: dict[str, Audit] = {}
        self._sizes_bytes: dict[str, int] = {}
        self.held_bytes = 0
        """By all open audits together."""
        self._stored: dict[str, ClaimRow] = {}
        self._open_of: dict[str, str] = {}
        """By request, the audit of its execution."""
        self._fresh: dict[str, tuple[Execution, Probes | None]] = {}

    def __len__(self) -> int:
        return len(self._audits)

    def is_open(self, request_id: str) -> bool:
        """Whether the request's execution is being audited."""
        return request_id in self._open_of

    def find(self, audit_id: str) -> Audit | None:
        return self._audits.get(audit_id)

    def consider(self, attempt_id: str, payload: Payload, verdict: Verified) -> bool:
        """Keeps what an audit of this result would need, until `forget_fresh`. Whether it could be a spot check."""
        execution = Execution(payload=payload, claim=claim_of(payload, verdict))
        probes = comparator_for(execution.claim).probes(execution.claim, self._random)
        self._fresh[attempt_id] = execution, probes
        return probes is not None

    def forget_fresh(self, attempt_id: str) -> None:
        """The step that decided about this result is made."""
        self._fresh.pop(attempt_id, None)

    def take_up(self, rows: Iterable[ClaimRow]) -> None:
        """What an earlier process left open; the engine opens it again."""
        self._stored = {row.audit_id: row for row in rows}

    def open(self, effect: OpenAudit) -> ClaimRow | None:
        """Makes the audit's payload. The row to be written with the step, unless it is there already or need not be."""
        if effect.prepared_from:
            self._open_prepared(effect)
            return None
        self._open_of[effect.request_id] = effect.audit_id
        row = self._stored.pop(effect.audit_id, None)
        if row is not None:
            execution = self._unsealed(row)
            probes = None if effect.whole else comparator_for(execution.claim).probes(execution.claim, self._random)
            self._open(effect, execution, probes)
            return None
        execution, probes = self._fresh[effect.attempt_id]
        self._open(effect, execution, probes)
        return self._sealed_row(effect.audit_id, execution)

    def _open(self, effect: OpenAudit, execution: Execution, probes: Probes | None) -> Audit:
        audit = self._audits[effect.audit_id] = Audit(
            audit_id=effect.audit_id,
            request_id=effect.request_id,
            execution=execution,
            comparator=comparator_for(execution.claim),
            card=self._cards.get(execution.claim.model_digest, DEFAULT_CARD),
            probes=probes,
            sealed=self._seal(effect.audit_id, audit_payload(execution.payload, probes)),
        )
        self._sizes_bytes[effect.audit_id] = audit.size_bytes
        self.held_bytes += audit.size_bytes
        return audit

    def _open_prepared(self, effect: OpenAudit) -> None:
        """The same text and positions once more, beside a claim that whoever really predicts must contradict."""
        source = self._audits[effect.prepared_from]
        made_up = msgspec.structs.replace(source.execution, claim=certain(source.execution.claim))
        audit = self._open(effect, made_up, source.probes)
        audit.known = source.agreed

    def run_again(self, audit_id: str) -> None:
        """From now on the unit whole, under new keys."""
        audit = self._audits[audit_id]
        audit.probes, audit.first = None, None
        audit.sealed = self._seal(audit_id, audit.payload)

    def judge(self, audit: Audit, verdict: Verified) -> Judged:
        """A verified answer beside the claim, and beside what else is known."""
        claim, card = audit.execution.claim, audit.card
        if audit.probes is None:
            rerun = claim_of(audit.execution.payload, verdict)
            finding, before = audit.comparator.judge_rerun(claim, rerun, card), audit.first_rerun
            return Judged(
                finding=finding, third=None if before is None else audit.comparator.judge_rerun(before, rerun, card)
            )
        answer, before = answer_of(verdict), audit.known or audit.first
        return Judged(
            finding=audit.comparator.judge(claim, audit.probes, answer, card),
            third=None if before is None else spot_check.compare_answers(before, answer, audit.probes, card),
        )

    def note(self, audit: Audit, verdict: Verified, finding: Finding) -> Noted:
        """Keeps an answer for what may come after it: a third node's, or a prepared audit. Gives what was kept
        before."""
        before = Noted(first=audit.first, first_rerun=audit.first_rerun, agreed=audit.agreed)
        if audit.probes is None:
            audit.first_rerun = audit.first_rerun or claim_of(audit.execution.payload, verdict)
            return before
        answer = answer_of(verdict)
        if finding.outcome != "unusable":
            audit.first = audit.first or answer
        if finding.outcome == "agree":
            audit.agreed = answer
        return before

    def forget(self, audit_id: str) -> Audit | None:
        """The verdict is in."""
        audit = self._audits.pop(audit_id, None)
        self.held_bytes -= self._sizes_bytes.pop(audit_id, 0)
        if audit is not None and self._open_of.get(audit.request_id) == audit_id:
            del self._open_of[audit.request_id]
        return audit

    # At rest ----------------------------------------------------------------------------------------------------------

    def _seal(self, audit_id: str, payload: Payload) -> LivePayload:
        return LivePayload.seal(audit_id, encode(payload), self._random)

    def _sealed_row(self, audit_id: str, execution: Execution) -> ClaimRow:
        key = self._random(envelope.KEY_BYTES)
        sealed = envelope.seal_at_rest(
            key,
            msgspec.msgpack.encode(execution),
            purpose=_purpose(audit_id),
            nonce=self._random(envelope.NONCE_BYTES),
        )
        return ClaimRow(audit_id=audit_id, sealed=sealed, wrapped_key=envelope.wrap_at_rest(self._storage_key, key))

    def _unsealed(self, row: ClaimRow) -> Execution:
        key = envelope.unwrap_at_rest(self._storage_key, row.wrapped_key)
        opened = envelope.open_at_rest(key, row.sealed, purpose=_purpose(row.audit_id))
        return msgspec.msgpack.decode(opened, type=Execution)


def claim_of(payload: Payload, verdict: Verified) -> Claim:
    """What the executor of `payload` said of its result."""
    sampling, facts, content = payload.sampling, verdict.facts, verdict.content
    temperature = work.TEMPERATURE_DEFAULT if sampling.temperature is None else float(sampling.temperature)
    return Claim(
        kind=payload.kind,
        model_digest=facts.model_digest,
        prompt_tokens=facts.usage.prompt_tokens,
        completion_tokens=facts.usage.completion_tokens,
        text=content.text,
        finish_reason=content.finish_reason,
        entries=verdict.entries,
        embeddings=content.embeddings,
        content=verdict.content_bytes,
        temperature=temperature,
        min_p=work.MIN_P_DEFAULT if sampling.min_p is None else float(sampling.min_p),
        tokens_max=sampling.max_tokens,
        stops=bool(sampling.stop),
        seeded=sampling.seed is not None,
        constrained=_is_constrained(payload),
    )


def _is_constrained(payload: Payload) -> bool:
    """Whether something other than the model's own distribution has a say in what is picked."""
    penalties = (payload.sampling.presence_penalty, payload.sampling.frequency_penalty)
    return bool(payload.tools or payload.response_format or any(each and float(each) for each in penalties))


def answer_of(verdict: Verified) -> Answer:
    return Answer(prompt_tokens=verdict.content.probe_prompt_tokens, entries=verdict.entries)


def audit_payload(payload: Payload, probes: Probes | None) -> Payload:
    """What an auditor is asked for: a token at each position, or the whole unit as its executor was."""
    if probes is None:
        return payload
    sampling = msgspec.structs.replace(payload.sampling, max_tokens=1, top_logprobs=work.PROBE_TOP)
    return msgspec.structs.replace(payload, sampling=sampling, probes=probes)


def certain(claim: Claim) -> Claim:
    """The same text as if its model had been sure of every token. No model is, so that an auditor who says so has read
    ahead, or copies."""
    entries = tuple(Entry(entry.text, 0.0, ((entry.text, 0.0),)) for entry in claim.entries)
    return msgspec.structs.replace(claim, entries=entries)


def load_cards(folder: Path) -> dict[str, Card]:
    """Calibration cards by the model's digest, from the `*.json` below `folder`/cards. Raises `CardRefused`."""
    cards: dict[str, Card] = {}
    for path in sorted((folder / CARDS).glob("*.json")):
        try:
            card = calibration.decode_card(path.read_bytes())
        except (Malformed, OSError) as error:
            raise CardRefused(
                f"{path}: {error}; make it anew with `parallelix-node models calibrate`, or take it away"
            ) from error
        if card.model_digest in cards:
            raise CardRefused(f"{path}: a second card for model {card.model_digest[:16]}…; keep one of them")
        if card.model_digest:
            cards[card.model_digest] = card
    return cards


def _purpose(audit_id: str) -> str:
    return f"claim:{audit_id}"
