"""Writes tests/vectors/*.json: examples of every rule of the wire, for a node or a verifier in any language.

    python scripts/make_vectors.py            writes the files
    python scripts/make_vectors.py --check    only says whether they are as this script makes them

Everything that the protocol draws at random comes here from SHAKE-256 over a label, so that the files are the same
every time; the two RSA keys are files beside them. Where our own code draws randomness inside a library, the bytes are
put together by hand with another library. Test keys only: never use one of them for anything else.
"""

from __future__ import annotations

import argparse
import base64
import functools
import hashlib
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast, get_args

import msgspec
from Crypto.Cipher import PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.PublicKey import RSA
from Crypto.Signature import pss
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from parallelix.protocol import (
    canonical,
    envelope,
    ids,
    merkle,
    messages,
    poe,
    receipts,
    records,
    requests,
    sampling,
    signing,
    work,
)
from parallelix.protocol.encoding import to_base64url, to_hex

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors"

Json: TypeAlias = dict[str, Any]

CHAIN_ID = 31337
NODE_ID = 7
STARTED_AT = 1_790_000_000_000


def seeded(label: str, length: int) -> bytes:
    return hashlib.shake_256(b"parallelix/vectors/" + label.encode()).digest(length)


def seeded_reader(label: str) -> Callable[[int], bytes]:
    """A source of bytes for libraries that ask for a random function."""
    position = 0

    def read(length: int) -> bytes:
        nonlocal position
        position += length
        return seeded(label, position)[-length:]

    return read


NODE_KEY = signing.NodeKey(seeded("node key", 32))
COORDINATOR_KEY = signing.NodeKey(seeded("coordinator key", 32))
UNIT_ID = ids.request_id(seeded("unit", 32))
OTHER_UNIT_ID = ids.request_id(seeded("other unit", 32))
ATTEMPT_ID = ids.attempt_id(seeded("attempt", 16))
REQUEST_SALT = seeded("request salt", 32)
NODE_SALT = seeded("node salt", 32)
SAMPLING_MASTER = seeded("sampling master", 32)
SAMPLED_EPOCH = 3
MODEL_DIGEST = hashlib.sha256(b"the weights file").hexdigest()

PAYLOAD = work.Payload(
    kind="chat",
    model="llama3.2:1b",
    messages=(
        work.Message(role="system", content="Answer in one word."),
        work.Message(role="user", content="What is the capital of Österreich? \u20ac\U0001f642"),
    ),
    sampling=work.Sampling(max_tokens=64, temperature="0.7", seed=42, stop=("\n",)),
)
RESULT = work.ResultContent(text="Vienna", finish_reason="stop")
ENTRIES = (
    work.Entry("Vi", -0.25, (("Vi", -0.25), ("W", -1.5))),
    work.Entry("enna", -0.0078125, (("enna", -0.0078125),)),
)
USAGE = work.Usage(prompt_tokens=31, completion_tokens=2)


def make_canonical() -> Json:
    structs: dict[str, msgspec.Struct] = {
        "payload": PAYLOAD,
        "payload with tools": work.Payload(
            kind="chat",
            model="m",
            messages=(
                work.Message(role="assistant", tool_calls=(work.ToolCall(id="1", name="f", arguments='{"a": 1.0}'),)),
                work.Message(role="tool", tool_call_id="1", content="done"),
            ),
            tools='[{"type":"function"}]',
            response_format='{"type":"json_object"}',
            sampling=work.Sampling(max_tokens=0, top_k=-1, top_p="0.95", top_logprobs=5),
        ),
        "completion": work.Payload(
            kind="completion",
            model="m",
            prompt='\u0000\b\t\n\u000b\f\r\u001f"\\/\u007f',
            sampling=work.Sampling(max_tokens=1),
        ),
        "embedding": work.Payload(kind="embedding", model="m", inputs=("a", ""), sampling=work.Sampling(max_tokens=0)),
        "result": RESULT,
        "result of an embedding": work.ResultContent(embeddings=(work.pack_vector([1.0, -0.5]),), finish_reason="stop"),
        "text that is never normalised": work.ResultContent(
            text="\u00e9 e\u0301 \u2028 \U00010000 \uffff", finish_reason="length"
        ),
        "largest integers": work.Sampling(max_tokens=canonical.INTEGER_MAX, seed=-canonical.INTEGER_MAX),
        "record": make_chain()[0],
        "audit record": next(each for each in make_audited_chain() if isinstance(each, records.AuditRecord)),
        "facts": FACTS,
    }
    good = [
        {
            "name": name,
            "type": type(struct).__name__,
            "value": msgspec.to_builtins(struct),
            "canonical": canonical.encode(struct).decode(),
            "sha256": to_hex(hashlib.sha256(canonical.encode(struct)).digest()),
        }
        for name, struct in structs.items()
    ]
    sampling = canonical.encode(work.Sampling(max_tokens=5, seed=1)).decode()
    refused = {
        "a space after a colon": sampling.replace(":", ": ", 1),
        "a final newline": sampling + "\n",
        "a leading space": " " + sampling,
        "keys in another order": '{"seed":1,"max_tokens":5}',
        "a key twice": '{"max_tokens":5,"max_tokens":5,"seed":1}',
        "an unknown key": '{"max_tokens":5,"seed":1,"unknown":0}',
        "a default written out": '{"max_tokens":5,"seed":1,"top_logprobs":0}',
        "null for what is absent": '{"max_tokens":5,"seed":1,"temperature":null}',
        "a fraction of zero": '{"max_tokens":5.0,"seed":1}',
        "an exponent": '{"max_tokens":5e0,"seed":1}',
        "a leading zero": '{"max_tokens":05,"seed":1}',
        "a plus sign": '{"max_tokens":+5,"seed":1}',
        "minus zero": '{"max_tokens":-0,"seed":1}',
        "an integer above 2^53 - 1": '{"max_tokens":5,"seed":9007199254740992}',
        "an integer below -(2^53 - 1)": '{"max_tokens":5,"seed":-9007199254740992}',
        "a number as text": '{"max_tokens":"5","seed":1}',
        "text as a number": '{"max_tokens":5,"temperature":0.7}',
        "an escape that is not needed": '{"max_tokens":5,"stop":["\\u0061"]}',
        "an escaped slash": '{"max_tokens":5,"stop":["\\/"]}',
        "a long escape where a short one exists": '{"max_tokens":5,"stop":["\\u000a"]}',
        "upper-case hex in an escape": '{"max_tokens":5,"stop":["\\u001F"]}',
        "an escaped character beyond ASCII": '{"max_tokens":5,"stop":["\\u20ac"]}',
        "a surrogate pair as escapes": '{"max_tokens":5,"stop":["\\ud83d\\ude42"]}',
        "half a surrogate pair": '{"max_tokens":5,"stop":["\\ud83d"]}',
        "a byte order mark": "\ufeff" + sampling,
        "a trailing comma": '{"max_tokens":5,"seed":1,}',
        "a comment": '{"max_tokens":5,/* */"seed":1}',
        "two documents": sampling + sampling,
        "nothing": "",
        "an array instead of an object": "[5]",
        "a missing field": '{"seed":1}',
    }
    parts: list[tuple[str, list[bytes]]] = [
        ("parallelix/input/v1", [b"a", b"b"]),
        ("parallelix/input/v1", [b"ab", b""]),
        ("parallelix/input/v1", [b"", b"ab"]),
        ("parallelix/input/v1", [b"ab"]),
        ("parallelix/input/v1", []),
        ("parallelix/result/v1", [b"ab"]),
    ]
    return {
        "about": "canonical is RFC 8785 over value; the texts of refused are not canonical bytes of the named type. "
        "domain_hash is SHA-256 over the domain and the parts, each led by its length as eight big-endian bytes.",
        "cases": good,
        "refused": [{"name": name, "type": "Sampling", "text": text} for name, text in refused.items()],
        "domain_hash": [
            {
                "domain": domain,
                "parts": [each.hex() for each in each_parts],
                "hash": to_hex(canonical.domain_hash(domain, *each_parts)),
            }
            for domain, each_parts in parts
        ],
    }


MANIFEST = messages.Manifest(
    node_id=str(NODE_ID),
    chain_id=CHAIN_ID,
    mode="gpu",
    hardware_tier=3,
    hardware=messages.Hardware(
        gpu_model="NVIDIA GeForce RTX 4090", gpu_count=1, vram_mib=24564, cpu_cores=16, memory_mib=65536
    ),
    region="eu-central",
    workload_classes=("ai.inference",),
    runtimes=(messages.RuntimeInfo(name="ollama", version="0.12.6"),),
    models=(messages.ModelInfo(name="llama3.2:1b", digest=MODEL_DIGEST, context_tokens=8192),),
    slots=4,
    envelope_key="",
    poe_key="",
    client_version="0.1.0",
    issued_at=STARTED_AT,
    run_id=seeded("run id", 16).hex(),
)


def make_signing() -> Json:
    manifest = msgspec.json.encode(
        msgspec.structs.replace(MANIFEST, envelope_key=public_pem("envelope"), poe_key=public_pem("poe"))
    )
    digest = hashlib.sha256(manifest).hexdigest()
    session = digest[:32]
    texts = {
        "attach": signing.attach_text(CHAIN_ID, NODE_ID, "0x" + digest),
        "heartbeat": signing.timed_text("heartbeat", CHAIN_ID, NODE_ID, session, STARTED_AT + 10_000),
        "inbox": signing.timed_text("inbox", CHAIN_ID, NODE_ID, session, STARTED_AT + 20_000),
        "ack": signing.timed_text("ack", CHAIN_ID, NODE_ID, session, STARTED_AT + 30_000, ATTEMPT_ID),
        "stream": signing.timed_text("stream", CHAIN_ID, NODE_ID, session, STARTED_AT + 40_000, ATTEMPT_ID),
        "result": signing.result_text(UNIT_ID),
        "uptime receipt": signing.receipt_text(CHAIN_ID, NODE_ID, session, STARTED_AT + 10_000),
        "largest node id": signing.timed_text("inbox", CHAIN_ID, ids.NODE_ID_MAX, session, STARTED_AT),
        "empty": "",
        "beyond ASCII": "\u20ac",
    }
    text = texts["heartbeat"]
    return {
        "about": "signature is r, s, v (65 bytes) over keccak-256 of the EIP-191 personal message, nonce by RFC 6979. "
        "Each of refused would recover to the same key in some common library, or is near to one that does.",
        "key": key_view(NODE_KEY),
        "manifest": {"text": manifest.decode(), "sha256": "0x" + digest, "session": session},
        "cases": [
            {
                "purpose": purpose,
                "text": each,
                "eip191_hash": to_hex(signing.personal_hash(each)),
                "signature": to_hex(NODE_KEY.sign(each)),
            }
            for purpose, each in texts.items()
        ],
        "refused": {"text": text, "signatures": list(refused_signatures(NODE_KEY.sign(text)))},
    }


def refused_signatures(signature: bytes) -> Iterable[Json]:
    r, s, v = signature[:32], int.from_bytes(signature[32:64], "big"), signature[64]
    low, high = s.to_bytes(32, "big"), (signing.CURVE_ORDER - s).to_bytes(32, "big")
    flipped = 55 - v
    yield {"name": "s in the upper half of the order", "signature": to_hex(r + high + bytes([flipped]))}
    yield {"name": "s in the upper half of the order, v not adapted", "signature": to_hex(r + high + bytes([v]))}
    for other in (v - 27, v + 8, v + 2, 2 * CHAIN_ID % 256, 255):
        yield {"name": f"v is {other}", "signature": to_hex(r + low + bytes([other]))}
    compact = (s | (v - 27) << 255).to_bytes(32, "big")
    yield {"name": "64 bytes with the parity in the top bit of s (EIP-2098)", "signature": to_hex(r + compact)}
    yield {"name": "64 bytes without v", "signature": to_hex(r + low)}
    yield {"name": "a byte more", "signature": to_hex(signature + b"\0")}
    yield {"name": "r is zero", "signature": to_hex(bytes(32) + low + bytes([v]))}
    yield {"name": "s is zero", "signature": to_hex(r + bytes(32) + bytes([v]))}
    yield {"name": "r is the order", "signature": to_hex(signing.CURVE_ORDER.to_bytes(32, "big") + low + bytes([v]))}
    yield {"name": "nothing", "signature": "0x"}


FACTS = poe.AttemptFacts(
    chain_id=CHAIN_ID,
    attempt_id=ATTEMPT_ID,
    attempt_number=1,
    outcome="completed",
    input_hash=to_hex(work.input_hash(REQUEST_SALT, canonical.encode(PAYLOAD))),
    model_digest=MODEL_DIGEST,
    usage=USAGE,
    entries_root=to_hex(work.entries_root(work.encode_entries(ENTRIES))),
    salt_hash=to_hex(poe.salt_hash(NODE_SALT)),
)


def make_poe() -> Json:
    payload, result, entries = canonical.encode(PAYLOAD), canonical.encode(RESULT), work.encode_entries(ENTRIES)
    proof = poe.proof_of_execution(UNIT_ID, result, NODE_ID)
    signed = poe.signed_bytes(result, proof, FACTS)
    signer = pss.new(
        RSA.import_key(private_pem("poe")),
        salt_bytes=32,
        rand_func=seeded_reader("pss salt"),
    )
    proofs = [
        (UNIT_ID, b"", 0),
        (UNIT_ID, result, NODE_ID),
        (UNIT_ID, result, ids.NODE_ID_MAX),
        ("sub_" + "00" * 32, b"\0", 256),
    ]
    return {
        "about": "poe is SHA-256(unit id, 32 bytes, result, node id, 32 bytes big-endian). poe_signature is RSA-PSS "
        "(SHA-256, MGF1 with SHA-256, a salt of 32 bytes) over signed.",
        "proofs": [
            {
                "unit_id": unit,
                "result": each.hex(),
                "node_id": str(node),
                "poe": to_hex(poe.proof_of_execution(unit, each, node)),
            }
            for unit, each, node in proofs
        ],
        "example": {
            "unit_id": UNIT_ID,
            "node_id": str(NODE_ID),
            "request_salt": to_hex(REQUEST_SALT),
            "payload": payload.decode(),
            "input_hash": FACTS.input_hash,
            "result": result.decode(),
            "result_hash": to_hex(work.result_hash(REQUEST_SALT, result)),
            "entries": entries.decode(),
            "entries_root": FACTS.entries_root,
            "salt": to_hex(NODE_SALT),
            "salt_hash": FACTS.salt_hash,
            "poe": to_hex(proof),
            "poe_commitment": to_hex(poe.commitment(proof, NODE_SALT)),
            "facts": canonical.encode(FACTS).decode(),
            "signed": signed.hex(),
            "poe_key": public_pem("poe"),
            "poe_signature": to_base64url(signer.sign(cast(Any, SHA256.new(signed)))),
            "node_public_key": to_hex(NODE_KEY.public_key),
            "signature": to_hex(NODE_KEY.sign(signing.result_text(UNIT_ID))),
        },
    }


def make_envelope() -> Json:
    content_key, channel_secret = seeded("content key", 32), seeded("channel secret", 32)
    payload = canonical.encode(PAYLOAD)
    sealed = envelope.seal_payload(payload, unit_id=UNIT_ID, content_key=content_key, nonce=seeded("payload nonce", 12))
    header = envelope.EnvelopeHeader(
        kid=hashlib.sha256(public_pem("envelope").encode()).hexdigest()[:16],
        attempt=ATTEMPT_ID,
        unit=UNIT_ID,
        node=str(NODE_ID),
        payload_sha256=envelope.payload_digest(sealed),
    )
    secrets = {
        "channel_secret": to_base64url(channel_secret),
        "content_key": to_base64url(content_key),
        "request_salt": to_base64url(REQUEST_SALT),
    }
    protected, plaintext = canonical.encode(header), json.dumps(secrets, separators=(",", ":")).encode()
    labels: list[envelope.ChannelLabel] = ["acknowledgement", "delta", "result"]
    storage_key, stored_nonce = seeded("storage key", 32), seeded("stored nonce", 12)
    purpose = f"result:{UNIT_ID}"
    result_header = f'{{"alg":"RSA-OAEP-256","enc":"A256GCM","typ":"parallelix-result+jwe","unit":"{UNIT_ID}"}}'
    return {
        "about": "envelope is a compact JWE to envelope_key; its key, nonce and OAEP seed come from a label here. "
        "Each of refused is not the envelope, though some parsers would open it.",
        "envelope_key": public_pem("envelope"),
        "envelope_private_key": private_pem("envelope"),
        "payload": {
            "unit_id": UNIT_ID,
            "content_key": to_base64url(content_key),
            "plaintext": payload.decode(),
            "sealed": to_base64url(sealed),
            "payload_sha256": header.payload_sha256,
        },
        "header": protected.decode(),
        "secrets": secrets,
        "envelope": compact_jwe(protected, plaintext, "envelope"),
        "refused": list(refused_envelopes(protected, plaintext)),
        "channel": {
            "channel_secret": to_base64url(channel_secret),
            "attempt_id": ATTEMPT_ID,
            "keys": {label: to_base64url(envelope.channel_key(channel_secret, label)) for label in labels},
            "messages": list(channel_messages(channel_secret)),
        },
        "at_rest": {
            "storage_key": to_base64url(storage_key),
            "wrapped_content_key": to_base64url(envelope.wrap_at_rest(storage_key, content_key)),
            "purpose": purpose,
            "plaintext": canonical.encode(RESULT).decode(),
            "sealed": to_base64url(
                envelope.seal_at_rest(storage_key, canonical.encode(RESULT), purpose=purpose, nonce=stored_nonce)
            ),
        },
        "requester": {
            "unit_id": UNIT_ID,
            "plaintext": canonical.encode(RESULT).decode(),
            "sealed": compact_jwe(result_header.encode(), canonical.encode(RESULT), "requester"),
        },
    }


def compact_jwe(
    protected: bytes,
    plaintext: bytes,
    label: str,
    *,
    encrypted_key: bytes | None = None,
    content_key: bytes | None = None,
) -> str:
    """A compact JWE by hand, so that its random parts come from `label`."""
    key = content_key or seeded(f"{label} cek", 32)
    if encrypted_key is None:
        cipher = PKCS1_OAEP.new(
            RSA.import_key(public_pem("envelope")), hashAlgo=SHA256, randfunc=seeded_reader(f"{label} oaep")
        )
        encrypted_key = cipher.encrypt(key)
    nonce, associated = seeded(f"{label} iv", 12), to_base64url(protected).encode()
    sealed = AESGCM(key).encrypt(nonce, plaintext, associated)
    parts = (encrypted_key, nonce, sealed[:-16], sealed[-16:])
    return ".".join([associated.decode(), *(to_base64url(each) for each in parts)])


def refused_envelopes(protected: bytes, plaintext: bytes) -> Iterable[Json]:
    """Each is sealed as well as it can be to the right key, so that only the rule that it breaks speaks against it."""
    header: Json = json.loads(protected)
    good = compact_jwe(protected, plaintext, "envelope")
    segments = good.split(".")

    def with_header(change: Json, **options: bytes) -> str:
        changed = {name: value for name, value in sorted({**header, **change}.items()) if value is not None}
        return compact_jwe(json.dumps(changed, separators=(",", ":")).encode(), plaintext, "envelope", **options)

    shared_key = seeded("shared key", 32)
    short = plaintext.replace(to_base64url(REQUEST_SALT).encode(), to_base64url(REQUEST_SALT[:31]).encode())
    zipped = json.dumps(dict(sorted({**header, "zip": "DEF"}.items())), separators=(",", ":")).encode()
    hostile: dict[str, str] = {
        "alg none": with_header({"alg": "none"}, encrypted_key=b""),
        "alg dir": with_header({"alg": "dir"}, encrypted_key=b"", content_key=shared_key),
        "alg RSA-OAEP (SHA-1)": with_header({"alg": "RSA-OAEP"}),
        "alg RSA1_5": with_header({"alg": "RSA1_5"}),
        "alg PBES2 with a huge count": with_header(
            {"alg": "PBES2-HS512+A256KW", "p2c": 2**31 - 1, "p2s": "c2FsdHNhbHQ"}
        ),
        "a count for a password beside our alg": with_header({"p2c": 2**31 - 1, "p2s": "c2FsdHNhbHQ"}),
        "enc A128GCM": with_header({"enc": "A128GCM"}, content_key=shared_key[:16]),
        "enc A128CBC-HS256": with_header({"enc": "A128CBC-HS256"}),
        "no alg": with_header({"alg": None}),
        "no enc": with_header({"enc": None}),
        "no typ": with_header({"typ": None}),
        "typ of a result": with_header({"typ": "parallelix-result+jwe"}),
        "no attempt": with_header({"attempt": None}),
        "zip DEF": compact_jwe(zipped, zlib_deflated(plaintext), "envelope"),
        "crit": with_header({"crit": ["exp"], "exp": 1}),
        "a key in the header": with_header({"jwk": {"kty": "oct", "k": to_base64url(shared_key)}}),
        "an unknown parameter": with_header({"extra": "1"}),
        "a header in another order": compact_jwe(
            json.dumps(dict(reversed(header.items())), separators=(",", ":")).encode(), plaintext, "envelope"
        ),
        "a header with spaces": compact_jwe(json.dumps(header).encode(), plaintext, "envelope"),
        "a parameter twice": compact_jwe(
            protected[:-1] + b',"unit":"' + UNIT_ID.encode() + b'"}', plaintext, "envelope"
        ),
        "a header that is a list": compact_jwe(b'["alg","enc"]', plaintext, "envelope"),
        "a header that is text": compact_jwe(b'"alg enc"', plaintext, "envelope"),
        "a header of brackets": compact_jwe(b"[" * 700, plaintext, "envelope"),
        "secrets that are not JSON": compact_jwe(protected, b"secrets", "envelope"),
        "secrets of 31 bytes": compact_jwe(protected, short, "envelope"),
        "no secrets": compact_jwe(protected, b"", "envelope"),
        "a tag of 15 bytes": ".".join([*segments[:4], to_base64url(decoded(segments[4])[:15])]),
        "stray bits after the tag": good[:-1] + chr(ord(good[-1]) + 1),
        "padding": good + "==",
        "a final newline": good + "\n",
        "four parts": ".".join(segments[:4]),
        "six parts": good + ".",
        "the encrypted key left out": ".".join([segments[0], "", *segments[2:]]),
        "an unprotected JSON form": json.dumps({"protected": segments[0], "ciphertext": segments[3]}),
        "far too long": ".".join([*segments[:3], segments[3] + "A" * 8192, segments[4]]),
    }
    return [{"name": name, "envelope": text} for name, text in hostile.items()]


def zlib_deflated(data: bytes) -> bytes:
    # Stored, not packed: what a packer makes differs from one library to the next.
    packer = zlib.compressobj(level=0, wbits=-15)
    return packer.compress(data) + packer.flush()


def decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def channel_messages(channel_secret: bytes) -> Iterable[Json]:
    sent: list[tuple[envelope.ChannelLabel, int, list[bytes]]] = [
        ("acknowledgement", 0, [messages.ACKNOWLEDGEMENT]),
        ("delta", 0, [work.encode_entries(ENTRIES[:1]), work.encode_entries(ENTRIES[1:])]),
        ("delta", 1, [work.encode_entries(ENTRIES[1:])]),
        ("result", 0, [msgspec.json.encode(result_detail())]),
    ]
    for label, connection, plaintexts in sent:
        sealer = envelope.Sealer(channel_secret, label=label, attempt_id=ATTEMPT_ID, connection=connection)
        for counter, plaintext in enumerate(plaintexts):
            sealed = sealer.seal(plaintext)
            yield {
                "label": label,
                "connection": connection,
                "counter": counter,
                "plaintext": plaintext.decode(),
                "sealed": to_base64url(sealed),
                **({"frame": (len(sealed).to_bytes(4, "big") + sealed).hex()} if label == "delta" else {}),
            }


def result_detail() -> messages.ResultDetail:
    return messages.ResultDetail(
        content=to_base64url(canonical.encode(RESULT)),
        entries=to_base64url(work.encode_entries(ENTRIES)),
        salt=to_base64url(NODE_SALT),
        usage=USAGE,
        model_digest=MODEL_DIGEST,
    )


def make_chain() -> list[records.ExecutionRecord]:
    chain: list[records.ExecutionRecord] = []
    head = records.GENESIS_HASH
    for sequence in range(5):
        example = sequence == 3
        unit = UNIT_ID if example else ids.request_id(seeded(f"unit {sequence}", 32))
        result = canonical.encode(RESULT) if example else f"result {sequence}".encode()
        proof = poe.proof_of_execution(unit, result, NODE_ID)
        record = records.ExecutionRecord(
            sequence=sequence,
            previous_hash=head,
            request_id=unit,
            workload_class="ai.inference",
            model_digest=MODEL_DIGEST,
            input_hash=FACTS.input_hash
            if example
            else to_hex(work.input_hash(REQUEST_SALT, f"payload {sequence}".encode())),
            result_hash=to_hex(work.result_hash(REQUEST_SALT, result)),
            poe_commitment=to_hex(poe.commitment(proof, NODE_SALT)),
            usage=USAGE if example else work.Usage(prompt_tokens=10 * sequence, completion_tokens=sequence),
            epoch=0,
            rate=0,
            started_at=STARTED_AT + 1000 * sequence,
            finished_at=STARTED_AT + 1000 * sequence + 750,
        )
        head = records.record_hash(record)
        chain.append(record)
    return chain


def make_audited_chain() -> list[records.Record]:
    """Executions of one epoch at every rate; each that is drawn is followed by its audit."""
    verdicts: list[tuple[records.Verdict, str]] = [
        ("agree", "within"), ("disagree", "overturned"), ("inconclusive", "no_third_node"),
        ("unaudited", "no_second_node"),
    ]  # fmt: skip
    secret = sampling.epoch_secret(SAMPLING_MASTER, SAMPLED_EPOCH)
    template = make_chain()[3]
    chain: list[records.Record] = []
    head, audits = records.GENESIS_HASH, 0
    for number in range(12):
        execution = msgspec.structs.replace(
            template,
            sequence=len(chain),
            previous_hash=head,
            request_id=ids.request_id(seeded(f"audited unit {number}", 32)),
            poe_commitment=to_hex(seeded(f"commitment {number}", 32)),
            epoch=SAMPLED_EPOCH,
            rate=sampling.RATES_PERCENT[number % len(sampling.RATES_PERCENT)],
        )
        chain.append(execution)
        head = records.record_hash(execution)
        if sampling.drawn(sampling.draw(secret, execution.poe_commitment), execution.rate):
            verdict, reason = verdicts[audits % len(verdicts)]
            audit = records.AuditRecord(
                sequence=len(chain),
                previous_hash=head,
                execution_hash=head,
                verdict=verdict,
                reason=reason,
                finished_at=execution.finished_at + 250,
            )
            chain.append(audit)
            head, audits = records.record_hash(audit), audits + 1
    return chain


def make_sampling() -> Json:
    secrets = {epoch: sampling.epoch_secret(SAMPLING_MASTER, epoch) for epoch in (0, 1, SAMPLED_EPOCH, 2**40)}
    commitments = [to_hex(seeded(f"commitment {number}", 32)) for number in range(12)]
    secret = secrets[SAMPLED_EPOCH]
    return {
        "about": "secret is HMAC-SHA256(master, 'parallelix/sampling/v1' and the epoch as eight big-endian bytes), "
        "commitment its SHA-256, draw the first eight bytes of HMAC-SHA256(secret, poe_commitment) as a decimal "
        "string. An execution is drawn at a rate where draw < rate / 100 * 2^64.",
        "master": to_hex(SAMPLING_MASTER),
        "epochs": [
            {"epoch": epoch, "secret": to_hex(each), "commitment": to_hex(sampling.commitment(each))}
            for epoch, each in secrets.items()
        ],
        "epoch": SAMPLED_EPOCH,
        "draws": [
            {
                "poe_commitment": each,
                "draw": str(sampling.draw(secret, each)),
                "drawn_at": [
                    rate for rate in sampling.RATES_PERCENT if sampling.drawn(sampling.draw(secret, each), rate)
                ],
            }
            for each in commitments
        ],
        "thresholds": [{"rate": rate, "first_not_drawn": str(next_above(rate))} for rate in sampling.RATES_PERCENT],
    }


def next_above(rate: int) -> int:
    """The smallest draw that is not drawn at this rate."""
    return -(-(rate << sampling.DRAW_BITS) // 100)


def make_records() -> Json:
    chain = make_chain()
    audited = make_audited_chain()
    edited = msgspec.structs.replace(chain[1], rate=100)
    rehashed = msgspec.structs.replace(chain[2], previous_hash=records.record_hash(edited))
    broken: dict[str, tuple[list[records.ExecutionRecord], int]] = {
        "record 1 edited": ([chain[0], edited, *chain[2:]], 2),
        "record 1 edited and record 2 made to fit": ([chain[0], edited, rehashed, *chain[3:]], 3),
        "the last record edited": ([*chain[:4], msgspec.structs.replace(chain[4], epoch=1)], 5),
        "record 2 dropped": ([*chain[:2], *chain[3:]], 3),
        "the last record dropped": (chain[:4], 4),
        "records 2 and 3 swapped": ([*chain[:2], chain[3], chain[2], chain[4]], 3),
        "record 1 twice": ([*chain[:2], chain[1], *chain[2:]], 1),
        "the first record dropped": (chain[1:], 1),
        "nothing": ([], 0),
    }
    return {
        "about": "hash is SHA-256 over canonical. Each of broken fails at the sequence given, when it is checked from "
        "genesis to head. audited is another chain, in which each execution that is drawn is followed by its audit; "
        "sampling.json has its secret.",
        "genesis": records.GENESIS_HASH,
        "head": records.record_hash(chain[-1]),
        "audited": {
            "head": records.record_hash(audited[-1]),
            "records": [
                {"canonical": canonical.encode(each).decode(), "hash": records.record_hash(each)} for each in audited
            ],
        },
        "records": [
            {"canonical": canonical.encode(each).decode(), "hash": records.record_hash(each)} for each in chain
        ],
        "broken": [
            {"name": name, "sequence": sequence, "records": [canonical.encode(each).decode() for each in changed]}
            for name, (changed, sequence) in broken.items()
        ],
    }


def make_merkle() -> Json:
    leaves = [hashlib.sha256(f"record {at}".encode()).digest() for at in range(33)]
    return {
        "about": "leaf = SHA-256(00, record hash), node = SHA-256(01, left, right), the tree of RFC 6962. A tree of n "
        "uses the first n of record_hashes; proofs[i] lists the siblings of leaf i from the bottom.",
        "record_hashes": [to_hex(each) for each in leaves],
        "trees": [
            {
                "count": count,
                "root": to_hex(merkle.root(leaves[:count])),
                "proofs": [[to_hex(each) for each in merkle.proof(leaves[:count], index)] for index in range(count)],
            }
            for count in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33)
        ],
        "refused": refused_proofs(leaves[:5]),
    }


def refused_proofs(leaves: Sequence[bytes]) -> list[Json]:
    """Proofs for leaf 2 of a tree of five; each gives another root, or none."""
    proof, root = merkle.proof(leaves, 2), merkle.root(leaves)
    inner = merkle.node_hash(merkle.leaf_hash(leaves[0]), merkle.leaf_hash(leaves[1]))
    wrong: dict[str, tuple[bytes, int, int, list[bytes]]] = {
        "index of a neighbour": (leaves[2], 3, 5, proof),
        "index outside the tree": (leaves[2], 5, 5, proof),
        "count too small": (leaves[2], 2, 4, proof),
        "count too large": (leaves[2], 2, 9, proof),
        "a sibling missing": (leaves[2], 2, 5, proof[:-1]),
        "a sibling more": (leaves[2], 2, 5, [*proof, proof[0]]),
        "siblings in another order": (leaves[2], 2, 5, proof[::-1]),
        "another record": (leaves[3], 2, 5, proof),
        "a node shown as a leaf": (inner, 0, 2, merkle.proof(leaves, 4)),
        "a sibling of 31 bytes": (leaves[2], 2, 5, [proof[0][:31], *proof[1:]]),
        "no leaf at all": (leaves[2], 0, 0, []),
    }
    return [
        {
            "name": name,
            "record_hash": to_hex(leaf),
            "index": index,
            "count": count,
            "siblings": [to_hex(each) for each in siblings],
            "root": to_hex(root),
        }
        for name, (leaf, index, count, siblings) in wrong.items()
    ]


def make_receipts() -> Json:
    chain = make_chain()
    batch = records.Batch(
        number=1,
        previous_hash=records.record_hash(chain[0]),
        head_hash=records.record_hash(chain[4]),
        first=1,
        last=4,
        count=4,
        merkle_root=to_hex(merkle.root([records.record_hash_bytes(each) for each in chain[1:]])),
    )
    siblings = merkle.proof([records.record_hash_bytes(each) for each in chain[1:]], 2)
    early = receipts.sign(
        receipts.Receipt(
            record=chain[3],
            record_hash=records.record_hash(chain[3]),
            request_salt=to_hex(REQUEST_SALT),
            charge_wei="1250000000000000",
            chain_id=CHAIN_ID,
            anchor="local",
            coordinator=COORDINATOR_KEY.address,
        ),
        COORDINATOR_KEY,
    )
    proof = receipts.MerkleProof(index=2, count=4, siblings=tuple(to_hex(each) for each in siblings))
    audited = make_audited_chain()
    batches = [audited[:3], audited[3:]]
    full = receipts.sign(msgspec.structs.replace(early, signature="", batch=batch, proof=proof), COORDINATOR_KEY)
    return {
        "about": "signature is a personal-sign of text by the coordinator's key; the digest in text is the domain hash "
        "(parallelix/receipt/v1) of the receipt's canonical bytes with an empty signature. Receipts of version 2 carry "
        "what became of their audit.",
        "coordinator_key": key_view(COORDINATOR_KEY),
        "payload": canonical.encode(PAYLOAD).decode(),
        "result": canonical.encode(RESULT).decode(),
        "receipts": [
            receipt_view("before its batch", early),
            receipt_view("with its batch", full),
            receipt_view("drawn, no verdict yet", audited_receipt(batches, 2, state="pending", is_revealed=False)),
            receipt_view("with an audit that disagreed", audited_receipt(batches, 2, state="disagree")),
            receipt_view("not drawn", audited_receipt(batches, 4, state="not_drawn")),
        ],
    }


def audited_receipt(
    batches: Sequence[Sequence[records.Record]], sequence: int, *, state: requests.AuditState, is_revealed: bool = True
) -> receipts.Receipt:
    """A receipt of version 2, for an execution of the audited chain."""
    secret = sampling.epoch_secret(SAMPLING_MASTER, SAMPLED_EPOCH)
    record, batch, proof = anchored_record(batches, sequence)
    assert isinstance(record, records.ExecutionRecord)
    found: list[receipts.RecordedAudit] = []
    if state in get_args(records.Verdict):
        audit, batch_of_audit, proof_of_audit = anchored_record(batches, sequence + 1)
        assert isinstance(audit, records.AuditRecord)
        digest = records.record_hash(audit)
        found.append(
            receipts.RecordedAudit(record=audit, record_hash=digest, batch=batch_of_audit, proof=proof_of_audit)
        )
    refunded = state == "disagree"
    return receipts.sign(
        receipts.Receipt(
            version=2,
            record=record,
            record_hash=records.record_hash(record),
            request_salt=to_hex(REQUEST_SALT),
            charge_wei="0" if refunded else "1250000000000000",
            batch=batch,
            proof=proof,
            chain_id=CHAIN_ID,
            anchor="local",
            coordinator=COORDINATOR_KEY.address,
            audit=receipts.AuditPart(
                state=state,
                refunded_wei="1250000000000000" if refunded else "0",
                records=tuple(found),
                epoch=sampling.Epoch(
                    epoch=SAMPLED_EPOCH,
                    commitment=to_hex(sampling.commitment(secret)),
                    secret=to_hex(secret) if is_revealed else "",
                    began_at=STARTED_AT - 60_000,
                    revealed_at=STARTED_AT + 600_000 if is_revealed else 0,
                ),
            ),
        ),
        COORDINATOR_KEY,
    )


def anchored_record(
    batches: Sequence[Sequence[records.Record]], sequence: int
) -> tuple[records.Record, records.Batch, receipts.MerkleProof]:
    number, members = next(
        (number, each) for number, each in enumerate(batches) if each[0].sequence <= sequence <= each[-1].sequence
    )
    hashes, index = [records.record_hash_bytes(each) for each in members], sequence - members[0].sequence
    batch = records.Batch(
        number=number,
        previous_hash=members[0].previous_hash,
        head_hash=records.record_hash(members[-1]),
        first=members[0].sequence,
        last=members[-1].sequence,
        count=len(members),
        merkle_root=to_hex(merkle.root(hashes)),
    )
    siblings = tuple(to_hex(each) for each in merkle.proof(hashes, index))
    return members[index], batch, receipts.MerkleProof(index=index, count=len(members), siblings=siblings)


def receipt_view(name: str, receipt: receipts.Receipt) -> Json:
    return {
        "name": name,
        "receipt": msgspec.to_builtins(receipt),
        "unsigned": canonical.encode(msgspec.structs.replace(receipt, signature="")).decode(),
        "text": receipts.signed_text(receipt),
    }


def key_view(key: signing.NodeKey) -> Json:
    return {
        "secret": to_hex(key.secret),
        "public_key": to_hex(key.public_key),
        "key_hash": to_hex(key.key_hash),
        "address": key.address,
    }


def private_pem(name: str) -> str:
    return (VECTORS / "keys" / f"{name}.pem").read_text()


@functools.cache
def public_pem(name: str) -> str:
    return RSA.import_key(private_pem(name)).public_key().export_key().decode() + "\n"


MAKERS: dict[str, Callable[[], Json]] = {
    "canonical": make_canonical,
    "signing": make_signing,
    "poe": make_poe,
    "envelope": make_envelope,
    "records": make_records,
    "sampling": make_sampling,
    "merkle": make_merkle,
    "receipts": make_receipts,
}


def build() -> dict[str, str]:
    """The text of each file by its name."""
    return {f"{name}.json": json.dumps(make(), indent=1, ensure_ascii=True) + "\n" for name, make in MAKERS.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the protocol's test vectors.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    check = parser.parse_args().check
    differing = [name for name, text in build().items() if not is_same(VECTORS / name, text)]
    if not check:
        for name, text in build().items():
            (VECTORS / name).write_text(text)
    for name in differing:
        sys.stdout.write(f"{'differs' if check else 'written'}: {name}\n")
    return 1 if check and differing else 0


def is_same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


if __name__ == "__main__":
    raise SystemExit(main())
