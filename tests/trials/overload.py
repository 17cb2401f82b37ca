"""Mode `overload`: far more than the service can answer, from one client and beside another.

Open loop: requests come at the times of a Poisson process, answered or not. The load that the
service can just answer is measured first; on a machine of this size the client shares its cores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psutil

from scripts.bench.load import load
from scripts.bench.models import BERT_BASE, model_dir
from scripts.bench.openloop import open_loop
from scripts.bench.service import Service, running_service
from scripts.bench.workload import make_workload

from .overload_memory import memory_by_requests
from .session import Finding, Part, Session

FACTORS = (1, 2, 5, 20)
# Of what 64 connections get, which ask again at once: chance arrivals fill batches less well.
CAPACITY_SHARE = 0.9
TIMEOUT_S = 30.0
MAX_QUEUE_S = 2.0
GUEST_SHARE = 0.05
GOODPUT_SHARE = 0.9
CHANGES = (
    "engine.name=torch",
    "engine.dtype=int8",
    "engine.num_threads=1",  # the chain and the client have the other core
    f"limits.max_queue_s={MAX_QUEUE_S}",
    "limits.client_header=x-client",
)


def try_overload(session: Session) -> None:
    """Goodput, answers, latency and memory at 1, 2, 5 and 20 times the capacity."""
    seconds = 8.0 if session.quick else 60.0
    model = model_dir(BERT_BASE)
    texts = make_workload(str(model)).texts
    with session.mode("overload", len(FACTORS) + 6) as part:
        session.step("overload: starting")
        with running_service([f"model.id={model}", *CHANGES]) as service:
            session.step("overload: capacity")
            load(service.endpoint, texts, 64, 3.0)
            closed = load(service.endpoint, texts, 64, max(6.0, seconds / 3))
            capacity = CAPACITY_SHARE * closed.requests_per_s
            part.figures |= {"capacity_per_s": capacity, "seconds": seconds, "runs": {}}
            for factor in FACTORS:
                session.step(f"overload: {factor} × {capacity:.0f} requests/s")
                run = _run(service, texts, factor * capacity, seconds)
                part.figures["runs"][str(factor)] = run
            session.step("overload: a flood beside a guest")
            part.figures["guest"] = _guest(service, texts, capacity, seconds / 2)
            session.step("overload: afterwards")
            part.figures["afterwards"] = _run(service, texts, 0.3 * capacity, seconds / 3)
        _judge(part)
        session.step("overload: memory by requests")
        memory_by_requests(session, part, texts)


def _run(
    service: Service, texts: Sequence[str], rate_per_s: float, seconds: float
) -> dict[str, Any]:
    """One open-loop run, with the memory of the service's processes before and after."""
    before = _rss_bytes()
    asked = open_loop(service.endpoint, texts, rate_per_s, seconds, seed=7)
    return {**asked, "rss_before_bytes": before, "rss_after_bytes": _rss_bytes()}


def _guest(
    service: Service, texts: Sequence[str], capacity: float, seconds: float
) -> dict[str, Any]:
    """How a client fares that asks little, while another asks 20 times what can be answered."""
    flood, guest = (
        replace(service.endpoint, headers={**service.endpoint.headers, "X-Client": name})
        for name in ("flood", "guest")
    )
    with ThreadPoolExecutor(2) as both:
        first = both.submit(open_loop, flood, texts, FACTORS[-1] * capacity, seconds, 1)
        second = both.submit(open_loop, guest, texts, GUEST_SHARE * capacity, seconds, 2)
        return {"flood": first.result(), **second.result()}


def _rss_bytes() -> int:
    """Of all replicas that run here."""
    found = 0
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        if any("ServeReplica" in part for part in process.info["cmdline"] or ()):
            found += process.info["memory_info"].rss
    return found


def _judge(part: Part) -> None:
    runs, capacity = part.figures["runs"], part.figures["capacity_per_s"]
    normal, worst = runs["1"], runs[str(FACTORS[-1])]
    goodput = [run["goodput_per_s"] for run in runs.values()]
    most = max(goodput)  # at 1 × it is at most what was offered
    guest, after = part.figures["guest"], part.figures["afterwards"]
    statuses: Counter[str] = Counter()
    for run in runs.values():
        statuses.update(run["statuses"])
    asked = sum(run["requests"] for run in runs.values())
    p99 = {factor: run["p99_ms"] for factor, run in runs.items()}
    grown = worst["rss_after_bytes"] - normal["rss_before_bytes"]
    part.findings += [
        Finding(
            "Goodput at 20 × the capacity is 90 % or more of the most there was",
            f"1, 2, 5 and 20 × {capacity:.0f} requests/s, {part.figures['seconds']:.0f} s each",
            asked,
            ", ".join(f"{value:.0f}/s" for value in goodput) + f": {goodput[-1] / most:.0%}",
            goodput[-1] >= GOODPUT_SHARE * most,
        ),
        Finding(
            "Every request gets one answer: 200, 429 with Retry-After, or 408",
            "all answers counted, at every load",
            asked,
            ", ".join(f"{code}: {n:,}" for code, n in sorted(statuses.items())),
            set(statuses) <= {"200", "429", "408"}
            and sum(statuses.values()) == asked
            and not any(run["refused_without_retry_after"] for run in runs.values()),
        ),
        Finding(
            "One client's flood is its own affair",
            f"a client at {GUEST_SHARE:.0%} of the capacity beside one at {FACTORS[-1]} ×",
            guest["requests"],
            f"{guest['statuses'].get('200', 0):,} of {guest['requests']:,} answered, "
            f"p99 {guest['p99_ms'] / 1e3:.1f} s",
            guest["statuses"] == {"200": guest["requests"]},
        ),
        Finding(
            "What is admitted is answered within its time",
            f"p99 of the 200s, with {TIMEOUT_S:.0f} s allowed and a wait of {MAX_QUEUE_S:.0f} s",
            sum(run["statuses"].get("200", 0) for run in runs.values()),
            ", ".join(f"{factor} ×: {value / 1e3:.1f} s" for factor, value in p99.items()),
            all(value < TIMEOUT_S * 1e3 for value in p99.values()),
        ),
        Finding(
            "Memory stays bounded",
            "resident memory of all replicas, before 1 × and after 20 ×",
            asked,
            f"{grown / 2**20:+.0f} MiB",
            grown < 200 * 2**20,
        ),
        Finding(
            "Latency is normal again within seconds",
            "p50 at 30 % of the capacity, right after 20 ×",
            after["requests"],
            f"{after['p50_ms']:.0f} ms, {after['errors']} errors",
            after["p50_ms"] < MAX_QUEUE_S * 1e3 and not after["errors"],
        ),
    ]
