"""Prometheus metrics looked at again and again: what they say, what they gain a second."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

PREFIX = "ray_rayclassify_"
_SPAN_S = 40.0
# Ray's endpoints change every 10 s: a counter that stands longer than this gains nothing.
_STANDS_S = 15.0

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]
"""Name without PREFIX, and labels → value."""


def read_samples(page: str) -> Samples:
    """Ours of what a metrics endpoint answers; the rest of its thousands of lines is not parsed."""
    ours = (line for line in page.splitlines() if line.startswith(PREFIX))
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families("\n".join(ours) + "\n")
        for sample in family.samples
    }


class Rates:
    """The last looks. Counters are told apart by all of their labels, so each replica's alone."""

    def __init__(self) -> None:
        self._now: Samples = {}
        self._at_s: float | None = None
        self._changes: dict[tuple[str, Labels], deque[tuple[float, float]]] = {}

    def look(self, samples: Samples, at_s: float) -> None:
        """One look. at_s: of any clock that never goes back."""
        for key, value in samples.items():
            changes = self._changes.get(key)
            if changes is None:
                changes = self._changes[key] = deque()
                if self._at_s is not None:  # it began since the endpoint's last change, from 0
                    changes.append((at_s - _STANDS_S, 0.0))
            if not changes or value != changes[-1][1]:
                if changes and value < changes[-1][1]:
                    changes.clear()  # its process began anew
                changes.append((at_s, value))
            while len(changes) > 2 and changes[0][0] < at_s - _SPAN_S:
                changes.popleft()
        self._at_s, self._now = at_s, samples
        for gone in self._changes.keys() - samples.keys():
            del self._changes[gone]

    def values(self, name: str, by: str = "", **where: str) -> dict[str, float]:
        """Sums of what it says now, by the label `by`, of the series with these labels."""
        return self._sums(name, by, where, self._now)

    def per_s(self, name: str, by: str = "", **where: str) -> dict[str, float]:
        """What it gains a second; 0 where nothing came for a while, and at the first look."""
        gains = {key: self._gain(key) for key in self._now if key[0] == name}
        return self._sums(name, by, where, gains)

    def quantile(self, name: str, q: float, **where: str) -> float:
        """Of a histogram, of what came last: as Prometheus' histogram_quantile. NaN for nothing."""
        buckets = sorted(
            (float(bound), gain)
            for bound, gain in self.per_s(f"{name}_bucket", "le", **where).items()
        )
        if not buckets or buckets[-1][1] <= 0:
            return math.nan
        wanted, low_bound, low = q * buckets[-1][1], 0.0, 0.0
        for bound, gain in buckets:
            if gain >= wanted:
                if math.isinf(bound):
                    return low_bound
                share = (wanted - low) / (gain - low) if gain > low else 0.0
                return low_bound + (bound - low_bound) * share
            low_bound, low = bound, gain
        return low_bound

    def mean(self, name: str, **where: str) -> float:
        """Of a histogram, of what came last. NaN for nothing."""
        total = self.per_s(f"{name}_sum", **where).get("", 0.0)
        count = self.per_s(f"{name}_count", **where).get("", 0.0)
        return total / count if count > 0 else math.nan

    def _gain(self, key: tuple[str, Labels]) -> float:
        changes = self._changes.get(key)
        if not changes or self._at_s is None or len(changes) < 2:
            return 0.0
        (began_s, first), (last_s, last) = changes[0], changes[-1]
        ended_s = last_s if self._at_s - last_s <= _STANDS_S else self._at_s
        return (last - first) / (ended_s - began_s) if self._at_s - last_s <= _SPAN_S else 0.0

    @staticmethod
    def _sums(
        name: str, by: str, where: Mapping[str, str], samples: Mapping[tuple[str, Labels], float]
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        for (other, labels), value in samples.items():
            if other == name:
                told = dict(labels)
                if where.items() <= told.items():
                    label = told.get(by, "")
                    found[label] = found.get(label, 0.0) + value
        return found


def merged(pages: Iterable[str]) -> Samples:
    """Of all nodes together: labels name the replica, so no two have the same series."""
    return {key: value for page in pages for key, value in read_samples(page).items()}
