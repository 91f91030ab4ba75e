from __future__ import annotations

import copy
import json
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

import vector_files as vectors
from parallelix.protocol import messages, registry, work
from parallelix.protocol.canonical import decode_json
from parallelix.protocol.errors import Malformed

ATTEMPT = "att_" + "0a" * 16
EXAMPLES: list[msgspec.Struct] = [
    msgspec.json.decode(vectors.load("signing")["manifest"]["text"], type=messages.Manifest),
    messages.Attach(manifest="{}", public_key="0x" + "00" * 64, signature="0x" + "00" * 65),
    messages.Heartbeat(slots_free=1, paused=True, message="moving house"),
    messages.Acknowledge(attempt_id=ATTEMPT, sealed="AAAA"),
    messages.Result(
        attempt_id=ATTEMPT,
        outcome="failed",
        result="AAAA",
        poe="0x" + "00" * 32,
        signature="0x" + "00" * 65,
        poe_signature="AAAA",
        code="node.busy",
        message="no",
    ),
    registry.Registration(
        node_id="7",
        owner="0x" + "0A" * 20,
        stake_wei=str(registry.MINIMUM_STAKE_WEI),
        hardware_tier=3,
        node_key_hash="0x" + "00" * 32,
        state="active",
    ),
]
"""One of each message that the coordinator reads from outside, with every field filled."""
BY_NAME = {type(example).__name__: example for example in EXAMPLES}
every_message = pytest.mark.parametrize("name", BY_NAME)


def body(name: str) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(BY_NAME[name]))


def assert_malformed(name: str, data: bytes | str) -> Malformed:
    with pytest.raises(Malformed) as refused:
        decode_json(data, type(BY_NAME[name]))
    return refused.value


def places(part: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every place inside a message, with its type."""
    if isinstance(part, inspect.StructType):
        for field in part.fields:
            yield from places(field.type, (*path, field.encode_name))
        return
    yield path, part
    if isinstance(part, inspect.VarTupleType):
        yield from places(part.item_type, (*path, 0))


def with_value(name: str, path: tuple[str | int, ...], value: Any) -> bytes:
    changed: Any = copy.deepcopy(body(name))
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return json.dumps(changed).encode()


PLACES = [
    (name, path, part)
    for name, example in BY_NAME.items()
    for path, part in places(inspect.type_info(type(example)))
    if not (path[-1] == 0 and path[-2] == "features")
]

PATTERNS = [place for place in PLACES if isinstance(place[2], inspect.StrType) and place[2].pattern is not None]


def wrong_values(part: Any) -> Iterator[Any]:
    """Values just outside what the type allows, and of every other type."""
    kinds = part.types if isinstance(part, inspect.UnionType) else (part,)
    for kind in kinds:
        if isinstance(kind, inspect.StrType):
            if kind.max_length is not None:
                yield "x" * (kind.max_length + 1)
            if kind.pattern is not None:
                yield from ("", "x", "\n", "0x" + "zz" * 32, "9" * 79, "-1", "00")
        if isinstance(kind, inspect.IntType):
            yield from (kind.ge - 1 if kind.ge is not None else None, kind.le + 1 if kind.le is not None else None)
            yield from (-1, 2**63, 2**64, 10**30, 1.5, 0.0, True)
        if isinstance(kind, inspect.LiteralType):
            yield from ("", "x", 2)
        if isinstance(kind, inspect.VarTupleType):
            yield from ({}, {"0": 1}, "x")
            if kind.min_length:
                yield []
            if kind.max_length is not None:
                yield [None] * (kind.max_length + 1)
    names = {type(kind).__name__ for kind in kinds}
    if "NoneType" not in names:
        yield None
    if not names & {"StrType", "LiteralType"}:
        yield "1"
    if not names & {"IntType", "LiteralType"}:
        yield 1
    if "BoolType" not in names:
        yield True
    yield from ([[]], {"a": {}}, 1e300)


@pytest.mark.parametrize(("name", "path", "part"), PLACES, ids=[f"{name} {path}" for name, path, _ in PLACES])
def test_each_field_refuses_what_is_outside_its_bounds_or_of_another_type(
    name: str, path: tuple[str | int, ...], part: Any
) -> None:
    decode_json(json.dumps(body(name)), type(BY_NAME[name]))

    for value in wrong_values(part):
        assert_malformed(name, with_value(name, path, value))


@pytest.mark.parametrize(
    ("name", "path", "part"),
    PATTERNS,
    ids=[f"{name} {path}" for name, path, _ in PATTERNS],
)
def test_a_pattern_lets_no_newline_or_space_pass(name: str, path: tuple[str | int, ...], part: Any) -> None:
    value: Any = body(name)
    for step in path:
        value = value[step]

    for changed in (value + "\n", "\n" + value, value + " ", value + "\0", value + value + "x"):
        assert_malformed(name, with_value(name, path, changed))


@pytest.mark.parametrize(("name", "path", "part"), PLACES, ids=[f"{name} {path}" for name, path, _ in PLACES])
def test_each_field_that_comes_from_outside_has_a_bound(name: str, path: tuple[str | int, ...], part: Any) -> None:
    for kind in part.types if isinstance(part, inspect.UnionType) else (part,):
        if isinstance(kind, inspect.StrType):
            assert kind.max_length is not None or (kind.pattern is not None and kind.pattern.endswith(r"$(?!\n)"))
        if isinstance(kind, inspect.IntType):
            assert kind.ge is not None
            assert kind.le is not None
        if isinstance(kind, inspect.VarTupleType):
            assert kind.max_length is not None
        assert not isinstance(kind, inspect.FloatType | inspect.AnyType | inspect.DictType)


@every_message
def test_a_required_field_cannot_be_left_out(name: str) -> None:
    required = [field.name for field in msgspec.structs.fields(type(BY_NAME[name])) if field.required]

    for field in required:
        assert_malformed(name, json.dumps({key: value for key, value in body(name).items() if key != field}))
    assert required or name == "Heartbeat"


@every_message
def test_an_unknown_field_is_ignored(name: str) -> None:
    data = json.dumps(body(name) | {"from_the_future": [1.5, None, {"a": "b"}]})

    assert decode_json(data, type(BY_NAME[name])) == BY_NAME[name]


def hostile_documents() -> dict[str, bytes | str]:
    return {
        "nothing": b"",
        "white space": b" \n\t",
        "a null byte": b"\0",
        "null": b"null",
        "a number": b"7",
        "text": b'"x"',
        "a list": b"[]",
        "UTF-16": '{"a":1}'.encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf{}",
        "cut short": b'{"a":',
        "two documents": b"{}{}",
        "single quotes": b"{'a':1}",
        "many brackets": b"[" * 500_000,
        "many braces": b'{"a":' * 200_000,
        "deep and closed": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "deep inside an unknown field": b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    }


@every_message
@pytest.mark.parametrize("document", hostile_documents())
def test_a_hostile_document_is_malformed_and_nothing_else(name: str, document: str) -> None:
    assert len(assert_malformed(name, hostile_documents()[document]).message) < 400


HOSTILE_TEXTS = [
    b'"\xff"',
    b'"\xc0\xaf"',
    b'"\xed\xa0\x80"',
    rb'"\ud800"',
    rb'"\udc00"',
    rb'"\ud800\ud800"',
    rb'"\ud800x"',
    rb'"\udc00\ud800"',
    rb'"\x41"',
    rb'"\u12"',
    rb'"\u{41}"',
    b'"\n"',
    b'"\0"',
    b'"x',
    b"'x'",
    b"x",
]
HOSTILE_NUMBERS = [
    b"9" * 5000,
    b"-" + b"9" * 5000,
    b"1e999",
    b"-1e999",
    b"0x10",
    b"01",
    b"1_000",
    b"+1",
    b".5",
    b"NaN",
    b"-Infinity",
    b"\xd9\xa7",
]


@every_message
def test_broken_text_and_impossible_numbers_are_malformed_wherever_they_stand(name: str) -> None:
    for path, part in places(inspect.type_info(type(BY_NAME[name]))):
        if isinstance(part, inspect.StrType) and path[-1] != 0:
            marked = with_value(name, path, "HERE")
            for token in HOSTILE_TEXTS:
                assert_malformed(name, marked.replace(b'"HERE"', token))
            assert_malformed(name, marked.decode().replace("HERE", "\ud800"))
        if isinstance(part, inspect.IntType):
            marked = with_value(name, path, 123454321)
            for token in HOSTILE_NUMBERS:
                assert_malformed(name, marked.replace(b"123454321", token))


@every_message
def test_a_frame_larger_than_any_message_is_refused_without_quoting_it(name: str) -> None:
    text_field = next(key for key, value in body(name).items() if isinstance(value, str))
    too_long = "x" * (messages.RESULT_BYTES_MAX + 1)

    refused = assert_malformed(name, json.dumps(body(name) | {text_field: too_long}))

    assert len(refused.message) < 400


def test_node_ids_have_one_decimal_form() -> None:
    for text in ("07", "00", "+7", "7 ", " 7", "7\n", "-1", "", "7.0", "0x7", "\u0667", "1_0", "9" * 79):
        assert_malformed("Manifest", with_value("Manifest", ("node_id",), text))
    for text in ("0", "7", str(2**256 - 1)):
        decode_json(with_value("Manifest", ("node_id",), text), messages.Manifest)


# --- Entries and vectors


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[1]",
        b"[[]]",
        b'[["a","b"]]',
        b'[["a",1e999]]',
        b'[["a",NaN]]',
        b'[["a",1,[["b"]]]]',
        b'[["a",1,[["b",null]]]]',
        b'[["\\ud800"]]',
        b'[["\xff"]]',
        b'[["a",' + b"9" * 5000 + b"]]",
        b"[" * 100_000,
        b'[["a",1,' + b"[" * 100_000,
        b'[["a"]] ,',
    ],
    ids=lambda data: data[:24],
)
def test_hostile_entries_are_malformed_and_nothing_else(data: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        work.decode_entries(data)
    assert len(refused.value.message) < 300


def test_entries_far_too_many_are_refused_before_they_are_read() -> None:
    """These could not be read at all: what is said shows that nobody tried."""
    assert work.entries_max(0) == 64 and work.entries_max(100) == 264
    unreadable = b"[" * work.BRACKETS_PER_ENTRY_MAX * 4
    for count_max, said in [(3, "entries: Expected"), (2, "entries: 512 lists, far more than those of 2 entries")]:
        with pytest.raises(Malformed) as refused:
            work.decode_entries(unreadable, count_max=count_max)
        assert refused.value.message.startswith(said)


numbers = st.floats(allow_nan=False, allow_infinity=False)
entries = st.builds(
    work.Entry,
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.none() | numbers,
    st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=4), numbers), max_size=3).map(tuple),
)


@vectors.examples(100)
@given(st.lists(entries, max_size=5))
def test_entries_come_back_exactly(sent: list[work.Entry]) -> None:
    assert list(work.decode_entries(work.encode_entries(sent))) == sent


@vectors.examples(100)
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=9))
def test_vectors_come_back_exactly_as_little_endian_floats(values: list[float]) -> None:
    packed = work.pack_vector(values)

    assert work.unpack_vector(packed) == values
    raw = b"".join(struct.pack("<f", value) for value in values)
    assert vectors.maker().decoded(packed) == raw


@pytest.mark.parametrize("text", ["A", "AA", "AAA", "AAAAA", "AAAAAA==", "AAAA\n", "AAAAAAA", "\ud800"])
def test_a_vector_that_is_no_whole_number_of_floats_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        work.unpack_vector(text)


# --- Bounds that depend on each other


def test_what_may_be_sealed_fits_what_may_be_sent() -> None:
    """A result of 32,768 tokens in base64url inside and outside its seal, and a delta of 64 of them in one frame."""
    alternatives = tuple((" token", -12.345678901234567) for _ in range(20))
    entry_bytes = len(work.encode_entries([work.Entry(" token", -12.345678901234567, alternatives)]))

    assert 32_768 * entry_bytes * 16 // 9 < messages.RESULT_BYTES_MAX
    assert 64 * entry_bytes < messages.FRAME_BYTES_MAX
    models = [
        messages.ModelInfo(name="m" * 128, digest="0" * 64, context_tokens=2**31) for _ in range(messages.MODELS_MAX)
    ]
    manifest = msgspec.structs.replace(BY_NAME["Manifest"], models=tuple(models))
    attach = msgspec.structs.replace(BY_NAME["Attach"], manifest=msgspec.json.encode(manifest).decode())
    assert len(msgspec.json.encode(attach)) < messages.OPERATOR_BODY_BYTES_MAX
