"""Calibration cards: how far honest nodes are apart, measured on real hardware, and the thresholds that follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from parallelix.protocol import canonical
from parallelix.protocol.canonical import Count
from parallelix.protocol.encoding import whole
from parallelix.protocol.errors import Malformed
from parallelix.protocol.messages import ShortText

CARD_BYTES_MAX = 16 * 1024
"""A card with all its spreads is below 3 KiB."""
MARGIN = 2.0
"""A threshold stands so far above what was measured: a card is made on one machine and judges others."""
PEAK_MARGIN = 2.5
"""For the largest of several positions: the more there are, the farther out it lies."""

SPREAD_POSITIONS = (1, 2, 4, 8)

Distance = Annotated[float, Meta(ge=0, le=1)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]


class SpreadAt(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of the honest distance of audits with at least `positions` usable positions; at 1, of single positions
    wherever they are."""

    positions: Annotated[int, Meta(ge=1, le=64)]
    samples: Count
    median: Distance
    q99: Distance
    q999: Distance
    largest: Distance


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The honest spread of one model. Without a `model_digest` it is the shipped default, for models without a card."""

    version: Literal[1] = 1
    model_digest: Annotated[str, whole("([0-9a-f]{64})?")] = ""
    model: ShortText = ""
    runtime: ShortText = ""
    runtime_version: ShortText = ""
    hardware: ShortText = ""
    measured_at: ShortText = ""
    spreads: Annotated[tuple[SpreadAt, ...], Meta(max_length=64)] = ()
    unusable_share: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """Of honest positions, how many cannot be compared: the quantile that a node may stay at unsuspected."""
    prefill_ms_per_token: Milliseconds = 0.0
    decode_ms_per_token: Milliseconds = 0.0


# The demonstration model in llama.cpp and in Ollama, with the same and with other arithmetic, as `bench.real_cheats`
# measures it: 400 answers of each, seed 11. docs/audits.md holds the default against other answers than these.
DEFAULT_SPREADS = (
    SpreadAt(positions=1, samples=36_080, median=0.0001, q99=0.018, q999=0.033, largest=0.045),
    SpreadAt(positions=2, samples=3_172, median=0.0022, q99=0.019, q999=0.026, largest=0.031),
    SpreadAt(positions=4, samples=3_150, median=0.002, q99=0.014, q999=0.019, largest=0.02),
    SpreadAt(positions=8, samples=3_036, median=0.002, q99=0.01, q999=0.014, largest=0.016),
)
DEFAULT_CARD = Card(spreads=DEFAULT_SPREADS)


def threshold(card: Card, positions: int) -> float:
    """The mean distance above which an audit with so many usable positions disagrees.

    Few positions leave more to chance, so the spread is taken at the most positions that the card knows and the audit
    has. A card never tightens what the default allows: it was measured on one machine, and the next has another
    processor.
    """
    return min(1.0, MARGIN * max(_at(card.spreads, positions).q999, _at(DEFAULT_SPREADS, positions).q999))


def peak_threshold(card: Card) -> float:
    """The distance at any single one of several positions above which an audit disagrees."""
    return min(1.0, PEAK_MARGIN * max(_at(card.spreads, 1).largest, _at(DEFAULT_SPREADS, 1).largest))


def _at(spreads: Sequence[SpreadAt], positions: int) -> SpreadAt:
    below = [spread for spread in spreads if spread.positions <= max(1, positions)]
    return max(below, key=lambda spread: spread.positions, default=_NO_SPREAD)


_NO_SPREAD = SpreadAt(positions=1, samples=0, median=0.0, q99=0.0, q999=0.0, largest=0.0)


def spreads_of(audits: Sequence[Sequence[float]]) -> tuple[SpreadAt, ...]:
    """A card's spreads, from honest audits' distances at their usable positions: every single one, and the means of the
    first two, four and eight of each audit that has them."""
    singles = [distance for audit in audits for distance in audit]
    means = {
        positions: [math.fsum(audit[:positions]) / positions for audit in audits if len(audit) >= positions]
        for positions in SPREAD_POSITIONS[1:]
    }
    return tuple(spread_of(found, positions) for positions, found in {1: singles, **means}.items() if found)


def spread_of(distances: Sequence[float], positions: int) -> SpreadAt:
    """Quantiles of honest distances, each a mean over `positions` positions. Raises `ValueError` for none."""
    ranked = sorted(distances)
    if not ranked:
        raise ValueError(f"no honest distance over {positions} positions: measure at least one")

    def quantile(share: float) -> float:
        return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)]

    return SpreadAt(
        positions=positions,
        samples=len(ranked),
        median=quantile(0.5),
        q99=quantile(0.99),
        q999=quantile(0.999),
        largest=ranked[-1],
    )


def encode_card(card: Card) -> bytes:
    """A card as its file holds it: JSON for people to read."""
    return msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n"


def decode_card(data: bytes) -> Card:
    """Raises `Malformed` for what is no card."""
    if len(data) > CARD_BYTES_MAX:
        raise Malformed(f"calibration card: {len(data)} bytes, at most {CARD_BYTES_MAX}")
    return canonical.decode_json(data, Card)
