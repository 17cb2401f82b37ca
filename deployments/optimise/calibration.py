"""Scores that mean what they say: temperature, Platt's lines, when to abstain, sets of labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.optimise.labelled import BadData

BINS = 15
CONFIDENCE = 0.95
"""How sure a threshold's promise is to hold."""
# Fixed before any row is seen, so that a row's own score is never a threshold.
THRESHOLDS = (
    *(0.0, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85),
    *(0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999),
)
_RANGE = (math.log(0.05), math.log(20.0))
_SEED = 0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Scores against outcomes, in `BINS` bins of equal width. ece: expected calibration error, the
    mean gap of both, by texts. score, outcome: means of each bin, [BINS]; count: int [BINS]."""

    ece: float
    score: Floats
    outcome: Floats
    count: Ints


@dataclass(frozen=True, slots=True)
class Abstention:
    """Below `threshold` nobody should rely on the label. answered: share of rows at or above it.

    error: of those rows. at_most: the error stays below it with `CONFIDENCE`, on rows of this kind.
    """

    threshold: float
    answered: float
    error: float
    at_most: float


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities [n, L]."""
    scaled = logits / temperature
    exp = np.exp(scaled - scaled.max(1, keepdims=True))
    shares: Floats = exp / exp.sum(1, keepdims=True)
    return shares


def fit_temperature(logits: Floats, gold: Ints) -> float:
    """The temperature with the least log loss. logits: [n, L]; gold: [n]."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    def log_loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        right = scaled[np.arange(len(gold)), gold]
        return float((logsumexp(scaled, axis=1) - right).mean())

    return round(math.exp(minimize_scalar(log_loss, bounds=_RANGE, method="bounded").x), 4)


def fit_platt(logits: Floats, gold: Bools) -> list[tuple[float, float]]:
    """(slope, offset) of each label, with the least log loss of sigmoid(slope · logit + offset).

    Lines, not the steps of isotonic regression: two numbers need few rows, and scores that differ
    stay apart. logits: [n, L]; gold: bool [n, L], both outcomes in each column.
    """
    from sklearn.linear_model import LogisticRegression

    lines = []
    for one, there in zip(logits.T, gold.T, strict=True):
        # Nearly no penalty: enough that separable rows still have an end.
        line: Any = LogisticRegression(C=1e3).fit(one[:, None], there)
        lines.append((round(float(line.coef_[0, 0]), 4), round(float(line.intercept_[0]), 4)))
    return lines


def reliability(scores: Floats, outcomes: Bools) -> Reliability:
    """How far scores are from how often they come true, [n] each."""
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    there = np.maximum(count, 1)
    score = np.bincount(bins, scores, BINS) / there
    outcome = np.bincount(bins, outcomes.astype(float), BINS) / there
    ece = float((np.abs(score - outcome) * count).sum() / len(scores))
    return Reliability(ece, score, outcome, count)


def abstain_below(confidence: Floats, right: Bools, target_error: float) -> Abstention:
    """The lowest threshold whose error stays within the target, [n] each.

    Clopper and Pearson's bound of the error above each threshold, and Bonferroni's for trying all
    `THRESHOLDS`: that the promise breaks has a chance of 1 − `CONFIDENCE` at most.

    Raises:
        BadData: no threshold can promise that on these rows.
    """
    from scipy.stats import beta

    chance = (1 - CONFIDENCE) / len(THRESHOLDS)
    for threshold in THRESHOLDS:
        wrong = ~right[confidence >= threshold]
        n, n_wrong = len(wrong), int(wrong.sum())
        bound = float(beta.ppf(1 - chance, n_wrong + 1, n - n_wrong)) if n_wrong < n else 1.0
        if bound <= target_error:
            return Abstention(threshold, n / len(right), n_wrong / n, bound)
    least = math.ceil(math.log(chance) / math.log1p(-target_error)) if target_error else math.inf
    raise BadData(
        f"no threshold promises an error of at most {target_error:g} on {len(right):,} rows. "
        f"{least:,} sure rows without one wrong label would; give more rows or a higher target."
    )


def label_set_from(scores: Floats, gold: Ints, coverage: float) -> float:
    """The score from which labels are in the set, so that the right one is in it as often as that.

    Split conformal prediction: of n + 1 exchangeable rows, the new one's right label is below the
    k-th smallest score of the others' with a chance of k / (n + 1). scores: [n, L]; gold: [n].

    Raises:
        BadData: too few rows, or only the set of all labels has that coverage.
    """
    of_right = np.sort(scores[np.arange(len(gold)), gold])
    k = math.floor((len(gold) + 1) * (1 - coverage) + 1e-9)
    if k < 1:
        least = math.ceil(1 / (1 - coverage) - 1 - 1e-9) if coverage < 1 else math.inf
        raise BadData(
            f"a coverage of {coverage:g} needs {least:,} rows here; there are {len(gold):,}. Give "
            "more rows or a lower coverage."
        )
    # Rounded down, as the service compares in float32.
    found = math.floor(float(of_right[k - 1]) * 1e6) / 1e6
    if found <= 0:
        raise BadData(
            f"a coverage of {coverage:g} is reached by all labels together only: the model is sure "
            "where it is wrong. Give a lower coverage."
        )
    return found


def halves(n_rows: int, gold: Ints) -> tuple[Ints, Ints]:
    """Row numbers of two halves, each label in both."""
    order = np.random.default_rng(_SEED).permutation(n_rows)
    order = order[np.argsort(gold[order], kind="stable")]
    return np.sort(order[::2]), np.sort(order[1::2])
