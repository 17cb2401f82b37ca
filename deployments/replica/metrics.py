"""What happens, as Prometheus metrics at Ray's own metrics endpoint of each node."""

from __future__ import annotations

import time
from collections.abc import Mapping

from ray.serve.metrics import Counter, Gauge, Histogram

from deployments.pipeline.observer import Observer, Stage
from deployments.scaling.policy import AHEAD_S, BUSY, TOKENS_PER_S, WAIT_S

# From a parsed body to a request at its limit.
_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
# A record takes 5 µs in a worker of Ray's (2 cores of AMD EPYC), and a request has several: a
# sample will do, at 0.2 µs.
SAMPLE_S = 0.05
WORKING = {
    BUSY: "Share of the time in which the replica worked, 0 to 1.",
    WAIT_S: "Seconds that what waits at the Classifier will take.",
    TOKENS_PER_S: "Tokens that the model reads in a second, in full batches.",
    AHEAD_S: "Seconds that all that an ingress has taken in would take one Classifier.",
}
"""Number of `record_autoscaling_stats` → what it says."""
_TEXTS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


class RayObserver(Observer):
    """Counts what one replica does. Serve's tags say which replica of which deployment it is.

    Metrics: rayclassify_stage_seconds (stage), rayclassify_batch_texts, rayclassify_tokens_total,
    rayclassify_truncated_texts_total, rayclassify_refused_total (reason),
    rayclassify_labels_total (label), rayclassify_busy, rayclassify_wait_s,
    rayclassify_tokens_per_s, rayclassify_ahead_s.
    """

    def __init__(self) -> None:
        self._next: dict[str, float] = {}  # stage → when it is recorded again
        self._stage_seconds = Histogram(
            "rayclassify_stage_seconds",
            description="Seconds that a stage took, of a sample of requests and batches.",
            boundaries=_SECONDS,
            tag_keys=("stage",),
        )
        self._batch_texts = Histogram(
            "rayclassify_batch_texts",
            description="Texts in one forward pass.",
            boundaries=_TEXTS,
        )
        self._tokens = Counter("rayclassify_tokens_total", description="Tokens the model read.")
        self._truncated = Counter(
            "rayclassify_truncated_texts_total",
            description="Texts of which the model read only a part.",
        )
        self._refused = Counter(
            "rayclassify_refused_total",
            description="Texts, or whole requests, that got an error.",
            tag_keys=("reason",),
        )
        self._working = {
            name: Gauge(f"rayclassify_{name}", description=description)
            for name, description in WORKING.items()
        }
        self._labels = Counter(
            "rayclassify_labels_total", description="Texts by label.", tag_keys=("label",)
        )

    def stage(self, stage: Stage, seconds: float, n_texts: int) -> None:
        now = time.monotonic()
        if now >= self._next.get(stage, 0.0):
            self._next[stage] = now + SAMPLE_S
            self._stage_seconds.observe(seconds, {"stage": stage})

    def batch(self, n_texts: int, tokens: int, longest: int) -> None:
        self._batch_texts.observe(n_texts)
        self._tokens.inc(tokens)

    def truncated(self, n_texts: int) -> None:
        self._truncated.inc(n_texts)

    def refused(self, reason: str, n_texts: int) -> None:
        self._refused.inc(n_texts, {"reason": reason})

    def labelled(self, counts: Mapping[str, int]) -> None:
        for label, n in counts.items():
            self._labels.inc(n, {"label": label})

    def working(self, stats: Mapping[str, float]) -> None:
        for name, value in stats.items():
            self._working[name].set(value)
