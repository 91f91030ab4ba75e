"""From the text that a runtime releases to one entry a token.

Runtimes hold text back while it may still become a stop sequence or the rest of a character, and then release it at
once. Entries must be one a token all the same, each with the text that was released for it, or what a second node
computes at that position cannot be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parallelix.node.runtimes.base import RuntimeFailed, TokenEntry

# A stop sequence of some hundred characters is a long reason to hold tokens back; a tool call may take pages.
HELD_TOKENS_MAX = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A token as the runtime names it, its log-probability, and the alternatives."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


def at_most_zero(logprob: float) -> float:
    # In single precision the logarithm of a sum of probabilities may come out a hair above 0.
    return min(0.0, logprob)


class Pairing:
    """Pairs released text with the tokens it is made of."""

    def __init__(self) -> None:
        self._held: list[Scored] = []

    def add(self, text: str, scored: Iterable[Scored]) -> list[TokenEntry]:
        self._held += scored
        if len(self._held) > HELD_TOKENS_MAX:
            raise RuntimeFailed(f"the runtime holds back more than {HELD_TOKENS_MAX} tokens: it is at fault")
        if not text:
            return []
        held, self._held = self._held, []
        return _shared_out(text, held) if held else [TokenEntry(text=text)]

    def forget(self) -> None:
        """The tokens held so far were thoughts, or a stop sequence: their text will never come."""
        self._held.clear()

    def without_text(self) -> list[TokenEntry]:
        """The tokens held so far were a tool call: they count, and have no text of their own."""
        held, self._held = self._held, []
        return [_entry("", scored) for scored in held]


def _shared_out(text: str, held: Sequence[Scored]) -> list[TokenEntry]:
    """Give each token its part of `text`; the last takes the rest, and tokens past a cut are left out."""
    entries: list[TokenEntry] = []
    rest = text
    for scored in held[:-1]:
        if rest.startswith(scored.token):
            entries.append(_entry(scored.token, scored))
            rest = rest[len(scored.token) :]
        elif scored.token.startswith(rest):
            return [*entries, _entry(rest, scored)] if rest else entries
        else:
            entries.append(_entry("", scored))
    return [*entries, _entry(rest, held[-1])] if rest or not held[-1].token else entries


def _entry(text: str, scored: Scored) -> TokenEntry:
    return TokenEntry(text=text, logprob=scored.logprob, top=scored.top)


class StopSequences:
    """Finds stop sequences in a stream of entries; holds entries back while their text may begin one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held: list[TokenEntry] = []
        self.found = False

    def add(self, entry: TokenEntry) -> list[TokenEntry]:
        """The entries that are safe to show now. Once `found`, they are the last."""
        self._held.append(entry)
        text = "".join(held.text for held in self._held)
        position = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=None)
        if position is not None:
            self.found = True
            return _cut(self.flush(), position)
        if any(_ends_within(text, stop) for stop in self._stops):
            return []
        return self.flush()

    def flush(self) -> list[TokenEntry]:
        held, self._held = self._held, []
        return held


def _ends_within(text: str, stop: str) -> bool:
    return any(text.endswith(stop[:length]) for length in range(1, len(stop)))


def _cut(entries: Sequence[TokenEntry], position: int) -> list[TokenEntry]:
    """The entries up to `position` in their text: the one it falls into keeps its first part."""
    kept: list[TokenEntry] = []
    for entry in entries:
        if position <= 0:
            break
        kept.append(TokenEntry(text=entry.text[:position], logprob=entry.logprob, top=entry.top))
        position -= len(entry.text)
    return kept
