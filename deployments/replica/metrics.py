"""What happens, as Prometheus metrics at Ray's own metrics endpoint of each node.

A record in one of Ray's metrics takes 5 µs here; a histogram's takes as much again in Ray's agent,
which sets each value to the middle of its bucket. So a replica counts by itself, for less than a
microsecond, and hands Ray the sums every `FLUSH_S`. Histograms go as their cumulative series.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import ray
from ray.serve.metrics import Counter, Gauge

from deployments.pipeline.drift import PANE_S, Baseline, Window
from deployments.pipeline.observer import (
    CascadeOutcome,
    Observer,
    Outcome,
    Retry,
    ShadowOutcome,
    Stage,
)
from deployments.replica.metric_table import (
    BY_NAME,
    MAX_LABELS,
    METRICS,
    OTHER_LABELS,
    PREFIX,
    SCORES,
    Where,
)
from deployments.scaling.policy import AHEAD_S, BUSY, TOKENS_PER_S, WAIT_S

logger = logging.getLogger(__name__)

# Ray drops a gauge that nobody has set for 20 s, and sends what it has every 10 s.
FLUSH_S = 5.0

WORKING = {
    BUSY: "busy_ratio",
    WAIT_S: "wait_seconds",
    TOKENS_PER_S: "capacity_tokens_per_second",
    AHEAD_S: "ahead_seconds",
}
"""Number of `record_autoscaling_stats` → its metric."""

Key = tuple[str, ...]
"""A metric's name, and the values of its labels."""

_FROM_THE_START: list[Key] = [
    *((m.name,) for m in METRICS if m.kind == "counter" and not m.labels),
    *(("retries_total", cause) for cause in get_args(Retry)),
]


class Buckets:
    """A histogram's counts, as one that Prometheus scrapes: how many in which bucket, their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class _Histograms(dict[Key, Buckets]):
    def __missing__(self, key: Key) -> Buckets:
        self[key] = found = Buckets(BY_NAME[key[0]].bounds)
        return found


class _Labelled:
    """How often each label of a model was given, by its score: numpy does all texts at once.

    cells: int64 [labels, buckets]; sums: float64 [labels].
    """

    def __init__(self, labels: tuple[str, ...]) -> None:
        rest = (OTHER_LABELS,) if len(labels) > MAX_LABELS else ()
        self.names = (*labels[:MAX_LABELS], *rest)
        self.shape = len(self.names), len(SCORES) + 1
        self.cells = np.zeros(self.shape, np.int64)
        self.sums = np.zeros(self.shape[0])
        self.unscored = np.zeros(self.shape[0], np.int64)

    def add(self, best: npt.NDArray[np.int64], scores: npt.NDArray[np.float32] | None) -> None:
        n_labels, n_buckets = self.shape
        places = np.minimum(best, n_labels - 1)
        if scores is None:
            self.unscored += np.bincount(places, minlength=n_labels)
            return
        cells = places * n_buckets + np.searchsorted(_SCORES, scores)
        self.cells += np.bincount(cells, minlength=n_labels * n_buckets).reshape(self.shape)
        self.sums += np.bincount(places, scores, n_labels)


class _Watched:
    """One baseline, and what has come lately, by feature."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self.windows: dict[str, Window] = {}
        self.last_s = 0.0


# Of the scores' own type: 0.99 as float32 is in the bucket up to 0.99.
_SCORES = np.asarray(SCORES, np.float32)


class RayObserver(Observer):
    """Counts what one replica does, under the names of metric_table.py.

    Serve's labels say which replica of which deployment of which application it is. where: the
    deployment.
    """

    def __init__(self, where: Where) -> None:
        self._where = where
        self._unborn = [key for key in _FROM_THE_START if BY_NAME[key[0]].where == where]
        self._counts: defaultdict[Key, float] = defaultdict(float)
        self._histograms = _Histograms()
        self._gauges: dict[Key, float] = {}
        self._reads: dict[str, tuple[Callable[[], float], float]] = {}
        self._labels: dict[tuple[str, ...], _Labelled] = {}
        self._watched: dict[str, _Watched] = {}
        self._told: dict[Key, float] = {}
        self._of_ray: dict[str, Any] = {}
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a test that flushes itself
            return
        self._next(loop)

    def request(self, dialect: str, outcome: Outcome) -> None:
        self._counts["requests_total", dialect, outcome] += 1

    def stage(self, stage: Stage, seconds: float, n_texts: int) -> None:
        self._histograms["stage_seconds", stage].add(seconds)
        self._counts["texts_total", stage] += n_texts

    def batch(self, n_texts: int, tokens: int, longest: int) -> None:
        self._histograms["batch_texts",].add(n_texts)
        self._histograms["batch_tokens",].add(tokens)
        self._counts["tokens_total",] += tokens

    def truncated(self, n_texts: int) -> None:
        self._counts["truncated_texts_total",] += n_texts

    def refused(self, reason: str, n_texts: int) -> None:
        self._counts["refused_total", reason] += n_texts

    def labelled(
        self,
        labels: tuple[str, ...],
        best: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32] | None,
    ) -> None:
        if (found := self._labels.get(labels)) is None:
            found = self._labels[labels] = _Labelled(labels)
        found.add(best, scores)

    def features(self, baseline: Baseline, values: Mapping[str, npt.NDArray[Any]]) -> None:
        if (found := self._watched.get(baseline.id)) is None:
            found = self._watched[baseline.id] = _Watched(baseline)
        found.last_s = now = time.monotonic()
        for feature, numbers in values.items():
            if feature in baseline.features:
                counts = baseline.count(feature, numbers)
                if (window := found.windows.get(feature)) is None:
                    window = found.windows[feature] = Window(len(counts))
                window.add(counts, now)

    def drift(self) -> list[dict[str, Any]]:
        """The same numbers as the metrics `drift_…`, judged: rows of the part `drift` of
        `GET /state`."""
        return [
            {
                "deployment": self._where,
                "baseline": name,
                "feature": feature,
                "texts": judged.texts,
                "psi": round(judged.psi, 6),
                "threshold": round(judged.threshold, 6) if judged.texts else None,
                "moved": judged.moved,
            }
            for name, one in self._watched.items()
            for feature, window in one.windows.items()
            for judged in (one.baseline.features[feature].judge(window.counts),)
        ]

    def cascaded(self, outcome: CascadeOutcome, n_texts: int) -> None:
        self._counts["cascade_texts_total", outcome] += n_texts

    def shadowed(self, outcome: ShadowOutcome, n_texts: int) -> None:
        self._counts["shadow_texts_total", outcome] += n_texts

    def compared(self, labels: tuple[str, ...], served: str, other: str, difference: float) -> None:
        shown = (one if one in labels[:MAX_LABELS] else OTHER_LABELS for one in (served, other))
        self._counts["shadow_labels_total", *shown] += 1
        self._histograms["shadow_score_difference",].add(difference)

    def retried(self, cause: Retry) -> None:
        self._counts["retries_total", cause] += 1

    def quarantined(self) -> None:
        self._counts["quarantined_texts_total",] += 1

    def tokenizer_checked(self, *, same: bool) -> None:
        self._counts["tokenizer_checks_total",] += 1
        if not same:
            self._counts["tokenizer_differences_total",] += 1

    def working(self, stats: Mapping[str, float]) -> None:
        for name, value in stats.items():
            self._gauges[WORKING[name],] = value

    def watch(self, name: str, read: Callable[[], float]) -> None:
        # What a counter counted before, as a model's first passes, is nobody's traffic.
        self._reads[name] = read, read() if BY_NAME[name].kind == "counter" else 0.0

    def about(self, name: str, facts: Mapping[str, object]) -> None:
        self._gauges[name, *(str(facts[label]) for label in BY_NAME[name].labels)] = 1.0

    def flush(self) -> None:
        """Hands all numbers to Ray."""
        for name, (read, before) in self._reads.items():
            if BY_NAME[name].kind == "counter":
                self._counts[name,] = read() - before
            else:
                self._gauges[name,] = read()
        self._flush_labels()
        self._flush_drift(time.monotonic())
        while self._unborn:
            key = self._unborn.pop()
            # `inc` takes no 0. A counter that begins at 1 has not grown, for Prometheus.
            self._counter(key[0])._record(0.0, _labels(key))
        # Copies: another thread may count meanwhile.
        for key, value in list(self._counts.items()):
            if (more := value - self._told.get(key, 0.0)) > 0:
                self._told[key] = value
                self._counter(key[0]).inc(more, _labels(key))
        for key, value in list(self._gauges.items()):
            self._gauge(key[0]).set(value, _labels(key))
        for key, buckets in list(self._histograms.items()):
            self._flush_histogram(key, buckets.counts, buckets.sum)

    def _flush_labels(self) -> None:
        # Of all models with this label: in an update there are two.
        cells: dict[str, npt.NDArray[np.int64]] = {}
        sums: defaultdict[str, float] = defaultdict(float)
        counts: defaultdict[str, int] = defaultdict(int)
        for found in self._labels.values():
            for i, label in enumerate(found.names):
                row = found.cells[i]
                counts[label] += int(row.sum() + found.unscored[i])
                cells[label] = cells.get(label, 0) + row
                sums[label] += float(found.sums[i])
        for label, count in counts.items():
            self._counts["labels_total", label] = count
            if cells[label].any():
                self._flush_histogram(("score", label), cells[label].tolist(), sums[label])

    def _flush_drift(self, now: float) -> None:
        # After an update nobody asks the old model: what came before must not alarm for hours.
        if len(self._watched) > 1:
            newest = max(one.last_s for one in self._watched.values())
            self._watched = {
                name: one for name, one in self._watched.items() if newest - one.last_s < PANE_S
            }
        for name, one in self._watched.items():
            for feature, window in one.windows.items():
                window.forget(now)
                of = one.baseline.features[feature]
                labels = {"baseline": name, "feature": feature}
                self._gauge("drift_critical").set(of.critical, labels)
                for bin_, count, before in zip(
                    of.bins, window.counts.tolist(), of.counts, strict=True
                ):
                    place = {**labels, "bin": bin_}
                    self._gauge("drift_window_texts").set(count, place)
                    self._gauge("drift_baseline_texts").set(before, place)

    def _flush_histogram(self, key: Key, counts: list[int], total: float) -> None:
        name, labels = key[0], _labels(key)
        bounds = (*map(str, BY_NAME[name].bounds), "+Inf")
        up_to = 0
        for bound, count in zip(bounds, counts, strict=True):
            up_to += count
            self._gauge(name, "_bucket", "le").set(up_to, {**labels, "le": bound})
        self._gauge(name, "_sum").set(total, labels)
        self._gauge(name, "_count").set(up_to, labels)

    def _counter(self, name: str) -> Counter:
        if (found := self._of_ray.get(name)) is None:
            metric = BY_NAME[name]
            found = Counter(PREFIX + name, metric.help, metric.labels)
            self._of_ray[name] = found
        return found

    def _gauge(self, name: str, end: str = "", *more: str) -> Gauge:
        if (found := self._of_ray.get(name + end)) is None:
            metric = BY_NAME[name]
            found = Gauge(PREFIX + name + end, metric.help, (*metric.labels, *more))
            self._of_ray[name + end] = found
        return found

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(FLUSH_S, self._tick, loop, context=contextvars.Context())

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self.flush()
        except Exception as exc:  # metrics are no reason to stop
            logger.error("metrics could not be handed on: %s", type(exc).__name__)
        self._next(loop)


async def metrics_addresses() -> list[str]:
    """URLs of the endpoints of all living nodes; none outside of Ray."""
    if not ray.is_initialized():
        return []
    nodes = await asyncio.to_thread(ray.nodes)
    doors = {
        (node["NodeManagerAddress"], node["MetricsExportPort"]) for node in nodes if node["Alive"]
    }
    return [
        f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
        for host, port in sorted(doors)
        if port > 0
    ]


def _labels(key: Key) -> dict[str, str]:
    return dict(zip(BY_NAME[key[0]].labels, key[1:], strict=True))
