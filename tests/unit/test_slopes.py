"""Slopes of the soak: found where something grows, in doubt where it only wanders."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trials.growth import slope

HOURS = np.arange(360) / 360


def test_a_leak_is_found_in_noise() -> None:
    noise = np.random.default_rng(1).normal(0, 5, len(HOURS))
    found = slope(HOURS, 300 + 50 * HOURS + noise)
    assert found.low < 50 < found.high
    assert found.low > 40
    assert found.last - found.first == pytest.approx(found.value * HOURS[-1])


def test_the_interval_holds_what_is_true_as_often_as_it_says_for_series_that_wander() -> None:
    rng, inside = np.random.default_rng(2), 0
    for _ in range(200):
        wander = np.zeros(len(HOURS))
        for i in range(1, len(HOURS)):
            wander[i] = 0.9 * wander[i - 1] + rng.normal()
        found = slope(HOURS, wander)
        inside += found.low < 0 < found.high
    assert inside >= 180  # least squares alone: 69


def test_what_stays_as_it_is_has_no_slope() -> None:
    found = slope([0.0, 0.5, 1.0], [7, 7, 7])
    assert (found.value, found.low, found.high) == (0, 0, 0)
