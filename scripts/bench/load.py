"""Closed loop: a fixed number of connections, each asking again when answered. By wrk."""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deployments.bench.client import Endpoint
from deployments.bench.latencies import rate

SCRIPT = Path(__file__).with_name("wrk.lua")
# As our own answers say it. What a peer cuts, it cuts in silence.
TRUNCATED = '"truncated":true'
TIMEOUT_S = 60


class WrkMissing(Exception):
    """wrk is not installed."""

    def __str__(self) -> str:
        return "wrk is not installed. Debian and Ubuntu: apt install wrk; macOS: brew install wrk"


class LoadFailed(Exception):
    """wrk ended without a report; the message is its own."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run. requests_per_s counts answers with status 200 only; latencies are of all answers.

    client_cpu: cores that wrk kept busy, of those that the service had too.
    """

    connections: int
    duration_s: float
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    statuses: dict[str, int] = field(default_factory=dict)
    socket_errors: int = 0
    truncated: int = 0
    client_cpu: float = 0.0

    @property
    def errors(self) -> int:
        """Requests that were not answered with 200."""
        return self.socket_errors + sum(n for code, n in self.statuses.items() if code != "200")


def load(
    endpoint: Endpoint, texts: Sequence[str], connections: int, duration_s: float
) -> Measurement:
    """One run of wrk that asks `texts` in turn, in order, again and again.

    Raises:
        WrkMissing, LoadFailed
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "requests"), Path(folder, "answers")
        asked.write_bytes(b"".join(framed(endpoint, text) for text in texts))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(duration_s))}"]
        command += ["--timeout", f"{TIMEOUT_S}", "-s", str(SCRIPT), endpoint.url + endpoint.path]
        cpu_before = _children_cpu_s()
        try:
            done = subprocess.run(
                [*command, "--", str(asked), str(answered), TRUNCATED],
                capture_output=True,
                text=True,
            )
        except FileNotFoundError:
            raise WrkMissing from None
        if done.returncode or not answered.exists():
            raise LoadFailed((done.stderr or done.stdout).strip()[:300] or "wrk said nothing")
        cpu_s = _children_cpu_s() - cpu_before
        return parse(answered.read_text(encoding="utf-8"), connections, cpu_s)


def framed(endpoint: Endpoint, text: str) -> bytes:
    """A whole HTTP request after its length, as wrk.lua reads it."""
    request = endpoint.request(text)
    return b"%d\n%s" % (len(request), request)


def parse(answers: str, connections: int, client_cpu_s: float = 0.0) -> Measurement:
    """What wrk.lua wrote → the figures."""
    head, _, rest = answers.partition("\n")
    raw = json.loads(head)
    duration_s = raw["duration_us"] / 1e6
    return Measurement(
        connections=connections,
        duration_s=round(duration_s, 1),
        requests_per_s=round(
            rate(
                np.asarray(rest.split(), np.float64), duration_s, connections, raw["p50_us"] / 1e6
            ),
            2,
        ),
        p50_ms=raw["p50_us"] / 1_000,
        p95_ms=raw["p95_us"] / 1_000,
        p99_ms=raw["p99_us"] / 1_000,
        statuses=raw["statuses"],
        socket_errors=raw["connect"] + raw["read"] + raw["write"] + raw["timeout"],
        truncated=raw["marked"],
        client_cpu=round(client_cpu_s / duration_s, 2),
    )


def enough_s(
    requests_per_s: float, at_least_s: float, requests: int = 256, at_most_s: float = 60.0
) -> float:
    """How long to load a service of this speed for a figure that is not chance."""
    return min(max(at_least_s, requests / max(requests_per_s, 1e-9)), max(at_most_s, at_least_s))


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
