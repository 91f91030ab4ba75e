from __future__ import annotations

import hashlib
import itertools
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.protocol import canonical, envelope, messages, poe, receipts, records, work
from parallelix.protocol.errors import Malformed

VECTORS = vectors.load("canonical")
KINDS: dict[str, type[msgspec.Struct]] = {
    kind.__name__: kind
    for kind in (
        work.Payload,
        work.ResultContent,
        work.Sampling,
        records.ExecutionRecord,
        records.AuditRecord,
        poe.AttemptFacts,
    )
}
HASHED: list[type[msgspec.Struct]] = [*KINDS.values(), receipts.Receipt]

any_text = st.text(st.characters(codec="utf-8"), max_size=40)
integers = st.integers(-canonical.INTEGER_MAX, canonical.INTEGER_MAX)
samplings = st.builds(
    work.Sampling,
    max_tokens=st.integers(0, canonical.INTEGER_MAX),
    temperature=st.none() | any_text,
    top_k=st.none() | integers,
    seed=st.none() | integers,
    stop=st.lists(any_text, max_size=4).map(tuple),
)
tool_calls = st.lists(st.builds(work.ToolCall, id=any_text, name=any_text, arguments=any_text), max_size=2).map(tuple)
chat_messages = st.builds(
    work.Message,
    role=st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    content=any_text,
    name=any_text,
    tool_calls=tool_calls,
)
payloads = st.builds(
    work.Payload,
    kind=st.sampled_from(["chat", "completion", "embedding"]),
    model=any_text,
    messages=st.lists(chat_messages, max_size=3).map(tuple),
    prompt=any_text,
    inputs=st.lists(any_text, max_size=3).map(tuple),
    tools=any_text,
    sampling=samplings,
)
results = st.builds(
    work.ResultContent, text=any_text, tool_calls=tool_calls, finish_reason=st.sampled_from(["stop", "length"])
)
structs = samplings | payloads | results


@pytest.mark.parametrize("name", vectors.named(VECTORS["cases"]))
def test_each_vector_is_rfc_8785_over_its_value_and_reads_back_as_its_type(name: str) -> None:
    case = vectors.named(VECTORS["cases"])[name]
    data = case["canonical"].encode()

    assert rfc8785.dumps(case["value"]) == data
    assert "0x" + hashlib.sha256(data).hexdigest() == case["sha256"]
    assert canonical.encode(canonical.decode(data, KINDS[case["type"]])) == data


@pytest.mark.parametrize("name", vectors.named(VECTORS["refused"]))
def test_bytes_in_any_other_form_are_refused(name: str) -> None:
    case = vectors.named(VECTORS["refused"])[name]

    with pytest.raises(Malformed):
        canonical.decode(case["text"].encode(), KINDS[case["type"]])


@vectors.examples(300)
@given(structs)
def test_encoding_agrees_with_another_implementation_of_rfc_8785(value: msgspec.Struct) -> None:
    data = canonical.encode(value)

    assert data == rfc8785.dumps(msgspec.to_builtins(value))
    assert canonical.decode(data, type(value)) == value


def respelled(data: bytes) -> st.SearchStrategy[bytes]:
    """The same JSON value in other bytes."""
    value: Any = msgspec.json.decode(data)
    spaced = st.integers(1, 8).map(lambda indent: msgspec.json.format(data, indent=indent))
    reordered = st.permutations(list(value)).map(lambda keys: msgspec.json.encode({key: value[key] for key in keys}))
    padded = st.sampled_from([b" ", b"\n", b"\t", b"\r"]).flatmap(lambda pad: st.sampled_from([pad + data, data + pad]))
    doubled = st.sampled_from(list(value)).map(
        lambda key: data[:-1] + b"," + msgspec.json.encode({key: value[key]})[1:]
    )
    return (spaced | reordered | padded | doubled).filter(lambda other: other != data)


@vectors.examples(200)
@given(structs.flatmap(lambda value: st.tuples(st.just(value), respelled(canonical.encode(value)))))
def test_no_other_spelling_of_the_same_value_is_accepted(case: tuple[msgspec.Struct, bytes]) -> None:
    value, other = case

    with pytest.raises(Malformed, match="not in canonical form"):
        canonical.decode(other, type(value))


def fields_of(kind: type[msgspec.Struct]) -> tuple[msgspec.inspect.Field, ...]:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return info.fields


def test_what_is_made_without_saying_its_version_has_the_one_that_is_read() -> None:
    kinds: list[type[msgspec.Struct]] = [*HASHED, messages.Manifest, envelope.EnvelopeHeader]
    fixed = {
        f"{kind.__name__}.{field.name}": (field.default, *field.type.values)
        for kind in kinds
        for field in fields_of(kind)
        if isinstance(field.type, msgspec.inspect.LiteralType) and len(field.type.values) == 1
    }
    assert all(default == value for default, value in fixed.values()), fixed
    assert {"Payload.version", "ExecutionRecord.kind", "AuditRecord.kind", "EnvelopeHeader.alg"} <= set(fixed)


@pytest.mark.parametrize("kind", HASHED, ids=lambda kind: kind.__name__)
def test_every_integer_that_is_hashed_is_bounded_and_no_fraction_is_hashed(kind: type[msgspec.Struct]) -> None:
    """Beyond 2^53 a reader that keeps numbers as doubles hashes something else."""
    found = 0
    for part in reachable(msgspec.inspect.type_info(kind)):
        assert not isinstance(part, msgspec.inspect.FloatType | msgspec.inspect.AnyType), kind
        if isinstance(part, msgspec.inspect.IntType):
            found += 1
            assert part.ge is not None and part.ge >= -canonical.INTEGER_MAX, kind
            assert part.le is not None and part.le <= canonical.INTEGER_MAX, kind
    assert found or kind is work.ResultContent


def reachable(part: Any) -> list[Any]:
    """A type and all the types inside it."""
    inner: list[Any] = []
    if isinstance(part, msgspec.inspect.StructType):
        inner = [field.type for field in part.fields]
    elif isinstance(part, msgspec.inspect.VarTupleType):
        inner = [part.item_type]
    elif isinstance(part, msgspec.inspect.UnionType):
        inner = list(part.types)
    return [part, *(each for one in inner for each in reachable(one))]


@pytest.mark.parametrize("case", VECTORS["domain_hash"], ids=lambda case: f"{case['domain']} {case['parts']}")
def test_domain_hash_is_sha256_over_parts_led_by_their_length(case: dict[str, Any]) -> None:
    parts = [bytes.fromhex(each) for each in case["parts"]]
    by_hand = b"".join(len(part).to_bytes(8, "big") + part for part in (case["domain"].encode(), *parts))

    assert "0x" + hashlib.sha256(by_hand).hexdigest() == case["hash"]
    assert "0x" + canonical.domain_hash(case["domain"], *parts).hex() == case["hash"]


split_points = st.lists(st.integers(0, 24), max_size=4).map(lambda at: [0, *sorted(at), 24])


@vectors.examples(300)
@given(st.binary(min_size=24, max_size=24), split_points, split_points)
def test_no_two_ways_to_cut_the_same_bytes_hash_alike(data: bytes, first: list[int], second: list[int]) -> None:
    one, other = cut(data, first), cut(data, second)

    same = canonical.domain_hash("d", *one) == canonical.domain_hash("d", *other)

    assert same == (one == other)


def cut(data: bytes, points: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in itertools.pairwise(points)]


def test_the_domain_itself_is_kept_apart_from_the_first_part() -> None:
    assert canonical.domain_hash("ab", b"c") != canonical.domain_hash("a", b"bc")
    assert canonical.domain_hash("a") != canonical.domain_hash("", b"a")


def test_a_refusal_does_not_quote_the_value_that_it_refuses() -> None:
    secret = "it's my - at `$.x` secret"
    for data in ({"role": secret}, {"version": 1, "kind": secret, "model": "m"}):
        with pytest.raises(Malformed) as refused:
            canonical.decode_json(msgspec.json.encode(data), work.Message if "role" in data else work.Payload)
        assert "secret" not in refused.value.message and "my" not in refused.value.message
        assert refused.value.message.endswith(("`$.role`", "`$.kind`"))
        assert refused.value.__cause__ is None and refused.value.__suppress_context__


def test_a_refusal_does_not_carry_a_megabyte_of_what_was_refused() -> None:
    with pytest.raises(Malformed) as refused:
        canonical.decode_json(b'{"role":"' + b"x" * 1_000_000 + b'"}', work.Message)

    assert len(refused.value.message) < 300


@vectors.examples(300)
@given(st.binary(max_size=60) | st.text(st.characters(), max_size=60))
def test_reading_junk_never_raises_anything_but_malformed(junk: bytes | str) -> None:
    for kind in (work.Payload, records.ExecutionRecord, messages.Attach):
        with pytest.raises(Malformed):
            canonical.decode_json(junk, kind)
    with pytest.raises(Malformed):
        records.decode_record(junk if isinstance(junk, bytes) else junk.encode(errors="surrogatepass"))
