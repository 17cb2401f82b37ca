"""What the trials of scripts/torture.py judge by: each must be able to say no."""

from __future__ import annotations

import random

import pytest

from scripts.bench.client import Answer
from tests.trials.growth import MAX_ROUNDS, Levelling, rounds_until_level
from tests.trials.throwing import smuggled


def levelling(grown_mb: float, leak_mb: float, noise_mb: float = 20.0) -> Levelling:
    """Of a process that warms up by `grown_mb` and loses `leak_mb` a round."""
    rng = random.Random(3)
    rounds: list[int] = []

    def memory_mb() -> float:
        n = len(rounds)
        warm = grown_mb * (1 - 0.7**n)
        return 900 + warm + leak_mb * n + rng.uniform(0, noise_mb)

    return rounds_until_level(rounds.append, memory_mb)


@pytest.mark.parametrize("grown_mb", [0, 50, 400])
def test_memory_that_only_warms_up_levels_off(grown_mb: float) -> None:
    found = levelling(grown_mb, leak_mb=0)
    assert found.level
    assert 8 <= len(found.after_mb) < MAX_ROUNDS


@pytest.mark.parametrize("leak_mb", [10, 40])
def test_memory_that_is_lost_never_levels_off(leak_mb: float) -> None:
    found = levelling(300, leak_mb)
    assert not found.level
    assert len(found.after_mb) == MAX_ROUNDS
    assert found.growth_mb == pytest.approx(4 * leak_mb, abs=20)


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ([(200, "a")], False),
        ([(200, "a"), (200, "hidden")], False),
        ([(400, None), (200, "hidden")], False),
        ([(200, "a"), (400, None)], False),
        ([], False),
        ([(200, "hidden")], True),
        ([(200, "a"), (200, "b")], True),
        ([(200, "a"), (200, "b"), (200, "hidden")], True),
        ([(200, "a"), (200, "hidden"), (200, "hidden")], True),
    ],
)
def test_a_request_that_two_servers_cut_differently_is_seen(
    answers: list[tuple[int, str | None]], wrong: bool
) -> None:
    found = [Answer(status, {"x-request-id": one} if one else {}, b"{}") for status, one in answers]
    assert smuggled(found) is wrong
