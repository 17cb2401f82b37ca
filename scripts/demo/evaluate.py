"""Scores with their uncertainty: macro-F1, accuracy, calibration, bootstrap intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.optimize import minimize_scalar

BOOTSTRAP_ROUNDS = 10_000
ECE_BINS = 15

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]


def accuracy(gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Share of equal labels along the last axis."""
    shares: np.ndarray = (gold == predicted).mean(axis=-1)
    return shares


def macro_f1(gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean F1 of the two classes along the last axis; also for a stack of resamples."""
    scores: list[np.ndarray] = []
    for label in (0, 1):
        hits = ((gold == label) & (predicted == label)).sum(axis=-1)
        claims = (gold == label).sum(axis=-1) + (predicted == label).sum(axis=-1)
        scores.append(2 * hits / np.maximum(claims, 1))
    mean: np.ndarray = np.mean(scores, axis=0)
    return mean


def bootstrap(
    gold: np.ndarray, predicted: np.ndarray, rival: np.ndarray | None = None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Score each metric with a 95 % percentile interval over resampled test texts.

    With a rival, score the paired difference predicted − rival on the same resamples.
    """
    predictions = [predicted] if rival is None else [predicted, rival]
    result = {}
    for name, metric in (("macro_f1", macro_f1), ("accuracy", accuracy)):

        def score(gold: np.ndarray, *told: np.ndarray, axis: int = -1, of: Metric = metric) -> Any:
            own, *rivals = (of(gold, labels) for labels in told)
            return own - rivals[0] if rivals else own

        interval = stats.bootstrap(
            (gold, *predictions),
            score,
            paired=True,
            vectorized=True,
            n_resamples=BOOTSTRAP_ROUNDS,
            method="percentile",
            rng=seed,
        ).confidence_interval
        result[name] = {
            "value": round(float(score(gold, *predictions)), 4),
            "ci95": [round(float(end), 4) for end in interval],
        }
    return result


def fit_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
    """Return the T > 0 that minimises the log loss of softmax(logits / T)."""

    def log_loss(log_temperature: float) -> float:
        scaled = torch.from_numpy(logits) / float(np.exp(log_temperature))
        return torch.nn.functional.cross_entropy(scaled, torch.from_numpy(gold)).item()

    best = minimize_scalar(log_loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(best.x))


def expected_calibration_error(logits: np.ndarray, gold: np.ndarray, temperature: float) -> float:
    """Mean gap between confidence and accuracy over equal-width confidence bins."""
    scores = torch.from_numpy(logits).div(temperature).softmax(-1).numpy()
    confidence, right = scores.max(-1), scores.argmax(-1) == gold
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = (abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(ECE_BINS))
    return float(sum(gaps) / len(gold))
