from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelix.protocol import calibration
from parallelix.protocol.calibration import (
    CARD_BYTES_MAX,
    DEFAULT_CARD,
    Card,
    SpreadAt,
    decode_card,
    encode_card,
    peak_threshold,
    spread_of,
    spreads_of,
    threshold,
)
from parallelix.protocol.errors import Malformed

WIDE = Card(
    model_digest="d1" * 32,
    spreads=(
        SpreadAt(positions=1, samples=900, median=0.01, q99=0.1, q999=0.2, largest=0.3),
        SpreadAt(positions=4, samples=900, median=0.01, q99=0.05, q999=0.1, largest=0.1),
    ),
)


def test_a_card_says_what_is_allowed_at_the_most_positions_that_it_knows() -> None:
    allowed = [threshold(WIDE, positions) for positions in (1, 3, 4, 64)]

    assert allowed == pytest.approx([0.4, 0.4, 0.2, 0.2])
    assert peak_threshold(WIDE) == pytest.approx(0.75)


def test_a_card_of_one_machine_never_tightens_the_default() -> None:
    exact = msgspec.structs.replace(
        WIDE, spreads=(SpreadAt(positions=1, samples=900, median=0, q99=0, q999=0, largest=0),)
    )

    assert [threshold(exact, number) for number in range(12)] == [
        threshold(DEFAULT_CARD, number) for number in range(12)
    ]
    assert peak_threshold(exact) == peak_threshold(DEFAULT_CARD)


@given(positions=st.integers(0, 64))
def test_more_positions_are_never_allowed_more(positions: int) -> None:
    assert (
        0 < threshold(DEFAULT_CARD, positions + 1) <= threshold(DEFAULT_CARD, positions) < peak_threshold(DEFAULT_CARD)
    )


def test_thresholds_are_distances() -> None:
    absurd = Card(spreads=(SpreadAt(positions=1, samples=1, median=1, q99=1, q999=1, largest=1),))

    assert threshold(absurd, 1) == peak_threshold(absurd) == 1


def test_quantiles_of_what_was_measured() -> None:
    spread = spread_of([number / 1000 for number in range(1000, 0, -1)], 8)

    assert spread == SpreadAt(positions=8, samples=1000, median=0.5, q99=0.99, q999=0.999, largest=1.0)
    with pytest.raises(ValueError, match="measure at least one"):
        spread_of([], 1)


def test_spreads_are_of_single_positions_and_of_means_over_the_first() -> None:
    spreads = spreads_of([(0.0, 0.2, 0.1), (0.4, 0.0), ()])

    assert [(each.positions, each.samples, each.largest) for each in spreads] == [(1, 5, 0.4), (2, 2, 0.2)]


def test_a_card_comes_back_from_its_file() -> None:
    assert decode_card(encode_card(WIDE)) == WIDE
    assert decode_card(encode_card(DEFAULT_CARD)) == DEFAULT_CARD


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not valid JSON"),
        (b"[]", "Expected `object`"),
        (b'{"model_digest": "D1"}', "model_digest"),
        (b'{"version": 2}', "version"),
        (b'{"unusable_share": 1.5}', "unusable_share"),
        (b'{"spreads": [{"positions": 0, "samples": 1, "median": 0, "q99": 0, "q999": 0, "largest": 0}]}', "positions"),
        (b'{"spreads": [{"positions": 1, "samples": 1, "median": 0, "q99": 0, "q999": 7, "largest": 0}]}', "q999"),
        (b'{"decode_ms_per_token": -1}', "decode_ms_per_token"),
        (b" " * (CARD_BYTES_MAX + 1), "at most"),
    ],
)
def test_what_is_no_card_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decode_card(data)


def test_the_shipped_spreads_are_of_many_audits() -> None:
    assert [each.positions for each in calibration.DEFAULT_SPREADS] == list(calibration.SPREAD_POSITIONS)
    assert all(each.samples > 3000 for each in calibration.DEFAULT_SPREADS)
