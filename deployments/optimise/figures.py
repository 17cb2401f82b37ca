"""How good a trained model is on the rows that chose it: a figure a line, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployments.optimise.statistics import scores
from deployments.pipeline.tasks.text_classification import MULTI_LABEL, REGRESSION

_Z_95 = 1.96


def figures_of(
    logits: np.ndarray, gold: np.ndarray, problem_type: str, labels: Sequence[str]
) -> list[tuple[str, str]]:
    """Names and values. logits: [n, labels]; gold: as `targets_of` gives it."""
    if problem_type == REGRESSION:
        return _of_numbers(logits[:, 0].astype(np.float64), gold)
    if problem_type == MULTI_LABEL:
        said, there = (logits > 0).astype(np.int64), gold.astype(np.int64)
        # Each label is a question of its own, with the answers no and yes.
        each = [scores(there[:, i], said[:, i], 2) for i in range(len(labels))]
        exact = (said == there).all(1).mean()
        return [
            ("texts with exactly their labels", f"{exact:.3f}"),
            *(
                (f"F1 of {label}, {there[:, i].sum():,} rows", str(each[i].f1[1]))
                for i, label in enumerate(labels)
            ),
        ]
    found = scores(gold, logits.argmax(1), len(labels))
    return [
        ("accuracy", str(found.accuracy)),
        ("macro-F1", str(found.macro_f1)),
        *(
            (f"F1 of {label}, {(gold == i).sum():,} rows", str(found.f1[i]))
            for i, label in enumerate(labels)
        ),
    ]


def never_given(logits: np.ndarray, problem_type: str, labels: Sequence[str]) -> list[str]:
    """Labels that no text got: the model has not learnt them."""
    if problem_type == REGRESSION:
        return []
    if problem_type == MULTI_LABEL:
        given = set(np.flatnonzero((logits > 0).any(0)).tolist())
    else:
        given = set(logits.argmax(1).tolist())
    return [label for i, label in enumerate(labels) if i not in given]


def _of_numbers(values: np.ndarray, gold: np.ndarray) -> list[tuple[str, str]]:
    error = float(np.abs(values - gold).mean())
    guess = float(np.abs(np.median(gold) - gold).mean())
    found = [
        ("mean absolute error", f"{error:.4g}"),
        ("the same, of the median as every answer", f"{guess:.4g}"),
    ]
    if values.std() and gold.std() and len(gold) > 3:
        r = float(np.clip(np.corrcoef(values, gold)[0, 1], -0.999999, 0.999999))
        # Fisher's transformation: its error is 1 / sqrt(n - 3), whatever r is.
        low, high = np.tanh(np.arctanh(r) + np.array([-1, 1]) * _Z_95 / np.sqrt(len(gold) - 3))
        found.insert(0, ("Pearson's r", f"{r:.3f} [{low:.3f}, {high:.3f}]"))
    return found
