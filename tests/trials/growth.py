"""Whether something grows: the slope of a series and how sure it is, and memory that levels off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_FEWEST = 5.0
WINDOW = 4
"""Rounds that are compared with as many before them."""
MAX_ROUNDS = 40
# What a replica holds goes up and down by 20 MB from one round to the next, as large bodies come
# and go; the least of four rounds does not.
MAX_GROWTH_MB = 20.0


@dataclass(frozen=True, slots=True)
class Slope:
    """Of a least-squares line, with its 95 % confidence interval; unit of the values per unit of x.

    first, last: the line's ends.
    """

    value: float
    low: float
    high: float
    first: float
    last: float


def slope(x: Sequence[float], values: Sequence[float]) -> Slope:
    """The slope of `values` over `x`; three or more of each, `x` rising.

    Samples that follow each other are alike, so they count as fewer than they are: as many as the
    lag-1 autocorrelation of the residuals leaves independent.
    """
    at, found = np.asarray(x, float), np.asarray(values, float)
    fit = stats.linregress(at, found)
    line = fit.intercept + fit.slope * at
    rest = found - line
    squares = float(rest @ rest)
    alike = min(max(float(rest[1:] @ rest[:-1]) / squares, 0.0), 0.99) if squares > 0 else 0.0
    independent = max(len(at) * (1 - alike) / (1 + alike), _FEWEST)
    error = (squares / (independent - 2) / float(((at - at.mean()) ** 2).sum())) ** 0.5
    half = stats.t.ppf(0.975, independent - 2) * error
    ends = float(line[0]), float(line[-1])
    return Slope(float(fit.slope), float(fit.slope - half), float(fit.slope + half), *ends)


@dataclass(frozen=True, slots=True)
class Levelling:
    """after_mb: memory after each round. `level`: it grew no more, before the rounds ran out."""

    after_mb: list[float]
    level: bool

    @property
    def growth_mb(self) -> float:
        """Of the last rounds against those before them."""
        return _growth(self.after_mb)


def rounds_until_level(
    one_round: Callable[[int], None], memory_mb: Callable[[], float]
) -> Levelling:
    """Runs rounds, numbered from 0, until the least memory of four of them is at most 20 MB above
    that of the four before. What loses 5 MB a round never gets there.
    """
    after: list[float] = []
    for number in range(MAX_ROUNDS):
        one_round(number)
        after.append(round(memory_mb(), 1))
        if len(after) >= 2 * WINDOW and _growth(after) <= MAX_GROWTH_MB:
            return Levelling(after, True)
    return Levelling(after, False)


def _growth(after_mb: list[float]) -> float:
    return min(after_mb[-WINDOW:]) - min(after_mb[-2 * WINDOW : -WINDOW])
