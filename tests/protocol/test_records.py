from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.protocol import canonical, records
from parallelix.protocol.errors import Malformed
from parallelix.protocol.records import AuditRecord, BrokenChain, ExecutionRecord, Record

VECTORS = vectors.load("records")
CHAIN = [canonical.decode(each["canonical"].encode(), ExecutionRecord) for each in VECTORS["records"]]
AUDITED = [records.decode_record(each["canonical"].encode()) for each in VECTORS["audited"]["records"]]
AUDIT = next(each for each in AUDITED if isinstance(each, AuditRecord))


def sha256(data: bytes) -> str:
    return "0x" + hashlib.sha256(data).hexdigest()


def chain_of(length: int) -> list[Record]:
    """Every third record is an audit."""
    made: list[Record] = []
    head = records.GENESIS_HASH
    for sequence in range(length):
        place: Any = {"sequence": sequence, "previous_hash": head, "finished_at": 1000 + sequence}
        audit = msgspec.structs.replace(AUDIT, **place, execution_hash=head)
        made.append(audit if sequence % 3 == 2 else msgspec.structs.replace(CHAIN[0], **place))
        head = records.record_hash(made[-1])
    return made


def edited(record: Record, field: str) -> Record:
    value = getattr(record, field)
    if isinstance(value, msgspec.Struct):
        other: Any = msgspec.structs.replace(value, completion_tokens=2**40)
    else:
        other = value + 1 if isinstance(value, int) else value + "0"
    return msgspec.structs.replace(record, **{field: other})


def broken_at(changed: Sequence[Record], head: str) -> int | None:
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


def test_audits_stand_in_the_same_chain_and_name_the_hash_of_their_execution() -> None:
    head, hashes = VECTORS["genesis"], list[str]()
    for sequence, each in enumerate(VECTORS["audited"]["records"]):
        value = msgspec.json.decode(each["canonical"])
        assert (value["sequence"], value["previous_hash"]) == (sequence, head)
        if value["kind"] == "audit":
            assert value["execution_hash"] in hashes
        head = sha256(rfc8785.dumps(value))
        hashes.append(head)
        assert each["hash"] == head == records.record_hash(AUDITED[sequence])
    assert {type(each) for each in AUDITED} == {ExecutionRecord, AuditRecord}
    assert head == VECTORS["audited"]["head"] == records.verify_chain(AUDITED, head_hash=head)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (canonical.encode(AUDIT).replace(b'"audit"', b'"note"'), "kind"),
        (canonical.encode(AUDIT).replace(b'"audit"', b'"execution"'), "missing required field"),
        (canonical.encode(AUDIT).replace(b'"agree"', b'"fine"'), "Invalid enum value"),
        (canonical.encode(AUDIT).replace(b'"kind"', b'"kynd"'), "not in canonical form|missing required field"),
        (canonical.encode(AUDIT) + b" ", "not in canonical form"),
        (canonical.encode(CHAIN[0]).replace(b'"execution"', b'"audit"'), "missing required field"),
        (b"[]", "Expected `object`"),
    ],
)
def test_what_is_neither_an_execution_nor_an_audit_is_no_record(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        records.decode_record(data)


@pytest.mark.parametrize("name", vectors.named(VECTORS["broken"]))
def test_each_broken_vector_is_refused_at_its_sequence(name: str) -> None:
    case = vectors.named(VECTORS["broken"])[name]
    changed = [canonical.decode(each.encode(), ExecutionRecord) for each in case["records"]]

    assert broken_at(changed, VECTORS["head"]) == case["sequence"]


@st.composite
def tampered(draw: st.DrawFn) -> tuple[list[Record], list[Record], int]:
    """A chain, the same after one change, and the sequence at which a reader must notice."""
    chain = chain_of(draw(st.integers(2, 9)))
    at = draw(st.integers(0, len(chain) - 1))
    match draw(st.sampled_from(["edit", "drop", "swap", "insert", "repeat"])):
        case "edit":
            named = [name for name in chain[at].__struct_fields__ if name not in {"version", "kind"}]
            field = draw(st.sampled_from(named))
            record = edited(chain[at], field)
            notices = record.sequence if field in {"sequence", "previous_hash"} else at + 1
            return chain, [*chain[:at], record, *chain[at + 1 :]], notices
        case "drop":
            return chain, [*chain[:at], *chain[at + 1 :]], at if at == len(chain) - 1 else at + 1
        case "swap":
            at = min(at, len(chain) - 2)
            return chain, [*chain[:at], chain[at + 1], chain[at], *chain[at + 2 :]], at + 1
        case "insert":
            stranger = edited(chain[at], "finished_at")
            return chain, [*chain[:at], stranger, *chain[at:]], at
        case _:
            return chain, [*chain[: at + 1], *chain[at:]], at


@vectors.examples(200)
@given(tampered())
def test_every_edit_drop_swap_or_insert_is_noticed_where_it_happened(
    case: tuple[list[Record], list[Record], int],
) -> None:
    chain, changed, notices = case
    head = records.record_hash(chain[-1])

    assert broken_at(chain, head) is None
    assert broken_at(changed, head) == notices


@pytest.mark.parametrize("field", ExecutionRecord.__struct_fields__)
def test_every_field_is_in_the_hash(field: str) -> None:
    assert records.record_hash(edited(CHAIN[3], field)) != records.record_hash(CHAIN[3])


@pytest.mark.parametrize("field", AuditRecord.__struct_fields__)
def test_every_field_of_an_audit_is_in_its_hash(field: str) -> None:
    assert records.record_hash(edited(AUDIT, field)) != records.record_hash(AUDIT)


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

    assert not named & {*ExecutionRecord.__struct_fields__, *AuditRecord.__struct_fields__}
