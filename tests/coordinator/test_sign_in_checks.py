"""What a sign-in is worth: for whom, for when, with whose nonce and by whose hand. Every field counts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from parallelix.coordinator import sign_in
from parallelix.coordinator.errors import ApiError, MalformedSignIn, SignInRefused
from parallelix.coordinator.sign_in import Nonces, Place, place_of
from parallelix.protocol.sign_in import SignIn, parse, time_text
from parallelix.protocol.signing import CURVE_ORDER, NodeKey

NOW = 1_795_000_000_000
CHAIN_ID = 31337
PLACE = place_of("https://parallelix.io/api", ("10.0.0.1", 8400), "")
NONCES = Nonces(b"\x07" * 32)
WALLET = NodeKey(b"\x11" * 32)
OTHER = NodeKey(b"\x12" * 32)


def message(**changes: Any) -> SignIn:
    good = SignIn(
        domain="parallelix.io", address=WALLET.address, statement="Sign in.", uri="https://parallelix.io/api",
        chain_id=CHAIN_ID, nonce=NONCES.make(NOW - 5_000), issued_at=time_text(NOW - 4_000),
        expiration_time=time_text(NOW + 60_000), not_before=time_text(NOW - 4_000), request_id="7",
        resources=("https://parallelix.io/terms",),
    )  # fmt: skip
    return msgspec.structs.replace(good, **changes)


def judge(text: str, signature: bytes, *, now: int = NOW, place: Place = PLACE, nonces: Nonces = NONCES) -> SignIn:
    checked = sign_in.check(text, place=place, chain_id=CHAIN_ID, nonces=nonces, now=now)
    sign_in.require_signer(checked.message, signature)
    return checked.message


def refusal_of(text: str, signature: bytes, **world: Any) -> str:
    with pytest.raises(ApiError) as refused:
        judge(text, signature, **world)
    return refused.value.code


def test_a_good_sign_in_is_believed() -> None:
    good = message()
    assert judge(good.text, WALLET.sign(good.text)) == good


# Signed by the wallet, but wrong


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"domain": "evil.example"}, "foreign_sign_in"),
        ({"domain": "parallelix.io.evil.example"}, "foreign_sign_in"),
        ({"domain": "user@parallelix.io"}, "foreign_sign_in"),
        ({"domain": "parallelix.io:443"}, "foreign_sign_in"),
        ({"scheme": "http"}, "foreign_sign_in"),
        ({"uri": "https://evil.example/api"}, "foreign_sign_in"),
        ({"uri": "http://parallelix.io/api"}, "foreign_sign_in"),
        ({"uri": "https://parallelix.io@evil.example/api"}, "foreign_sign_in"),
        ({"uri": "https://parallelix.io:8443/api"}, "foreign_sign_in"),
        ({"uri": "urn:parallelix.io"}, "foreign_sign_in"),
        ({"uri": "https://[/api"}, "foreign_sign_in"),
        ({"version": "2"}, "foreign_sign_in"),
        ({"chain_id": 1}, "foreign_sign_in"),
        ({"chain_id": 0}, "foreign_sign_in"),
        ({"nonce": "a" * 76}, "unknown_nonce"),
        ({"nonce": "12345678"}, "unknown_nonce"),
        ({"nonce": Nonces(b"\x08" * 32).make(NOW)}, "unknown_nonce"),
        ({"nonce": NONCES.make(NOW).upper()}, "unknown_nonce"),
        ({"nonce": NONCES.make(NOW - 600_000)}, "stale_sign_in"),
        ({"nonce": NONCES.make(NOW + 61_000)}, "stale_sign_in"),
        ({"issued_at": time_text(NOW + 61_000)}, "stale_sign_in"),
        ({"issued_at": time_text(NOW - 66_000)}, "stale_sign_in"),
        ({"expiration_time": time_text(NOW)}, "stale_sign_in"),
        ({"expiration_time": time_text(NOW - 1)}, "stale_sign_in"),
        ({"not_before": time_text(NOW + 1)}, "stale_sign_in"),
        ({"address": OTHER.address}, "wrong_signer"),
    ],
)
def test_what_a_wallet_signed_for_elsewhere_or_another_time_is_refused(changes: dict[str, Any], code: str) -> None:
    wrong = message(**changes)
    assert refusal_of(wrong.text, WALLET.sign(wrong.text)) == code


@pytest.mark.parametrize(
    "changes",
    [
        {"scheme": "https"},
        {"domain": "ParalleliX.io"},
        {"uri": "https://parallelix.io"},
        {"uri": "https://PARALLELIX.io/console?x=1"},
        {"statement": ""},
        {"expiration_time": ""},
        {"not_before": ""},
        {"request_id": None},
        {"resources": None},
        {"issued_at": time_text(NOW + 60_000)},
        {"nonce": NONCES.make(NOW - 599_999)},
    ],
)
def test_what_a_wallet_may_say_otherwise_is_believed(changes: dict[str, Any]) -> None:
    fine = message(**changes)
    assert judge(fine.text, WALLET.sign(fine.text)) == fine


# Tampered with after it was signed

OTHERWISE: dict[str, Any] = {
    "scheme": "https",
    "domain": "PARALLELIX.io",
    "address": OTHER.address,
    "statement": "Give everything away.",
    "uri": "https://parallelix.io/",
    "version": "3",
    "chain_id": CHAIN_ID + 1,
    "nonce": NONCES.make(NOW - 4_999),
    "issued_at": time_text(NOW - 3_999),
    "expiration_time": time_text(NOW + 60_001),
    "not_before": time_text(NOW - 4_001),
    "request_id": "8",
    "resources": ("https://parallelix.io/other",),
}


def test_every_field_is_tampered_with() -> None:
    assert set(OTHERWISE) == {field.name for field in msgspec.structs.fields(SignIn)}


@pytest.mark.parametrize("field", OTHERWISE)
def test_a_field_that_was_changed_after_signing_is_refused(field: str) -> None:
    """Though all of these but version, chain and address would pass if they had been signed so."""
    good = message()
    tampered = msgspec.structs.replace(good, **{field: OTHERWISE[field]})
    assert tampered.text != good.text
    assert refusal_of(tampered.text, WALLET.sign(good.text)) in ("wrong_signer", "foreign_sign_in")


@settings(max_examples=200)
@given(st.data())
def test_any_single_edit_of_a_signed_text_is_refused(data: st.DataObject) -> None:
    text = message().text
    signature = WALLET.sign(text)
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from(["", "\n", " ", *"01aAzZ.-:", text[at] * 2]))
    edited = text[:at] + put + text[at + 1 :]
    assume(edited != text)
    with pytest.raises((SignInRefused, MalformedSignIn)):
        judge(edited, signature)


@settings(max_examples=100)
@given(st.integers(0, 64), st.integers(0, 7))
def test_any_flipped_bit_of_a_signature_is_refused(at: int, bit: int) -> None:
    text = message().text
    signature = bytearray(WALLET.sign(text))
    signature[at] ^= 1 << bit
    assert refusal_of(text, bytes(signature)) == "wrong_signer"


def test_other_encodings_of_a_good_signature_are_refused() -> None:
    text = message().text
    signature = WALLET.sign(text)
    s = int.from_bytes(signature[32:64], "big")
    high_s = signature[:32] + (CURVE_ORDER - s).to_bytes(32, "big") + bytes([55 - signature[64]])
    low_v = signature[:64] + bytes([signature[64] - 27])
    compact = signature[:32] + (s | (signature[64] - 27) << 255).to_bytes(32, "big")
    for other in (high_s, low_v, compact, signature + b"\0", signature[:64], b""):
        assert refusal_of(text, other) == "wrong_signer"


def test_a_text_that_is_no_message_is_malformed() -> None:
    assert refusal_of("Sign in to ParalleliX.", WALLET.sign("Sign in to ParalleliX.")) == "malformed_sign_in"


# Nonces


def test_a_nonce_is_known_again_by_any_process_with_the_key() -> None:
    nonce = Nonces(b"\x07" * 32).make(NOW)
    assert Nonces(b"\x07" * 32).made_at(nonce) == NOW
    assert parse(message(nonce=nonce).text).nonce == nonce
    assert NONCES.make(NOW) != NONCES.make(NOW)


@settings(max_examples=100)
@given(st.integers(0, 75), st.sampled_from("0123456789abcdefg"))
def test_a_nonce_with_any_other_digit_is_unknown(at: int, digit: str) -> None:
    nonce = NONCES.make(NOW)
    edited = nonce[:at] + digit + nonce[at + 1 :]
    assume(edited != nonce)
    with pytest.raises(SignInRefused) as refused:
        NONCES.made_at(edited)
    assert refused.value.code == "unknown_nonce"


# Places


@pytest.mark.parametrize(
    ("public_url", "server", "host", "origins", "uri"),
    [
        ("https://parallelix.io/api", ("10.0.0.1", 80), "x", ("https://parallelix.io",), "https://parallelix.io/api"),
        ("https://parallelix.io/", ("10.0.0.1", 80), "x", ("https://parallelix.io",), "https://parallelix.io"),
        ("", ("127.0.0.1", 8400), "localhost:8400", ("http://127.0.0.1:8400", "http://localhost:8400"),
         "http://localhost:8400"),
        ("", ("127.0.0.1", 8400), "evil.example", ("http://127.0.0.1:8400", "http://localhost:8400"),
         "http://127.0.0.1:8400"),
        ("", ("::1", 8400), "[::1]:8400", ("http://[::1]:8400", "http://localhost:8400"), "http://[::1]:8400"),
        ("", ("10.0.0.1", 8400), "localhost:8400", ("http://10.0.0.1:8400",), "http://10.0.0.1:8400"),
    ],
)  # fmt: skip
def test_the_place_is_the_configured_one_or_where_the_call_came_in(
    public_url: str, server: tuple[str, int], host: str, origins: tuple[str, ...], uri: str
) -> None:
    place = place_of(public_url, server, host)
    assert (place.origins, place.uri) == (origins, uri)
    assert f"://{place.domain}" in uri
