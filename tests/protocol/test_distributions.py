"""Bounds must be bounds: whatever a list leaves out may never make an honest node look worse than it is."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelix.protocol.distributions import (
    distance,
    logprob_among,
    probability_of_misses,
    shown,
    surprise,
    tail_share,
    uncertainty,
    view_of,
)
from parallelix.protocol.work import ENTRY_TOP, PROBE_TOP, Entry

TOKENS = 40
WEIGHTS = st.lists(st.floats(1e-4, 1.0), min_size=TOKENS, max_size=TOKENS)


def normalised(weights: list[float]) -> list[float]:
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def top_of(shares: list[float], count: int) -> tuple[tuple[str, float], ...]:
    ranked = sorted(range(len(shares)), key=lambda token: -shares[token])[:count]
    return tuple((f"t{token}", math.log(shares[token])) for token in ranked)


@given(one=WEIGHTS, other=WEIGHTS)
def test_the_distance_is_never_above_the_true_one(one: list[float], other: list[float]) -> None:
    first, second = normalised(one), normalised(other)
    true = math.fsum(abs(a - b) for a, b in zip(first, second, strict=True)) / 2
    few, many = view_of(top_of(first, PROBE_TOP), ENTRY_TOP), view_of(top_of(second, PROBE_TOP))
    assert few is not None
    assert many is not None

    assert distance(few, many) <= true + 1e-9
    assert distance(few, many) == distance(many, few)


@given(weights=WEIGHTS)
def test_a_distribution_is_at_no_distance_from_itself_however_much_of_it_is_known(weights: list[float]) -> None:
    shares = normalised(weights)
    few, many = view_of(top_of(shares, ENTRY_TOP)), view_of(top_of(shares, PROBE_TOP))
    assert few is not None
    assert many is not None

    assert distance(few, many) == pytest.approx(0, abs=1e-9)


def test_distributions_without_a_token_in_common_are_all_the_way_apart() -> None:
    one = view_of([(text, math.log(0.1999)) for text in "abcde"])
    other = view_of([(text, math.log(0.1999)) for text in "vwxyz"])
    assert one is not None
    assert other is not None

    assert distance(one, other) > 0.99


@given(weights=WEIGHTS, temperature=st.sampled_from([0.05, 0.5, 0.8, 1.0, 1.3, 2.0]))
def test_what_is_not_listed_is_never_picked_more_often_than_said(weights: list[float], temperature: float) -> None:
    shares = normalised(weights)
    listed = top_of(shares, ENTRY_TOP)
    sharpened = normalised([share ** (1 / temperature) for share in shares])
    tail = 1 - math.fsum(sorted(sharpened, reverse=True)[:ENTRY_TOP])

    assert tail_share([logprob for _, logprob in listed], temperature) >= tail - 1e-9


@given(tails=st.lists(st.floats(0, 1), max_size=8), misses=st.integers(0, 9))
def test_the_chance_of_misses_is_that_of_all_outcomes(tails: list[float], misses: int) -> None:
    exact = 0.0
    for outcome in range(1 << len(tails)):
        hit = [bool(outcome >> number & 1) for number in range(len(tails))]
        if sum(hit) >= misses:
            exact += math.prod(tail if each else 1 - tail for each, tail in zip(hit, tails, strict=True))

    assert probability_of_misses(tails, misses) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.4])
def test_honest_sampling_surprises_as_seldom_as_is_said(temperature: float) -> None:
    chance = random.Random(4)
    surprised = 0
    for _ in range(400):
        entries: list[Entry] = []
        for _ in range(20):
            shares = normalised([chance.expovariate(1.0) ** 3 for _ in range(TOKENS)])
            picked = chance.choices(range(TOKENS), [share ** (1 / temperature) for share in shares])[0]
            entries.append(Entry(f"t{picked}", math.log(shares[picked]), top_of(shares, ENTRY_TOP)))
        surprised += surprise(entries, temperature) < math.log(0.05)

    assert surprised <= 0.05 * 400


def test_an_unlikely_text_surprises_the_more_the_longer_it_is() -> None:
    shares = normalised([8.0, 1.0, 1.0, 0.5, 0.05, 0.02])
    odd = Entry("t3", math.log(shares[3]), top_of(shares, ENTRY_TOP))

    found = [surprise([odd] * length, 1.0) for length in (1, 5, 10)]

    assert found[2] < found[1] < found[0] < 0
    assert surprise([odd] * 10, 1.0, reach_nats=3.0) < found[2]


def test_uncertainty_is_what_the_likeliest_leaves() -> None:
    assert uncertainty([("a", math.log(0.3)), ("b", math.log(0.6))]) == pytest.approx(0.4)
    assert uncertainty([("a", 0.0)]) == uncertainty([]) == 0


@pytest.mark.parametrize(
    ("text", "as_shown"),
    [
        ("<|im_end|>", ""),
        ("</s>", ""),
        ("[/INST]", ""),
        ("\ufffd", ""),
        (" \ufffd", " "),
        ("<b> x", "<b> x"),
        ("a", "a"),
    ],
)
def test_markers_and_pieces_of_characters_have_no_text(text: str, as_shown: str) -> None:
    assert shown(text) == as_shown


def test_a_word_is_found_with_or_without_the_space_before_it() -> None:
    assert logprob_among("word", [(" word", -1.0), ("word", -2.0)]) == -1.0
    assert logprob_among(" ", [(" word", -1.0), ("", -2.0)]) is None
