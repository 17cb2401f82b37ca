"""What a load shows: latencies, answers a second; and the times at which an open loop asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from deployments.bench.client import Asked

WARM_SHARE = 0.1
# Of a closed loop, the first part shows the start: every connection asks at the same moment.
_START_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Latencies:
    """Counted from the intended time: a client that is late itself must not flatter the service.

    lag_p99_ms: how late the client was. Where that is not small against p50, it is the client that
    was measured. goodput_per_s: answers with 200 a second that came while requests were sent.
    statuses: of all requests, those without any answer under 0.
    """

    requests: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    lag_p99_ms: float
    goodput_per_s: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    refused_without_retry_after: int = 0


def latencies(asked: Iterable[Asked], warm_s: float = 0.0) -> Latencies:
    """Of the requests due from `warm_s` on. Errors (no 200) have no latency, but a count."""
    asked = list(asked)
    rows = [one for one in asked if one.due_s >= warm_s]
    ended_s = max((one.due_s for one in rows), default=0.0)
    in_time = sum(
        one.status == 200 and one.answered_s is not None and warm_s <= one.answered_s <= ended_s
        for one in asked
    )
    good = [
        (one.answered_s - one.due_s) * 1_000
        for one in rows
        if one.status == 200 and one.answered_s is not None
    ]
    p50, p95, p99 = np.percentile(good, (50, 95, 99)) if good else (np.nan,) * 3
    lags = [(one.sent_s - one.due_s) * 1_000 for one in rows]
    return Latencies(
        requests=len(rows),
        p50_ms=round(float(p50), 3),
        p95_ms=round(float(p95), 3),
        p99_ms=round(float(p99), 3),
        errors=len(rows) - len(good),
        lag_p99_ms=round(float(np.percentile(lags, 99)), 3) if lags else 0.0,
        goodput_per_s=round(in_time / max(ended_s - warm_s, 1e-9), 1),
        statuses=dict(Counter(str(one.status) for one in rows)),
        refused_without_retry_after=sum(one.status == 429 and not one.retry_after for one in rows),
    )


def poisson_times_s(rate_per_s: float, duration_s: float, seed: int) -> np.ndarray:
    """Arrival times in [0, duration_s) of a Poisson process; the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    # Five standard deviations more than will be needed.
    n = int(rate_per_s * duration_s + 5 * (rate_per_s * duration_s) ** 0.5 + 10)
    times = np.cumsum(rng.exponential(1 / rate_per_s, n))
    return times[times < duration_s]


def rate(times_s: np.ndarray, duration_s: float, connections: int, latency_s: float) -> float:
    """Answers a second in the steady part of a run: the slope of their number over time.

    Answers come in bursts, one per batch. Their number by the length of the run would count a
    burst too many or too few (a tenth, for a slow service); the slope hardly minds where in a
    burst the run ends. It also leaves out the start, where nothing can be answered yet.

    A server so slow that the run saw one burst has no slope: there it is Little's law, as many
    requests as there are connections in the time that one takes.
    """
    if len(times_s) < 2:
        return len(times_s) / duration_s
    first_s = times_s[-1] - duration_s
    numbers = np.arange(1, len(times_s) + 1)
    steady = times_s >= first_s + _START_SHARE * duration_s
    if steady.sum() < 8 or np.ptp(times_s[steady]) <= 0:
        return len(times_s) / duration_s
    if np.ptp(times_s[steady]) < latency_s / 2:
        return connections / latency_s
    x, y = times_s[steady], numbers[steady]
    return float(np.polyfit(x - x.mean(), y, 1)[0])
