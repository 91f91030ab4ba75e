"""What a requester asks, in the one form that admission understands, whichever shape it arrived in.

The builders raise `BadRequest` naming the field. What the runtimes cannot do is refused here, never ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast

import msgspec

from parallelix.coordinator.errors import BadRequest, UnsupportedParameter
from parallelix.engine.catalogue import Priority
from parallelix.protocol import canonical, envelope, payloads, requests, work
from parallelix.protocol.errors import ProtocolError

Feature: TypeAlias = Literal["chat", "tools", "grammar", "logprobs", "embeddings"]

TOOLS_MAX = 128
"""OpenAI's own bound."""
SCHEMA_DEPTH_MAX = 32
"""Deeper than any schema people write; a runtime compiles it recursively."""


class RequestSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`payload.sampling.max_tokens` is 0 where the requester left it to the catalogue's default."""

    workload_class: str = "ai.inference"
    payload: work.Payload
    hardware_tier: int = 1
    priority: Priority = "standard"
    deadline_seconds: float | None = None
    queue_seconds: float | None = None
    max_tokens: int | None = None
    features: tuple[Feature, ...] = ()
    """What a node's model must be able to do."""
    requester_public_key: str = ""
    message_count: int = 0
    """How often the chat template adds its own tokens."""
    credit_account: str = ""
    """The account to pay from; empty is the key's own."""
    verification: Literal["", "sampled"] = ""


def from_create(body: requests.CreateRequest) -> RequestSpec:
    """The spec of a native request. Raises `BadRequest`."""
    given = [name for name in ("messages", "prompt", "input") if getattr(body, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise BadRequest(
            f"give exactly one of messages (chat), prompt (completion) and input (embedding); this body has {found}",
            code="invalid_request",
        )
    grammar(body.response_format)
    tools_text(body.tools)
    if body.messages is not None:
        _require_messages(body.messages)
    elif body.prompt is not None:
        _require_text(body.prompt, "prompt")
    elif body.input is not None:
        embedding_inputs(body.input)
    payload = payloads.payload_of(body)
    kind = payload.kind
    if kind != "chat":
        with_format = kind == "embedding" and bool(payload.response_format)
        refuse_given(kind, tools=bool(payload.tools), response_format=with_format)
    if kind == "embedding":
        refuse_given(kind, **{name: getattr(body, name) is not None for name in SAMPLING_FIELDS})
        refuse_given(kind, top_logprobs=body.top_logprobs > 0)
    _require_stops(body.stop)
    return RequestSpec(
        workload_class=body.workload_class,
        payload=payload,
        hardware_tier=body.hardware_tier,
        priority=body.priority,
        deadline_seconds=body.deadline_seconds,
        queue_seconds=body.queue_seconds,
        max_tokens=body.max_tokens,
        features=features_of(payload, logprobs=body.top_logprobs > 0),
        requester_public_key=require_public_key(body.requester_public_key),
        message_count=len(payload.messages),
        credit_account=body.credit_account,
        verification=body.verification,
    )


SAMPLING_FIELDS = (
    "max_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed", "stop",
)  # fmt: skip


def refuse_given(kind: work.WorkKind, **given: bool) -> None:
    """Raises `UnsupportedParameter` for the first field that is given though this kind of work has no use for it."""
    for name, is_given in given.items():
        if is_given:
            raise UnsupportedParameter(f"{name}: means nothing for a request of kind {kind}; leave it out", param=name)


def features_of(payload: work.Payload, *, logprobs: bool) -> tuple[Feature, ...]:
    wanted: tuple[tuple[Feature, bool], ...] = (
        ("chat", payload.kind == "chat"),
        ("tools", bool(payload.tools)),
        ("grammar", bool(payload.response_format)),
        ("logprobs", logprobs),
        ("embeddings", payload.kind == "embedding"),
    )
    return tuple(name for name, is_wanted in wanted if is_wanted)


def sampling(options: payloads.SamplingOptions, *, max_tokens: int | None, top_logprobs: int) -> work.Sampling:
    """Raises `BadRequest` for an empty stop."""
    _require_stops(options.stop)
    return payloads.sampling(options, max_tokens=max_tokens, top_logprobs=top_logprobs)


def embedding_inputs(given: str | tuple[str, ...]) -> tuple[str, ...]:
    inputs = payloads.inputs(given)
    for index, text in enumerate(inputs):
        _require_text(text, "input" if isinstance(given, str) else f"input[{index}]")
    return inputs


def _require_text(text: str, name: str) -> None:
    if not text:
        raise BadRequest(f"{name}: is empty; give text", code="invalid_request", param=name)


def _require_stops(value: str | Sequence[str] | None) -> None:
    if value is not None and (value == "" or "" in ((value,) if isinstance(value, str) else value)):
        raise BadRequest("stop: an empty string would stop before the first token; leave it out", param="stop")


def chat_messages(messages: Sequence[requests.ChatMessage]) -> tuple[work.Message, ...]:
    """Raises `BadRequest` naming the message at fault."""
    _require_messages(messages)
    return tuple(map(payloads.message, messages))


def _require_messages(messages: Sequence[requests.ChatMessage]) -> None:
    if not messages:
        raise BadRequest("messages: is empty; give at least one message", code="invalid_request", param="messages")
    for index, message in enumerate(messages):
        _require_message(message, f"messages[{index}]")


def _require_message(message: requests.ChatMessage, place: str) -> None:
    if message.tool_calls and message.role != "assistant":
        raise BadRequest(f"{place}.tool_calls: only an assistant's message has them", code="invalid_request")
    if message.role == "tool" and not message.tool_call_id:
        raise BadRequest(f"{place}.tool_call_id: is missing; a tool's message names its call", code="invalid_request")
    if message.tool_call_id and message.role != "tool":
        raise BadRequest(f"{place}.tool_call_id: only a tool's message has one", code="invalid_request")
    if message.content is None and not message.tool_calls:
        raise BadRequest(f"{place}.content: is missing; give text", code="invalid_request", param=f"{place}.content")


class ToolFunction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `tools`."""

    type: Literal["function"]
    function: ToolFunction


class NamedSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = ""
    description: str = ""
    schema: dict[str, Any]
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`json_schema` is given exactly when `type` is json_schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


def tools_text(tools: Sequence[dict[str, Any]] | None) -> str:
    """The OpenAI `tools` array as JSON text, or nothing. Raises `BadRequest`."""
    if not tools:
        return ""
    if len(tools) > TOOLS_MAX:
        raise BadRequest(f"tools: {len(tools)} tools are more than the {TOOLS_MAX} allowed", param="tools")
    require_plain(tools, "tools")
    found = _converted(tools, list[Tool], "tools")
    for tool in found:
        if tool.function.strict:
            raise UnsupportedParameter(
                f"tools: strict is not supported (tool {tool.function.name[:64]!r}): no runtime of the network can "
                "promise that arguments follow the schema; leave it out",
                param="tools",
            )
    return payloads.tools_text(tools)


def grammar(response_format: dict[str, Any] | None) -> str:
    """The OpenAI `response_format` as JSON text; nothing for plain text. Raises `BadRequest`."""
    if response_format is None:
        return ""
    require_plain(response_format, "response_format")
    found = _converted(response_format, ResponseFormat, "response_format")
    if (found.type == "json_schema") != (found.json_schema is not None):
        raise BadRequest(
            "response_format: json_schema is given exactly when type is json_schema",
            code="invalid_request",
            param="response_format",
        )
    return payloads.format_text(response_format)


def require_plain(value: Any, name: str, *, depth: int = 0) -> None:
    """Raises `BadRequest` for JSON that another reader could take otherwise or choke on: nested deeper than
    `SCHEMA_DEPTH_MAX`, or with integers that a double cannot hold."""
    if depth > SCHEMA_DEPTH_MAX:
        raise BadRequest(f"{name}: is nested deeper than {SCHEMA_DEPTH_MAX} levels", param=name)
    if isinstance(value, dict):
        for each in cast("dict[str, Any]", value).values():
            require_plain(each, name, depth=depth + 1)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            require_plain(each, name, depth=depth + 1)
    elif isinstance(value, int) and abs(value) > canonical.INTEGER_MAX:
        raise BadRequest(f"{name}: holds an integer beyond 2^53, which not every reader can hold", param=name)


def _converted(value: Any, kind: Any, name: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{name}: {str(error)[:200]}", param=name) from error


def require_public_key(pem: str) -> str:
    """The same PEM. Raises `BadRequest` unless it is empty or an RSA key that a result can be sealed to."""
    if not pem:
        return ""
    try:
        envelope.load_rsa_public_key(pem)
    except ProtocolError as error:
        raise BadRequest(f"requester_public_key: {error.message}", param="requester_public_key") from error
    return pem
