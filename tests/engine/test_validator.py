"""Step 10, verify: an honest result is taken, and one with any single thing altered is not."""

from __future__ import annotations

import functools
import itertools
import math
import re
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.engine import validator
from parallelix.engine.events import ExecutionFacts
from parallelix.engine.validator import Expected, Rejected, Verified
from parallelix.protocol import canonical, poe, signing, work
from parallelix.protocol.encoding import to_base64url, to_hex
from parallelix.protocol.messages import Result, ResultDetail
from parallelix.protocol.work import Entry, ResultContent, Usage

NODE = signing.NodeKey(b"\x07" * 32)
STRANGER = signing.NodeKey(b"\x08" * 32)
UNIT, OTHER_UNIT = "req_" + "1a" * 32, "req_" + "2b" * 32
ATTEMPT = "att_" + "3c" * 16
DIGEST, OTHER_DIGEST = "d1" * 32, "d2" * 32
SALT = b"\x05" * 32
ENTRIES = (Entry("Cre", -0.25, (("Cre", -0.25), ("Coi", -2.0))), Entry("dits", -0.5), Entry(".", None))
EXPECTED = Expected(
    chain_id=31337,
    unit_id=UNIT,
    attempt_id=ATTEMPT,
    attempt_number=1,
    node_id=7,
    node_public_key=NODE.public_key,
    model_digest=DIGEST,
    input_hash=b"\x09" * 32,
    request_salt=b"\x0a" * 32,
    streamed_text="Credits",
    tokens_max=8,
)


@functools.cache
def rsa_key(name: str) -> RSAPrivateKey:
    key = load_pem_private_key((vectors.FOLDER / "keys" / f"{name}.pem").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def returned(
    *,
    content: ResultContent | None = None,
    entries: tuple[Entry, ...] = ENTRIES,
    usage: Usage | None = None,
    outcome: Any = "completed",
    salt: bytes = SALT,
    model_digest: str = DIGEST,
    expected: Expected = EXPECTED,
    key: signing.NodeKey = NODE,
    content_bytes: bytes | None = None,
    entries_bytes: bytes | None = None,
) -> tuple[Result, ResultDetail]:
    """What a node sends that believes in `expected`. Everything is signed truly, so a test alters one thing alone."""
    if content is None:
        content = ResultContent(text="Credits.", finish_reason="stop")
    usage = usage or Usage(prompt_tokens=12, completion_tokens=3)
    content_bytes = canonical.encode(content) if content_bytes is None else content_bytes
    entries_bytes = work.encode_entries(entries) if entries_bytes is None else entries_bytes
    proof = poe.proof_of_execution(expected.unit_id, content_bytes, expected.node_id)
    facts = poe.AttemptFacts(
        chain_id=expected.chain_id,
        attempt_id=expected.attempt_id,
        attempt_number=expected.attempt_number,
        outcome=outcome,
        input_hash=to_hex(expected.input_hash),
        model_digest=model_digest,
        usage=usage,
        entries_root=to_hex(work.entries_root(entries_bytes)),
        salt_hash=to_hex(poe.salt_hash(salt)),
    )
    result = Result(
        attempt_id=ATTEMPT,
        outcome=outcome,
        result="sealed",
        poe=to_hex(proof),
        signature=to_hex(key.sign(signing.result_text(expected.unit_id))),
        poe_signature=to_base64url(poe.sign(rsa_key("poe"), content_bytes, proof, facts)),
    )
    detail = ResultDetail(
        content=to_base64url(content_bytes),
        entries=to_base64url(entries_bytes),
        salt=to_base64url(salt),
        usage=usage,
        model_digest=model_digest,
    )
    return result, detail


def examined(result: Result, detail: ResultDetail, **expected: Any) -> Verified | Rejected:
    return validator.examine(result, detail, msgspec.structs.replace(EXPECTED, **expected), rsa_key("poe").public_key())


def code_of(verdict: Verified | Rejected) -> str:
    return verdict.code if isinstance(verdict, Rejected) else "verified"


def code_for(**altered: Any) -> str:
    """The verdict over a result that the node made so and signed truly."""
    return code_of(examined(*returned(**altered)))


@functools.cache
def honest() -> tuple[Result, ResultDetail]:
    return returned()


def test_an_honest_result_is_taken_with_the_facts_of_its_record() -> None:
    verdict = examined(*honest())

    assert isinstance(verdict, Verified), verdict
    content_bytes = canonical.encode(verdict.content)
    proof = poe.proof_of_execution(UNIT, content_bytes, 7)
    assert verdict.content.text == "Credits." and verdict.content_bytes == content_bytes
    assert verdict.entries == ENTRIES and verdict.entries_bytes == work.encode_entries(ENTRIES)
    assert verdict.facts == ExecutionFacts(
        usage=Usage(prompt_tokens=12, completion_tokens=3),
        entries_counted=3,
        input_hash=to_hex(EXPECTED.input_hash),
        result_hash=to_hex(work.result_hash(EXPECTED.request_salt, content_bytes)),
        poe_commitment=to_hex(poe.commitment(proof, SALT)),
        model_digest=DIGEST,
    )


def test_a_partial_result_is_taken_as_one() -> None:
    content = ResultContent(text="Cre", finish_reason="cancelled")
    result, detail = returned(content=content, entries=ENTRIES[:1], outcome="cancelled")
    assert code_of(examined(result, detail, streamed_text="C")) == "verified"


def test_nothing_else_than_a_result_is_examined() -> None:
    result, detail = honest()
    with pytest.raises(AssertionError):
        examined(msgspec.structs.replace(result, outcome="failed"), detail)


# --- One thing altered on the way


def flipped(text: str, at: int) -> str:
    """Another character of the same alphabet."""
    return (
        text[:at]
        + ("1" if text[at] == "0" else "0" if text[at].isdigit() else "B" if text[at] == "A" else "A")
        + (text[at + 1 :])
    )


RESULT_ALTERED: dict[str, list[tuple[Any, set[str]]]] = {
    "outcome": [("cancelled", {"bad_signature"})],
    "poe": [
        ("0x" + "00" * 32, {"poe_mismatch"}),
        ("", {"malformed_poe"}),
        ("0x" + "00" * 31, {"malformed_poe"}),
        ("0x" + "00" * 33, {"malformed_poe"}),
        ("0X" + "00" * 32, {"malformed_poe"}),
        ("0x" + "AB" * 32, {"malformed_poe"}),
        ("00" * 33, {"malformed_poe"}),
    ],
    "signature": [
        ("", {"malformed_poe"}),
        ("0x" + "00" * 64, {"malformed_poe"}),
        ("0x" + "00" * 65, {"bad_signature"}),
        (to_hex(STRANGER.sign(signing.result_text(UNIT))), {"bad_signature"}),
        (to_hex(NODE.sign(signing.result_text(OTHER_UNIT))), {"bad_signature"}),
        (to_hex(NODE.sign(signing.attach_text(31337, 7, "0x" + "00" * 32))), {"bad_signature"}),
    ],
    "poe_signature": [
        ("", {"bad_signature"}),
        ("AAAA", {"bad_signature"}),
        ("AA==", {"malformed_poe"}),
        ("A+/A", {"malformed_poe"}),
        ("AB", {"malformed_poe"}),
    ],
}
DETAIL_ALTERED: dict[str, list[tuple[Any, set[str]]]] = {
    "content": [
        (to_base64url(b'{"finish_reason":"stop","text":"Credits!","version":1}'), {"poe_mismatch", "malformed"}),
        ("", {"malformed"}),
        ("A", {"malformed"}),
        (to_base64url(b"\xff\xfe"), {"malformed"}),
    ],
    "entries": [
        (to_base64url(work.encode_entries((*ENTRIES, Entry("")))), {"bad_signature"}),
        (to_base64url(work.encode_entries((Entry("Credits.", -9.0),))), {"bad_signature"}),
        ("", {"bad_signature"}),
        ("=", {"malformed"}),
    ],
    "salt": [
        (to_base64url(b"\x06" * 32), {"bad_signature"}),
        (to_base64url(b"\x05" * 31), {"malformed_poe"}),
        (to_base64url(b"\x05" * 33), {"malformed_poe"}),
        ("", {"malformed_poe"}),
        ("!", {"malformed"}),
    ],
    "usage": [
        (Usage(prompt_tokens=13, completion_tokens=3), {"bad_signature"}),
        (Usage(prompt_tokens=12, completion_tokens=4), {"bad_signature"}),
    ],
    "model_digest": [(OTHER_DIGEST, {"wrong_model"}), (DIGEST.upper(), {"wrong_model"}), ("", {"wrong_model"})],
}


def test_every_field_is_in_the_tables_above() -> None:
    assert {*RESULT_ALTERED, "attempt_id", "result", "code", "message"} == set(Result.__struct_fields__)
    assert set(DETAIL_ALTERED) == set(ResultDetail.__struct_fields__)


@pytest.mark.parametrize(
    ("name", "value", "codes"),
    [(name, value, codes) for name, cases in RESULT_ALTERED.items() for value, codes in cases],
)
def test_a_result_with_one_field_altered_is_rejected(name: str, value: Any, codes: set[str]) -> None:
    result, detail = honest()
    assert code_of(examined(msgspec.structs.replace(result, **{name: value}), detail)) in codes


@pytest.mark.parametrize(
    ("name", "value", "codes"),
    [(name, value, codes) for name, cases in DETAIL_ALTERED.items() for value, codes in cases],
)
def test_a_result_with_one_field_of_its_detail_altered_is_rejected(name: str, value: Any, codes: set[str]) -> None:
    result, detail = honest()
    assert code_of(examined(result, msgspec.structs.replace(detail, **{name: value}))) in codes


@pytest.mark.parametrize("name", ["poe", "signature", "poe_signature"])
def test_no_character_of_a_proof_or_signature_is_without_effect(name: str) -> None:
    result, detail = honest()
    text: str = getattr(result, name)
    for at in range(0, len(text), 1 if len(text) < 100 else 7):
        altered = msgspec.structs.replace(result, **{name: flipped(text, at)})
        assert code_of(examined(altered, detail)) != "verified", at


@pytest.mark.parametrize("name", ["content", "entries", "salt"])
def test_no_character_of_what_is_sealed_is_without_effect(name: str) -> None:
    result, detail = honest()
    text: str = getattr(detail, name)
    for at in range(len(text)):
        altered = msgspec.structs.replace(detail, **{name: flipped(text, at)})
        assert code_of(examined(result, altered)) != "verified", at


EXPECTED_OTHERWISE: dict[str, tuple[Any, str]] = {
    "chain_id": (1, "bad_signature"),
    "unit_id": (OTHER_UNIT, "bad_signature"),
    "attempt_id": ("att_" + "00" * 16, "bad_signature"),
    "attempt_number": (2, "bad_signature"),
    "node_id": (8, "poe_mismatch"),
    "node_public_key": (STRANGER.public_key, "bad_signature"),
    "model_digest": (OTHER_DIGEST, "wrong_model"),
    "input_hash": (bytes(32), "bad_signature"),
    "streamed_text": ("Debits", "stream_mismatch"),
}


def test_every_expectation_but_the_salt_is_in_the_table_above() -> None:
    """The salt only hides the result in the record: the requester opens it with the receipt. How many tokens were asked
    for bounds the entries, and how many positions an audit; see below."""
    assert {*EXPECTED_OTHERWISE, "request_salt", "tokens_max", "probes"} == set(Expected.__struct_fields__)


@pytest.mark.parametrize("name", EXPECTED_OTHERWISE)
def test_a_result_for_anything_else_than_expected_is_rejected(name: str) -> None:
    value, code = EXPECTED_OTHERWISE[name]
    assert code_of(examined(*honest(), **{name: value})) == code


def test_a_proof_key_of_another_node_does_not_verify() -> None:
    verdict = validator.examine(*honest(), EXPECTED, rsa_key("envelope").public_key())
    assert code_of(verdict) == "bad_signature"


def test_a_result_signed_by_another_node_is_rejected_however_right_its_proof() -> None:
    assert code_for(key=STRANGER) == "bad_signature"


# --- What no honest node signs


def test_content_that_is_not_canonical_is_rejected_though_signed() -> None:
    for spelling in (b'{"finish_reason":"stop","text":"Credits.", "version":1}', b'{"text":"Credits."}', b"[]", b""):
        assert code_for(content_bytes=spelling) == "malformed"


def test_another_model_than_was_asked_is_rejected_though_signed() -> None:
    assert code_for(model_digest=OTHER_DIGEST) == "wrong_model"


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_salt_of_another_length_is_rejected_though_signed(length: int) -> None:
    assert code_for(salt=b"\x05" * length) == "malformed_poe"


@pytest.mark.parametrize(
    "entries", [b"", b"{}", b"[1]", b'[["a","b"]]', b"[[]]", b"[" * 5_000, b'[["a",-1]]x', b"\xff"]
)
def test_entries_that_cannot_be_read_are_rejected_though_signed(entries: bytes) -> None:
    assert code_for(entries_bytes=entries) == "malformed"


ENTRIES_MAX = work.entries_max(EXPECTED.tokens_max)


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        (b'["Credits."]' + b',[""]' * (ENTRIES_MAX - 1), "verified"),
        (b'["Credits."]' + b',[""]' * ENTRIES_MAX, "malformed"),
        (b'["Credits."]' + (b',["",-1,[' + b",".join([b'["[",-9]'] * 20) + b"]]") * 8, "verified"),
    ],
    ids=["the most", "one more", "twenty alternatives"],
)
def test_entries_are_no_more_than_the_tokens_asked_for_may_have(entries: bytes, code: str) -> None:
    assert code_for(entries_bytes=b"[" + entries + b"]") == code


TOO_LIKELY = validator.LOGPROB_SLACK * 2


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ((Entry("Credits.", 0.0),), "verified"),
        ((Entry("Credits.", validator.LOGPROB_SLACK),), "verified"),
        ((Entry("Credits.", TOO_LIKELY),), "impossible_probability"),
        ((Entry("Credits.", -1e300),), "verified"),
        ((Entry("Credits.", -1.0, (("Credits.", TOO_LIKELY),)),), "impossible_probability"),
        ((Entry("Credits.", -0.7, (("a", math.log(0.5)), ("b", math.log(0.5)))),), "verified"),
        ((Entry("Credits.", -0.6, (("a", -0.6), ("b", -0.6))),), "impossible_probability"),
        ((Entry("Cre"), Entry("dits.", TOO_LIKELY)), "impossible_probability"),
        ((Entry("Credit."),), "entries_mismatch"),
        ((Entry("Credits. "),), "entries_mismatch"),
        ((Entry("Credits"),), "entries_mismatch"),
        ((), "entries_mismatch"),
        ((Entry(".", None), Entry("Credits")), "entries_mismatch"),
        ((Entry("Credits."), Entry(""), Entry("")), "verified"),
    ],
)
def test_entries_must_be_possible_and_give_the_text(entries: tuple[Entry, ...], code: str) -> None:
    assert code_for(entries=entries) == code


def test_a_number_that_json_writes_and_no_double_holds_is_no_probability() -> None:
    for number in (b"1e999", b"-1e999"):
        codes = code_for(entries_bytes=b'[["Credits.",' + number + b"]]")
        assert codes in {"malformed", "impossible_probability"}


GAP = "\ufffd"


@pytest.mark.parametrize(
    ("entries", "text", "code"),
    [
        (("Caf", GAP, "!"), "Caf\u00e9!", "verified"),
        (("Caf", GAP + GAP, "!"), "Caf\u00e9!", "verified"),
        (("Caf", GAP, GAP, "!"), "Caf\u00e9!", "verified"),
        ((GAP, " a ", GAP), "\u00e9 a \u00e8", "verified"),
        (("Caf", GAP), "Caf" + GAP, "verified"),
        (("Caf", GAP), "Caf", "verified"),
        (("Caf", GAP), "Tea", "entries_mismatch"),
        (("Caf", GAP, "!"), "Caf\u00e9?", "entries_mismatch"),
        (("Caf", GAP), "Caf and a whole other sentence", "entries_mismatch"),
        ((GAP, "b", GAP, "a"), "\u00e9a\u00e9b", "entries_mismatch"),
        ((GAP,), "Anything", "entries_mismatch"),
        (("Caf\u00e9",), "Caf" + GAP, "entries_mismatch"),
        (("ab", GAP, "ba"), "aba", "entries_mismatch"),
        (("ab", GAP, "ab"), "ab", "entries_mismatch"),
    ],
)
def test_entries_may_differ_from_the_text_only_where_bytes_of_a_character_were_lost(
    entries: tuple[str, ...], text: str, code: str
) -> None:
    content = ResultContent(text=text, finish_reason="stop")
    result, detail = returned(content=content, entries=tuple(map(Entry, entries)))
    assert code_of(examined(result, detail, streamed_text="")) == code


pieces = st.lists(st.text("ab\u00e9\U0001f600", max_size=6), max_size=5)


@vectors.examples(300)
@given(pieces, st.lists(st.booleans(), min_size=30, max_size=30))
def test_whatever_characters_a_runtime_loses_its_entries_still_give_its_text(kept: list[str], lost: list[bool]) -> None:
    text = "".join(kept)
    shown = "".join(
        GAP if each > "z" and gone else each for each, gone in zip(text, itertools.cycle(lost), strict=False)
    )
    assert validator.gives(shown, text)


@vectors.examples(300)
@given(st.text("ab" + GAP, max_size=8), st.text("ab\u00e9", max_size=8))
def test_entries_give_a_text_exactly_when_each_gap_may_stand_for_characters_of_it(shown: str, text: str) -> None:
    """Against a slow and plain reading: a gap is any text, and in all no more characters than there are marks."""
    pattern = "".join("(?s:.*)" if each == GAP else each for each in shown)
    plainly = re.fullmatch(pattern, text) is not None and len(text) <= len(shown)
    assert validator.gives(shown, text) == plainly


def test_finding_the_gaps_of_a_hostile_result_takes_no_longer_than_of_an_honest_one() -> None:
    shown = ("a" * 50 + GAP) * 4_000
    assert not validator.gives(shown + "c", "a" * len(shown) + "b")


@pytest.mark.parametrize(
    ("streamed", "code"),
    [
        ("", "verified"),
        ("Credits.", "verified"),
        ("Credits. ", "stream_mismatch"),
        ("credits", "stream_mismatch"),
        ("redits", "stream_mismatch"),
    ],
)
def test_what_a_requester_was_shown_is_the_beginning_of_what_was_hashed(streamed: str, code: str) -> None:
    assert code_of(examined(*honest(), streamed_text=streamed)) == code


@pytest.mark.parametrize(
    "usage", [Usage(prompt_tokens=-1, completion_tokens=0), Usage(prompt_tokens=0, completion_tokens=-1)]
)
def test_a_negative_count_of_tokens_is_impossible(usage: Usage) -> None:
    """Reading a message refuses it before; here it is refused whoever made the Struct."""
    assert code_for(usage=usage) == "impossible_usage"


def test_a_result_of_no_tokens_is_possible() -> None:
    content = ResultContent(embeddings=(work.pack_vector([0.5, -1.0]),), finish_reason="stop")
    result, detail = returned(content=content, entries=(), usage=Usage(prompt_tokens=0, completion_tokens=0))
    assert code_of(examined(result, detail, streamed_text="")) == "verified"


def test_a_refusal_tells_the_operator_what_failed_and_nothing_of_the_answer() -> None:
    altered: list[dict[str, Any]] = [
        {"model_digest": OTHER_DIGEST},
        {"entries": (Entry("Credit."),)},
        {"entries": (Entry("Credits.", 1.0),)},
        {"salt": b""},
        {"key": STRANGER},
    ]
    for each in altered:
        verdict = examined(*returned(**each))
        assert isinstance(verdict, Rejected) and len(verdict.message) > 10
        assert "Credit" not in verdict.message


# --- Answers to audits

PROBES = 3
PREDICTED = (
    Entry("Cre", -0.25, (("Cre", -0.25), ("Coi", -2.0))),
    Entry("", None),
    Entry(".", -0.1, ((".", -0.1),)),
)
AUDIT_CONTENT = ResultContent(finish_reason="stop", probe_prompt_tokens=(12, 12, 15))


def audit_code(probes: int = PROBES, **altered: Any) -> str:
    usage = Usage(prompt_tokens=12, completion_tokens=PROBES)
    honestly: dict[str, Any] = {"content": AUDIT_CONTENT, "entries": PREDICTED, "usage": usage}
    return code_of(examined(*returned(**(honestly | altered)), streamed_text="", tokens_max=1, probes=probes))


def test_an_audit_answer_has_an_entry_and_a_count_for_each_position() -> None:
    assert audit_code() == "verified"


@pytest.mark.parametrize(
    "content",
    [
        ResultContent(finish_reason="stop"),
        ResultContent(finish_reason="stop", probe_prompt_tokens=(12, 12)),
        ResultContent(finish_reason="stop", probe_prompt_tokens=(12, 12, 15, 15)),
        ResultContent(finish_reason="stop", probe_prompt_tokens=(11, 12, 15)),
        ResultContent(finish_reason="stop", probe_prompt_tokens=(12, 12, 15), text="Cre."),
        ResultContent(finish_reason="stop", probe_prompt_tokens=(12, 12, 15), embeddings=(work.pack_vector([0.5]),)),
        ResultContent(
            finish_reason="stop",
            probe_prompt_tokens=(12, 12, 15),
            tool_calls=(work.ToolCall(id="1", name="add", arguments="{}"),),
        ),
        ResultContent(finish_reason="length", probe_prompt_tokens=(12, 12, 15)),
    ],
    ids=["none", "fewer", "more", "another base", "text", "embeddings", "tool calls", "cut"],
)
def test_an_audit_answer_is_nothing_else(content: ResultContent) -> None:
    assert audit_code(content=content) == "malformed_audit"


def test_a_longer_prefix_may_have_fewer_tokens() -> None:
    """`run` `n` are two tokens, and `running` is one: no count of an honest tokenizer need rise."""
    assert audit_code(content=ResultContent(finish_reason="stop", probe_prompt_tokens=(12, 14, 13))) == "verified"


def test_a_count_below_zero_is_malformed() -> None:
    counts = b'{"finish_reason":"stop","probe_prompt_tokens":[-1,12,15],"version":1}'
    assert audit_code(content_bytes=counts) == "malformed"


@pytest.mark.parametrize(
    "usage",
    [Usage(prompt_tokens=13, completion_tokens=PROBES), Usage(prompt_tokens=12, completion_tokens=PROBES + 1)],
)
def test_the_usage_of_an_audit_is_its_first_count_and_its_positions(usage: Usage) -> None:
    assert audit_code(usage=usage) == "malformed_audit"


def test_a_cancelled_audit_is_no_answer() -> None:
    assert audit_code(outcome="cancelled") == "malformed_audit"


TWENTY = tuple((f"w{index}", -5.0) for index in range(work.PROBE_TOP))


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        (PREDICTED[:2], "malformed_audit"),
        ((*PREDICTED, Entry("")), "malformed"),
        ((Entry("Cre", -5.0, TWENTY), *PREDICTED[1:]), "verified"),
        ((Entry("Cre", -5.0, (*TWENTY, ("one more", -9.0))), *PREDICTED[1:]), "malformed_audit"),
        ((Entry("Cre", TOO_LIKELY), *PREDICTED[1:]), "impossible_probability"),
        ((Entry("Cre", -0.6, (("a", -0.6), ("b", -0.6))), *PREDICTED[1:]), "impossible_probability"),
        ((Entry("Cre", -0.6, (("a", TOO_LIKELY),)), *PREDICTED[1:]), "impossible_probability"),
    ],
    ids=["fewer", "more", "twenty alternatives", "one more", "above one", "sum above one", "alternative above one"],
)
def test_the_entries_of_an_audit_are_possible(entries: tuple[Entry, ...], code: str) -> None:
    assert audit_code(entries=entries) == code


def test_an_audit_answer_is_taken_for_an_audit_alone() -> None:
    assert audit_code(probes=0) == "malformed_audit"
    assert code_of(examined(*honest(), probes=3)) == "malformed_audit"
    assert code_of(examined(*honest(), probes=4)) == "malformed_audit"


def test_a_whole_second_run_is_examined_like_the_first() -> None:
    assert code_of(examined(*honest(), streamed_text="", probes=0)) == "verified"
