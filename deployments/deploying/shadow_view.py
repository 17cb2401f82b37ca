"""What the replicas say of a model on trial: how often it agrees, and what it would change."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, get_args

from deployments.deploying.rates import Samples
from deployments.pipeline.observer import ShadowOutcome
from deployments.settings import PARTS

_Z = 1.959964
_SERVED = "Classifier"
_TRIED = PARTS["shadow"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One application's model on trial, since its replicas started.

    compared, dropped, failed: texts. agreement: share of `compared` with equal labels; low, high:
    its 95 % interval (Wilson). score_difference: mean over texts, of the label that was served.
    seconds_per_text: of the model's passes alone, of both; None: unknown. changes: (label that was
    served, label of the one on trial) → texts, without those that agree.
    """

    application: str
    compared: int
    dropped: int
    failed: int
    agreement: float
    low: float
    high: float
    score_difference: float
    seconds_per_text: float | None
    shadow_seconds_per_text: float | None
    changes: dict[tuple[str, ...], int]

    def to_json(self) -> dict[str, Any]:
        """With `changes` as a list of objects."""
        found = {name: getattr(self, name) for name in self.__slots__}
        rows = self.changes.items()
        changes = [{"label": a, "shadow_label": b, "texts": n} for (a, b), n in rows]
        return {**found, "changes": changes}


_Sums = defaultdict[tuple[str, ...], float]
"""Metric and labels, as `_KEYS` tells them apart → sum over replicas."""


def trials(samples: Samples, app: str | None = None) -> list[Trial]:
    """samples: of all nodes. app: None for all applications. Those that have chosen no text are
    left out."""
    sums: defaultdict[str, _Sums] = defaultdict(lambda: defaultdict(float))
    for (name, labels), value in samples.items():
        told = dict(labels)
        keys = _KEYS.get(name)
        if keys is None or told.get("stage", "model") != "model":
            continue
        sums[told.get("application", "")][name, *(told.get(key, "") for key in keys)] += value
    found = [_trial(name, counts) for name, counts in sorted(sums.items()) if app in (None, name)]
    return [one for one in found if one.compared + one.dropped + one.failed]


_KEYS = {
    "shadow_texts_total": ("result",),
    "shadow_labels_total": ("label", "shadow_label"),
    "shadow_score_difference_sum": (),
    "stage_seconds_sum": ("deployment",),
    "texts_total": ("deployment",),
}
"""Metric → the labels that are told apart."""


def _trial(application: str, sums: _Sums) -> Trial:
    became = {name: round(sums["shadow_texts_total", name]) for name in get_args(ShadowOutcome)}
    pairs = {key[1:]: round(n) for key, n in sums.items() if key[0] == "shadow_labels_total"}
    n_texts = sum(pairs.values())
    agreed = sum(n for (served, other), n in pairs.items() if served == other)
    changes = {pair: n for pair, n in pairs.items() if pair[0] != pair[1]}
    difference = sums["shadow_score_difference_sum",] / n_texts if n_texts else 0.0
    ordered = dict(sorted(changes.items(), key=lambda one: -one[1]))
    return Trial(
        application,
        n_texts,
        became["dropped"],
        became["failed"],
        agreed / n_texts if n_texts else 0.0,
        *_wilson(agreed, n_texts),
        difference,
        _per_text(sums, _SERVED),
        _per_text(sums, _TRIED),
        ordered,
    )


def _per_text(sums: _Sums, deployment: str) -> float | None:
    n_texts = sums["texts_total", deployment]
    return sums["stage_seconds_sum", deployment] / n_texts if n_texts else None


def _wilson(n_agreed: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share, 95 %. (Wilson 1927, "Probable Inference".)"""
    if not n:
        return 0.0, 1.0
    share, z2 = n_agreed / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
