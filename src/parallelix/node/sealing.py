"""From an envelope to work, and from an output to a proven, sealed result. Pure but for the node's keys and a salt.

Both ends cost an RSA private operation of about a millisecond: the daemon runs them off its event loop.
"""

from __future__ import annotations

import json
import math
import secrets as randomness
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from parallelix.node.keys import NodeKeys
from parallelix.node.runtimes import base
from parallelix.node.runtimes.requests import beginnings
from parallelix.protocol import canonical, envelope, ids, messages, poe, signing, work
from parallelix.protocol.encoding import from_base64url, to_base64url, to_hex
from parallelix.protocol.errors import Malformed

SEALED_PAYLOAD_CHARACTERS_MAX = (messages.PAYLOAD_BYTES_MAX + envelope.NONCE_BYTES + envelope.TAG_BYTES) * 4 // 3 + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Decrypted work. Never printed."""

    payload: work.Payload = field(repr=False)
    """What to run, with the model by its name on this machine."""
    payload_bytes: bytes = field(repr=False)
    """What the requester asked, byte for byte, as it is hashed."""
    secrets: envelope.Secrets = field(repr=False)


def open_work(sealed: messages.Work, *, node_id: int, keys: NodeKeys) -> Opened:
    """Raises `ProtocolError` unless the envelope was made for this attempt, unit, node and payload, and nothing in it
    was altered."""
    if len(sealed.payload) > SEALED_PAYLOAD_CHARACTERS_MAX:
        raise Malformed(
            f"payload: {len(sealed.payload)} characters, at most {SEALED_PAYLOAD_CHARACTERS_MAX} "
            f"({messages.PAYLOAD_BYTES_MAX} bytes before sealing)"
        )
    ids.unit_bytes(sealed.unit_id)
    sealed_payload = from_base64url(sealed.payload, name="payload")
    header, secrets = envelope.open_envelope(sealed.envelope, private_key=keys.envelope)
    envelope.require_header(
        header, attempt_id=sealed.attempt_id, unit_id=sealed.unit_id, node_id=node_id, sealed_payload=sealed_payload
    )
    plaintext = envelope.open_payload(sealed_payload, unit_id=sealed.unit_id, content_key=secrets.content_key)
    # The requester knows the model by the catalogue's name, this machine by its own: what binds the two is the digest.
    payload = msgspec.structs.replace(canonical.decode(plaintext, work.Payload), model=sealed.model)
    return Opened(payload=payload, payload_bytes=plaintext, secrets=secrets)


def generation_of(payload: work.Payload) -> base.Generation:
    """What a runtime is asked for a chat or a completion, or has to continue for an audit. Raises `Malformed`."""
    if payload.probes is not None:
        _require_probes(payload, payload.probes)
    chat = payload.kind == "chat"
    return base.Generation(
        model=payload.model,
        prompt=None if chat else payload.prompt,
        messages=[_openai_message(message) for message in payload.messages] if chat else None,
        tools=_foreign_json(payload.tools, list, "tools"),
        response_format=_foreign_json(payload.response_format, dict, "response_format"),
        sampling=_sampling(payload.sampling),
    )


def _require_probes(payload: work.Payload, probes: work.Probes) -> None:
    if payload.kind == "embedding":
        raise Malformed("probes: an embedding has no positions")
    first, last, text_bytes = probes.positions[0], probes.positions[-1], len(probes.text.encode())
    if (first, last) != (0, text_bytes):
        raise Malformed(f"probes: from {first} to {last}, expected from 0 to the text's end at {text_bytes}")
    try:
        beginnings(probes.text, probes.positions)
    except base.RuntimeUnsupported as error:
        raise Malformed(f"probes: {error}") from None


def entry_of(token: base.TokenEntry) -> work.Entry:
    """As it travels. JSON has no infinities, so an alternative that the runtime calls impossible is left out."""
    logprob = token.logprob if token.logprob is not None and math.isfinite(token.logprob) else None
    return work.Entry(token.text, logprob, tuple(pair for pair in token.top if math.isfinite(pair[1])))


def tool_call_of(call: dict[str, Any]) -> work.ToolCall:
    """Raises `KeyError` or `TypeError` when the runtime broke its promise of the OpenAI shape."""
    function = call["function"]
    return work.ToolCall(id=str(call["id"]), name=str(function["name"]), arguments=str(function["arguments"]))


def pack_vectors(vectors: Sequence[Sequence[float]]) -> tuple[str, ...]:
    """Raises `struct.error` or `OverflowError` where a number does not fit 32 bits."""
    return tuple(work.pack_vector(vector) for vector in vectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """The body to send, byte for byte the same at every try, and the proof for the operator's log."""

    body: bytes
    poe: str


def seal_result(
    outcome: Literal["completed", "cancelled"],
    content: work.ResultContent,
    *,
    entries: bytes,
    usage: work.Usage,
    attempt: messages.Work,
    opened: Opened,
    chain_id: int,
    node_id: int,
    keys: NodeKeys,
) -> Sealed:
    """Call it once an attempt: the result key seals one message only."""
    result = canonical.encode(content)
    salt = randomness.token_bytes(poe.SALT_BYTES)
    proof = poe.proof_of_execution(attempt.unit_id, result, node_id)
    facts = poe.AttemptFacts(
        chain_id=chain_id,
        attempt_id=attempt.attempt_id,
        attempt_number=attempt.attempt_number,
        outcome=outcome,
        input_hash=to_hex(work.input_hash(opened.secrets.request_salt, opened.payload_bytes)),
        model_digest=attempt.model_digest,
        usage=usage,
        entries_root=to_hex(work.entries_root(entries)),
        salt_hash=to_hex(poe.salt_hash(salt)),
    )
    detail = messages.ResultDetail(
        content=to_base64url(result),
        entries=to_base64url(entries),
        salt=to_base64url(salt),
        usage=usage,
        model_digest=attempt.model_digest,
    )
    sealer = envelope.Sealer(opened.secrets.channel_secret, label="result", attempt_id=attempt.attempt_id)
    returned = messages.Result(
        attempt_id=attempt.attempt_id,
        outcome=outcome,
        result=to_base64url(sealer.seal(msgspec.json.encode(detail))),
        poe=to_hex(proof),
        signature=to_hex(keys.node.sign(signing.result_text(attempt.unit_id))),
        poe_signature=to_base64url(poe.sign(keys.poe, result, proof, facts)),
    )
    return Sealed(body=msgspec.json.encode(returned), poe=returned.poe)


def seal_acknowledgement(attempt_id: str, opened: Opened) -> messages.Acknowledge:
    sealer = envelope.Sealer(opened.secrets.channel_secret, label="acknowledgement", attempt_id=attempt_id)
    return messages.Acknowledge(attempt_id=attempt_id, sealed=to_base64url(sealer.seal(messages.ACKNOWLEDGEMENT)))


def _openai_message(message: work.Message) -> dict[str, Any]:
    shaped: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        shaped["name"] = message.name
    if message.tool_call_id:
        shaped["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        shaped["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return shaped


def _sampling(sampling: work.Sampling) -> base.Sampling:
    return base.Sampling(
        max_tokens=sampling.max_tokens,
        temperature=_fraction(sampling.temperature, "temperature"),
        top_p=_fraction(sampling.top_p, "top_p"),
        top_k=sampling.top_k,
        min_p=_fraction(sampling.min_p, "min_p"),
        seed=sampling.seed,
        stop=sampling.stop,
        presence_penalty=_fraction(sampling.presence_penalty, "presence_penalty"),
        frequency_penalty=_fraction(sampling.frequency_penalty, "frequency_penalty"),
        # More than was asked, so that an audit has something to compare; the coordinator shows what was asked.
        top_logprobs=max(work.ENTRY_TOP, sampling.top_logprobs),
    )


def _fraction(text: str | None, name: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise Malformed(f"sampling.{name}: not a decimal number") from None
    if not math.isfinite(value):
        raise Malformed(f"sampling.{name}: not a finite number")
    return value


def _foreign_json(text: str, kind: type, name: str) -> Any:
    if not text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed(f"{name}: not valid JSON") from None
    if not isinstance(value, kind):
        raise Malformed(f"{name}: expected a JSON {'array' if kind is list else 'object'}")
    return value
