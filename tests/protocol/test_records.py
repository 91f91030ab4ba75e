from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.protocol import canonical, records
from parallelix.protocol.records import BrokenChain, ExecutionRecord

VECTORS = vectors.load("records")
CHAIN = [canonical.decode(each["canonical"].encode(), ExecutionRecord) for each in VECTORS["records"]]


def sha256(data: bytes) -> str:
    return "0x" + hashlib.sha256(data).hexdigest()


def chain_of(length: int) -> list[ExecutionRecord]:
    made: list[ExecutionRecord] = []
    head = records.GENESIS_HASH
    for sequence in range(length):
        made.append(msgspec.structs.replace(CHAIN[0], sequence=sequence, previous_hash=head, rate=sequence))
        head = records.record_hash(made[-1])
    return made


def edited(record: ExecutionRecord, field: str) -> ExecutionRecord:
    value = getattr(record, field)
    if isinstance(value, msgspec.Struct):
        other: Any = msgspec.structs.replace(value, completion_tokens=2**40)
    else:
        other = value + 1 if isinstance(value, int) else value + "0"
    return msgspec.structs.replace(record, **{field: other})


def broken_at(changed: list[ExecutionRecord], head: str) -> int | None:
    try:
        records.verify_chain(changed, head_hash=head)
    except BrokenChain as error:
        return error.sequence
    return None


def test_the_hashes_of_the_vectors_follow_by_hand() -> None:
    head = VECTORS["genesis"]
    for sequence, each in enumerate(VECTORS["records"]):
        value = msgspec.json.decode(each["canonical"])
        assert (value["sequence"], value["previous_hash"]) == (sequence, head)
        head = sha256(rfc8785.dumps(value))
        assert each["hash"] == head == records.record_hash(CHAIN[sequence])
        assert records.record_hash_bytes(CHAIN[sequence]).hex() == head[2:]
    assert head == VECTORS["head"] == records.verify_chain(CHAIN, head_hash=head)


@pytest.mark.parametrize("name", vectors.named(VECTORS["broken"]))
def test_each_broken_vector_is_refused_at_its_sequence(name: str) -> None:
    case = vectors.named(VECTORS["broken"])[name]
    changed = [canonical.decode(each.encode(), ExecutionRecord) for each in case["records"]]

    assert broken_at(changed, VECTORS["head"]) == case["sequence"]


fields = st.sampled_from([name for name in ExecutionRecord.__struct_fields__ if name not in {"version", "kind"}])


@st.composite
def tampered(draw: st.DrawFn) -> tuple[list[ExecutionRecord], list[ExecutionRecord], int]:
    """A chain, the same after one change, and the sequence at which a reader must notice."""
    chain = chain_of(draw(st.integers(2, 9)))
    at = draw(st.integers(0, len(chain) - 1))
    match draw(st.sampled_from(["edit", "drop", "swap", "insert", "repeat"])):
        case "edit":
            field = draw(fields)
            record = edited(chain[at], field)
            notices = record.sequence if field in {"sequence", "previous_hash"} else at + 1
            return chain, [*chain[:at], record, *chain[at + 1 :]], notices
        case "drop":
            return chain, [*chain[:at], *chain[at + 1 :]], at if at == len(chain) - 1 else at + 1
        case "swap":
            at = min(at, len(chain) - 2)
            return chain, [*chain[:at], chain[at + 1], chain[at], *chain[at + 2 :]], at + 1
        case "insert":
            stranger = edited(chain[at], "model_digest")
            return chain, [*chain[:at], stranger, *chain[at:]], at
        case _:
            return chain, [*chain[: at + 1], *chain[at:]], at


@vectors.examples(200)
@given(tampered())
def test_every_edit_drop_swap_or_insert_is_noticed_where_it_happened(
    case: tuple[list[ExecutionRecord], list[ExecutionRecord], int],
) -> None:
    chain, changed, notices = case
    head = records.record_hash(chain[-1])

    assert broken_at(chain, head) is None
    assert broken_at(changed, head) == notices


@pytest.mark.parametrize("field", ExecutionRecord.__struct_fields__)
def test_every_field_is_in_the_hash(field: str) -> None:
    assert records.record_hash(edited(CHAIN[3], field)) != records.record_hash(CHAIN[3])


def test_a_part_of_the_chain_is_checked_from_where_it_begins() -> None:
    middle = CHAIN[2:4]
    before = records.record_hash(CHAIN[1])

    assert records.verify_chain(middle, previous_hash=before, first_sequence=2) == records.record_hash(CHAIN[3])
    assert records.verify_chain([], previous_hash=before, first_sequence=2) == before
    with pytest.raises(BrokenChain, match="expected sequence 0"):
        records.verify_chain(middle, previous_hash=before)
    with pytest.raises(BrokenChain, match="the chain stands at"):
        records.verify_chain(middle, first_sequence=2)


def test_without_a_head_a_cut_at_the_end_cannot_be_seen_and_with_it_it_is() -> None:
    assert records.verify_chain(CHAIN[:-1]) == CHAIN[-1].previous_hash
    with pytest.raises(BrokenChain, match="the chain ends here"):
        records.verify_chain(CHAIN[:-1], head_hash=VECTORS["head"])


def test_a_record_says_nothing_that_identifies_the_node() -> None:
    named = {"node", "node_id", "attempt", "attempt_id", "poe", "owner", "signature", "session"}

    assert not named & set(ExecutionRecord.__struct_fields__)
