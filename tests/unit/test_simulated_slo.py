"""target_p99_ms in virtual time: kept where the plain budget breaks it, and harmless elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from virtual_time import VirtualModel, run_virtually, texts

Cost = Callable[[int, int], float]


def attention_heavy(tokens: int, longest: int) -> float:
    """As where a batch is padded: short texts pay for the longest one."""
    return 0.004 + 10e-6 * tokens + 0.15e-6 * tokens * longest


def linear(tokens: int, longest: int) -> float:
    """As packed BERT-base on two cores: what a batch costs is its tokens."""
    return 0.006 + 0.13e-3 * tokens


def review_lengths(rng: np.random.Generator, n: int) -> np.ndarray:
    """Mostly short, three in a hundred as long as the model reads."""
    short = np.clip(rng.lognormal(3.2, 0.6, n), 5, 128)
    return np.where(rng.random(n) < 0.03, 512, short).astype(int)


def serve(
    cost_s: Cost,
    arrivals_s: np.ndarray,
    *,
    target_p99_ms: float | None,
    seed: int,
    twice_as_slow_from_s: float = np.inf,
) -> tuple[np.ndarray, float]:
    """Milliseconds from arrival to answer of every text, by arrival; and when the last one ended.

    Passes scatter by 5 %, and one in a hundred takes three times as long.
    """
    rng = np.random.default_rng(seed)
    lengths = review_lengths(rng, len(arrivals_s))
    latency_ms = np.zeros(len(arrivals_s))

    def noisy_s(tokens: int, longest: int) -> float:
        slow = 2 if asyncio.get_running_loop().time() > twice_as_slow_from_s else 1
        pause = 3 if rng.random() < 0.01 else 1
        return cost_s(tokens, longest) * slow * pause * rng.gamma(400, 1 / 400)

    async def main() -> float:
        queue = VirtualModel(noisy_s).batcher(target_p99_ms=target_p99_ms)
        loop = asyncio.get_running_loop()

        async def call(i: int) -> None:
            await asyncio.sleep(arrivals_s[i])
            await queue.submit(texts(int(lengths[i])), np.full(1, 1e6, np.float32))
            latency_ms[i] = (loop.time() - arrivals_s[i]) * 1e3

        await asyncio.gather(*map(call, range(len(arrivals_s))))
        return loop.time()

    ended_s = run_virtually(main())
    return latency_ms, ended_s


def poisson(rate: float, n: int, seed: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, n))


@cache
def capacity(cost_s: Cost) -> float:
    """Texts a second with the plain budget while the queue is never empty."""
    _, ended_s = serve(cost_s, np.zeros(3_000), target_p99_ms=None, seed=0)
    return 3_000 / ended_s


def p99(latency_ms: np.ndarray) -> float:
    return float(np.percentile(latency_ms, 99))


@pytest.mark.parametrize(("load", "target_ms"), [(0.5, 110.0), (0.75, 225.0), (0.9, 300.0)])
def test_the_target_is_kept_where_the_plain_budget_breaks_it(load: float, target_ms: float) -> None:
    arrivals_s = poisson(load * capacity(attention_heavy), 3_000, seed=1)
    plain, _ = serve(attention_heavy, arrivals_s, target_p99_ms=None, seed=2)
    bound, _ = serve(attention_heavy, arrivals_s, target_p99_ms=target_ms, seed=2)
    assert p99(plain[300:]) > target_ms
    assert p99(bound[300:]) <= target_ms


def test_a_machine_that_becomes_twice_as_slow_is_learned_while_it_serves() -> None:
    arrivals_s = poisson(0.45 * capacity(attention_heavy), 4_000, seed=1)
    middle_s = float(arrivals_s[2_000])
    bound, _ = serve(
        attention_heavy, arrivals_s, target_p99_ms=350.0, seed=2, twice_as_slow_from_s=middle_s
    )
    plain, _ = serve(
        attention_heavy, arrivals_s, target_p99_ms=None, seed=2, twice_as_slow_from_s=middle_s
    )
    assert p99(plain[2_300:]) > 350
    assert p99(bound[2_300:]) <= 350


@pytest.mark.parametrize("target_ms", [20.0, 100.0, 500.0])
@pytest.mark.parametrize("cost_s", [linear, attention_heavy])
def test_at_twice_the_capacity_it_gets_no_less_done_than_the_plain_budget(
    cost_s: Cost, target_ms: float
) -> None:
    arrivals_s = poisson(2 * capacity(cost_s), 2_000, seed=3)
    _, plain_s = serve(cost_s, arrivals_s, target_p99_ms=None, seed=4)
    _, bound_s = serve(cost_s, arrivals_s, target_p99_ms=target_ms, seed=4)
    assert bound_s <= 1.03 * plain_s


@pytest.mark.parametrize("load", [0.5, 0.75, 0.9])
def test_it_does_no_harm_where_smaller_batches_cannot_help(load: float) -> None:
    """Where a batch costs its tokens and its start, a cut one only ends later."""
    arrivals_s = poisson(load * capacity(linear), 2_000, seed=1)
    plain, _ = serve(linear, arrivals_s, target_p99_ms=None, seed=2)
    for target_ms in (np.percentile(plain, 50), np.percentile(plain, 90)):
        bound, _ = serve(linear, arrivals_s, target_p99_ms=float(target_ms), seed=2)
        assert (bound > target_ms).mean() <= (plain > target_ms).mean() + 0.02


def test_of_a_burst_that_no_machine_answers_in_time_the_oldest_still_are() -> None:
    steady_s = poisson(0.2 * capacity(linear), 600, seed=1)
    bursts_s = np.repeat(np.arange(2.0, steady_s[-1], 4.0), 80)
    arrivals_s = np.sort(np.concatenate([steady_s, bursts_s]))
    plain, _ = serve(linear, arrivals_s, target_p99_ms=None, seed=2)
    bound, _ = serve(linear, arrivals_s, target_p99_ms=250.0, seed=2)
    assert (bound > 250).mean() <= 0.8 * (plain > 250).mean()


def test_a_target_that_is_never_in_danger_changes_no_batch_of_a_linear_machine() -> None:
    arrivals_s = poisson(0.5 * capacity(linear), 1_000, seed=1)
    plain, _ = serve(linear, arrivals_s, target_p99_ms=None, seed=2)
    bound, _ = serve(linear, arrivals_s, target_p99_ms=1e6, seed=2)
    assert bound.tolist() == plain.tolist()
