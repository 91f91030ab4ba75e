from __future__ import annotations

import itertools
from typing import Any

import pytest
import rich.pretty
from Crypto.Hash import keccak
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.protocol import signing
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.errors import BadSignature
from parallelix.protocol.ids import NODE_ID_MAX

VECTORS = vectors.load("signing")
SECRET = bytes.fromhex(VECTORS["key"]["secret"][2:])
KEY = signing.NodeKey(SECRET)
CASES: dict[str, dict[str, Any]] = {case["purpose"]: case for case in VECTORS["cases"]}


def signed_by_the_other_library(text: str) -> bytes:
    return bytes(Account.sign_message(encode_defunct(text=text), SECRET).signature)


def recovered_by_the_other_library(text: str, signature: bytes) -> str | None:
    try:
        return Account.recover_message(encode_defunct(text=text), signature=signature)
    except Exception:
        return None


def test_the_key_of_the_vectors_is_the_same_key_in_another_library() -> None:
    key = VECTORS["key"]
    public_key = bytes.fromhex(key["public_key"][2:])

    assert Account.from_key(SECRET).address == key["address"] == KEY.address
    assert keccak.new(digest_bits=256, data=public_key).hexdigest() == key["key_hash"][2:]
    assert to_checksum_address("0x" + key["key_hash"][-40:]) == key["address"]
    assert (to_hex(KEY.public_key), to_hex(KEY.key_hash)) == (key["public_key"], key["key_hash"])


@pytest.mark.parametrize("purpose", CASES)
def test_each_vector_is_the_signature_that_another_library_makes(purpose: str) -> None:
    text, signature = CASES[purpose]["text"], bytes.fromhex(CASES[purpose]["signature"][2:])
    body = text.encode()
    eip191 = keccak.new(digest_bits=256, data=b"\x19Ethereum Signed Message:\n%d" % len(body) + body)

    assert CASES[purpose]["eip191_hash"] == "0x" + eip191.hexdigest() == to_hex(signing.personal_hash(text))
    assert signed_by_the_other_library(text) == signature == KEY.sign(text)
    signing.require_signer(text, signature, KEY.public_key)


@pytest.mark.parametrize("name", vectors.named(VECTORS["refused"]["signatures"]))
def test_each_refused_vector_is_refused(name: str) -> None:
    signature = vectors.named(VECTORS["refused"]["signatures"])[name]["signature"]

    with pytest.raises(BadSignature):
        signing.recover_public_key(VECTORS["refused"]["text"], bytes.fromhex(signature[2:]))


def test_of_the_225_encodings_that_a_common_library_accepts_exactly_one_is() -> None:
    text = CASES["heartbeat"]["text"]
    signature = KEY.sign(text)
    low = int.from_bytes(signature[32:64], "big")
    encodings = [
        signature[:32] + s.to_bytes(32, "big") + bytes([v])
        for s in (low, signing.CURVE_ORDER - low)
        for v in range(256)
    ]

    elsewhere = [each for each in encodings if recovered_by_the_other_library(text, each) == KEY.address]
    here = [each for each in encodings if recovers(text, each)]

    assert len(elsewhere) == 225
    assert here == [signature]


def recovers(text: str, signature: bytes) -> bool:
    try:
        return signing.recover_public_key(text, signature) == KEY.public_key
    except BadSignature:
        return False


def test_a_call_without_an_attempt_names_none() -> None:
    assert signing.timed_text("inbox", 31337, 7, "s", 5) == "parallelix-node:inbox:31337:7:s:5"
    assert signing.timed_text("ack", 31337, 7, "s", 5, "att") == "parallelix-node:ack:31337:7:s:5:att"


@pytest.mark.parametrize(("s", "low"), [(signing.HALF_ORDER, True), (signing.HALF_ORDER + 1, False)])
def test_the_middle_of_the_order_is_its_lower_half(s: int, low: bool) -> None:
    text = CASES["inbox"]["text"]
    signature = KEY.sign(text)[:32] + s.to_bytes(32, "big") + b"\x1b"

    if low:
        assert signing.recover_public_key(text, signature) != KEY.public_key
        return
    with pytest.raises(BadSignature, match="upper half"):
        signing.recover_public_key(text, signature)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 66, 128, 130, 1_000_000])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    text = CASES["inbox"]["text"]

    with pytest.raises(BadSignature, match="expected 65"):
        signing.recover_public_key(text, (KEY.sign(text) * (length // 65 + 1))[:length])


@vectors.examples(100)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.sampled_from([27, 28]))
def test_random_signatures_either_recover_a_stranger_or_are_bad_and_nothing_else(r: bytes, s: bytes, v: int) -> None:
    text = CASES["result"]["text"]

    try:
        assert signing.recover_public_key(text, r + s + bytes([v])) != KEY.public_key
    except BadSignature:
        return


@vectors.examples(60)
@given(st.integers(1, signing.CURVE_ORDER - 1), st.text(st.characters(codec="utf-8"), max_size=40))
def test_every_signature_is_in_the_one_accepted_form_and_agrees_with_another_library(secret: int, text: str) -> None:
    key = signing.NodeKey(secret.to_bytes(32, "big"))
    signature = key.sign(text)

    assert signature[64] in (27, 28)
    assert int.from_bytes(signature[32:64], "big") <= signing.HALF_ORDER
    assert signature == bytes(Account.sign_message(encode_defunct(text=text), secret.to_bytes(32, "big")).signature)
    assert recovered_by_the_other_library(text, signature) == key.address
    signing.require_signer(text, signature, key.public_key)


@vectors.examples(200)
@given(st.binary(min_size=20, max_size=20))
def test_addresses_are_written_as_eip_55_says(address: bytes) -> None:
    assert signing.checksum_address(address) == to_checksum_address(address)


@pytest.mark.parametrize(("signed", "claimed"), list(itertools.permutations(CASES, 2)))
def test_a_signature_for_one_purpose_means_nothing_to_another(signed: str, claimed: str) -> None:
    signature = KEY.sign(CASES[signed]["text"])

    with pytest.raises(BadSignature):
        signing.require_signer(CASES[claimed]["text"], signature, KEY.public_key)


def test_another_key_s_signature_is_refused() -> None:
    text = CASES["attach"]["text"]

    with pytest.raises(BadSignature, match="not made by the key"):
        signing.require_signer(text, signing.NodeKey(b"\x01" * 32).sign(text), KEY.public_key)


numbers = st.integers(0, 3) | st.integers(0, NODE_ID_MAX)
hex_text = st.text("0123456789abcdef", min_size=32, max_size=32)
attempts = hex_text.map("att_".__add__)
calls: st.SearchStrategy[tuple[Any, ...]] = (
    st.tuples(st.just(signing.attach_text), numbers, numbers, hex_text.map("0x".__add__))
    | st.tuples(
        st.just(signing.timed_text), st.sampled_from(["heartbeat", "inbox"]), numbers, numbers, hex_text, numbers
    )
    | st.tuples(
        st.just(signing.timed_text), st.sampled_from(["ack", "stream"]), numbers, numbers, hex_text, numbers, attempts
    )
    | st.tuples(st.just(signing.result_text), hex_text.map("req_".__add__))
    | st.tuples(st.just(signing.receipt_text), numbers, numbers, hex_text, numbers)
)


@vectors.examples(300)
@given(calls, calls)
def test_no_two_different_calls_are_signed_over_one_text(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (one[0](*one[1:]) == other[0](*other[1:])) == (one == other)


def test_a_key_shows_its_address_and_never_its_secret() -> None:
    shown = [repr(KEY), str(KEY), f"{KEY}", f"{[KEY]}", rich.pretty.pretty_repr(KEY), repr(vars(KEY))]

    for text in shown:
        assert SECRET.hex() not in text.lower()
        assert repr(SECRET)[2:-1] not in text
        assert str(int.from_bytes(SECRET, "big")) not in text
    assert KEY.address in repr(KEY)


@pytest.mark.parametrize(
    "secret",
    [b"", b"\x01", b"\x01" * 31, b"\x01" * 33, bytes(32), signing.CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32],
    ids=["nothing", "one byte", "31 bytes", "33 bytes", "zero", "the order", "above the order"],
)
def test_a_secret_outside_the_curve_is_refused_without_showing_it(secret: bytes) -> None:
    with pytest.raises(ValueError, match=r"node key|scalar") as refused:
        signing.NodeKey(secret)
    assert not secret or secret.hex() not in str(refused.value)


def test_generated_keys_differ() -> None:
    assert len({signing.NodeKey.generate().address for _ in range(20)}) == 20
