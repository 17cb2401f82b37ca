"""Whether texts and answers are still of the kind that a stored baseline has: counts, no texts.

The measure is the population stability index over bins, sum((p - q) * ln(p / q)): p the share of a
bin now, q its share in the baseline. Of n texts like the m of the baseline it is distributed about
as (1/n + 1/m) times chi-squared with one degree of freedom less than there are bins (B. Yurdakul,
"Statistical Properties of Population Stability Index", 2018).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

FEATURES = ("labels", "scores", "tokens", "unknown_tokens", "tokens_per_character")
"""tokens: of a text, marks included. unknown_tokens: their share of a text's tokens. Where a
vocabulary knows every character, tokens per character stand in its place."""

OTHER = "_other"
"""Labels of less than `MIN_SHARE` of the baseline, all together."""

MIN_SHARE = 0.01
MIN_TEXTS = 500
"""Of which a bin of `MIN_SHARE` gets 5: with fewer, chi-squared says little."""

MIN_PSI = 0.1
"""Below it a shift is too small to act on, however sure: the custom of credit scoring."""

PANE_S, WINDOW_S, MAX_WINDOW_S = 300.0, 3_600.0, 86_400.0


class BadBaseline(ValueError):
    """drift.json holds something else. The message says what."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Texts against those of a baseline. moved: None where there are too few to tell."""

    texts: int
    psi: float
    threshold: float
    moved: bool | None


@dataclass(frozen=True, slots=True)
class Feature:
    """bins: names, of labels or of ranges. edges: the upper end of each range but the last, which
    has none; empty for labels. counts: of the baseline. critical: the quantile of chi-squared."""

    bins: tuple[str, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    critical: float

    def threshold(self, n: int) -> float:
        """The index that so many texts of the baseline's own kind exceed at the stated rate only,
        or `MIN_PSI`, if that is more."""
        return max(MIN_PSI, self.critical * (1 / n + 1 / sum(self.counts))) if n else math.inf

    def judge(self, counts: Sequence[int] | Counts) -> Judged:
        """counts: of texts, by bin."""
        n = int(sum(counts))
        found, threshold = psi(self.counts, counts), self.threshold(n)
        return Judged(n, found, threshold, None if n < MIN_TEXTS else found > threshold)


@dataclass(frozen=True, slots=True)
class Baseline:
    """id: of its content. places: the bin of each label of the model. unknown_id: the token's id;
    None where the vocabulary has none."""

    id: str
    n_texts: int
    false_alarm_rate: float
    features: Mapping[str, Feature]
    unknown_id: int | None
    places: Counts = field(repr=False)

    def bins_of(self, feature: str, values: npt.NDArray[Any]) -> Counts:
        """The bin of each value. Values of `labels` are the labels' places in the model."""
        if feature == "labels":
            places: Counts = self.places[values]
            return places
        bins: Counts = np.searchsorted(np.asarray(self.features[feature].edges), values)
        return bins

    def count(self, feature: str, values: npt.NDArray[Any]) -> Counts:
        """int64 [bins]: how many values are in each."""
        return np.bincount(
            self.bins_of(feature, values), minlength=len(self.features[feature].counts)
        )


@lru_cache(maxsize=8)
def baseline_of(text: str | None, labels: tuple[str, ...]) -> Baseline | None:
    """What drift.json holds. labels: all of the model's.

    Raises:
        BadBaseline: it is not what `rayclassify baseline` writes, or is of another model.
    """
    if text is None:
        return None
    try:
        kept = json.loads(text)
        features = {
            name: Feature(
                tuple(map(str, one["bins"])),
                tuple(map(float, one.get("edges", ()))),
                tuple(map(int, one["counts"])),
                float(one["critical"]),
            )
            for name, one in kept["features"].items()
        }
        unknown_id = kept["unknown_id"]
        rate = float(kept["false_alarm_rate"])
        n_texts = int(kept["n_texts"])
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise BadBaseline(f"it can't be read ({type(exc).__name__}: {exc})") from None
    for name, one in features.items():
        _check(name, one, n_texts)
    if "labels" not in features:
        places = np.zeros(len(labels), np.int64)
    else:
        bins = features["labels"].bins
        if strange := sorted(set(bins) - {*labels, OTHER}):
            raise BadBaseline(f"the model has no label {strange[0]!r}")
        rest = bins.index(OTHER) if OTHER in bins else -1
        places = np.asarray([bins.index(one) if one in bins else rest for one in labels])
        if places.min() < 0:
            raise BadBaseline(f"the label {labels[int(places.argmin())]!r} has no bin")
    if unknown_id is not None and not isinstance(unknown_id, int):
        raise BadBaseline("`unknown_id` is no number")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Baseline(digest, n_texts, rate, features, unknown_id, places)


def _check(name: str, one: Feature, n_texts: int) -> None:
    if name not in FEATURES:
        raise BadBaseline(f"it has a feature {name!r}; there are {', '.join(FEATURES)}")
    if (
        len(one.counts) < 2
        or len(one.bins) != len(one.counts)
        or len(set(one.bins)) < len(one.bins)
    ):
        raise BadBaseline(f"{name}: bins and counts don't agree, or there are fewer than 2")
    if name != "labels" and (
        len(one.edges) != len(one.counts) - 1
        or any(not low < high for low, high in zip(one.edges, one.edges[1:], strict=False))
    ):
        raise BadBaseline(f"{name}: edges must ascend, one fewer than bins")
    if min(one.counts) < 0 or sum(one.counts) != n_texts or not 0 < one.critical < math.inf:
        raise BadBaseline(f"{name}: its counts don't add up to n_texts, or `critical` is wrong")


def psi(baseline: Sequence[int] | Counts, counts: Sequence[int] | Counts) -> float:
    """Population stability index of counts against those of the baseline, in the same bins.

    Each bin counts half a text more, on both sides, so that an empty one has a logarithm.
    """
    q, p = (np.asarray(one, np.float64) + 0.5 for one in (baseline, counts))
    q, p = q / q.sum(), p / p.sum()
    return float(((p - q) * np.log(p / q)).sum())


class Window:
    """Counts of the last hour, by bin; of longer, up to a day, until they are `MIN_TEXTS`."""

    __slots__ = ("_panes", "counts")

    def __init__(self, n_bins: int) -> None:
        self.counts = np.zeros(n_bins, np.int64)
        self._panes: deque[tuple[float, Counts]] = deque()

    def add(self, counts: Counts, now: float) -> None:
        """now: seconds of a clock that never goes back."""
        if not self._panes or now - self._panes[-1][0] >= PANE_S:
            self._panes.append((now, np.zeros_like(self.counts)))
        pane = self._panes[-1][1]
        pane += counts
        self.counts += counts

    def forget(self, now: float) -> None:
        """What is too old. To be called from time to time."""
        while self._panes:
            began, counts = self._panes[0]
            age = now - began - PANE_S  # of the pane's last text, at least
            enough = self.counts.sum() - counts.sum() >= MIN_TEXTS
            if age < WINDOW_S or (age < MAX_WINDOW_S and not enough):
                break
            self._panes.popleft()
            self.counts -= counts


def unknown_shares(input_ids: npt.NDArray[Any], lengths: npt.NDArray[Any], unknown: int) -> Any:
    """float64 [n]: of each text, the share of its tokens that the vocabulary lacks."""
    up_to = np.concatenate(([0], np.cumsum(input_ids == unknown)))
    ends = np.cumsum(lengths)
    return (up_to[ends] - up_to[ends - lengths]) / np.maximum(lengths, 1)
