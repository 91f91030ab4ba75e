"""Calibration cards: how far honest nodes are apart, measured on real hardware, and the thresholds that follow."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from parallelix.protocol.canonical import Count
from parallelix.protocol.messages import Digest, ShortText


class SpreadAt(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of the honest distance of audits with at least `positions` usable positions."""

    positions: Annotated[int, Meta(ge=1, le=64)]
    samples: Count
    median: float
    q99: float
    q999: float
    largest: float


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The honest spread of one model. Without a `model_digest` it is the shipped default, for models without a card."""

    version: Literal[1] = 1
    model_digest: Digest | Literal[""] = ""
    model: ShortText = ""
    runtime: ShortText = ""
    runtime_version: ShortText = ""
    hardware: ShortText = ""
    measured_at: ShortText = ""
    spreads: tuple[SpreadAt, ...] = ()
    unusable_share: float = 0.05
    """Of honest positions, how many cannot be compared: the quantile that a node may stay at unsuspected."""
    prefill_ms_per_token: float = 0.0
    decode_ms_per_token: float = 0.0


DEFAULT_CARD = Card()


def threshold(card: Card, positions: int) -> float:
    """The distance above which an audit with so many usable positions disagrees."""
    raise NotImplementedError
