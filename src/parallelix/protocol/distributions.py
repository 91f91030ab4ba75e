"""Two views of what a model expects next, each known in its likeliest tokens only. Arithmetic on log-probabilities.

A token that a list does not name has at most the probability of the least that it names, and at most what the named
ones leave. Every figure here is a bound in favour of whoever is judged: what is not known accuses nobody.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from parallelix.protocol.work import ENTRY_TOP, Entry

GAP = "\ufffd"
"""What a runtime shows for bytes that make no character yet; different tokens look alike then."""
WHOLE = 0.999
"""Alternatives that hold so much of the probability are all that matter, however few they are."""
LOGPROB_SLACK = 0.005
"""Runtimes round to three digits or more."""
SURPRISAL_NATS_MAX = 8.0
"""One impossible token is enough of a surprise: without a bound it would outweigh all that is known of the others."""
ENTRIES_SCORED_MAX = 2048
TEMPERATURE_MIN = 0.01
"""Below it sampling picks the likeliest token, whatever the runtime."""
VOCABULARY_MAX = 1 << 19
"""More tokens than any model has: where the temperature is above 1, the unnamed ones matter by their number."""

_MARKER = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{1,20}\]")
_LOGPROB_MIN = -1000.0
_STEEPNESS = (0.1, 0.25, 0.5, 0.8, 1.2, 2.0)


class View(msgspec.Struct, frozen=True):
    """Probabilities by text, with how many tokens share it. `least` bounds each token that is not in it, `rest` all of
    them together."""

    known: Mapping[str, tuple[float, int]]
    least: float
    rest: float

    def at_most(self, text: str, tokens: int = 1) -> float:
        """What `tokens` tokens of this text have at most."""
        probability, counted = self.known.get(text, (0.0, 0))
        return probability + min(self.rest, max(0, tokens - counted) * self.least)


def is_telling(top: Sequence[tuple[str, float]]) -> bool:
    """Whether so many alternatives say something of all the others."""
    return len(top) >= ENTRY_TOP or math.fsum(_probability(logprob) for _, logprob in top) >= WHOLE


def view_of(top: Sequence[tuple[str, float]], count: int | None = None) -> View | None:
    """The `count` likeliest of `top`, or all; None where they are too few to say anything of the rest."""
    if not is_telling(top):
        return None
    ranked = sorted(((text, _probability(logprob)) for text, logprob in top), key=lambda pair: -pair[1])[:count]
    total = math.fsum(probability for _, probability in ranked)
    known: dict[str, tuple[float, int]] = {}
    for text, probability in ranked:
        before, counted = known.get(shown(text), (0.0, 0))
        known[shown(text)] = (before + probability, counted + 1)
    rest = max(0.0, 1.0 - total)
    return View(known, min(ranked[-1][1], rest), rest)


def shown(text: str) -> str:
    """What all runtimes show of a token. Pieces of a character and markers that end or divide texts look differently in
    each, or like nothing at all."""
    bare = text.replace(GAP, "") if GAP in text else text
    return "" if bare[:1] in ("<", "[") and _MARKER.fullmatch(bare) else bare


def distance(one: View, other: View) -> float:
    """A lower bound of the total variation between the two, 0 to 1: the probability that one gives to what it names
    beyond what the other can give it at most, whichever way round it is more."""
    return min(1.0, max(_excess(one, other), _excess(other, one)))


def _excess(one: View, other: View) -> float:
    return math.fsum(
        max(0.0, probability - other.at_most(text, tokens)) for text, (probability, tokens) in one.known.items()
    )


def uncertainty(top: Iterable[tuple[str, float]]) -> float:
    """The probability of all but the likeliest token, 0 to 1."""
    return 1.0 - math.exp(max((_sane(logprob) for _, logprob in top), default=0.0))


def is_among(text: str, top: Iterable[tuple[str, float]]) -> bool:
    """Whether a token of this text is listed."""
    return logprob_among(text, top) is not None


def logprob_among(text: str, top: Iterable[tuple[str, float]]) -> float | None:
    """The greatest listed for a token of this text; runtimes differ in whether they show a space before a word."""
    bare = text.strip()
    same = [logprob for other, logprob in top if other == text or (bare and other.strip() == bare)]
    return max(same, default=None)


def tail_share(logprobs: Sequence[float], temperature: float) -> float:
    """At most how often sampling at `temperature` (above 0) picks a token that is not among these, 0 to 1."""
    known = [_sane(logprob) for logprob in logprobs]
    tail, whole = _tail_weight(known, temperature), math.fsum(_weights(known, temperature))
    return tail / (tail + whole)


def probability_of_misses(tails: Sequence[float], misses: int) -> float:
    """How likely `misses` or more of independent events with these probabilities are."""
    counts = [1.0]
    for tail in tails:
        counts = [
            (counts[number] if number < len(counts) else 0.0) * (1.0 - tail)
            + (counts[number - 1] * tail if number else 0.0)
            for number in range(len(counts) + 1)
        ]
    return min(1.0, math.fsum(counts[misses:]))


def surprise(entries: Sequence[Entry], temperature: float, *, reach_nats: float = math.inf) -> float:
    """The logarithm of at most how likely tokens as improbable as these are, if they were sampled from what their own
    entries say at `temperature` (above 0). 0 says nothing against them; -10 is one in 22,000. Tokens that are by more
    than `reach_nats` less likely than the likeliest are never picked.

    Chernoff's bound on the sum of the tokens' surprisals. Whatever else cuts off unlikely tokens (top_k, top_p) only
    makes the honest sum smaller.
    """
    scored = [_Scored.of(entry, temperature, reach_nats) for entry in entries[:ENTRIES_SCORED_MAX]]
    observed = math.fsum(each.observed for each in scored)
    if observed <= math.fsum(share * surprisal for each in scored for surprisal, share in each.atoms):
        return 0.0
    return min((0.0, *(_log_bound(scored, observed, steepness) for steepness in _STEEPNESS)))


class _Scored(msgspec.Struct, frozen=True):
    """Surprisals with their shares, and the one that came."""

    atoms: tuple[tuple[float, float], ...]
    observed: float

    @classmethod
    def of(cls, entry: Entry, temperature: float, reach_nats: float) -> _Scored:
        logprobs = sorted((_sane(logprob) for _, logprob in entry.top), reverse=True)
        lowest = logprobs[0] - reach_nats
        weights = [
            weight if logprob >= lowest else 0.0
            for logprob, weight in zip(logprobs, _weights(logprobs, temperature), strict=True)
        ]
        tail = 0.0 if logprobs[-1] < lowest else _tail_weight(logprobs, temperature)
        total = math.fsum(weights) + tail
        beyond = min(SURPRISAL_NATS_MAX, 1.0 - logprobs[-1])
        atoms = [(min(beyond, -logprob), weight / total) for logprob, weight in zip(logprobs, weights, strict=True)]
        own = entry.logprob
        among = own is not None and own >= logprobs[-1] - LOGPROB_SLACK
        return cls((*atoms, (beyond, tail / total)), min(beyond, -own) if own is not None and among else beyond)


def _log_bound(scored: Sequence[_Scored], observed: float, steepness: float) -> float:
    expected = math.fsum(
        math.log(math.fsum(share * math.exp(steepness * surprisal) for surprisal, share in each.atoms))
        for each in scored
    )
    return expected - steepness * observed


def _weights(logprobs: Sequence[float], temperature: float) -> list[float]:
    """How sampling weighs the listed tokens, relative to the likeliest."""
    highest = max(logprobs)
    return [math.exp((logprob - highest) / max(temperature, TEMPERATURE_MIN)) for logprob in logprobs]


def _tail_weight(logprobs: Sequence[float], temperature: float) -> float:
    """At most the weight of all that is not listed, on the same scale."""
    rest = 1.0 - math.fsum(map(_probability, logprobs))
    if rest <= 0:
        return 0.0
    power = 1.0 / max(temperature, TEMPERATURE_MIN)
    if temperature <= 1:
        each = (power - 1.0) * min(logprobs)
    else:
        each = (1.0 - power) * (math.log(VOCABULARY_MAX) - math.log(rest))
    return math.exp(min(700.0, math.log(rest) + each - power * max(logprobs)))


def _sane(logprob: float) -> float:
    """What a garbled answer holds must not raise, nor turn a sum into no number."""
    return max(_LOGPROB_MIN, min(0.0, logprob))


def _probability(logprob: float) -> float:
    return math.exp(_sane(logprob))
