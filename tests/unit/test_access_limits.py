"""Rates and quotas: counts of what is let in, by a clock that the tests turn."""

from __future__ import annotations

import random

import pytest

from deployments.access.limits import Allowance, Rates
from deployments.pipeline.errors import QuotaExceeded, RateLimited, ServiceError

NOON = 20_000 * 86_400 + 43_200.0


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def allowance(clock: Clock, now: Clock | None = None, **rates: float) -> Allowance:
    return Allowance(Rates(**rates), clock, now or Clock(NOON))


def let_in(caller: Allowance, requests: int, texts: int = 1) -> int:
    done = 0
    for _ in range(requests):
        try:
            caller.take()
            caller.charge(texts - 1)
            done += 1
        except ServiceError:
            pass
    return done


def test_without_limits_everything_is_let_in():
    assert let_in(allowance(Clock()), 10_000, texts=1_000) == 10_000


def test_one_seconds_worth_at_once_then_the_rate():
    clock = Clock()
    caller = allowance(clock, texts_per_s=10)
    assert let_in(caller, 100) == 10
    clock.now += 0.5
    assert let_in(caller, 100) == 5
    clock.now += 1_000
    assert let_in(caller, 100) == 10  # a pause saves up no more than the burst


def test_a_rate_below_one_a_second_lets_single_texts_in():
    clock = Clock()
    caller = allowance(clock, texts_per_s=0.1)
    assert let_in(caller, 5) == 1
    clock.now += 9.9
    assert let_in(caller, 5) == 0
    clock.now += 0.2
    assert let_in(caller, 5) == 1


def test_a_batch_may_overdraw_once_and_is_waited_for():
    clock = Clock()
    caller = allowance(clock, texts_per_s=10, burst_texts=20)
    assert let_in(caller, 1, texts=1_000) == 1
    with pytest.raises(RateLimited) as caught:
        caller.take()
    assert caught.value.retry_after_s == pytest.approx(98.1)
    clock.now += 98.0
    assert let_in(caller, 1) == 0
    clock.now += 0.2
    assert let_in(caller, 1) == 1


def test_requests_that_came_together_overdraw_once_only():
    """All of them are let in before any knows how many texts it holds."""
    caller = allowance(Clock(), texts_per_s=10)
    for _ in range(10):
        caller.take()
    caller.charge(999)
    for _ in range(9):
        with pytest.raises(RateLimited):
            caller.charge(999)


def test_over_time_nobody_gets_more_than_rate_and_burst_and_one_batch():
    clock, chance = Clock(), random.Random(5)
    caller = allowance(clock, texts_per_s=50, burst_texts=100)
    texts = 0
    for _ in range(20_000):
        clock.now += chance.expovariate(100)
        size = chance.choice((1, 1, 1, 8, 64))
        texts += size * let_in(caller, 1, size)
    assert texts <= 50 * clock.now + 100 + 64
    assert texts >= 0.95 * 50 * clock.now


def test_the_quota_of_a_day_returns_at_midnight_utc():
    now = Clock(NOON)
    caller = allowance(Clock(), now, texts_per_day=100)
    assert let_in(caller, 30, texts=4) == 25
    with pytest.raises(QuotaExceeded) as caught:
        caller.take()
    assert caught.value.retry_after_s == 43_200
    assert "100 texts a day" in caught.value.message
    now.now += 43_199
    assert let_in(caller, 1) == 0
    now.now += 1
    assert let_in(caller, 200) == 100
