"""EIP-4361 texts: what is written is read back, and nothing else is read."""

from __future__ import annotations

import string
from typing import Any

import msgspec
import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelix.protocol import sign_in
from parallelix.protocol.errors import Malformed
from parallelix.protocol.sign_in import SignIn
from parallelix.protocol.signing import NodeKey, checksum_address

EXAMPLE = """\
https://example.com wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

I accept the ExampleOrg Terms of Service: https://example.com/tos

URI: https://example.com/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json"""
"""The shape of the standard's own example."""

ALPHANUMERIC = string.ascii_letters + string.digits
PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
TIMES = st.one_of(
    st.integers(0, 253402300799999).map(sign_in.time_text),
    st.sampled_from(["2026-11-21T15:00:00Z", "2026-11-21T15:00:00.123456789Z", "2026-11-21T15:00:00.5+05:45"]),
)
URIS = st.text(ALPHANUMERIC + "-._~:/?#[]@!$&'()*+,;=%", min_size=1, max_size=60).map(lambda rest: f"https:{rest}")
MESSAGES = st.builds(
    SignIn,
    scheme=st.sampled_from(["", "https", "http", "chrome-extension"]),
    domain=st.text(ALPHANUMERIC + "-._~:@[]", min_size=1, max_size=60),
    address=st.binary(min_size=20, max_size=20).map(checksum_address),
    statement=st.text(PRINTABLE, max_size=80),
    uri=URIS,
    version=st.sampled_from(["1", "2", "0"]),
    chain_id=st.integers(0, 2**256 - 1),
    nonce=st.text(ALPHANUMERIC, min_size=8, max_size=80),
    issued_at=TIMES,
    expiration_time=st.just("") | TIMES,
    not_before=st.just("") | TIMES,
    request_id=st.none() | st.text(ALPHANUMERIC + "-._~!$&'()*+,;=:@%", max_size=40),
    resources=st.none() | st.lists(URIS, max_size=4).map(tuple),
)


@settings(max_examples=150)
@given(MESSAGES)
def test_what_is_written_is_read_back(message: SignIn) -> None:
    assert sign_in.parse(message.text) == message


@settings(max_examples=300)
@given(MESSAGES, st.data())
def test_a_text_with_any_other_character_is_refused_or_says_something_else(
    message: SignIn, data: st.DataObject
) -> None:
    text = message.text
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from(["", "\n", " ", "x", "0", "É", "\r", "\0", text[at] * 2]))
    edited = text[:at] + put + text[at + 1 :]
    try:
        read = sign_in.parse(edited)
    except Malformed:
        return
    assert read.text == edited
    assert (read == message) == (edited == text)


@settings(max_examples=100)
@given(st.text(max_size=300))
def test_any_other_text_is_refused_as_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        sign_in.parse(text)


def test_the_example_of_the_standard_is_read() -> None:
    message = sign_in.parse(EXAMPLE)
    assert (message.scheme, message.domain, message.chain_id, message.nonce) == ("https", "example.com", 1, "32891756")
    assert message.statement == "I accept the ExampleOrg Terms of Service: https://example.com/tos"
    assert message.resources is not None
    assert len(message.resources) == 2
    assert sign_in.unix_ms_of(message.issued_at) == 1633019124000


@pytest.mark.parametrize(
    ("found", "put", "line"),
    [
        ("https://example.com wants", "exa mple.com wants", 1),
        ("https://example.com wants", "wants", 1),
        ("wants you to sign in", "Wants you to sign in", 1),
        ("0xC02a", "0xc02a", 2),
        ("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756C", 2),
        ("Cc2\n\nI", "Cc2\nI", 3),
        ("/tos\n\nURI", "/tos\nURI", 5),
        ("URI: https://example.com/login", "URI: example", 6),
        ("URI: https://example.com/login", "URI:https://example.com/login", 6),
        ("Version: 1", "Version: 01", 7),
        ("Version: 1\nChain ID: 1", "Chain ID: 1\nVersion: 1", 7),
        ("Chain ID: 1", "Chain ID: 0x1", 8),
        ("Chain ID: 1", "Chain ID: 01", 8),
        ("Chain ID: 1", "Chain ID: \u0661", 8),
        ("Nonce: 32891756", "Nonce: 3289175", 9),
        ("Nonce: 32891756", "Nonce: 3289-1756", 9),
        ("2021-09-30T16:25:24Z", "2021-09-31T16:25:24Z", None),
        ("2021-09-30T16:25:24Z", "2021-09-30T16:25:24", 10),
        ("2021-09-30T16:25:24Z", "2021-09-30 16:25:24Z", 10),
        ("2021-09-30T16:25:24Z", "2021-09-30T16:25:60Z", None),
        ("Resources:", "Resources: ", 11),
        ("Resources:", "Not Before: 2021-09-30T16:25:24Z\nExpiration Time: 2021-09-30T16:25:24Z\nResources:", 12),
        ("- ipfs:", "-ipfs:", 12),
        ("claim.json", "claim.json\n", 14),
        ("claim.json", "claim.json" + "\n- https://a" * 20, 28),
    ],
)
def test_a_text_that_is_not_to_the_standard_is_refused_by_its_line(found: str, put: str, line: int | None) -> None:
    edited = EXAMPLE.replace(found, put, 1)
    assert edited != EXAMPLE
    with pytest.raises(Malformed) as refused:
        sign_in.parse(edited)
    assert (f"line {line}:" if line else "no date and time") in refused.value.message
    assert "example.com" not in refused.value.message


def test_a_text_of_any_length_is_not_read() -> None:
    with pytest.raises(Malformed, match="at most 4096"):
        sign_in.parse(EXAMPLE + "\n- https://a" * 1000)


@pytest.mark.parametrize(
    "changes",
    [
        {"statement": ""},
        {"statement": "URI: https://elsewhere.example"},
        {"request_id": ""},
        {"resources": ()},
        {"expiration_time": "2021-10-01T00:00:00Z", "not_before": "2021-09-30T00:00:00Z"},
    ],
)
def test_lines_that_may_be_left_out_are_told_from_empty_ones(changes: dict[str, Any]) -> None:
    message = msgspec.structs.replace(sign_in.parse(EXAMPLE), **changes)
    assert sign_in.parse(message.text) == message


def test_a_wallet_of_others_signs_the_same_bytes() -> None:
    key = NodeKey(b"\x11" * 32)
    signed = Account.sign_message(encode_defunct(text=EXAMPLE), key.secret)
    assert bytes(signed.signature) == key.sign(EXAMPLE)
