"""How sure a measured share is: exact intervals of proportions, quantiles, and the area under a curve with its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

CONFIDENCE = 0.95
_STEPS = 60
"""Halvings of an interval of length one: far below the error of the sums."""
_Z = 1.959963984540054
"""Of the normal distribution, two-sided 95 %."""


def clopper_pearson(hits: int, runs: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact two-sided interval of a proportion; (0, 1) for no runs. Without a hit its upper end is the bound that
    `at_most` states one-sided."""
    if not runs:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _bisect(lambda p: 1 - binomial_cdf(hits - 1, runs, p) < tail)
    high = 1.0 if hits == runs else _bisect(lambda p: binomial_cdf(hits, runs, p) > tail)
    return low, high


def at_most(hits: int, runs: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided upper bound: with no hit in n runs, near 3 / n."""
    if hits >= runs:
        return 1.0
    return _bisect(lambda p: binomial_cdf(hits, runs, p) > 1 - confidence)


def _bisect(below: Callable[[float], bool]) -> float:
    """Where `below` turns from true to false between 0 and 1."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def binomial_cdf(hits: int, runs: int, p: float) -> float:
    """The probability of at most `hits`."""
    if p <= 0:
        return 1.0
    if p >= 1:
        return 1.0 if hits >= runs else 0.0
    # The shorter side, so that a share near one is no slower than one near zero.
    if hits > runs // 2:
        return 1.0 - binomial_cdf(runs - hits - 1, runs, 1 - p) if hits < runs else 1.0
    log_p, log_q, log_runs = math.log(p), math.log1p(-p), math.lgamma(runs + 1)
    return min(
        1.0,
        math.fsum(
            math.exp(log_runs - math.lgamma(k + 1) - math.lgamma(runs - k + 1) + k * log_p + (runs - k) * log_q)
            for k in range(hits + 1)
        ),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed; not a number for none. `math.inf` may be among them."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """The chance that a positive scores above a negative, ties counting half. 0.5 where one kind is missing."""
    positives = sum(labels)
    negatives = len(labels) - positives
    if not positives or not negatives:
        return 0.5
    order = sorted(range(len(scores)), key=scores.__getitem__)
    rank_sum, at = 0.0, 0
    while at < len(order):
        end = at
        while end < len(order) and scores[order[end]] == scores[order[at]]:
            end += 1
        shared_rank = (at + end + 1) / 2
        rank_sum += shared_rank * sum(labels[each] for each in order[at:end])
        at = end
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def auc_interval(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """95 % by Hanley and McNeil (1982)."""
    if not positives or not negatives:
        return 0.0, 1.0
    first, second = value / (2 - value), 2 * value * value / (1 + value)
    variance = (value * (1 - value) + (positives - 1) * (first - value**2) + (negatives - 1) * (second - value**2)) / (
        positives * negatives
    )
    half = _Z * math.sqrt(max(0.0, variance))
    return max(0.0, value - half), min(1.0, value + half)
