"""The bodies of the requester's own calls (the OpenAI shapes follow OpenAI's documents instead).

Amounts are decimal strings in wei, times Unix milliseconds. Nothing here can name the node that did the work.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from parallelix.protocol.messages import LongText, ShortText
from parallelix.protocol.records import Verdict
from parallelix.protocol.work import Usage

MESSAGES_MAX = 4096
"""A conversation of two thousand turns; longer ones exceed every context anyway."""
STOPS_MAX = 16
TOP_LOGPROBS_MAX = 20
INPUTS_MAX = 256
REQUEST_BODY_BYTES_MAX = 4 * 1024 * 1024

AuditState: TypeAlias = Literal["off", "not_drawn", "pending", "agree", "disagree", "inconclusive", "unaudited"]
"""Whether a second node looked at the execution, and what came of it. off: nothing was recorded, or while audits were
off. not_drawn: the draw spared it. pending: drawn, and no verdict yet. The others are verdicts."""

Seconds: TypeAlias = Annotated[float, Meta(ge=1, le=3600)]
QueueSeconds: TypeAlias = Annotated[float, Meta(ge=0, le=3600)]


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    arguments: str


class ToolCallMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class TextPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[TextPart, ...] | None = None
    name: ShortText = ""
    tool_call_id: ShortText = ""
    tool_calls: tuple[ToolCallMessage, ...] = ()


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/requests`. Exactly one of `messages` (chat), `prompt` (completion) and `input` (embedding)."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    workload_class: ShortText = "ai.inference"
    messages: Annotated[tuple[ChatMessage, ...], Meta(max_length=MESSAGES_MAX)] | None = None
    prompt: str | None = None
    input: str | Annotated[tuple[str, ...], Meta(min_length=1, max_length=INPUTS_MAX)] | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**20)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=1, le=1000)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: Annotated[int, Meta(ge=-(2**31), le=2**32 - 1)] | None = None
    stop: str | Annotated[tuple[str, ...], Meta(max_length=STOPS_MAX)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=TOP_LOGPROBS_MAX)] = 0
    hardware_tier: Annotated[int, Meta(ge=1, le=4)] = 1
    priority: Literal["standard", "expedited", "urgent"] = "standard"
    deadline_seconds: Seconds | None = None
    queue_seconds: QueueSeconds | None = None
    credit_account: ShortText = ""
    requester_public_key: LongText = ""
    """RSA-3072 public key in PEM. With it the result comes sealed to that key, and no text is streamed."""
    verification: Literal["", "sampled"] = ""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request waits. `position` counts from 0; `estimate_seconds` is absent where nothing is known yet."""

    reason: Literal["no_capable_node", "no_free_slot", "no_node_fast_enough"]
    position: int
    estimate_seconds: float | None = None


class LogprobEntry(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    logprob: float | None
    top: tuple[tuple[str, float], ...] = ()


class ToolCallView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    arguments: str


class ResultView(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    tool_calls: tuple[ToolCallView, ...] = ()
    embeddings: tuple[list[float], ...] = ()
    finish_reason: str
    logprobs: tuple[LogprobEntry, ...] = ()


class RequestView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["request"] = "request"
    state: Literal["queued", "dispatched", "running", "validating", "completed", "failed", "expired", "cancelled"]
    reason: str
    held: Held | None = None
    workload_class: str
    kind: str
    model: str
    hardware_tier: int
    priority: str
    deadline_seconds: float
    queue_seconds: float
    created_at: int
    finished_at: int | None
    attempts: int
    usage: Usage | None
    hold_wei: str
    charge_wei: str
    settled: bool
    """Whether the charge has posted, which waits for the record's batch."""
    record_hash: str | None
    audit: AuditState = "off"
    audit_reason: str = ""
    """A stable code beside a verdict."""
    refunded_wei: str = "0"
    """What was given back because the result was overturned; `charge_wei` is what is left."""
    result: ResultView | None = None
    sealed_result: str | None = None


class RequestList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[RequestView, ...]
    next_cursor: str | None = None


class ProgressEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`held`, `dispatched`, `running`: how far an attempt is. `reason` says why a request is held."""

    attempt: int
    reason: str


class DeltaEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Provisional text. `offset` counts the bytes of this attempt's text before it."""

    attempt: int
    offset: int
    text: str


class RestartedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`attempt.restarted`: discard all text so far."""

    attempt: int


class EndEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`completed`, `failed`, `expired` or `cancelled`: the last event, but for `audit` where that is pending. `receipt`
    is a path, there once recorded."""

    id: str
    state: Literal["completed", "failed", "expired", "cancelled"]
    reason: str
    finish_reason: str | None
    tool_calls: tuple[ToolCallView, ...]
    usage: Usage | None
    charge_wei: str
    record_hash: str | None
    receipt: str | None
    audit: AuditState = "off"


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`audit`: what came of the audit of this request's execution, minutes after its end. `charge_wei` is what is left
    to pay, `refunded_wei` what was given back because the result was overturned."""

    id: str
    verdict: Verdict
    reason: str
    refunded_wei: str
    charge_wei: str


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """What a request would hold now, at most cost, and where it would stand; nothing is kept."""

    model: str
    hold_wei: str
    prompt_wei_per_1000: str
    completion_wei_per_1000: str
    prompt_tokens_max: int
    completion_tokens_max: int
    available_wei: str
    affordable: bool
    capable_nodes: int
    free_slots: int
    waiting: int
    estimate_seconds: float | None


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    requests_per_minute: int
    concurrency: int
    budget_wei: str
    spent_wei: str
    created_at: int
    expires_at: int | None
    revoked: bool
    scopes: tuple[str, ...] = ("inference", "read")
    kind: Literal["key", "session"] = "key"
    """A session is what a wallet's sign-in opens, for an hour."""


class VaultView(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has in the vault on the chain, and what of it is bound.

    `deposit_wei` is the contract's word as of the confirmed `block`. Of it, `unsettled_wei` was charged and is not
    settled there yet, `asked_wei` is frozen because a withdrawal was requested, and `cleared_wei` because it may be
    withdrawn at once; as much as `clearable_wei` may be cleared. New requests may hold `spendable_wei` in all, and no
    more than `daily_room_wei`, which is left of `daily_limit_wei`.
    """

    address: str
    chain_id: int
    block: int
    deposit_wei: str
    unsettled_wei: str
    asked_wei: str
    cleared_wei: str
    clearable_wei: str
    spendable_wei: str
    daily_limit_wei: str
    daily_room_wei: str


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """`vault` is there where the account lives from a deposit on a chain."""

    account: str
    available_wei: str
    held_wei: str
    open_requests: int
    key: KeyView
    vault: VaultView | None = None


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[KeyView, ...]


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's fields, and what a requester needs to choose. `digests` name the weights that count as this model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "parallelix"
    context_tokens: int
    max_tokens_default: int
    max_tokens_max: int
    prompt_wei_per_1000: str
    completion_wei_per_1000: str
    digests: tuple[str, ...]
    capable_nodes: int
    free_slots: int


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[ModelView, ...]


class NetworkView(msgspec.Struct, frozen=True, kw_only=True):
    """Totals only: no link between nodes and requests. `coordinator` is the address that signs receipts, `anchor` where
    batches are kept: a contract's address, or "local". `contracts` are addresses by name, and `block` the last one of
    the chain that was taken in; both empty where the network is on no chain."""

    chain_id: int
    coordinator: str
    anchor: str
    contracts: dict[str, str] = {}
    block: int | None = None
    nodes_online: int
    slots: int
    slots_free: int
    requests_open: int
    requests_waiting: int
    records: int
    head_hash: str
    batches: int
    batches_confirmed: int
