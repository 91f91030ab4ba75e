from __future__ import annotations

import base64
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.protocol import encoding, ids
from parallelix.protocol.errors import Malformed

HASH = "0x" + "ab" * 32
UNIT = "req_" + "0f" * 32


@vectors.examples(200)
@given(st.binary(max_size=64))
def test_bytes_come_back_from_both_forms(data: bytes) -> None:
    assert encoding.from_base64url(encoding.to_base64url(data), name="x") == data
    assert encoding.from_hex(encoding.to_hex(data), name="x", length_bytes=len(data)) == data
    assert encoding.to_base64url(data) == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert encoding.to_hex(data) == "0x" + base64.b16encode(data).decode().lower()


@pytest.mark.parametrize(
    "text",
    ["YQ==", "YQ=", "=", "Y", "YWJjZ", "YR", "YWI+", "YWI/", " YQ", "YQ ", "YQ\n", "Y Q", "YQ\0", "YQ.", "Y\u00e9",
     "Y\uff11", "\ud800", "YWJ\u0661"],
)  # fmt: skip
def test_base64url_has_one_form(text: str) -> None:
    with pytest.raises(Malformed):
        encoding.from_base64url(text, name="x")


@vectors.examples(500)
@given(st.text("AEQgwYZ09-_+/= \n", max_size=9))
def test_whatever_base64url_text_is_accepted_is_the_text_of_its_bytes(text: str) -> None:
    try:
        data = encoding.from_base64url(text, name="x")
    except Malformed:
        return
    assert encoding.to_base64url(data) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        HASH[2:],
        HASH.upper(),
        "0X" + HASH[2:],
        "0x" + "AB" * 32,
        HASH[:-1],
        HASH[:-2],
        HASH + "00",
        HASH + "\n",
        HASH[:-1] + "\n",
        "\n" + HASH[1:],
        HASH[:-2] + "  ",
        "0x" + "a b " * 16,
        "0x" + "ab " * 21 + "a",
        HASH[:-1] + "g",
        HASH[:-1] + "\u0661",
        HASH[:-1] + "\uff11",
        HASH[:-1] + "\ud800",
        "0x0x" + "ab" * 31,
        "0x-" + "ab" * 31 + "a",
    ],
)
def test_a_hash_has_one_form(text: str) -> None:
    with pytest.raises(Malformed):
        encoding.from_hex(text, name="x", length_bytes=32)
    assert not encoding.is_hash(text)
    assert encoding.is_hash(HASH)


@pytest.mark.parametrize(
    "text",
    [
        "",
        UNIT[4:],
        UNIT[:-1],
        UNIT + "0",
        UNIT + "\n",
        " " + UNIT,
        UNIT.upper(),
        "req_" + "0F" * 32,
        "att_" + "0f" * 32,
        "req_0x" + "0f" * 31,
        "req_" + "\u0661" * 64,
        "\ud800" + UNIT,
        "x" * 1_000_000,
    ],
)
def test_a_unit_id_has_one_form(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        ids.unit_bytes(text)
    assert len(refused.value.message) < 400
    assert not ids.is_unit_id(text)
    assert ids.is_unit_id(UNIT)


def test_a_fresh_id_is_the_time_and_random_bytes_and_is_written_in_its_one_form() -> None:
    now = 0x0102_0304_0506
    unit, attempt = (ids.fresh_bytes(count, now, lambda left: b"\xaa" * left) for count in (32, 16))

    assert unit == b"\1\2\3\4\5\6" + b"\xaa" * 26 and attempt == unit[:16]
    assert ids.request_id(unit) == "req_" + unit.hex() and ids.unit_bytes(ids.request_id(unit)) == unit
    assert ids.attempt_id(attempt) == "att_" + attempt.hex() and ids.is_attempt_id(ids.attempt_id(attempt))
    with pytest.raises(AssertionError):
        ids.attempt_id(unit)


def test_a_node_id_is_a_uint256_of_fixed_width() -> None:
    assert ids.node_bytes(0) == bytes(32)
    assert ids.node_bytes(ids.NODE_ID_MAX) == b"\xff" * 32
    for outside in (-1, ids.NODE_ID_MAX + 1, 10**5000):
        with pytest.raises(Malformed):
            ids.node_bytes(outside)


@pytest.mark.parametrize("ending", ["", "\n", "0", "\nx"])
def test_a_pattern_of_a_message_field_holds_to_the_last_character(ending: str) -> None:
    kind = Annotated[str, encoding.whole("ab|cd")]

    assert msgspec.convert("cd", kind) == "cd"
    if ending:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert("cd" + ending, kind)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert("x" + "ab", kind)
