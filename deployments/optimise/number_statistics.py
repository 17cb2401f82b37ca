"""How well a regression's numbers fit, with their uncertainty: a bootstrap over rows.

To draw n rows anew is to draw how often each one counts, so every figure here is of weighted rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from deployments.optimise.statistics import (
    Floats,
    Int,
    Interval,
    corrected,
    interval,
    mcnemar,
    redrawn,
)

# Of equal numbers less their mean float64 leaves something, some 1e-16 of them, and its square.
_ROUNDING = 1e-24


@dataclass(frozen=True, slots=True)
class NumberScores:
    """One model on n rows. r2: 1 less the squared error over that of the mean as every answer; may
    be below 0. mae: mean absolute error, in the labels' own unit."""

    pearson: Interval
    spearman: Interval
    r2: Interval
    mae: Interval

    @property
    def main(self) -> Interval:
        """What models are ranked by."""
        return self.pearson


@dataclass(frozen=True, slots=True)
class NumberDifference:
    """First model less second, on the same rows. only_first_right: rows where the first is nearer.
    p_value: the sign test, exact and two-sided: are these two counts equal? Corrected by Holm."""

    first: str
    second: str
    pearson: Interval
    mae: Interval
    only_first_right: int
    only_second_right: int
    p_value: float

    @property
    def main(self) -> Interval:
        return self.pearson


def number_scores(gold: Floats, predicted: Floats) -> NumberScores:
    """Both float64 [n], finite."""

    def figures(weights: Int) -> Floats:
        """Pearson's r, Spearman's rho, R² and the mean absolute error, [rounds, 4]."""
        ranks = _ranks(gold, weights), _ranks(predicted, weights)
        values = np.broadcast_to(gold, weights.shape), np.broadcast_to(predicted, weights.shape)
        return np.stack(
            [
                _correlation(*values, weights),
                _correlation(*ranks, weights),
                _r2(gold, predicted, weights),
                _mean(np.abs(predicted - gold), weights),
            ],
            axis=1,
        )

    ones = np.ones(len(gold), np.int64)
    drawn = redrawn(ones, figures)
    found = [interval(*one) for one in zip(figures(ones[None])[0], drawn.T, strict=True)]
    return NumberScores(*found)


def number_differences(gold: Floats, predicted: dict[str, Floats]) -> list[NumberDifference]:
    """Every pair of models, on the same rows."""
    return corrected(
        [
            _difference(gold, (a, predicted[a]), (b, predicted[b]))
            for a, b in combinations(predicted, 2)
        ]
    )


def _difference(
    gold: Floats, first: tuple[str, Floats], second: tuple[str, Floats]
) -> NumberDifference:
    errors = [np.abs(one - gold) for _, one in (first, second)]

    def gaps(weights: Int) -> Floats:
        told = [np.broadcast_to(one, weights.shape) for one in (gold, first[1], second[1])]
        r = [_correlation(told[0], one, weights) for one in told[1:]]
        return np.stack([r[0] - r[1], _mean(errors[0] - errors[1], weights)], axis=1)

    ones = np.ones(len(gold), np.int64)
    told, drawn = gaps(ones[None])[0], redrawn(ones, gaps)
    nearer, farther = int((errors[0] < errors[1]).sum()), int((errors[0] > errors[1]).sum())
    return NumberDifference(
        first[0],
        second[0],
        interval(float(told[0]), drawn[:, 0]),
        interval(float(told[1]), drawn[:, 1]),
        nearer,
        farther,
        mcnemar(nearer, farther),
    )


def _mean(values: Floats, weights: Int) -> Floats:
    """Over rows, [rounds]. values: [n] or [rounds, n]."""
    found: Floats = (weights * values).sum(-1) / weights.sum(-1)
    return found


def _correlation(x: Floats, y: Floats, weights: Int) -> Floats:
    """[rounds], of [rounds, n]; 0 where one of them does not vary."""
    dx, dy = x - _mean(x, weights)[:, None], y - _mean(y, weights)[:, None]
    squares = _mean(dx * dx, weights), _mean(dy * dy, weights)
    vary = np.all(
        [
            of > _ROUNDING * _mean(one * one, weights)
            for one, of in zip((x, y), squares, strict=True)
        ],
        axis=0,
    )
    both = np.sqrt(np.where(vary, squares[0] * squares[1], 1))
    found: Floats = np.where(vary, _mean(dx * dy, weights) / both, 0.0)
    return found


def _r2(gold: Floats, predicted: Floats, weights: Int) -> Floats:
    off = gold - _mean(gold, weights)[:, None]
    spread = _mean(off * off, weights)
    left = _mean((predicted - gold) ** 2, weights)
    found: Floats = np.where(spread > 0, 1 - left / np.where(spread > 0, spread, 1), 0.0)
    return found


def _ranks(values: Floats, weights: Int) -> Floats:
    """Ranks among rows that count so often, equal ones in the middle: [rounds, n]."""
    _, group, _ = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    of_group = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(of_group, axis=1) - of_group / 2
    ranks: Floats = middle[:, group]
    return ranks
