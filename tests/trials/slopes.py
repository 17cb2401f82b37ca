"""Whether a series grows: its slope, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_FEWEST = 5.0


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
