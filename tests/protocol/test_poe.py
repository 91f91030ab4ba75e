from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.protocol import canonical, ids, poe, signing, work
from parallelix.protocol.encoding import from_base64url, to_hex
from parallelix.protocol.errors import BadSignature, Malformed

VECTORS = vectors.load("poe")
EXAMPLE: dict[str, str] = VECTORS["example"]
FACTS = canonical.decode(EXAMPLE["facts"].encode(), poe.AttemptFacts)
RESULT = EXAMPLE["result"].encode()
POE = bytes.fromhex(EXAMPLE["poe"][2:])
SIGNATURE = from_base64url(EXAMPLE["poe_signature"], name="poe_signature")


def public_key() -> RSAPublicKey:
    key = load_pem_public_key(EXAMPLE["poe_key"].encode())
    assert isinstance(key, RSAPublicKey)
    return key


def private_key() -> RSAPrivateKey:
    key = load_pem_private_key((vectors.FOLDER / "keys" / "poe.pem").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def led_by_length(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">Q", len(part)) + part for part in parts)


@pytest.mark.parametrize("case", VECTORS["proofs"], ids=lambda case: f"{case['node_id']} {case['result'][:20]}")
def test_each_proof_is_sha256_over_fixed_widths(case: dict[str, Any]) -> None:
    result = bytes.fromhex(case["result"])
    by_hand = bytes.fromhex(case["unit_id"][4:]) + result + bytes.fromhex(f"{int(case['node_id']):064x}")

    assert case["poe"] == "0x" + hashlib.sha256(by_hand).hexdigest()
    assert case["poe"] == to_hex(poe.proof_of_execution(case["unit_id"], result, int(case["node_id"])))


def test_every_hash_of_the_example_follows_by_hand() -> None:
    salt, node_salt = raw(EXAMPLE["request_salt"]), raw(EXAMPLE["salt"])
    expected = {
        "input_hash": led_by_length(b"parallelix/input/v1", salt, EXAMPLE["payload"].encode()),
        "result_hash": led_by_length(b"parallelix/result/v1", salt, RESULT),
        "entries_root": led_by_length(b"parallelix/entries/v1", EXAMPLE["entries"].encode()),
        "poe_commitment": led_by_length(b"parallelix/poe-commitment/v1", POE, node_salt),
        "salt_hash": node_salt,
        "poe": raw("0x" + EXAMPLE["unit_id"][4:]) + RESULT + int(EXAMPLE["node_id"]).to_bytes(32, "big"),
    }

    assert {name: EXAMPLE[name] for name in expected} == {
        name: "0x" + hashlib.sha256(data).hexdigest() for name, data in expected.items()
    }


def test_our_functions_give_every_hash_of_the_example() -> None:
    salt, node_salt = raw(EXAMPLE["request_salt"]), raw(EXAMPLE["salt"])

    assert to_hex(work.input_hash(salt, EXAMPLE["payload"].encode())) == EXAMPLE["input_hash"]
    assert to_hex(work.result_hash(salt, RESULT)) == EXAMPLE["result_hash"]
    assert to_hex(work.entries_root(EXAMPLE["entries"].encode())) == EXAMPLE["entries_root"]
    assert to_hex(poe.commitment(POE, node_salt)) == EXAMPLE["poe_commitment"]
    assert to_hex(poe.salt_hash(node_salt)) == EXAMPLE["salt_hash"]
    assert poe.signed_bytes(RESULT, POE, FACTS).hex() == EXAMPLE["signed"]


def test_what_is_signed_is_tag_length_result_proof_and_facts_and_the_signature_is_plain_pss() -> None:
    by_hand = b"parallelix/poe.v1\0" + struct.pack(">Q", len(RESULT)) + RESULT + POE + EXAMPLE["facts"].encode()

    assert by_hand.hex() == EXAMPLE["signed"]
    assert json.loads(EXAMPLE["facts"])["input_hash"] == EXAMPLE["input_hash"]
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    public_key().verify(SIGNATURE, by_hand, pss, hashes.SHA256())
    poe.require_signature(public_key(), SIGNATURE, RESULT, POE, FACTS)
    signing.require_signer(
        signing.result_text(EXAMPLE["unit_id"]), raw(EXAMPLE["signature"]), raw(EXAMPLE["node_public_key"])
    )


def test_our_own_signature_verifies_and_another_key_s_does_not() -> None:
    signature = poe.sign(private_key(), RESULT, POE, FACTS)

    poe.require_signature(public_key(), signature, RESULT, POE, FACTS)
    stranger = load_pem_private_key((vectors.FOLDER / "keys" / "envelope.pem").read_bytes(), None)
    assert isinstance(stranger, RSAPrivateKey)
    with pytest.raises(BadSignature):
        poe.require_signature(stranger.public_key(), signature, RESULT, POE, FACTS)


ALTERED: dict[str, Any] = {
    "chain_id": 1,
    "attempt_id": "att_" + "00" * 16,
    "attempt_number": 2,
    "outcome": "cancelled",
    "input_hash": "0x" + "00" * 32,
    "model_digest": "00" * 32,
    "usage": work.Usage(prompt_tokens=31, completion_tokens=3),
    "entries_root": "0x" + "00" * 32,
    "salt_hash": "0x" + "00" * 32,
}


def test_every_fact_is_in_the_table_below() -> None:
    assert {*ALTERED, "scheme"} == set(poe.AttemptFacts.__struct_fields__)


@pytest.mark.parametrize("name", ALTERED)
def test_a_signature_covers_each_fact(name: str) -> None:
    with pytest.raises(BadSignature):
        poe.require_signature(
            public_key(), SIGNATURE, RESULT, POE, msgspec.structs.replace(FACTS, **{name: ALTERED[name]})
        )


def test_a_signature_covers_result_and_proof_and_every_bit_of_itself_counts() -> None:
    refused = [
        (SIGNATURE, RESULT + b" ", POE),
        (SIGNATURE, RESULT[:-1], POE),
        (SIGNATURE, RESULT, hashlib.sha256(POE).digest()),
        (SIGNATURE[:-1], RESULT, POE),
        (SIGNATURE + b"\0", RESULT, POE),
        (b"", RESULT, POE),
        *((flipped(SIGNATURE, at), RESULT, POE) for at in range(0, 8 * len(SIGNATURE), 16)),
    ]
    for signature, result, proof in refused:
        with pytest.raises(BadSignature):
            poe.require_signature(public_key(), signature, result, proof, FACTS)


@pytest.mark.parametrize("salt_length", [0, 20, 31, 33, 64])
def test_a_salt_of_another_length_is_refused(salt_length: int) -> None:
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=salt_length)
    signature = private_key().sign(poe.signed_bytes(RESULT, POE, FACTS), pss, hashes.SHA256())

    with pytest.raises(BadSignature):
        poe.require_signature(public_key(), signature, RESULT, POE, FACTS)


SHA256 = hashes.SHA256()


@pytest.mark.parametrize(
    ("scheme", "digest"),
    [
        (padding.PSS(mgf=padding.MGF1(SHA256), salt_length=32), hashes.SHA384()),
        (padding.PSS(mgf=padding.MGF1(SHA256), salt_length=32), hashes.SHA3_256()),
        (padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=32), SHA256),
        (padding.PKCS1v15(), SHA256),
    ],
    ids=["SHA-384", "SHA3-256", "MGF1 with SHA-384", "PKCS #1 v1.5"],
)
def test_a_signature_of_another_scheme_is_refused(scheme: Any, digest: hashes.HashAlgorithm) -> None:
    signature = private_key().sign(poe.signed_bytes(RESULT, POE, FACTS), scheme, digest)

    with pytest.raises(BadSignature):
        poe.require_signature(public_key(), signature, RESULT, POE, FACTS)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


units = st.binary(min_size=32, max_size=32).map(lambda data: "req_" + data.hex())
nodes = st.integers(0, 300) | st.integers(0, ids.NODE_ID_MAX)
executions = st.tuples(units, st.binary(max_size=70), nodes)


@vectors.examples(300)
@given(executions, executions)
def test_no_two_executions_have_one_proof(one: tuple[str, bytes, int], other: tuple[str, bytes, int]) -> None:
    assert (poe.proof_of_execution(*one) == poe.proof_of_execution(*other)) == (one == other)


@vectors.examples(200)
@given(st.binary(min_size=64, max_size=64), st.integers(0, 32), st.binary(min_size=32, max_size=32))
def test_bytes_cannot_move_between_result_and_node(data: bytes, cut: int, unit: bytes) -> None:
    """With numbers of any width, `result 1` by node 23 and `result 12` by node 3 would be one proof."""
    unit_id = "req_" + unit.hex()

    one = poe.proof_of_execution(unit_id, data, 23)
    other = poe.proof_of_execution(unit_id, data + b"2"[: cut % 2] + data[:cut], 3)

    assert one != other


def test_result_and_proof_cannot_trade_bytes_under_the_signature() -> None:
    assert poe.signed_bytes(RESULT, POE, FACTS) != poe.signed_bytes(RESULT + POE[:1], POE[1:] + b"{", FACTS)


@pytest.mark.parametrize("unit_id", ["", "req_", "0x" + "00" * 32, "req_" + "00" * 31, "req_" + "00" * 32 + "\n"])
def test_a_proof_needs_a_well_formed_unit(unit_id: str) -> None:
    with pytest.raises(Malformed):
        poe.proof_of_execution(unit_id, RESULT, 7)


def test_the_node_s_salt_opens_only_its_own_commitment() -> None:
    assert poe.commitment(POE, b"\0" * 32) != poe.commitment(POE, b"\1" * 32)
    assert poe.commitment(POE, b"\0" * 32) != poe.commitment(b"\0" * 32, POE)
    assert poe.commitment(POE, b"\0" * 32) != poe.salt_hash(b"\0" * 32)
