"""From what a requester asks to the payload that is sealed and hashed.

Both ends need it: the coordinator seals these bytes, and a requester rebuilds them to see that a receipt is about the
very prompt it sent. Nothing is checked here; admission does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from parallelix.protocol import work
from parallelix.protocol.requests import ChatMessage, CreateRequest

FRACTION_DIGITS = 9
"""More than a 32-bit float, which is what samplers compute with, can tell apart."""


class SamplingOptions(Protocol):
    """What the native and the OpenAI shapes name alike."""

    @property
    def temperature(self) -> float | None: ...
    @property
    def top_p(self) -> float | None: ...
    @property
    def top_k(self) -> int | None: ...
    @property
    def min_p(self) -> float | None: ...
    @property
    def presence_penalty(self) -> float | None: ...
    @property
    def frequency_penalty(self) -> float | None: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def stop(self) -> str | tuple[str, ...] | None: ...


def payload_of(body: CreateRequest, *, max_tokens: int | None = None) -> work.Payload:
    """The payload of a native request. `max_tokens` is what the catalogue gave where the body left it out; an
    embedding has none."""
    return work.Payload(
        kind=kind_of(body),
        model=body.model,
        messages=tuple(map(message, body.messages or ())),
        prompt=body.prompt or "",
        inputs=inputs(body.input),
        tools=tools_text(body.tools),
        response_format=format_text(body.response_format),
        sampling=sampling(body, max_tokens=body.max_tokens or max_tokens, top_logprobs=body.top_logprobs),
    )


def kind_of(body: CreateRequest) -> work.WorkKind:
    if body.messages is not None:
        return "chat"
    return "completion" if body.prompt is not None else "embedding"


def message(given: ChatMessage) -> work.Message:
    content = given.content
    if isinstance(content, tuple):
        content = "".join(part.text for part in content)
    return work.Message(
        role=given.role,
        content=content or "",
        name=given.name,
        tool_call_id=given.tool_call_id,
        tool_calls=tuple(
            work.ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in given.tool_calls
        ),
    )


def inputs(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def tools_text(tools: Sequence[dict[str, Any]] | None) -> str:
    return msgspec.json.encode(tools).decode() if tools else ""


def format_text(response_format: dict[str, Any] | None) -> str:
    """The OpenAI `response_format` as JSON text; nothing for plain text, which every model gives anyway."""
    if response_format is None or response_format.get("type") == "text":
        return ""
    return msgspec.json.encode(response_format).decode()


def sampling(options: SamplingOptions, *, max_tokens: int | None, top_logprobs: int) -> work.Sampling:
    return work.Sampling(
        max_tokens=max_tokens or 0,
        temperature=fraction(options.temperature),
        top_p=fraction(options.top_p),
        top_k=options.top_k,
        min_p=fraction(options.min_p),
        presence_penalty=fraction(options.presence_penalty),
        frequency_penalty=fraction(options.frequency_penalty),
        seed=options.seed,
        stop=(options.stop,) if isinstance(options.stop, str) else tuple(options.stop or ()),
        top_logprobs=top_logprobs,
    )


def fraction(value: float | None) -> str | None:
    """A number as the decimal string that canonical form asks for, or None."""
    if value is None:
        return None
    text = f"{value:.{FRACTION_DIGITS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
