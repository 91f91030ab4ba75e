"""What a node is asked to do, and what it answers: the two plaintexts that only the two ends of an envelope see.

Both are canonical bytes, because both are hashed: the payload by `input_hash`, the result by the proof of execution.
Fractions travel as decimal strings and foreign JSON (tools, schemas) as text, so that canonical form has no floats.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from parallelix.protocol import canonical
from parallelix.protocol.canonical import Count, Integer
from parallelix.protocol.encoding import from_base64url, to_base64url
from parallelix.protocol.errors import Malformed

WorkKind: TypeAlias = Literal["chat", "completion", "embedding"]
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "cancelled"]

TEMPERATURE_DEFAULT = 0.8
MIN_P_DEFAULT = 0.05
"""Of a request that says none, on every runtime."""

INPUT_DOMAIN = "parallelix/input/v1"
RESULT_DOMAIN = "parallelix/result/v1"
ENTRIES_DOMAIN = "parallelix/entries/v1"

ENTRIES_PER_TOKEN_MAX = 2
ENTRIES_SPARE = 64
"""Beyond two for each token asked for: a runtime may split what one token wrote, and show one that wrote nothing."""
ENTRY_TOP = 5
"""Alternatives that an executor returns with every token, asked for or not: an audit compares them."""
PROBE_TOP = 20
"""Alternatives that an auditor returns: the most that runtimes give."""
PROBES_MAX = 64
BRACKETS_PER_ENTRY_MAX = 128
"""An entry with twenty alternatives has 22 of its own, and some in its texts. Five bytes of JSON become a hundred of
memory, so a result that claims millions of entries is refused before it is read."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    arguments: str
    """JSON text, as the model wrote it."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str = ""
    name: str = ""
    tool_call_id: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to sample. Fractions are decimal strings; what is absent is the runtime's own default."""

    max_tokens: Count
    temperature: str | None = None
    top_p: str | None = None
    top_k: Integer | None = None
    min_p: str | None = None
    presence_penalty: str | None = None
    frequency_penalty: str | None = None
    seed: Integer | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: Count = 0


class Probes(msgspec.Struct, frozen=True, kw_only=True):
    """Where an auditor predicts one token each: after the first `positions[i]` UTF-8 bytes of `text`, which follows the
    prompt as the answer's beginning. Positions rise, the first is 0, the last is the length of `text`."""

    text: str
    positions: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=PROBES_MAX)]


class Payload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole of one inference request, as the node decrypts it. With `probes` it is an audit: nothing is generated,
    and the answer has one entry and one count of prompt tokens for each position."""

    version: Literal[1] = 1
    kind: WorkKind
    model: str
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    inputs: tuple[str, ...] = ()
    tools: str = ""
    """JSON text of the OpenAI `tools` array, or nothing."""
    response_format: str = ""
    """JSON text of the OpenAI `response_format` object, or nothing."""
    sampling: Sampling
    probes: Probes | None = None


class ResultContent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the requester gets. Its canonical bytes are the `result` of every hash and signature."""

    version: Literal[1] = 1
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    embeddings: tuple[str, ...] = ()
    """Each vector as little-endian 32-bit floats in base64url."""
    finish_reason: FinishReason
    probe_prompt_tokens: tuple[Count, ...] = ()
    """Of an audit: how many tokens the runtime counted before each position, prompt included."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: Count
    completion_tokens: Count


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One entry of the output as the runtime gave it: text, its log-probability, and the best alternatives with theirs.

    Usually one token; several where the bytes of one character were held back.
    """

    text: str
    logprob: float | None = None
    top: tuple[tuple[str, float], ...] = ()


def input_hash(request_salt: bytes, payload: bytes) -> bytes:
    return canonical.domain_hash(INPUT_DOMAIN, request_salt, payload)


def result_hash(request_salt: bytes, result: bytes) -> bytes:
    return canonical.domain_hash(RESULT_DOMAIN, request_salt, result)


def entries_root(entries: bytes) -> bytes:
    """Commits a node to its log-probabilities: a hash over the very bytes it sends."""
    return canonical.domain_hash(ENTRIES_DOMAIN, entries)


def encode_entries(entries: Sequence[Entry]) -> bytes:
    return msgspec.json.encode(entries)


def entries_max(tokens_max: int) -> int:
    """The most entries that an answer of so many tokens may have."""
    return ENTRIES_PER_TOKEN_MAX * tokens_max + ENTRIES_SPARE


_ENTRIES = msgspec.json.Decoder(tuple[Entry, ...])


def decode_entries(data: bytes, *, count_max: int | None = None) -> tuple[Entry, ...]:
    """Raises `Malformed`, also for more than `count_max` entries."""
    if count_max is not None and data.count(b"[") > BRACKETS_PER_ENTRY_MAX * (count_max + 1):
        raise Malformed(f"entries: {data.count(b'[')} lists, far more than those of {count_max} entries")
    try:
        entries = _ENTRIES.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"entries: {str(error)[:200]}") from error
    if count_max is not None and len(entries) > count_max:
        raise Malformed(f"entries: {len(entries)}, at most {count_max} for the tokens that were asked for")
    return entries


def pack_vector(values: Sequence[float]) -> str:
    return to_base64url(struct.pack(f"<{len(values)}f", *values))


def unpack_vector(packed: str) -> list[float]:
    """Raises `Malformed` unless it is a whole number of 32-bit floats."""
    data = from_base64url(packed, name="embedding")
    if len(data) % 4:
        raise Malformed(f"embedding: {len(data)} bytes are not a whole number of 32-bit floats")
    return list(struct.unpack(f"<{len(data) // 4}f", data))
