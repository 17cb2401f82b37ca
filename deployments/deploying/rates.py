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
Process = tuple[str, ...]
"""Values of the labels that tell processes apart; each exports all of its series at once."""
_COUNTERS = ("_total", "_sum", "_count", "_bucket")


def read_samples(page: str) -> Samples:
    """Ours of what a metrics endpoint answers; the rest of its thousands of lines is not parsed."""
    ours = (line for line in page.splitlines() if line.startswith(PREFIX))
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families("\n".join(ours) + "\n")
        for sample in family.samples
    }


class Rates:
    """The last looks. Counters are compared within each process, over one time for all of them, so
    that quotients of two are of the same requests."""

    def __init__(self) -> None:
        self._now: Samples = {}
        self._at_s = 0.0
        self._changes: dict[Process, deque[tuple[float, Samples]]] = {}

    def look(self, samples: Samples, at_s: float) -> None:
        """One look. at_s: of any clock that never goes back."""
        self._at_s, self._now = at_s, samples
        counters: dict[Process, Samples] = {}
        for key, value in samples.items():
            of_one = counters.setdefault(_process(key[1]), {})
            if key[0].endswith(_COUNTERS):
                of_one[key] = value
        for process, now in counters.items():
            self._note(self._changes.setdefault(process, deque()), now, at_s)
        # One that is missed once is not a new one when it answers again.
        for gone in self._changes.keys() - counters.keys():
            if self._changes[gone][-1][0] < at_s - _SPAN_S:
                del self._changes[gone]

    @staticmethod
    def _note(changes: deque[tuple[float, Samples]], now: Samples, at_s: float) -> None:
        if changes:
            last_s, last = changes[-1]
            if now == last:
                return
            if any(value < last.get(key, 0.0) for key, value in now.items()):
                changes.clear()  # the process began anew
            elif last_s < at_s - _SPAN_S:  # it stood until the endpoint's last change
                changes.clear()
                changes.append((at_s - _STANDS_S, last))
        changes.append((at_s, now))
        while len(changes) > 2 and changes[0][0] < at_s - _SPAN_S:
            changes.popleft()

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
        changes = self._changes[_process(key[1])]
        (began_s, first), (last_s, last) = changes[0], changes[-1]
        if len(changes) < 2 or self._at_s - last_s > _SPAN_S:
            return 0.0
        ended_s = last_s if self._at_s - last_s <= _STANDS_S else self._at_s
        # A series that was not there at first begins at 0.
        return (last.get(key, 0.0) - first.get(key, 0.0)) / (ended_s - began_s)

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


def _process(labels: Labels) -> Process:
    return tuple(value for name, value in labels if name in ("WorkerId", "replica"))


def merged(pages: Iterable[str]) -> Samples:
    """Of all nodes together: labels name the replica, so no two have the same series."""
    return {key: value for page in pages for key, value in read_samples(page).items()}
