"""Which comparison a kind of work gets, and what two whole runs say of each other."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec
import pytest

from parallelix.engine.comparators import EMBEDDING_ERROR_MAX, Exact, LogProb, Tolerance, comparator_for
from parallelix.protocol.calibration import DEFAULT_CARD
from parallelix.protocol.spot_check import Answer, Claim
from parallelix.protocol.work import Entry, Probes, pack_vector

TOP = tuple((text, -1.7) for text in "abcde")
WRITTEN = Claim(
    kind="chat",
    model_digest="d1" * 32,
    prompt_tokens=7,
    completion_tokens=2,
    text="ab",
    finish_reason="length",
    entries=(Entry("a", -1.7, TOP), Entry("b", -1.7, TOP)),
    content=b"ab",
    temperature=0.8,
)
VECTORS = Claim(
    kind="embedding",
    model_digest="d1" * 32,
    prompt_tokens=7,
    completion_tokens=0,
    text="",
    finish_reason="stop",
    entries=(),
    embeddings=(pack_vector([0.6, 0.8]), pack_vector([1.0, 0.0])),
    temperature=0.8,
)


def test_inference_is_spot_checked_and_numbers_are_held_to_a_bound() -> None:
    assert comparator_for(WRITTEN).name == "logprob"
    assert comparator_for(msgspec.structs.replace(WRITTEN, kind="completion")).name == "logprob"
    assert comparator_for(VECTORS).name == "tolerance"


def test_only_a_spot_check_has_probes() -> None:
    chance = random.Random(1).randbytes

    probes = LogProb().probes(WRITTEN, chance)

    assert probes is not None
    assert (
        LogProb().judge(WRITTEN, probes, Answer(prompt_tokens=(7, 8), entries=WRITTEN.entries), DEFAULT_CARD).outcome
        == "agree"
    )
    for comparator in (Exact(), Tolerance()):
        assert comparator.probes(WRITTEN, chance) is None
        finding = comparator.judge(
            WRITTEN, Probes(text="", positions=(0,)), Answer(prompt_tokens=(), entries=()), DEFAULT_CARD
        )
        assert (finding.outcome, finding.reason) == ("unusable", "not_probed")


@pytest.mark.parametrize("comparator", [Exact(), LogProb()])
@pytest.mark.parametrize(
    ("change", "outcome", "reason"),
    [
        ({}, "agree", "equal"),
        ({"content": b"other"}, "unusable", "rerun_differs"),
        ({"content": b""}, "unusable", "rerun_differs"),
    ],
)
def test_a_second_run_of_an_inference_acquits_and_never_convicts_by_its_text(
    comparator: Exact, change: dict[str, Any], outcome: str, reason: str
) -> None:
    finding = comparator.judge_rerun(WRITTEN, msgspec.structs.replace(WRITTEN, **change), DEFAULT_CARD)

    assert (finding.outcome, finding.reason) == (outcome, reason)


def test_a_request_that_nobody_can_be_audited_on_is_told_apart() -> None:
    lost = msgspec.structs.replace(WRITTEN, entries=(Entry("ab", -0.1),), content=b"other")

    assert LogProb().judge_rerun(WRITTEN, lost, DEFAULT_CARD).reason == "rerun_unauditable"
    assert LogProb().judge_rerun(lost, WRITTEN, DEFAULT_CARD).reason == "rerun_differs"


IN_PIECES = msgspec.structs.replace(
    WRITTEN,
    text="🎉",
    entries=(Entry("🎉", -0.1, tuple((f"\ufffd{each}", -1.7) for each in "abcde")),),
    content=b"emoji",
)


@pytest.mark.parametrize(
    ("first", "share", "reason"),
    [
        (IN_PIECES, 0.3, "rerun_unauditable"),
        (IN_PIECES, 0.04, "rerun_differs"),
        (msgspec.structs.replace(IN_PIECES, temperature=2.0), 0.04, "rerun_unauditable"),
        (msgspec.structs.replace(WRITTEN, entries=(Entry("ab", -0.1),), content=b"bare"), 0.3, "rerun_differs"),
        (msgspec.structs.replace(WRITTEN, text="", entries=(), content=b"bare"), 0.3, "rerun_differs"),
        (msgspec.structs.replace(WRITTEN, text="", entries=(), stops=True, content=b"cut"), 0.0, "rerun_unauditable"),
        (
            msgspec.structs.replace(WRITTEN, text="", entries=(), finish_reason="cancelled", prompt_tokens=0),
            0.0,
            "rerun_unauditable",
        ),
    ],
    ids=[
        "as likely",
        "unlikely",
        "likelier when hot",
        "alternatives kept back",
        "nothing",
        "cut by a stop",
        "cancelled",
    ],
)
def test_what_the_request_may_have_done_is_not_held_against_the_executor(
    first: Claim, share: float, reason: str
) -> None:
    """Who asks for yes or a picture, or hangs up at once, would convict whoever serves it."""
    top = (("a", math.log(0.6)), ("\ufffd", math.log(share or 1e-9)), *((each, -6.0) for each in "bcd"))
    rerun = msgspec.structs.replace(WRITTEN, entries=(Entry("a", math.log(0.6), top), WRITTEN.entries[1]), content=b"2")

    assert LogProb().probes(first, random.Random(1).randbytes) is None
    assert LogProb().judge_rerun(first, rerun, DEFAULT_CARD).reason == reason


def test_runs_without_bytes_are_not_equal() -> None:
    empty = msgspec.structs.replace(WRITTEN, content=b"")

    assert Exact().judge_rerun(empty, empty, DEFAULT_CARD).outcome == "unusable"


def test_how_long_the_prompt_is_does_not_hang_on_chance() -> None:
    longer = msgspec.structs.replace(WRITTEN, prompt_tokens=9)

    assert LogProb().judge_rerun(WRITTEN, longer, DEFAULT_CARD).reason == "base_tokens"


@pytest.mark.parametrize(
    ("change", "outcome", "reason"),
    [
        ({}, "agree", ""),
        ({"embeddings": (pack_vector([0.605, 0.796]), pack_vector([1.0, 0.0]))}, "agree", ""),
        ({"embeddings": (pack_vector([0.6, 0.8]), pack_vector([1.0, 0.03]))}, "disagree", "distance"),
        ({"embeddings": (pack_vector([0.8, 0.6]), pack_vector([1.0, 0.0]))}, "disagree", "distance"),
        ({"embeddings": (pack_vector([0.6, 0.8, 0.0]), pack_vector([1.0, 0.0]))}, "disagree", "distance"),
        ({"embeddings": (pack_vector([float("nan"), 0.8]), pack_vector([1.0, 0.0]))}, "disagree", "distance"),
        ({"embeddings": ("no vector!", pack_vector([1.0, 0.0]))}, "disagree", "distance"),
        ({"embeddings": (pack_vector([0.6, 0.8]),)}, "disagree", "vector_shape"),
        ({"prompt_tokens": 8}, "disagree", "base_tokens"),
    ],
)
def test_vectors_agree_within_the_bound(change: dict[str, Any], outcome: str, reason: str) -> None:
    rerun = msgspec.structs.replace(VECTORS, **change)

    finding = Tolerance().judge_rerun(VECTORS, rerun, DEFAULT_CARD)

    assert (finding.outcome, finding.reason) == (outcome, reason)
    assert Tolerance().judge_rerun(rerun, VECTORS, DEFAULT_CARD).outcome == outcome
    assert 0 <= finding.distance <= 1
    assert EMBEDDING_ERROR_MAX < 0.03


def test_no_vectors_say_nothing() -> None:
    none = msgspec.structs.replace(VECTORS, embeddings=())

    assert Tolerance().judge_rerun(none, none, DEFAULT_CARD).outcome == "unusable"
