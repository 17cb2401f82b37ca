"""The simulated ideal server agrees with queueing theory, and its pass times with what was fed."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.bench.latencies import poisson_times_s
from scripts.bench.ideal import ideal, latencies_s
from scripts.bench.passes import PassTime, exact, fitted, told, waiting

MANY = 1_000_000


def test_of_one_text_a_pass_it_waits_as_long_as_a_queue_with_fixed_service_times() -> None:
    """M/D/1: the mean wait is ρ / (2 (1 − ρ)) services (Pollaczek and Khinchine)."""
    cost = PassTime(0.004, 0.0, 0.006)
    for load in (0.25, 0.5, 0.75):
        times_s = poisson_times_s(load / 0.010, 4_000, seed=1)
        took = latencies_s(times_s, np.ones(len(times_s)), cost, 1, MANY)
        assert took.mean() == pytest.approx(0.010 * (1 + load / (2 * (1 - load))), rel=0.05)


def test_passes_are_full_of_what_waits_up_to_texts_and_tokens_in_order_of_arrival() -> None:
    cost = PassTime(1.0, 0.0, 0.0)
    times_s = np.array([0.0, 0.1, 0.2, 0.3])
    lengths = np.array([5, 5, 5, 5])
    assert latencies_s(times_s, lengths, cost, 9, MANY).tolist() == pytest.approx(
        [1.0, 1.9, 1.8, 1.7]
    )
    assert latencies_s(times_s, lengths, cost, 2, MANY).tolist() == pytest.approx(
        [1.0, 1.9, 1.8, 2.7]
    )
    assert latencies_s(times_s, lengths, cost, 9, 10).tolist() == pytest.approx(
        [1.0, 1.9, 1.8, 2.7]
    )
    assert latencies_s(times_s, lengths * 100, cost, 9, 10).tolist() == pytest.approx(
        [1.0, 1.9, 2.8, 3.7]
    )


def test_the_ideal_batches_where_a_pass_is_dear_and_does_not_where_it_is_cheap() -> None:
    times_s = poisson_times_s(200, 20, seed=2)
    lengths = np.array([10, 50, 100])
    dear, cheap = PassTime(0.02, 1e-6, 0.0), PassTime(0.0, 80e-6, 0.0)
    for cost, limit in ((dear, MANY), (cheap, 1)):
        found = ideal([(times_s, lengths, cost)], MANY)
        took = latencies_s(times_s, np.resize(lengths, len(times_s)), cost, limit, MANY)
        assert found["ideal_p50_ms"] == pytest.approx(1_000 * np.percentile(took, 50), rel=0.02)


def test_pass_times_are_found_again_in_what_was_measured() -> None:
    rng = np.random.default_rng(3)
    passes = []
    for _ in range(200):
        lengths = rng.integers(5, 500, rng.choice((1, 4, 16)))
        seconds = 0.003 + 50e-6 * lengths.sum() + 40e-9 * (lengths**2).sum()
        passes.append([lengths.sum(), (lengths**2).sum(), seconds * rng.uniform(0.98, 1.02)])
    found = fitted(passes)
    assert found.start_s == pytest.approx(0.003, rel=0.1)
    assert found.token_s == pytest.approx(50e-6, rel=0.05)
    assert found.square_s == pytest.approx(40e-9, rel=0.1)


def test_a_stand_in_waits_as_long_as_it_is_told_in_every_process_that_starts_meanwhile() -> None:
    cost = PassTime(0.002, 90e-6, 30e-9)
    usual = told()
    with waiting(cost):
        assert told() == cost
    assert told() == usual
    found = fitted(exact(cost))
    assert (found.start_s, found.token_s, found.square_s) == pytest.approx(
        (cost.start_s, cost.token_s, cost.square_s)
    )
