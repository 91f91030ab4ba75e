"""What the shell must do once the rows of a step are durable, and what it answers to whoever caused the step."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from parallelix.protocol.records import Batch, Verdict


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """Seal the unit to the node and put it into its inbox. The envelope is part of the same commit."""

    attempt_id: str
    attempt_number: int
    request_id: str
    node_id: int
    session: str
    model: str
    model_digest: str
    workload_class: str
    deadline_ms: int
    is_audit: bool = False
    """The unit is an audit: `request_id` is its id, and its payload is what `OpenAudit` made."""


class OpenAudit(msgspec.Struct, frozen=True, kw_only=True):
    """A verified result was drawn: keep its claim, and make the audit's payload. It comes before the audit's first
    `Offer`, in the step that records the execution."""

    audit_id: str
    request_id: str
    attempt_id: str
    prepared_from: str = ""
    """Of a prepared audit, whose right answer is known: the audit id that it repeats."""
    whole: bool = False
    """The payload is the unit whole."""


class PoseChallenge(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the node for an ordinary-looking inference on the coordinator's own account: an `Admit` with `only_node`."""

    node_id: int
    model: str
    tokens: int
    """How many the answer should have for its speed to be measured."""


class RunAgain(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing in the audit could be compared: its payload becomes the whole unit."""

    audit_id: str


class AuditEnded(msgspec.Struct, frozen=True, kw_only=True):
    """Forget the claim; tell the requester. `refunded_wei` is above 0 where a charge was given back."""

    audit_id: str
    request_id: str
    verdict: Verdict
    reason: str
    refunded_wei: int = 0


class Withdraw(msgspec.Struct, frozen=True, kw_only=True):
    """Tell the node to stop; `partial` asks for what it has."""

    attempt_id: str
    node_id: int
    reason: str
    partial: bool


class TellRejection(msgspec.Struct, frozen=True, kw_only=True):
    node_id: int
    attempt_id: str
    request_id: str
    reason: str
    at: int


class RequestProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the requester's event stream shows. It never names a node."""

    request_id: str
    kind: Literal["held", "dispatched", "running", "restarted", "finished"]
    attempt_id: str = ""
    attempt_number: int = 0
    state: str = ""
    reason: str = ""


class AnchorBatch(msgspec.Struct, frozen=True, kw_only=True):
    """`epoch` is the newest that a record of the batch, or of one before it, was drawn in."""

    batch: Batch
    epoch: int = 0


class StandingChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A node's poll must be answered now, because what it may do changed."""

    node_id: int


class LogEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the coordinator's log. Fields never hold a prompt, an answer or a key."""

    name: str
    fields: dict[str, Any]


Effect: TypeAlias = (
    Offer
    | OpenAudit
    | RunAgain
    | AuditEnded
    | PoseChallenge
    | Withdraw
    | TellRejection
    | RequestProgress
    | AnchorBatch
    | StandingChanged
    | LogEvent
)


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """`code` is stable and documented; `message` names the thing, the value, the bound and the way out."""

    code: str
    message: str
    retry_after_seconds: float = 0.0


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """`created` is false for a repeat of the same Idempotency-Key."""

    request_id: str
    hold_wei: int
    created: bool


class Started(msgspec.Struct, frozen=True, kw_only=True):
    deadline_at: int


class ResultTaken(msgspec.Struct, frozen=True, kw_only=True):
    """`accepted` false: the result was refused for `reason`, and the node is told so."""

    accepted: bool
    reason: str = ""


class SlotCredited(msgspec.Struct, frozen=True, kw_only=True):
    slot: int
    credited: bool


class ClearanceGranted(msgspec.Struct, frozen=True, kw_only=True):
    """What the settler may sign: wei, and `expiry` in Unix seconds."""

    account: str
    amount_wei: int
    cumulative_wei: int
    nonce: int
    expiry: int


class SlotsRestored(msgspec.Struct, frozen=True, kw_only=True):
    credited: int


class SpanRefused(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing of the span was taken in, because `part` of it does not follow from what came before: an event is
    missing, doubled or made up."""

    part: Literal["registry", "vault", "anchor", "chain"]
    reason: str


Answer: TypeAlias = (
    Refused | Admitted | Started | ResultTaken | SlotCredited | ClearanceGranted | SlotsRestored | SpanRefused | None
)
