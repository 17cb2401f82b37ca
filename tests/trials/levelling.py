"""Whether memory levels off: the same load, round after round, until it grows no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 4
"""Rounds that are compared with as many before them."""
MAX_ROUNDS = 40
# What a replica holds goes up and down by 20 MB from one round to the next, as large bodies come
# and go; the least of four rounds does not.
MAX_GROWTH_MB = 20.0


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
