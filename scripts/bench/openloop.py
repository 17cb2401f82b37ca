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

from deployments.bench.client import Endpoint, Load, Question
from deployments.bench.latencies import WARM_SHARE, latencies, poisson_times_s

from .child import answer_lines, child


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
