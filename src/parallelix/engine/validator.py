"""Step 10, verify: a returned result is taken only when every one of these holds. Pure, and never in doubt: a result
that fails is rejected outright and its unit goes elsewhere.

    1 the result is the canonical encoding of a `ResultContent`
    2 the node's personal signature is over `parallelix-node:result:<unit id>`
    3 the proof is SHA-256(unit id ‖ result ‖ node id), rebuilt here
    4 the RSA signature covers result, proof and the attempt's facts as the coordinator knows them
    5 the entries are readable, no more than the tokens asked for may have, their texts give the result's text but for
      lost characters, each probability is one
    6 the text that was streamed to the requester is the beginning of the result's text
    7 the token counts are possible

An audit answer has no text: for each position asked it has one entry and one count of prompt tokens. Counts may fall:
what began as three tokens may be one word when it is whole.
"""

from __future__ import annotations

import math

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from parallelix.engine.events import ExecutionFacts
from parallelix.protocol import canonical, poe, signing, work
from parallelix.protocol.encoding import from_base64url, from_hex, to_hex
from parallelix.protocol.errors import Malformed, ProtocolError
from parallelix.protocol.messages import Result, ResultDetail
from parallelix.protocol.work import Entry, ResultContent

LOGPROB_SLACK = 1e-3
"""Runtimes round; a log-probability above this is impossible, not imprecise."""
GAP = "\ufffd"
"""What a runtime shows for bytes of a character that it held back: their text is in the answer, not in an entry."""


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the coordinator knows of the attempt whose result this claims to be."""

    chain_id: int
    unit_id: str
    attempt_id: str
    attempt_number: int
    node_id: int
    node_public_key: bytes
    model_digest: str
    input_hash: bytes
    request_salt: bytes
    streamed_text: str
    tokens_max: int
    """How many the requester asked for."""
    probes: int = 0
    """Of an audit: at how many positions a token was to be predicted. 0 of everything else."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    content: ResultContent
    content_bytes: bytes
    entries: tuple[Entry, ...]
    entries_bytes: bytes
    facts: ExecutionFacts


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """`code` names the check that failed: it goes into logs and to the operator."""

    code: str
    message: str


def examine(result: Result, detail: ResultDetail, expected: Expected, poe_key: RSAPublicKey) -> Verified | Rejected:
    """Checks a `completed` or `cancelled` result that was opened with the attempt's result key."""
    assert result.outcome in ("completed", "cancelled"), result.outcome
    try:
        return _examine(result, detail, expected, poe_key)
    except ProtocolError as error:
        return Rejected(code=error.code, message=error.message)


def _examine(result: Result, detail: ResultDetail, expected: Expected, poe_key: RSAPublicKey) -> Verified | Rejected:
    content_bytes = from_base64url(detail.content, name="content")
    entries_bytes = from_base64url(detail.entries, name="entries")
    salt = from_base64url(detail.salt, name="salt")
    if len(salt) != poe.SALT_BYTES:
        return Rejected(code="malformed_poe", message=f"salt: {len(salt)} bytes, expected {poe.SALT_BYTES}")
    try:
        claimed = from_hex(result.poe, name="poe", length_bytes=32)
        signature = from_hex(result.signature, name="signature", length_bytes=signing.SIGNATURE_BYTES)
        poe_signature = from_base64url(result.poe_signature, name="poe_signature")
    except Malformed as error:
        return Rejected(code="malformed_poe", message=error.message)

    content = canonical.decode(content_bytes, ResultContent)
    signing.require_signer(signing.result_text(expected.unit_id), signature, expected.node_public_key)
    rebuilt = poe.proof_of_execution(expected.unit_id, content_bytes, expected.node_id)
    if claimed != rebuilt:
        return Rejected(
            code="poe_mismatch", message="poe: not SHA-256(request id ‖ result ‖ node id) of what was returned"
        )
    if detail.model_digest != expected.model_digest:
        return Rejected(
            code="wrong_model",
            message=f"model {detail.model_digest[:16]}… answered; {expected.model_digest[:16]}… was asked",
        )
    facts = poe.AttemptFacts(
        chain_id=expected.chain_id,
        attempt_id=expected.attempt_id,
        attempt_number=expected.attempt_number,
        outcome="cancelled" if result.outcome == "cancelled" else "completed",
        input_hash=to_hex(expected.input_hash),
        model_digest=detail.model_digest,
        usage=detail.usage,
        entries_root=to_hex(work.entries_root(entries_bytes)),
        salt_hash=to_hex(poe.salt_hash(salt)),
    )
    poe.require_signature(poe_key, poe_signature, content_bytes, rebuilt, facts)
    count_max = expected.probes or work.entries_max(expected.tokens_max)
    entries = work.decode_entries(entries_bytes, count_max=count_max)
    fault = (
        _audit_fault(result, detail, content, entries, expected.probes)
        or _text_fault(entries, content, expected.probes)
        or _probabilities_fault(entries)
        or _usage_fault(detail)
    )
    if fault is not None:
        return fault
    if not content.text.startswith(expected.streamed_text):
        return Rejected(code="stream_mismatch", message="the text that was streamed is not the beginning of the result")
    return Verified(
        content=content,
        content_bytes=content_bytes,
        entries=entries,
        entries_bytes=entries_bytes,
        facts=ExecutionFacts(
            usage=detail.usage,
            entries_counted=len(entries),
            input_hash=to_hex(expected.input_hash),
            result_hash=to_hex(work.result_hash(expected.request_salt, content_bytes)),
            poe_commitment=to_hex(poe.commitment(rebuilt, salt)),
            model_digest=detail.model_digest,
        ),
    )


def gives(shown: str, text: str) -> bool:
    """Whether the entries' text is the answer's, each `GAP` in it standing for at most one lost character."""
    if shown == text:
        return True
    first, *rest = shown.split(GAP)
    if not rest or len(text) > len(shown) or not text.startswith(first):
        return False
    *between, last = rest
    at = len(first)
    for piece in between:
        # The first place is as good as any: what is passed over only leaves less for the rest.
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return text.endswith(last) and len(text) - len(last) >= at


def _audit_fault(
    result: Result, detail: ResultDetail, content: ResultContent, entries: tuple[Entry, ...], probes: int
) -> Rejected | None:
    counts = content.probe_prompt_tokens
    if not probes:
        return _malformed_audit("counts for positions that nobody asked for") if counts else None
    if result.outcome != "completed" or content.finish_reason != "stop":
        return _malformed_audit("it was ended before it was whole")
    if content.text or content.tool_calls or content.embeddings:
        return _malformed_audit("an answer of its own beside the predictions that were asked for")
    if len(entries) != probes or len(counts) != probes:
        return _malformed_audit(f"{len(entries)} entries and {len(counts)} counts for {probes} positions")
    if (detail.usage.prompt_tokens, detail.usage.completion_tokens) != (counts[0], probes):
        return _malformed_audit("its usage is not the first count and the number of positions")
    most = max(len(entry.top) for entry in entries)
    if most > work.PROBE_TOP:
        return _malformed_audit(f"{most} alternatives, at most {work.PROBE_TOP}")
    return None


def _malformed_audit(what: str) -> Rejected:
    return Rejected(code="malformed_audit", message=f"audit: {what}")


def _text_fault(entries: tuple[Entry, ...], content: ResultContent, probes: int) -> Rejected | None:
    if not probes and not gives("".join(entry.text for entry in entries), content.text):
        return Rejected(code="entries_mismatch", message="the entries' texts do not give the result's text")
    return None


def _probabilities_fault(entries: tuple[Entry, ...]) -> Rejected | None:
    for entry in entries:
        logprobs = [logprob for _, logprob in entry.top]
        if entry.logprob is not None:
            logprobs.append(entry.logprob)
        if any(not math.isfinite(each) or each > LOGPROB_SLACK for each in logprobs):
            return Rejected(code="impossible_probability", message="entries: a log-probability is above zero")
        if sum(math.exp(logprob) for _, logprob in entry.top) > 1 + LOGPROB_SLACK:
            return Rejected(
                code="impossible_probability", message="entries: the alternatives' probabilities exceed one"
            )
    return None


def _usage_fault(detail: ResultDetail) -> Rejected | None:
    usage = detail.usage
    if usage.prompt_tokens < 0 or usage.completion_tokens < 0:
        return Rejected(code="impossible_usage", message="usage: a token count is below zero")
    return None
