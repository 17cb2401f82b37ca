"""Real runs of the service on 1, 2, 4 and 8 devices that sleep; see device.py.

Ray, HTTP, tokenizing and batching are the real ones, so these runs say what the simulation must.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import repeat
from typing import Any

import numpy as np
import psutil

from deployments.bench.client import Asked, Load, Question, post
from deployments.bench.latencies import latencies, poisson_times_s
from deployments.scaling.policy import POLICY
from scripts.bench.child import Child, ChildFailed, child
from scripts.bench.process import wait_until
from scripts.bench.service import is_ready

from .device import START_S, TOKENS_PER_S

TEXTS, TOKENS = 32, 64
"""Of one request. As many texts go as one flow, interactive, in one micro-batch."""
MAX_BATCH_TOKENS = 8_192
REPLICAS = (8, 1, 4, 2)
SHARES = (0.3, 0.6, 0.85)
FULL_PASS_S = START_S + MAX_BATCH_TOKENS / TOKENS_PER_S
PER_S = MAX_BATCH_TOKENS / FULL_PASS_S / (TEXTS * TOKENS)
"""Requests a second of one replica whose passes are full."""
RUN_S = {1: 16.0, 2: 12.0, 4: 10.0, 8: 10.0}
CLOSED_S = 5.0
SINGLES = ((5.0, 12.0), (80.0, 10.0))
"""Requests a second with one text, and for how long: the first finds nobody else at work."""
SEED = 20261129
SAMPLE_S = 0.5
BIN_S = 5.0
TIMEOUT_S = 120.0
MOST = max(REPLICAS)
DELAYS = {
    "metrics_interval_s": 1.0,
    "look_back_period_s": 10.0,
    "upscale_delay_s": 5.0,
    "downscale_delay_s": 30.0,
}
TARGET_BUSY, MAX_WAIT_S = 0.7, 1.0
TRACE_S = 250.0
# So that what is waited for shows as time, not as refusals.
PATIENT = (
    "limits.max_queue_s=50", "limits.request_timeout_s=55", "limits.max_pending_texts=1000000",
    "Classifier.max_queue_tokens=1000000000", f"Classifier.max_batch_tokens={MAX_BATCH_TOKENS}",
)  # fmt: skip


def needs(t: float) -> float:
    """Replicas' worth of work at second t: a ramp to 6, quiet, and a crowd of 4 at once."""
    if t < 100:
        return 0.4 + 5.6 * t / 90 if t < 90 else 6.0
    return 4.0 if 170 <= t < 220 else 0.4


def arrivals(
    rate_per_s: Callable[[float], float], most_per_s: float, seconds: float
) -> list[float]:
    """A Poisson process of changing rate, by thinning (Lewis and Shedler 1979)."""
    times = poisson_times_s(most_per_s, seconds, SEED)
    kept = np.random.default_rng(SEED + 1).random(len(times)) * most_per_s
    return [float(t) for t, k in zip(times, kept, strict=True) if k < rate_per_s(float(t))]


def question(texts: int) -> Question:
    """A request of so many texts of TOKENS tokens each."""
    text = "好" * (TOKENS - 2)
    body = {"text": [text] * texts if texts > 1 else text}
    return Question(post(json.dumps(body, ensure_ascii=False).encode()))


def measure_fixed(replicas: Sequence[int] = REPLICAS) -> Iterator[dict[str, Any]]:
    """Classifiers that stay so many: an open loop by shares of what they can do, a closed one, and
    for the most of them single texts. A row for each run, as it ends."""
    with child("scripts.bench.cluster") as cluster:
        cluster.ask(do="add_worker", num_cpus=16, num_gpus=MOST)
        for n in replicas:
            url = _deploy(cluster, {"Classifier": n, "Tokenizer": 1, "Postprocessor": 1})
            Load(url, repeat(question(TEXTS)), [k / 10 for k in range(20)]).run()
            for share in SHARES:
                rate = share * n * PER_S
                due = poisson_times_s(rate, RUN_S[n], SEED + n).tolist()
                with _cpu(cluster) as cpu:
                    asked = Load(url, repeat(question(TEXTS)), due).run()
                yield _row(asked, n, TEXTS, cpu, share=share, rate_per_s=round(rate, 2))
            with (
                _cpu(cluster) as cpu,
                Load(url, repeat(question(TEXTS)), repeat(0.0), connections=8 * n) as load,
            ):
                time.sleep(CLOSED_S)
            yield _row(load.asked, n, TEXTS, cpu, connections=8 * n)
            if n < MOST:
                continue
            for rate, seconds in SINGLES:
                due = poisson_times_s(rate, seconds, SEED).tolist()
                with _cpu(cluster) as cpu:
                    asked = Load(url, repeat(question(1)), due).run()
                yield _row(asked, n, 1, cpu, rate_per_s=rate)


def measure_scaling() -> dict[str, Any]:
    """One Classifier that becomes up to 8 and fewer again, by the project's own policy."""
    due = arrivals(lambda t: needs(t) * PER_S, MOST * PER_S, TRACE_S)
    with child("scripts.bench.cluster") as cluster:
        cluster.ask(do="add_worker", num_cpus=16, num_gpus=MOST)
        url = _deploy(cluster, {"Classifier": None, "Tokenizer": 1, "Postprocessor": 1})
        Load(url, repeat(question(TEXTS)), [k / 10 for k in range(20)]).run()
        with _watched(cluster) as series:
            asked = Load(url, repeat(question(TEXTS)), due).run()
    bins = []
    for began in np.arange(0.0, TRACE_S, BIN_S):
        found = latencies(one for one in asked if began <= one.due_s < began + BIN_S)
        bins.append({"at_s": float(began), "requests": found.requests, "errors": found.errors,
                     "p50_ms": found.p50_ms, "p99_ms": found.p99_ms})  # fmt: skip
    return {"per_s": PER_S, "series": series, "bins": bins, **_times(asked)}


def _deploy(cluster: Child, replicas: dict[str, int | None]) -> str:
    """The URL of the service, once it answers. None: as many as the policy says."""
    policy = {
        "policy_function": POLICY,
        "policy_kwargs": {
            "target_busy": TARGET_BUSY, "max_wait_s": MAX_WAIT_S, "fed_by": "Tokenizer"
        },
    }  # fmt: skip
    options: dict[str, dict[str, Any]] = {}
    for name, n in replicas.items():
        gpus = {"num_gpus": 1} if name == "Classifier" else {}
        options[name] = {
            "num_replicas": n, "ray_actor_options": {"num_cpus": 0.1, **gpus},
            "autoscaling_config": None,
        }  # fmt: skip
        if n is None:
            options[name]["autoscaling_config"] = {
                "min_replicas": 1, "max_replicas": MOST, **DELAYS, "policy": policy,
            }  # fmt: skip
    cluster.ask(do="delete")
    fixed = None not in replicas.values()
    url: str = cluster.ask(
        do="deploy", import_path="scripts.scale.device:build", changes=list(PATIENT),
        options=options, wait=fixed,
    )["url"]  # fmt: skip
    wait_until(lambda: is_ready(url), "the service", TIMEOUT_S)
    return url


def _times(asked: list[Asked], warm_s: float = 0.0) -> dict[str, Any]:
    return asdict(latencies(asked, warm_s))


def _row(
    asked: list[Asked], n: int, texts: int, cpu: dict[str, float], **how: Any
) -> dict[str, Any]:
    """One run. cpu_s: by part, of all its requests together."""
    answered = sorted(
        one.answered_s for one in asked if one.answered_s is not None and one.status == 200
    )
    steady = [t for t in answered if t >= 2.0]
    per_s = (len(steady) - 1) / (steady[-1] - steady[0]) if len(steady) > 2 else 0.0
    good = [
        one.answered_s - one.due_s
        for one in asked
        if one.answered_s is not None and one.status == 200 and one.due_s >= 2.0
    ]
    levels: Any = np.quantile(good, np.linspace(0.005, 0.995, 100)) if len(good) else []
    return {
        "classifiers": n, "texts": texts, **how, **_times(asked, 2.0), "answers_per_s": per_s,
        "cpu_s": cpu, "all_requests": len(asked), "quantiles_s": [round(q, 5) for q in levels],
    }  # fmt: skip


@contextmanager
def _cpu(cluster: Child) -> Iterator[dict[str, float]]:
    """Seconds of CPU time by part, from entry to exit; and how long that was."""
    pids = _pids(cluster)
    before, began = {name: _seconds(of) for name, of in pids.items()}, time.monotonic()
    spent: dict[str, float] = {}
    yield spent
    for name, of in pids.items():
        spent[name] = round(_seconds(of) - before[name], 3)
    spent["elapsed"] = round(time.monotonic() - began, 3)


def _pids(cluster: Child) -> dict[str, list[int]]:
    state = cluster.ask(do="state")
    return {**state["replicas"], "controller": state["controller"], "haproxy": state["haproxy"]}


def _seconds(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return total


@contextmanager
def _watched(cluster: Child) -> Iterator[list[dict[str, Any]]]:
    """Classifiers twice a second, from entry to exit."""
    series: list[dict[str, Any]] = []
    stop, began = threading.Event(), time.monotonic()

    def look() -> None:
        while not stop.wait(SAMPLE_S):
            try:
                seen = cluster.ask(do="scale")["Classifier"]
            except (ChildFailed, KeyError):
                continue
            series.append({"at_s": round(time.monotonic() - began, 2), **seen})

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield series
    finally:
        stop.set()
        thread.join()
