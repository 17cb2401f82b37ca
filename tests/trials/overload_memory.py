"""Part of mode `overload`: memory of every process by the number of requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scripts.bench.load import load
from scripts.bench.service import running_service

from .session import Finding, Part, Session
from .slopes import slope
from .watch import Watch

REQUESTS, QUICK_REQUESTS = 100_000, 4_000
WARM_REQUESTS, QUICK_WARM_REQUESTS = 30_000, 2_000
CONNECTIONS = 64
STEP_S, QUICK_STEP_S = 2, 1
# 100 bytes a request, beyond doubt: one that left its text behind would leave more.
MAX_KIB_PER_1000 = 100.0


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
        _judge(part)


def _judge(part: Part) -> None:
    figures = part.figures["memory_by_requests"]
    slopes = {name: one["kib_per_1000"] for name, one in figures["processes"].items()}
    broken = [name for name, (_, low, _) in slopes.items() if low > MAX_KIB_PER_1000]
    steepest = sorted(slopes, key=lambda name: -slopes[name][0])[:3]
    told = [*steepest, *(name for name in broken if name not in steepest)]
    said = ", ".join(
        "{} {:+.1f} ({:+.1f} to {:+.1f})".format(name.rsplit(" ", 1)[0], *slopes[name])
        for name in told
    )
    part.findings.append(
        Finding(
            f"No process keeps {MAX_KIB_PER_1000:.0f} KiB of 1,000 requests beyond doubt",
            f"no model, {CONNECTIONS} connections; resident memory of every process between runs, "
            f"least squares after the first {figures['warm']:,} requests, 95 % interval",
            figures["asked"],
            f"{len(slopes)} processes; steepest in KiB per 1,000: {said}",
            bool(slopes) and not broken,
        )
    )
