"""What the replicas of a service say of drift, put together: which feature moved, and how far."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from deployments.deploying.rates import Samples
from deployments.pipeline.drift import Feature


@dataclass(frozen=True, slots=True)
class Compared:
    """One feature of one baseline. psi: of the texts of all replicas together. moved: None where
    there are too few texts to tell. bins: name → share in the baseline, share now."""

    application: str
    baseline: str
    feature: str
    texts: int
    psi: float
    threshold: float
    moved: bool | None
    bins: dict[str, tuple[float, float]]


def compare(samples: Samples, app: str | None = None) -> list[Compared]:
    """samples: of all nodes. app: None for all applications."""
    now: defaultdict[tuple[str, str, str], defaultdict[str, int]]
    now = defaultdict(lambda: defaultdict(int))
    before: defaultdict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    critical: dict[tuple[str, str, str], float] = {}
    for (name, labels), value in samples.items():
        told = dict(labels)
        key = told.get("application", ""), told.get("baseline", ""), told.get("feature", "")
        if app is not None and key[0] != app:
            continue
        if name == "drift_window_texts":
            now[key][told["bin"]] += round(value)
        elif name == "drift_baseline_texts":
            before[key][told["bin"]] = round(value)  # each replica says the same
        elif name == "drift_critical":
            critical[key] = value
    return [
        _compared(key, before[key], dict(now[key]), critical[key])
        for key in sorted(critical.keys() & now.keys() & before.keys())
    ]


def _compared(
    key: tuple[str, str, str], before: dict[str, int], now: dict[str, int], critical: float
) -> Compared:
    counts = [now.get(bin_, 0) for bin_ in before]
    n, m = sum(counts), sum(before.values())
    judged = Feature(tuple(before), (), tuple(before.values()), critical).judge(counts)
    bins = {
        bin_: (old / max(m, 1), new / max(n, 1))
        for (bin_, old), new in zip(before.items(), counts, strict=True)
    }
    return Compared(*key, n, judged.psi, judged.threshold, judged.moved, bins)
