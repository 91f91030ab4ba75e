"""The spot check of an inference: what an executor said of its tokens, beside what an auditor predicts at a few places.

An auditor is sent the prompt and the beginning of the answer, never the executor's numbers, and returns the twenty most
likely next tokens. Rules that follow from what runtimes give and hide:

    positions   byte offsets of the text where an entry begins; the empty prefix is always one
    base        the auditor's count of prompt tokens at the empty prefix must be the executor's
    comparable  a position counts only where the auditor counts base + the output tokens before it: elsewhere the prefix
                was tokenised otherwise, and the numbers mean nothing
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from parallelix.protocol.calibration import Card
from parallelix.protocol.work import Entry, FinishReason, Probes, WorkKind

RandomBytes: TypeAlias = Callable[[int], bytes]
PROBES_DEFAULT = 8
"""Positions besides the empty prefix."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A verified result as its executor signed it, and what of the request decides how it is compared."""

    kind: WorkKind
    model_digest: str
    prompt_tokens: int
    completion_tokens: int
    text: str
    finish_reason: FinishReason
    entries: tuple[Entry, ...]
    embeddings: tuple[str, ...] = ()
    content: bytes = b""
    """The result's canonical bytes."""
    temperature: float
    """In effect: 0 is greedy."""
    seeded: bool = False
    constrained: bool = False
    """A grammar or tools: what was picked need not be among the likely."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an auditor returned: one count and one entry for each position."""

    prompt_tokens: tuple[int, ...]
    entries: tuple[Entry, ...]


Outcome: TypeAlias = Literal["agree", "disagree", "unusable"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one comparison says. `reason` is a stable code (docs/audits.md); `detail` is for people, without any text of
    the request. `unusable` says that the numbers cannot be compared at all."""

    outcome: Outcome
    reason: str
    detail: str = ""
    distance: float = 0.0
    """Mean total variation over the usable positions, 0 to 1."""
    usable: int = 0
    unusable: int = 0


def choose_probes(claim: Claim, random_bytes: RandomBytes, *, count: int = PROBES_DEFAULT) -> Probes | None:
    """The empty prefix and up to `count` unpredictable positions; None where not even that can be compared."""
    raise NotImplementedError


def compare(claim: Claim, probes: Probes, answer: Answer, card: Card) -> Finding:
    """An auditor's answer against the executor's claim."""
    raise NotImplementedError


def compare_answers(first: Answer, second: Answer, probes: Probes, card: Card) -> Finding:
    """Two auditors' answers at the same positions against each other."""
    raise NotImplementedError
