"""What was tried, which of it is worth having, and which of that to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to run the model on the whole machine."""

    dtype: str
    num_threads: int
    replicas: int
    max_batch_tokens: int

    def __str__(self) -> str:
        return f"torch {self.dtype}, {self.replicas} × {self.num_threads} threads"


@dataclass(frozen=True, slots=True)
class Result:
    """What a setup gave in its longest run. Latency is from a text's arrival to its logits."""

    setup: Setup
    texts_per_s: float
    p50_ms: float
    p99_ms: float
    n_texts: int


def pareto_front(results: Sequence[Result]) -> list[Result]:
    """Results that no other beats in both throughput and p99, the fastest answers first."""
    front: list[Result] = []
    for result in sorted(results, key=lambda r: (r.p99_ms, -r.texts_per_s)):
        if not front or result.texts_per_s > front[-1].texts_per_s:
            front.append(result)
    return front


def choose(results: Sequence[Result], target_p99_ms: float | None) -> Result:
    """The most texts a second within the target; the lowest p99 where none is within it.

    Without a target, the knee of the front: the most texts a second per millisecond of p99.
    """
    front = pareto_front(results)
    if target_p99_ms is None:
        return max(front, key=lambda result: result.texts_per_s / result.p99_ms)
    within = [result for result in front if result.p99_ms <= target_p99_ms]
    return within[-1] if within else front[0]


def better_half(results: Sequence[Result], target_p99_ms: float | None) -> list[Setup]:
    """Half of the setups, or a few more: the chosen one, the front, and what is nearest to it."""
    n_kept = max(1, len(results) // 2)
    chosen = choose(results, target_p99_ms)
    kept = [chosen]
    rest = [result for result in results if result is not chosen]
    while rest and len(kept) < n_kept:
        layer = pareto_front(rest)
        kept += layer
        rest = [result for result in rest if result not in layer]
    return [result.setup for result in kept]
