"""What every runtime checks and prepares before it runs a generation."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias, cast

from parallelix.node.runtimes.base import Finished, Generation, RuntimeUnsupported, TokenEntry
from parallelix.node.runtimes.entries import Scored

Item: TypeAlias = TokenEntry | Finished

TOP_LOGPROBS_MAX = 20
# Runtimes hold a seed in 32 bits and keep -1 or 2^32 - 1 for "any".
_SEED_BITS = 31
_JSON_STARTS = frozenset('{["-0123456789tfn')


def require_sound(work: Generation) -> None:
    """Refuse what some runtime would take for something else: no prompt loads a model, no token bound is no bound."""
    if (work.prompt is None) == (work.messages is None):
        raise RuntimeUnsupported("a generation needs either a prompt or messages: give exactly one")
    if not (work.prompt or work.messages):
        raise RuntimeUnsupported("the prompt is empty: give at least one character or message")
    if work.tools and work.messages is None:
        raise RuntimeUnsupported("tools need messages, and this is a plain completion: send it as a chat")
    if work.sampling.max_tokens < 1:
        raise RuntimeUnsupported(f"max_tokens is {work.sampling.max_tokens}: ask for at least 1")
    for message in work.messages or ():
        _require_message(message)
    for tool in work.tools or ():
        _require_tool(tool)
    if not 0 <= work.sampling.top_logprobs <= TOP_LOGPROBS_MAX:
        raise RuntimeUnsupported(f"top_logprobs is {work.sampling.top_logprobs}: ask for 0 to {TOP_LOGPROBS_MAX}")


def beginnings(text: str, positions: Sequence[int]) -> list[str]:
    """The beginnings of `text` that end at these UTF-8 bytes. Raises RuntimeUnsupported where there is none."""
    encoded = text.encode()
    if any(later <= earlier for earlier, later in itertools.pairwise(positions)):
        raise RuntimeUnsupported("positions do not rise: give each once, in the order of the text")
    for position in positions:
        if not 0 <= position <= len(encoded):
            raise RuntimeUnsupported(f"position {position} lies outside the text of {len(encoded)} bytes")
    try:
        return [encoded[:position].decode() for position in positions]
    except UnicodeDecodeError as error:
        raise RuntimeUnsupported(f"position {len(error.object)} lies inside a character: probe between two") from error


def most_likely(scored: Scored) -> TokenEntry:
    """A prediction for `Probed`: what was picked to get at it does not matter."""
    text, logprob = scored.top[0] if scored.top else (scored.token, scored.logprob)
    return TokenEntry(text=text, logprob=logprob, top=scored.top)


def _require_message(message: object) -> None:
    """Refuse here what a runtime would refuse with a message that quotes it: requests belong in no log."""
    if not isinstance(message, Mapping):
        raise RuntimeUnsupported("a message is no object: send {'role': …, 'content': …}")
    fields = cast("Mapping[str, object]", message)
    if not isinstance(fields.get("role"), str):
        raise RuntimeUnsupported("a message has no role: send {'role': …, 'content': …}")
    text_of(fields.get("content"))
    for call in cast("Sequence[object]", fields.get("tool_calls") or ()):
        name, arguments = _function(call, "arguments")
        if not name or not isinstance(arguments, str) or not _is_json_object(arguments):
            raise RuntimeUnsupported(
                "an earlier tool call has no name, or arguments that are no JSON object in a string"
            )


def _require_tool(tool: object) -> None:
    name, parameters = _function(tool, "parameters")
    if not name or not isinstance(parameters, Mapping | None):
        raise RuntimeUnsupported(
            "a tool has no name: send {'type': 'function', 'function': {'name': …, 'parameters': {…}}}"
        )


def _function(holder: object, detail: str) -> tuple[str, object]:
    """The name of a tool or a call and one detail more; no name where there is none."""
    function = cast("Mapping[str, object]", holder).get("function") if isinstance(holder, Mapping) else None
    if not isinstance(function, Mapping):
        return "", None
    fields = cast("Mapping[str, object]", function)
    name = fields.get("name")
    return name if isinstance(name, str) else "", fields.get(detail)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def seed_of(seed: int) -> int:
    return seed % (1 << _SEED_BITS)


def text_of(content: object) -> str:
    """The text of a message's content: a string, null, or a list of text parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(_text_of_part(part) for part in cast("Sequence[object]", content))
    raise RuntimeUnsupported(f"a message's content is {type(content).__name__}: send text or a list of text parts")


def _text_of_part(part: object) -> str:
    if isinstance(part, Mapping):
        fields = cast("Mapping[str, object]", part)
        text = fields.get("text")
        if fields.get("type") == "text" and isinstance(text, str):
            return text
        raise RuntimeUnsupported("a message holds a part that is no text, an image perhaps: only text can be read here")
    raise RuntimeUnsupported("a part of a message is no object: send {'type': 'text', 'text': …}")


def schema_of(response_format: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The JSON schema that the answer must obey, or None for free text."""
    kind = None if response_format is None else response_format.get("type")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    schema: object = response_format.get("json_schema")
    if isinstance(schema, Mapping):
        schema = cast("Mapping[str, object]", schema).get("schema")
    if kind == "json_schema" and isinstance(schema, dict):
        return cast("dict[str, Any]", schema)
    raise RuntimeUnsupported(
        "this response_format cannot be kept: use json_object, or json_schema with {'schema': {…}}"
    )


async def held_to_json(items: AsyncGenerator[Item]) -> AsyncGenerator[Item]:
    """Pass a constrained answer on, and fail where the constraint was not kept.

    Both runtimes drop a schema that they cannot compile and let the model write as it likes.
    """
    text = ""
    async with aclosing(items):
        async for item in items:
            if isinstance(item, TokenEntry):
                _require_json_start(text, item.text)
                text += item.text
            elif item.finish == "stop":
                _require_json(text)
            yield item


def _require_json_start(before: str, text: str) -> None:
    if not before.strip() and text.strip() and text.lstrip()[0] not in _JSON_STARTS:
        raise _schema_not_kept()


def _require_json(text: str) -> None:
    try:
        json.loads(text)
    except ValueError as error:
        raise _schema_not_kept() from error


def _schema_not_kept() -> RuntimeUnsupported:
    return RuntimeUnsupported("the runtime did not hold the model to the JSON schema: use a simpler schema")
