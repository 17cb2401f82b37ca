"""A model calibrated on held-out rows: fitted on one half, checked and promised on the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployments.optimise.calibration import (
    Abstention,
    Reliability,
    abstain_below,
    fit_temperature,
    halves,
    label_set_from,
    reliability,
    softmax,
)
from deployments.optimise.labelled import BadData, Labelled, check_known, check_splits
from deployments.optimise.running import Scored


@dataclass(frozen=True, slots=True)
class Calibrated:
    """before, after: of the best labels' scores, on rows that no number was fitted to.

    mean_set_size: labels in a set, on the same rows. n_fitted, n_checked: rows of each half.
    """

    temperature: float
    before: Reliability
    after: Reliability
    n_fitted: int
    n_checked: int
    abstention: Abstention | None = None
    label_set_from: float | None = None
    mean_set_size: float | None = None

    def content(self) -> dict[str, Any]:
        """What goes into calibration.json."""
        found: dict[str, Any] = {"temperature": self.temperature}
        if self.abstention is not None:
            found["abstain_below"] = self.abstention.threshold
        if self.label_set_from is not None:
            found["label_set_from"] = self.label_set_from
        return found


def calibrate(
    data: Labelled,
    scored: Scored,
    path: str,
    target_error: float | None = None,
    coverage: float | None = None,
) -> Calibrated:
    """scored: the model's logits of the rows of `data`, in order.

    Raises:
        BadData: rows have labels that the model lacks, or there are too few for what is asked.
    """
    check_known(data, path, scored.labels)
    check_splits(data, 2, path)
    known = {label: i for i, label in enumerate(scored.labels)}
    gold = np.asarray([known[label] for label in data.labels])
    logits = np.asarray(scored.logits, np.float64)
    if failed := int(np.isnan(logits).any(1).sum()):
        raise BadData(
            f"{failed:,} of {len(data):,} texts have no answer of the model. Remove them."
        )
    fit, check = halves(len(data), gold)
    temperature = fit_temperature(logits[fit], gold[fit])
    plain, scores = softmax(logits[check]), softmax(logits[check], temperature)
    # As the service rounds them: a threshold is compared with float32.
    scores = scores.astype(np.float32).astype(np.float64)
    right = scores.argmax(1) == gold[check]
    abstention = None
    if target_error is not None:
        abstention = abstain_below(scores.max(1), right, target_error)
    edge = None if coverage is None else label_set_from(scores, gold[check], coverage)
    return Calibrated(
        temperature,
        reliability(plain.max(1), right),
        reliability(scores.max(1), right),
        len(fit),
        len(check),
        abstention,
        edge,
        None if edge is None else float((scores >= edge).sum(1).mean()),
    )


def reliability_plot(found: Calibrated, path: Path, kind: str) -> None:
    """How often labels are right, against their scores, before and after; and how many texts.

    kind: svg or png.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    for axes, one, name in zip(
        figure.subplots(1, 2, sharey=True),
        (found.before, found.after),
        ("before", f"temperature {found.temperature:g}"),
        strict=True,
    ):
        there = one.count > 0
        axes.plot([0, 1], [0, 1], "k:", linewidth=1)
        sizes = 20 + 300 * one.count[there] / one.count.sum()
        axes.scatter(one.score[there], one.outcome[there], s=sizes, alpha=0.6)
        axes.plot(one.score[there], one.outcome[there], linewidth=1)
        axes.set_title(f"{name}: expected calibration error {one.ece:.4f}", fontsize=10)
        axes.set_xlabel("score of the best label (size: texts)")
        axes.grid(alpha=0.25)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
    figure.axes[0].set_ylabel(f"share that is right, of {found.n_checked:,} texts")
    figure.savefig(path, format=kind, dpi=150)
