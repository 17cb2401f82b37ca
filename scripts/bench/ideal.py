"""The least latency that a model of these pass times allows, simulated: no HTTP, no chain, no wait
but for the model.

A work-conserving server: never idle while a text waits, oldest first. How many texts go into one
pass is open, so several limits are tried and the best is taken, for each percentile on its own: no
server of a fixed limit does better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .passes import PassTime

LIMITS = (1, 2, 4, 8, 16, 32, 64, 1_000_000)


def latencies_s(
    times_s: np.ndarray, lengths: np.ndarray, cost: PassTime, max_texts: int, max_tokens: int
) -> np.ndarray:
    """Seconds from arrival to answer of each text: float64 [n]. times_s: of arrival, ascending."""
    each_s = cost.of_each(lengths)
    out = np.empty(len(times_s))
    first, now = 0, 0.0
    while first < len(times_s):
        now = max(now, times_s[first])
        end, tokens = first + 1, lengths[first]
        while (
            end < min(len(times_s), first + max_texts)
            and times_s[end] <= now
            and tokens + lengths[end] <= max_tokens
        ):
            tokens += lengths[end]
            end += 1
        now += cost.start_s + float(each_s[first:end].sum())
        out[first:end] = now - times_s[first:end]
        first = end
    return out


def ideal(
    arrivals: Sequence[tuple[np.ndarray, np.ndarray, PassTime]], max_tokens: int
) -> dict[str, Any]:
    """p50 and p99 in ms of the texts of all runs together.

    arrivals: of each run the times in seconds, how many tokens each text has (in turns, as sent),
    and what a pass took then.
    """
    tried = []
    for limit in LIMITS:
        took = [
            latencies_s(times_s, np.resize(lengths, len(times_s)), cost, limit, max_tokens)
            for times_s, lengths, cost in arrivals
        ]
        tried.append(np.percentile(np.concatenate(took), (50, 99)))
    p50, p99 = np.min(tried, axis=0) * 1_000
    return {"ideal_p50_ms": round(float(p50), 3), "ideal_p99_ms": round(float(p99), 3)}
