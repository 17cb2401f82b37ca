"""Open loop: latency of requests at the times of a Poisson process.

The client runs in a process of its own (`python -m scripts.bench.openloop`), so that the core that
it takes can be told.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any

import numpy as np

from .child import answer_lines, child
from .client import Asked, Endpoint, Load, Question

WARM_SHARE = 0.1


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


def open_loop(
    endpoint: Endpoint, texts: Sequence[str], rate_per_s: float, duration_s: float, seed: int
) -> dict[str, Any]:
    """Latencies at this rate, and the share of a core that the client took (`client_cpu`)."""
    with child("scripts.bench.openloop") as process:
        return process.ask(
            url=endpoint.url,
            requests=[endpoint.request(text).decode("latin-1") for text in texts],
            rate_per_s=rate_per_s,
            duration_s=duration_s,
            seed=seed,
        )


def measure(question: dict[str, Any]) -> dict[str, Any]:
    """The child's side of `open_loop`."""
    rate_per_s, duration_s = question["rate_per_s"], question["duration_s"]
    times_s = poisson_times_s(rate_per_s, duration_s, question["seed"]).tolist()
    questions = [Question(request.encode("latin-1")) for request in question["requests"]]
    cpu_before_s, started_s = time.process_time(), time.perf_counter()
    asked = Load(question["url"], cycle(questions), times_s).run()
    cpu = (time.process_time() - cpu_before_s) / (time.perf_counter() - started_s)
    found = latencies(asked, warm_s=WARM_SHARE * duration_s)
    return {"rate_per_s": round(rate_per_s, 1), **asdict(found), "client_cpu": round(cpu, 3)}


if __name__ == "__main__":
    answer_lines(measure)
