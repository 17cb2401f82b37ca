"""Open loop: latency of requests at the times of a Poisson process.

The client runs in a process of its own (`python -m scripts.bench.openloop`), so that the core that
it takes can be told.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import cycle
from typing import Any

from deployments.bench.client import Asked, Endpoint, Load, Question
from deployments.bench.latencies import WARM_SHARE, latencies, poisson_times_s

from .child import answer_lines, child


def open_loop(
    endpoint: Endpoint, texts: Sequence[str], rate_per_s: float, duration_s: float, seed: int
) -> dict[str, Any]:
    """Latencies at this rate, and the share of a core that the client took (`client_cpu`)."""
    asked, cpu = ask(endpoint, texts, rate_per_s, duration_s, seed)
    found = latencies(asked, warm_s=WARM_SHARE * duration_s)
    return {"rate_per_s": round(rate_per_s, 1), **asdict(found), "client_cpu": round(cpu, 3)}


def ask(
    endpoint: Endpoint, texts: Sequence[str], rate_per_s: float, duration_s: float, seed: int
) -> tuple[list[Asked], float]:
    """What became of each request, and the share of a core that the client took."""
    with child("scripts.bench.openloop") as process:
        answer = process.ask(
            url=endpoint.url,
            requests=[endpoint.request(text).decode("latin-1") for text in texts],
            rate_per_s=rate_per_s,
            duration_s=duration_s,
            seed=seed,
        )
    return [Asked(**one) for one in answer["asked"]], answer["client_cpu"]


def measure(question: dict[str, Any]) -> dict[str, Any]:
    """The child's side of `ask`."""
    rate_per_s, duration_s = question["rate_per_s"], question["duration_s"]
    times_s = poisson_times_s(rate_per_s, duration_s, question["seed"]).tolist()
    questions = [Question(request.encode("latin-1")) for request in question["requests"]]
    cpu_before_s, started_s = time.process_time(), time.perf_counter()
    asked = Load(question["url"], cycle(questions), times_s).run()
    cpu = (time.process_time() - cpu_before_s) / (time.perf_counter() - started_s)
    return {"asked": [asdict(one) for one in asked], "client_cpu": cpu}


if __name__ == "__main__":
    answer_lines(measure)
