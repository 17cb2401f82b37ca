"""Whether a series grows: its slope, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.96
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
    centred = at - at.mean()
    spread = float(centred @ centred)
    value = float(centred @ (found - found.mean())) / spread
    line = found.mean() + value * centred
    rest = found - line
    squares = float(rest @ rest)
    alike = min(max(float(rest[1:] @ rest[:-1]) / squares, 0.0), 0.99) if squares > 0 else 0.0
    independent = max(len(at) * (1 - alike) / (1 + alike), _FEWEST)
    error = (squares / (independent - 2) / spread) ** 0.5
    half = _t(independent - 2) * error
    return Slope(value, value - half, value + half, float(line[0]), float(line[-1]))


def _t(freedom: float) -> float:
    """Student's t at 97.5 %, by its expansion around the normal distribution's."""
    z = _Z
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
