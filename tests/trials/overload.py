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

from scripts.bench.load import load
from scripts.bench.models import BERT_BASE, model_dir
from scripts.bench.openloop import open_loop
from scripts.bench.service import Service, running_service
from scripts.bench.workload import make_workload

from .growth import slope
from .session import Part, Session
from .watch import Watch, replicas_mb

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
# Of memory by requests.
REQUESTS, QUICK_REQUESTS = 100_000, 4_000
WARM_REQUESTS, QUICK_WARM_REQUESTS = 30_000, 2_000
CONNECTIONS = 64
STEP_S, QUICK_STEP_S = 2, 1
# 100 bytes a request, beyond doubt: one that left its text behind would leave more.
MAX_KIB_PER_1000 = 100.0


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
    before = sum(replicas_mb().values())
    asked = open_loop(service.endpoint, texts, rate_per_s, seconds, seed=7)
    return {**asked, "rss_before_mb": before, "rss_after_mb": sum(replicas_mb().values())}


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
    grown = worst["rss_after_mb"] - normal["rss_before_mb"]
    part.add(
        "Goodput at 20 × the capacity is 90 % or more of the most there was",
        f"1, 2, 5 and 20 × {capacity:.0f} requests/s, {part.figures['seconds']:.0f} s each",
        asked,
        ", ".join(f"{value:.0f}/s" for value in goodput) + f": {goodput[-1] / most:.0%}",
        goodput[-1] >= GOODPUT_SHARE * most,
    )
    part.add(
        "Every request gets one answer: 200, 429 with Retry-After, or 408",
        "all answers counted, at every load",
        asked,
        ", ".join(f"{code}: {n:,}" for code, n in sorted(statuses.items())),
        set(statuses) <= {"200", "429", "408"}
        and sum(statuses.values()) == asked
        and not any(run["refused_without_retry_after"] for run in runs.values()),
    )
    part.add(
        "One client's flood is its own affair",
        f"a client at {GUEST_SHARE:.0%} of the capacity beside one at {FACTORS[-1]} ×",
        guest["requests"],
        f"{guest['statuses'].get('200', 0):,} of {guest['requests']:,} answered, "
        f"p99 {guest['p99_ms'] / 1e3:.1f} s",
        guest["statuses"] == {"200": guest["requests"]},
    )
    part.add(
        "What is admitted is answered within its time",
        f"p99 of the 200s, with {TIMEOUT_S:.0f} s allowed and a wait of {MAX_QUEUE_S:.0f} s",
        sum(run["statuses"].get("200", 0) for run in runs.values()),
        ", ".join(f"{factor} ×: {value / 1e3:.1f} s" for factor, value in p99.items()),
        all(value < TIMEOUT_S * 1e3 for value in p99.values()),
    )
    part.add(
        "Memory stays bounded",
        "resident memory of all replicas, before 1 × and after 20 ×",
        asked,
        f"{grown:+.0f} MB",
        grown < 200,
    )
    part.add(
        "Latency is normal again within seconds",
        "p50 at 30 % of the capacity, right after 20 ×",
        after["requests"],
        f"{after['p50_ms']:.0f} ms, {after['errors']} errors",
        after["p50_ms"] < MAX_QUEUE_S * 1e3 and not after["errors"],
    )


def memory_by_requests(session: Session, part: Part, texts: Sequence[str]) -> None:
    """Without a model, as fast as 64 connections get their answers.

    Memory is looked at between runs of wrk, when nothing is under way.
    """
    wanted = QUICK_REQUESTS if session.quick else REQUESTS
    warm = QUICK_WARM_REQUESTS if session.quick else WARM_REQUESTS
    asked = answered = 0
    watch = Watch()
    with running_service(["engine.name=none"]) as service:
        while asked < warm + wanted:
            run = load(
                service.endpoint,
                texts,
                CONNECTIONS,
                QUICK_STEP_S if session.quick else STEP_S,
            )
            asked += sum(run.statuses.values())
            answered += run.statuses.get("200", 0)
            if asked >= warm:
                watch.sample(at=asked / 1000)
    processes: dict[str, Any] = {}
    for one in watch.processes.values():
        if len(one.times_s) == len(watch.together.times_s) >= 3 and "trial" not in one.kind:
            found = slope(one.times_s, [1024 * mib for mib in one.rss_mib])
            processes[f"{one.kind} {one.pid}"] = {
                "rss_mib": [round(one.rss_mib[0], 1), round(one.rss_mib[-1], 1)],
                "kib_per_1000": [round(x, 2) for x in (found.value, found.low, found.high)],
            }
    part.figures["memory_by_requests"] = {
        "asked": asked,
        "answered": answered,
        "warm": warm,
        "samples": len(watch.together.times_s),
        "processes": processes,
    }
    if not session.quick:  # so few fill caches and pools, no more
        _judge_memory(part)


def _judge_memory(part: Part) -> None:
    figures = part.figures["memory_by_requests"]
    slopes = {name: one["kib_per_1000"] for name, one in figures["processes"].items()}
    broken = [name for name, (_, low, _) in slopes.items() if low > MAX_KIB_PER_1000]
    steepest = sorted(slopes, key=lambda name: -slopes[name][0])[:3]
    told = [*steepest, *(name for name in broken if name not in steepest)]
    said = ", ".join(
        "{} {:+.1f} ({:+.1f} to {:+.1f})".format(name.rsplit(" ", 1)[0], *slopes[name])
        for name in told
    )
    part.add(
        f"No process keeps {MAX_KIB_PER_1000:.0f} KiB of 1,000 requests beyond doubt",
        f"no model, {CONNECTIONS} connections; resident memory of every process between runs, "
        f"least squares after the first {figures['warm']:,} requests, 95 % interval",
        figures["asked"],
        f"{len(slopes)} processes; steepest in KiB per 1,000: {said}",
        bool(slopes) and not broken,
    )
