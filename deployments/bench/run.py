"""Several servers under the same loads, in turns: the closed loop, and arrivals by chance."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, repeat
from typing import Any

import numpy as np

from deployments.bench.client import CLIENT_TIMEOUT_S, MAX_CONNECTIONS, RIGHT, Asked, Load
from deployments.bench.latencies import WARM_SHARE, latencies, poisson_times_s, rate
from deployments.bench.target import Target

SEED = 7  # the same arrivals for every server
BUSY_CLIENT = 0.8
"""Share of a core from which on it may be the client that was measured."""
_NAP_S = 0.05
LATE_CLIENT = 0.5
"""Of the median latency: a client that asks later than that is a part of what it measures."""


@dataclass(frozen=True, slots=True)
class Level:
    """A load: so many connections that ask again when answered, or so many arrivals a second."""

    connections: int | None = None
    rate_per_s: float | None = None

    def __str__(self) -> str:
        if self.rate_per_s is not None:
            return f"{self.rate_per_s:g} arrivals/s"
        return f"{self.connections} connection{'s' if self.connections != 1 else ''}"


@dataclass(frozen=True, slots=True)
class Result:
    """One server under one load, without its start: a tenth for latencies, a fifth for rates.

    requests: that ended; requests_per_s, texts_per_s and the latencies are of those that were
    answered with 200 and labels; None where there was none. Latencies of arrivals are counted from
    when they were due. failed: what became of the others → how many.
    client_cpu: share of a core that the client took. lag_p99_ms: how late it asked; in the closed
    loop, how late its naps of 50 ms ended, because it or this machine was busy.
    """

    url: str
    dialect: str
    connections: int | None
    rate_per_s: float | None
    texts_per_request: int
    duration_s: float
    requests: int
    requests_per_s: float
    texts_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    failed: dict[str, int] = field(default_factory=dict)
    client_cpu: float = 0.0
    lag_p99_ms: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def level(self) -> Level:
        return Level(self.connections, self.rate_per_s)

    @property
    def doubt(self) -> str | None:
        """Why it may be the client that was measured, and not the server."""
        if self.client_cpu >= BUSY_CLIENT:
            return f"the client took {self.client_cpu:.2f} of a core"
        if self.p50_ms is not None and self.lag_p99_ms > LATE_CLIENT * self.p50_ms:
            return f"the client was up to {self.lag_p99_ms:.1f} ms late itself (p99)"
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """Which texts are asked, how many in one request, and how long each load lasts."""

    texts: Sequence[str]
    texts_per_request: int
    duration_s: float
    timeout_s: float = CLIENT_TIMEOUT_S


def measure(targets: Sequence[Target], levels: Sequence[Level], plan: Plan) -> Iterator[Result]:
    """Each load on all servers before the next load, so that they meet the same moments.

    Ctrl-C ends it: what was asked by then is the last result, where it says anything yet.
    """
    for level in levels:
        for target in targets:
            result, stopped = measure_one(target, level, plan)
            if not stopped or result.requests:
                yield result
            if stopped:
                raise KeyboardInterrupt


def measure_one(target: Target, level: Level, plan: Plan) -> tuple[Result, bool]:
    """What one server shows, and whether Ctrl-C ended it early."""
    due_s: Iterable[float] = repeat(0.0)
    if level.rate_per_s is not None:
        due_s = poisson_times_s(level.rate_per_s, plan.duration_s, SEED).tolist()
    connections = level.connections or MAX_CONNECTIONS
    questions = cycle(target.questions(plan.texts, plan.texts_per_request))
    late_ms = [0.0]
    stopped, cpu_before_s, started_s = False, time.process_time(), time.perf_counter()
    load = Load(target.url, questions, due_s, connections=connections, timeout_s=plan.timeout_s)
    try:
        with load:
            _nap(plan.duration_s, late_ms)
            cpu_s = time.process_time() - cpu_before_s
            took_s = time.perf_counter() - started_s
    except KeyboardInterrupt:
        stopped = True
        cpu_s, took_s = time.process_time() - cpu_before_s, time.perf_counter() - started_s
    # A copy: who was interrupted leaves the client's thread behind.
    asked = list(load.asked)
    result = _result(target, level, plan, asked, took_s, cpu_s)
    if level.rate_per_s is None:
        result = replace(result, lag_p99_ms=round(float(np.percentile(late_ms, 99)), 3))
    return result, stopped


def _nap(duration_s: float, late_ms: list[float]) -> None:
    """Sleeps in short naps, and notes by how much each of them was too long."""
    now_s = time.perf_counter()
    end_s = now_s + duration_s
    while now_s < end_s:
        due_s = min(now_s + _NAP_S, end_s)
        time.sleep(due_s - now_s)
        now_s = time.perf_counter()
        late_ms.append((now_s - due_s) * 1_000)


def _result(
    target: Target, level: Level, plan: Plan, asked: list[Asked], took_s: float, cpu_s: float
) -> Result:
    if level.rate_per_s is None:
        # Whoever asks when answered is due when it asks.
        asked = [replace(one, due_s=one.sent_s) for one in asked]
    warm_s = WARM_SHARE * min(plan.duration_s, took_s)
    counted = [one for one in asked if one.due_s >= warm_s]
    # A 200 without labels is no answer either.
    judged = [one if one.outcome == RIGHT else replace(one, status=0) for one in asked]
    shown = latencies(judged, warm_s)
    right_s = sorted(
        one.answered_s
        for one in asked
        if one.outcome == RIGHT and one.answered_s is not None and one.answered_s <= took_s
    )
    has_any = shown.requests > shown.errors
    per_s = shown.goodput_per_s
    if level.connections is not None:
        latency_s = shown.p50_ms / 1_000 if has_any else 0.0
        per_s = rate(np.asarray(right_s, np.float64), took_s, level.connections, latency_s)
    return Result(
        url=target.url,
        dialect=target.dialect,
        connections=level.connections,
        rate_per_s=level.rate_per_s,
        texts_per_request=plan.texts_per_request,
        duration_s=round(took_s, 1),
        requests=len(counted),
        requests_per_s=round(per_s, 2),
        texts_per_s=round(per_s * plan.texts_per_request, 2),
        p50_ms=shown.p50_ms if has_any else None,
        p95_ms=shown.p95_ms if has_any else None,
        p99_ms=shown.p99_ms if has_any else None,
        failed=dict(Counter(one.outcome for one in counted if one.outcome != RIGHT)),
        client_cpu=round(cpu_s / max(took_s, 1e-9), 2),
        lag_p99_ms=shown.lag_p99_ms,
    )
