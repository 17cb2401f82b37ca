"""The cost curve: learned from noisy passes, unmoved by pauses, quick to follow the machine."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.pipeline.latency_model import CostCurve

START_S, TOKEN_S, ATTENTION_S = 0.004, 10e-6, 0.15e-6


def true_s(tokens: float, longest: float) -> float:
    return START_S + tokens * (TOKEN_S + longest * ATTENTION_S)


def observe(
    curve: CostCurve, n_passes: int, noise: float = 0.05, slower: float = 1.0, seed: int = 0
) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(n_passes):
        longest = int(rng.integers(8, 512))
        tokens = int(rng.integers(longest, 4_096))
        factor = rng.gamma(1 / noise**2, noise**2)
        curve.observe(tokens, longest, slower * true_s(tokens, longest) * factor)


def errors(curve: CostCurve, slower: float = 1.0) -> np.ndarray:
    shapes = [(8, 8), (128, 16), (512, 512), (4_096, 64), (4_096, 512)]
    c = curve.coefficients()
    return np.array([abs(c.pass_s(t, n) / (slower * true_s(t, n)) - 1) for t, n in shapes])


def test_the_curve_is_found_behind_noise() -> None:
    curve = CostCurve()
    observe(curve, 400)
    assert (errors(curve) < 0.15).all()


def test_some_ten_passes_are_enough_for_a_rough_idea_of_large_batches() -> None:
    curve = CostCurve()
    observe(curve, 15)
    assert (errors(curve)[2:] < 0.5).all()


def test_a_short_pass_and_a_longer_one_are_enough_to_begin_with() -> None:
    """As a replica times before anybody asks. The short one alone promises next to nothing."""
    curve = CostCurve()
    for tokens, longest in ((8, 8), (512, 64)):
        curve.observe(tokens, longest, true_s(tokens, longest))
    assert curve.coefficients().pass_s(512, 64) == pytest.approx(true_s(512, 64), rel=0.05)
    assert 0.5 < curve.coefficients().pass_s(4_096, 64) / true_s(4_096, 64) < 2.0


def test_pauses_move_it_little() -> None:
    curve = CostCurve()
    observe(curve, 400)
    for i in range(10):
        curve.observe(2_000, 100, 5.0)
        observe(curve, 20, seed=i)
    assert (errors(curve) < 0.25).all()


@pytest.mark.parametrize("slower", [0.5, 2.0, 4.0])
def test_it_follows_a_machine_that_changes_its_speed_within_fifty_passes(slower: float) -> None:
    curve = CostCurve()
    observe(curve, 400)
    observe(curve, 50, slower=slower, seed=1)
    assert (errors(curve, slower) < 0.25).all()


def test_predictions_leave_room_for_the_noise_they_have_seen() -> None:
    curve = CostCurve()
    observe(curve, 600, noise=0.2)
    rng = np.random.default_rng(5)
    tokens = rng.integers(100, 4_096, 500).astype(np.float64)
    longest = np.full(500, 100.0)
    took = true_s(tokens, longest) * rng.gamma(25, 1 / 25, 500)
    assert (took <= curve.predict(tokens, longest)).mean() > 0.9


def test_no_cost_is_negative_whatever_is_observed() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        curve = CostCurve()
        for _ in range(40):
            tokens = int(rng.integers(1, 5_000))
            curve.observe(tokens, int(rng.integers(1, tokens + 1)), float(rng.exponential(0.1)))
            assert min(curve.coefficients()) >= 0
            assert sum(curve.coefficients()) > 0


def test_passes_that_take_no_time_by_the_clock_are_survived() -> None:
    curve = CostCurve()
    for _ in range(30):
        curve.observe(10, 10, 0.0)
    assert np.isfinite(curve.coefficients()).all()


def test_a_thousand_equal_passes_leave_sane_figures_for_others() -> None:
    """Nothing tells start, tokens and attention apart then, so each gets a share."""
    curve = CostCurve()
    for _ in range(1_000):
        curve.observe(1_000, 100, 0.1)
    assert curve.coefficients().pass_s(1_000, 100) == pytest.approx(0.1, rel=0.02)
    assert 0.02 < curve.coefficients().pass_s(500, 100) < 0.1
    assert 0.1 < curve.coefficients().pass_s(2_000, 100) < 0.3
