"""What the shell must do once the rows of a step are durable, and what it answers to whoever caused the step."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from parallelix.protocol.records import Batch


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
    batch: Batch


class StandingChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A node's poll must be answered now, because what it may do changed."""

    node_id: int


class LogEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the coordinator's log. Fields never hold a prompt, an answer or a key."""

    name: str
    fields: dict[str, Any]


Effect: TypeAlias = Offer | Withdraw | TellRejection | RequestProgress | AnchorBatch | StandingChanged | LogEvent


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
