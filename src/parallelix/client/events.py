"""What a requester sees of its request as it goes, and the answer that is left at the end."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from parallelix.client.errors import BadAnswer
from parallelix.protocol.requests import (
    AuditState,
    DeltaEvent,
    EndEvent,
    ProgressEvent,
    RequestView,
    RestartedEvent,
    ToolCallView,
)
from parallelix.protocol.work import Usage


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """The request exists and its credits are held. Sent once, first."""

    request_id: str
    view: RequestView


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is; `reason` says why it is held. May come again after a connection was made anew."""

    kind: Literal["held", "dispatched", "running"]
    attempt: int
    reason: str


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """New text, provisional until `Ended`. `offset_bytes` is the length of the attempt's text before it, in UTF-8."""

    attempt: int
    offset_bytes: int
    text: str


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """The node was lost or its answer rejected: discard all text so far, another node begins anew."""

    attempt: int


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The last event. `receipt` is a path below the base URL, there when the request was recorded."""

    request_id: str
    state: Literal["completed", "failed", "expired", "cancelled"]
    reason: str
    finish_reason: str | None
    tool_calls: tuple[ToolCallView, ...]
    usage: Usage | None
    charge_wei: str
    record_hash: str | None
    receipt: str | None
    audit: AuditState


Event: TypeAlias = Created | Progress | Delta | Restarted | Ended


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A completed request. `restarts` counts how often text was shown and then begun anew."""

    request_id: str
    text: str
    finish_reason: str
    tool_calls: tuple[ToolCallView, ...]
    usage: Usage
    charge_wei: str
    record_hash: str
    restarts: int


_DELTA = msgspec.json.Decoder(DeltaEvent)
_PROGRESS = msgspec.json.Decoder(ProgressEvent)
_RESTARTED = msgspec.json.Decoder(RestartedEvent)
_END = msgspec.json.Decoder(EndEvent)


def read(name: str, data: bytes) -> Event | None:
    """An event off the wire; None for a kind that a later coordinator may have added. Raises `BadAnswer`."""
    try:
        return _read(name, data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadAnswer(f"event {name[:40]!r}: cannot be read ({str(error)[:200]})") from error


def _read(name: str, data: bytes) -> Event | None:
    if name == "delta":
        delta = _DELTA.decode(data)
        return Delta(attempt=delta.attempt, offset_bytes=delta.offset, text=delta.text)
    if name in ("held", "dispatched", "running"):
        progress, kind = _PROGRESS.decode(data), name
        return Progress(kind=kind, attempt=progress.attempt, reason=progress.reason)
    if name == "attempt.restarted":
        return Restarted(attempt=_RESTARTED.decode(data).attempt)
    if name in ("completed", "failed", "expired", "cancelled"):
        end = _END.decode(data)
        fields: dict[str, Any] = {each: getattr(end, each) for each in end.__struct_fields__ if each != "id"}
        return Ended(request_id=end.id, **fields)
    return None
