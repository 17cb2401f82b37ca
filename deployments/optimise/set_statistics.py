"""Scores of models that give a text several labels, or none, with their uncertainty.

All depend on which labels each row has and was given. Rows of one pattern count together, and to
draw rows anew is to draw these counts: the bootstrap of statistics.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from deployments.optimise.statistics import (
    Difference,
    Floats,
    Int,
    Interval,
    corrected,
    interval,
    mcnemar,
    redrawn,
)


@dataclass(frozen=True, slots=True)
class SetScores:
    """One model on n rows of L labels. accuracy: rows that got exactly their labels. micro_f1: of
    all labels of all rows together. support: rows that have each label."""

    accuracy: Interval
    macro_f1: Interval
    micro_f1: Interval
    precision: list[Interval]
    recall: list[Interval]
    f1: list[Interval]
    support: list[int]

    @property
    def main(self) -> Interval:
        """What models are ranked by."""
        return self.macro_f1


def set_scores(gold: Int, predicted: Int) -> SetScores:
    """gold, predicted: 0 or 1, int [n, L + 1]; the last column is whatever is none of the labels,
    which counts against accuracy and micro-F1."""
    n_labels = gold.shape[1] - 1
    patterns, counts = np.unique(_counted(gold, predicted), axis=0, return_counts=True)

    def figures(cells: Int) -> Floats:
        """Accuracy, macro-F1, micro-F1, then precision, recall and F1 by label."""
        return _figures(cells @ patterns, cells.sum(-1))

    drawn = redrawn(counts, figures)
    found = [interval(*one) for one in zip(figures(counts[None])[0], drawn.T, strict=True)]
    by_label = [found[3 + i * n_labels : 3 + (i + 1) * n_labels] for i in range(3)]
    support = [int(n) for n in gold[:, :-1].sum(0)]
    precision, recall, f1 = by_label
    return SetScores(found[0], found[1], found[2], precision, recall, f1, support)


def set_differences(gold: Int, predicted: dict[str, Int]) -> list[Difference]:
    """Every pair of models, on the same rows. A row is right that got exactly its labels."""
    return corrected(
        [
            _difference(gold, (a, predicted[a]), (b, predicted[b]))
            for a, b in combinations(predicted, 2)
        ]
    )


def _counted(gold: Int, predicted: Int) -> Int:
    """int [n, 3 (L + 1) + 1]: by label whether it is hit, claimed, there; whether all is right."""
    right = (gold == predicted).all(1, keepdims=True)
    return np.concatenate([gold & predicted, predicted, gold, right], axis=1).astype(np.int64)


def _figures(sums: Int, n_rows: Int) -> Floats:
    """sums: of `_counted` over rows, [rounds, 3 (L + 1) + 1]. What divides by 0 is 0."""
    hits, claimed, there = np.split(sums[:, :-1].astype(np.float64), 3, axis=1)
    micro = 2 * hits.sum(1) / np.maximum(claimed.sum(1) + there.sum(1), 1)
    hits, claimed, there = hits[:, :-1], claimed[:, :-1], there[:, :-1]
    f1 = 2 * hits / np.maximum(claimed + there, 1)
    head = np.stack([sums[:, -1] / n_rows, f1.mean(1), micro], axis=1)
    by_label = hits / np.maximum(claimed, 1), hits / np.maximum(there, 1), f1
    found: Floats = np.concatenate([head, *by_label], axis=1)
    return found


def _difference(gold: Int, first: tuple[str, Int], second: tuple[str, Int]) -> Difference:
    both = [_counted(gold, one) for _, one in (first, second)]
    width = both[0].shape[1]
    patterns, counts = np.unique(np.concatenate(both, axis=1), axis=0, return_counts=True)

    def gaps(cells: Int) -> Floats:
        """Accuracy and macro-F1, [rounds, 2]."""
        sums, n_rows = cells @ patterns, cells.sum(-1)
        one, other = _figures(sums[:, :width], n_rows), _figures(sums[:, width:], n_rows)
        found: Floats = one[:, :2] - other[:, :2]
        return found

    told, drawn = gaps(counts[None])[0], redrawn(counts, gaps)
    right, other_right = both[0][:, -1] == 1, both[1][:, -1] == 1
    alone, other_alone = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    return Difference(
        first[0],
        second[0],
        interval(float(told[0]), drawn[:, 0]),
        interval(float(told[1]), drawn[:, 1]),
        alone,
        other_alone,
        mcnemar(alone, other_alone),
    )
