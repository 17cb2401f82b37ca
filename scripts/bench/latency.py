"""Latency of requests that were sent at times fixed beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Sent:
    """One request. Times in seconds on one clock; answered_s None: never."""

    intended_s: float
    sent_s: float
    answered_s: float | None
    status: int = 0


@dataclass(frozen=True, slots=True)
class Latencies:
    """Counted from the intended time: a client that is late itself must not flatter the service.

    lag_p99_ms: how late the client was. Where that is not small against p50, it is the client that
    was measured.
    """

    requests: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    lag_p99_ms: float


def latencies(sent: Iterable[Sent], warm_s: float = 0.0) -> Latencies:
    """Of the requests intended from `warm_s` on. Errors (no 200) have no latency, but a count."""
    rows = [one for one in sent if one.intended_s >= warm_s]
    good = [
        (one.answered_s - one.intended_s) * 1_000
        for one in rows
        if one.status == 200 and one.answered_s is not None
    ]
    p50, p95, p99 = np.percentile(good, (50, 95, 99)) if good else (np.nan,) * 3
    lags = [(one.sent_s - one.intended_s) * 1_000 for one in rows]
    return Latencies(
        requests=len(rows),
        p50_ms=round(float(p50), 3),
        p95_ms=round(float(p95), 3),
        p99_ms=round(float(p99), 3),
        errors=len(rows) - len(good),
        lag_p99_ms=round(float(np.percentile(lags, 99)), 3) if lags else 0.0,
    )


def poisson_times_s(rate_per_s: float, duration_s: float, seed: int) -> np.ndarray:
    """Arrival times in [0, duration_s) of a Poisson process; the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    # Five standard deviations more than will be needed.
    n = int(rate_per_s * duration_s + 5 * (rate_per_s * duration_s) ** 0.5 + 10)
    times = np.cumsum(rng.exponential(1 / rate_per_s, n))
    return times[times < duration_s]
