"""Scores of labels with their uncertainty, and whether two models differ.

All scores here depend on how often each label met each other one, and on nothing else. To draw n
rows anew is then to draw these counts from a multinomial distribution: the bootstrap, without rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

ROUNDS = 10_000
_SEED = 0
# Rounds × cells that are drawn at a time, to bound memory: 64 MB of float64.
_CELLS_AT_ONCE = 8_000_000

Pair = TypeVar("Pair", bound=Any)
Int = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the 95 % percentile interval of its bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Scores:
    """One model on n rows of L labels. confusion: int [L, L + 1], gold by predicted; the last
    column is whatever is none of the labels. precision, recall, f1: by label."""

    confusion: Int
    accuracy: Interval
    macro_f1: Interval
    precision: list[Interval]
    recall: list[Interval]
    f1: list[Interval]

    @property
    def main(self) -> Interval:
        """What models are ranked by."""
        return self.macro_f1

    @property
    def support(self) -> list[int]:
        """Rows of each label."""
        return [int(n) for n in self.confusion.sum(1)]


@dataclass(frozen=True, slots=True)
class Difference:
    """First model less second, on the same rows. p_value: McNemar's exact test, two-sided: of rows
    that one alone has right, are the halves equal? Corrected for many pairs by Holm."""

    first: str
    second: str
    accuracy: Interval
    macro_f1: Interval
    only_first_right: int
    only_second_right: int
    p_value: float

    @property
    def main(self) -> Interval:
        return self.macro_f1


def confusion_of(gold: Int, predicted: Int, n_labels: int) -> Int:
    """Counts, int [L, L + 1]. gold: int [n], 0 to L - 1; predicted: 0 to L, L for none of them."""
    cells = np.bincount(gold * (n_labels + 1) + predicted, minlength=n_labels * (n_labels + 1))
    return cells.reshape(n_labels, n_labels + 1)


def precision_recall_f1(confusion: npt.NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """By label, [..., L] each, of counts [..., L, L + 1]. Where a figure divides by 0 it is 0."""
    counts = np.asarray(confusion, np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    claimed, there = counts.sum(-2)[..., :-1], counts.sum(-1)
    return (
        hits / np.maximum(claimed, 1),
        hits / np.maximum(there, 1),
        2 * hits / np.maximum(claimed + there, 1),
    )


def accuracy(confusion: npt.NDArray[Any]) -> Floats:
    """Share of rows that are right, [...], of counts [..., L, L + 1]."""
    counts = np.asarray(confusion, np.float64)
    shares: Floats = np.diagonal(counts, axis1=-2, axis2=-1).sum(-1) / counts.sum((-2, -1))
    return shares


def scores(gold: Int, predicted: Int, n_labels: int) -> Scores:
    """All scores of one model; see `confusion_of` for the arguments."""
    confusion = confusion_of(gold, predicted, n_labels)

    def figures(counts: npt.NDArray[Any]) -> Floats:
        """Accuracy, macro-F1, then precision, recall and F1 by label: [..., 2 + 3 L]."""
        by_label = precision_recall_f1(counts)
        both = [accuracy(counts), by_label[2].mean(-1)]
        return np.concatenate([np.stack(both, -1), *by_label], -1)

    drawn = redrawn(confusion.ravel(), lambda cells: figures(cells.reshape(-1, *confusion.shape)))
    found = [interval(*one) for one in zip(figures(confusion), drawn.T, strict=True)]
    by_label = [found[2 + i * n_labels : 2 + (i + 1) * n_labels] for i in range(3)]
    return Scores(confusion, found[0], found[1], *by_label)


def differences(gold: Int, predicted: dict[str, Int], n_labels: int) -> list[Difference]:
    """Every pair of models, on the same rows."""
    return corrected(
        [
            _difference(gold, (one, predicted[one]), (other, predicted[other]), n_labels)
            for one, other in combinations(predicted, 2)
        ]
    )


def corrected(found: list[Pair]) -> list[Pair]:
    """The same pairs of models, with p-values that hold for all of them together."""
    p_values = holm([one.p_value for one in found])
    return [replace(one, p_value=p) for one, p in zip(found, p_values, strict=True)]


def mcnemar(only_first_right: int, only_second_right: int) -> float:
    """p of the exact test, two-sided."""
    from scipy.stats import binomtest

    n = only_first_right + only_second_right
    return float(binomtest(only_first_right, n).pvalue) if n else 1.0


def holm(p_values: list[float]) -> list[float]:
    """The p-values as they hold for all tests together (Holm 1979)."""
    n, highest, held = len(p_values), 0.0, [0.0] * len(p_values)
    for rank, i in enumerate(sorted(range(n), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (n - rank) * p_values[i]))
        held[i] = highest
    return held


def _difference(
    gold: Int, first: tuple[str, Int], second: tuple[str, Int], n_labels: int
) -> Difference:
    triples, counts = np.unique(np.stack([gold, first[1], second[1]]), axis=1, return_counts=True)
    shape = (n_labels, n_labels + 1)

    def both(cells: npt.NDArray[Any]) -> tuple[Floats, Floats]:
        """[..., 2, L, L + 1] of counts of the triples: accuracies, macro-F1s, [..., 2] each."""
        matrices = np.zeros((len(cells), 2, *shape))
        for k, (label, one, other) in enumerate(triples.T):
            matrices[:, 0, label, one] += cells[:, k]
            matrices[:, 1, label, other] += cells[:, k]
        return accuracy(matrices), precision_recall_f1(matrices)[2].mean(-1)

    right_first, right_second = triples[1] == triples[0], triples[2] == triples[0]
    alone = int(counts[right_first & ~right_second].sum())
    other_alone = int(counts[~right_first & right_second].sum())
    told = [values[0, 0] - values[0, 1] for values in both(counts[None])]
    drawn = redrawn(counts, lambda cells: np.stack(both(cells), axis=1))
    gaps = drawn[..., 0] - drawn[..., 1]
    return Difference(
        first[0],
        second[0],
        interval(float(told[0]), gaps[:, 0]),
        interval(float(told[1]), gaps[:, 1]),
        alone,
        other_alone,
        mcnemar(alone, other_alone),
    )


def redrawn(counts: Int, of: Callable[[Int], Floats]) -> Floats:
    """The bootstrap: what `of` makes of counts that are drawn anew, [ROUNDS, ...].

    counts: int [cells].
    """
    rng = np.random.default_rng(_SEED)
    there = np.flatnonzero(counts)
    step = max(1, _CELLS_AT_ONCE // counts.size)
    made = []
    for start in range(0, ROUNDS, step):
        rounds = min(step, ROUNDS - start)
        cells = np.zeros((rounds, counts.size), np.int64)
        shares = counts[there] / counts.sum()
        cells[:, there] = rng.multinomial(int(counts.sum()), shares, rounds)
        made.append(of(cells))
    drawn: Floats = np.concatenate(made)
    return drawn


def interval(value: float, drawn: Floats) -> Interval:
    """drawn: the same figure of each round, [ROUNDS]."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))
