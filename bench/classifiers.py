"""Two classifiers small enough to read: what they cannot tell apart, little can.

Logistic regression finds what rises or falls with a feature, boosted trees of depth two what lies in a band or in two
features together. Scores are out of fold: each example is scored by models that were not fitted to it.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bench import intervals

Row: TypeAlias = Sequence[float]
Scorer: TypeAlias = Callable[[Row], float]
Fit: TypeAlias = Callable[[Sequence[Row], Sequence[bool]], Scorer]

FOLDS = 4
BINS = 24
ROUNDS = 40
SHRINKAGE = 0.2
LEAF_WEIGHT_MIN = 4.0
"""Sum of second derivatives: a leaf of fewer examples learns them by heart."""
RIDGE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """How well the better of the two classifiers told positives from negatives."""

    classifier: str
    auc: float
    ci95: tuple[float, float]
    examples: int
    positives: int
    single: dict[str, float]
    """The area under the curve of each feature alone, taken in the direction that is above 0.5."""


def separation(names: Sequence[str], rows: Sequence[Row], labels: Sequence[bool], *, seed: int) -> Separation:
    """`names` are the features'. The better of two is taken, which errs against whoever wants them alike."""
    assert rows and all(len(row) == len(names) for row in rows)
    found = {name: intervals.auc(out_of_fold(fit, rows, labels, seed=seed), labels) for name, fit in FITS.items()}
    best = max(found, key=found.__getitem__)
    positives = sum(labels)
    single: dict[str, float] = {}
    for at, name in enumerate(names):
        value = intervals.auc([row[at] for row in rows], labels)
        single[name] = max(value, 1 - value)
    return Separation(
        classifier=best,
        auc=found[best],
        ci95=intervals.auc_interval(found[best], positives, len(labels) - positives),
        examples=len(rows),
        positives=positives,
        single=single,
    )


def out_of_fold(fit: Fit, rows: Sequence[Row], labels: Sequence[bool], *, seed: int) -> list[float]:
    """Scores are ranks within their fold, for folds' models need not share a scale."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    scores = [0.0] * len(rows)
    for fold in range(FOLDS):
        held = order[fold::FOLDS]
        outside = [each for other in range(FOLDS) if other != fold for each in order[other::FOLDS]]
        scorer = fit([rows[each] for each in outside], [labels[each] for each in outside])
        scored = {each: scorer(rows[each]) for each in held}
        ordered = sorted(scored.values())
        for each, value in scored.items():
            scores[each] = bisect_right(ordered, value) / len(held)
    return scores


# Logistic regression ------------------------------------------------------------------------------------------------


def logistic(rows: Sequence[Row], labels: Sequence[bool]) -> Scorer:
    """By Newton's method on standardised features, which few of them make cheap."""
    width = len(rows[0])
    means = [math.fsum(row[at] for row in rows) / len(rows) for at in range(width)]
    spreads = [
        math.sqrt(math.fsum((row[at] - means[at]) ** 2 for row in rows) / len(rows)) or 1.0 for at in range(width)
    ]
    standard = [_standard(row, means, spreads) for row in rows]
    weights = [0.0] * (width + 1)
    for _ in range(8):
        gradient = [RIDGE * len(rows) * -weight for weight in weights]
        hessian = [[RIDGE * len(rows) if a == b else 0.0 for b in range(width + 1)] for a in range(width + 1)]
        for row, label in zip(standard, labels, strict=True):
            p = _sigmoid(sum(map(float.__mul__, weights, row)))
            error, curve = label - p, p * (1 - p)
            for a, value in enumerate(row):
                gradient[a] += error * value
                line, scaled = hessian[a], curve * value
                for b in range(a + 1):
                    line[b] += scaled * row[b]
        for a in range(width + 1):
            for b in range(a):
                hessian[b][a] = hessian[a][b]
        step = _solve(hessian, gradient)
        weights = [weight + each for weight, each in zip(weights, step, strict=True)]
        if max(abs(each) for each in step) < 1e-4:
            break
    return lambda row: sum(map(float.__mul__, weights, _standard(row, means, spreads)))


def _standard(row: Row, means: Sequence[float], spreads: Sequence[float]) -> list[float]:
    return [1.0, *((value - mean) / spread for value, mean, spread in zip(row, means, spreads, strict=True))]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, value))))


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gauss with pivots; the ridge keeps the matrix regular."""
    size = len(right)
    work = [[*line, value] for line, value in zip(matrix, right, strict=True)]
    for at in range(size):
        pivot = max(range(at, size), key=lambda line, at=at: abs(work[line][at]))
        work[at], work[pivot] = work[pivot], work[at]
        for line in range(at + 1, size):
            factor = work[line][at] / work[at][at]
            if factor:
                work[line] = [a - factor * b for a, b in zip(work[line], work[at], strict=True)]
    solution = [0.0] * size
    for at in reversed(range(size)):
        known = sum(work[at][other] * solution[other] for other in range(at + 1, size))
        solution[at] = (work[at][size] - known) / work[at][at]
    return solution


# Boosted trees ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Split:
    feature: int
    bin: int
    gain: float
    left: float
    right: float
    """What the leaves add where they are not split again."""


def boosted(rows: Sequence[Row], labels: Sequence[bool]) -> Scorer:
    """Trees of depth two on features cut into bins of equal count, each fitted to what the ones before left over."""
    width = len(rows[0])
    edges = [_edges([row[at] for row in rows]) for at in range(width)]
    columns = [bytes(bisect_right(edges[at], row[at]) for row in rows) for at in range(width)]
    share = min(max(sum(labels) / len(labels), 1e-6), 1 - 1e-6)
    base = math.log(share / (1 - share))
    totals = [base] * len(rows)
    trees: list[tuple[_Split, _Split | None, _Split | None]] = []
    everything = range(len(rows))
    for _ in range(ROUNDS):
        chances = [_sigmoid(total) for total in totals]
        gradients = [label - chance for label, chance in zip(labels, chances, strict=True)]
        curves = [chance * (1 - chance) for chance in chances]
        root = _best_split(columns, gradients, curves, everything)
        if root is None:
            break
        column = columns[root.feature]
        left = [each for each in everything if column[each] <= root.bin]
        right = [each for each in everything if column[each] > root.bin]
        tree = (
            root,
            _best_split(columns, gradients, curves, left),
            _best_split(columns, gradients, curves, right),
        )
        trees.append(tree)
        for side, members in ((tree[1], left), (tree[2], right)):
            alone = root.left if members is left else root.right
            for each in members:
                totals[each] += SHRINKAGE * _leaf(side, alone, columns, each)

    def score(row: Row) -> float:
        total = base
        for root, left, right in trees:
            goes_left = bisect_right(edges[root.feature], row[root.feature]) <= root.bin
            side, alone = (left, root.left) if goes_left else (right, root.right)
            if side is not None:
                below = bisect_right(edges[side.feature], row[side.feature]) <= side.bin
                alone = side.left if below else side.right
            total += SHRINKAGE * alone
        return total

    return score


def _leaf(side: _Split | None, alone: float, columns: Sequence[bytes], each: int) -> float:
    if side is None:
        return alone
    return side.left if columns[side.feature][each] <= side.bin else side.right


def _edges(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return sorted({ordered[len(ordered) * part // BINS] for part in range(1, BINS)})


def _best_split(
    columns: Sequence[bytes], gradients: Sequence[float], curves: Sequence[float], members: Sequence[int]
) -> _Split | None:
    best: _Split | None = None
    gradient_sum = math.fsum(gradients[each] for each in members)
    curve_sum = math.fsum(curves[each] for each in members)
    for feature, column in enumerate(columns):
        by_bin, weight_by_bin = [0.0] * (BINS + 1), [0.0] * (BINS + 1)
        for each in members:
            place = column[each]
            by_bin[place] += gradients[each]
            weight_by_bin[place] += curves[each]
        left, left_weight = 0.0, 0.0
        for place in range(BINS):
            left += by_bin[place]
            left_weight += weight_by_bin[place]
            right, right_weight = gradient_sum - left, curve_sum - left_weight
            if left_weight < LEAF_WEIGHT_MIN or right_weight < LEAF_WEIGHT_MIN:
                continue
            gain = left * left / left_weight + right * right / right_weight
            if best is None or gain > best.gain:
                best = _Split(feature, place, gain, left / left_weight, right / right_weight)
    return best


FITS: dict[str, Fit] = {"logistic regression": logistic, "boosted trees": boosted}
