"""A model calibrated on held-out rows: fitted on one half, checked and promised on the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployments.optimise.calibration import (
    Abstention,
    Floats,
    Reliability,
    abstain_below,
    fit_platt,
    fit_temperature,
    halves,
    label_set_from,
    reliability,
    softmax,
)
from deployments.optimise.labelled import (
    MIN_PER_LABEL,
    BadData,
    Labelled,
    check_known,
    check_splits,
    sets_of,
)
from deployments.optimise.running import Scored


@dataclass(frozen=True, slots=True)
class Calibrated:
    """before, after: of the best labels' scores, on rows that no number was fitted to.

    mean_set_size: labels in a set, on the same rows. platt: of multi-label models, whose before and
    after are of all labels' scores. n_fitted, n_checked: rows of each half.
    """

    temperature: float
    before: Reliability
    after: Reliability
    n_fitted: int
    n_checked: int
    abstention: Abstention | None = None
    label_set_from: float | None = None
    mean_set_size: float | None = None
    platt: list[tuple[float, float]] | None = None
    notes: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        """What goes into calibration.json."""
        found: dict[str, Any] = {"temperature": self.temperature}
        if self.abstention is not None:
            found["abstain_below"] = self.abstention.threshold
        if self.label_set_from is not None:
            found["label_set_from"] = self.label_set_from
        if self.platt is not None:
            found["platt"] = self.platt
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
    logits = _logits(scored)
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


def calibrate_sets(data: Labelled, scored: Scored, path: str, separator: str) -> Calibrated:
    """As `calibrate`, for a multi-label model: a line for each label (Platt).

    Raises:
        BadData: as `calibrate`; or no label has rows enough.
    """
    check_known(data, path, scored.labels, separator)
    rows = sets_of(data, separator)
    gold = np.asarray([[label in row for label in scored.labels] for row in rows])
    logits = _logits(scored)
    fit, check = halves(len(data), gold.sum(1))
    n_there = gold[fit].sum(0)
    enough = np.minimum(n_there, len(fit) - n_there) >= MIN_PER_LABEL
    if not enough.any():
        raise BadData(
            f"no label has {MIN_PER_LABEL} rows with it and {MIN_PER_LABEL} without it among "
            f"{len(fit):,}: nothing can be fitted. Label more."
        )
    lines = [(1.0, 0.0)] * len(scored.labels)
    for i, line in zip(
        np.flatnonzero(enough), fit_platt(logits[fit][:, enough], gold[fit][:, enough]), strict=True
    ):
        lines[i] = line
    few = [label for label, good in zip(scored.labels, enough, strict=True) if not good]
    note = (
        f"{len(few):,} labels have fewer than {MIN_PER_LABEL} rows with or without them, and stay "
        f"as they are: {', '.join(few[:5])}."
    )
    slopes, offsets = np.asarray(lines).T
    plain, scores = (
        1 / (1 + np.exp(-np.clip(one, -500, 500))).ravel()
        for one in (logits[check], logits[check] * slopes + offsets)
    )
    there = gold[check].ravel()
    return Calibrated(
        1.0,
        reliability(plain, there),
        reliability(scores, there),
        len(fit),
        len(check),
        platt=lines,
        notes=(note,) if few else (),
    )


def _logits(scored: Scored) -> Floats:
    logits = np.asarray(scored.logits, np.float64)
    if failed := int(np.isnan(logits).any(1).sum()):
        raise BadData(
            f"{failed:,} of {len(logits):,} texts have no answer of the model. Remove them."
        )
    return logits


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
        ("before", "after"),
        strict=True,
    ):
        there = one.count > 0
        axes.plot([0, 1], [0, 1], "k:", linewidth=1)
        sizes = 20 + 300 * one.count[there] / one.count.sum()
        axes.scatter(one.score[there], one.outcome[there], s=sizes, alpha=0.6)
        axes.plot(one.score[there], one.outcome[there], linewidth=1)
        axes.set_title(f"{name}: expected calibration error {one.ece:.4f}", fontsize=10)
        axes.set_xlabel("score (size: how many)")
        axes.grid(alpha=0.25)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
    figure.axes[0].set_ylabel(f"share that is right, {found.n_checked:,} texts")
    figure.savefig(path, format=kind, dpi=150)
