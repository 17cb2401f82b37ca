"""8 bits held against 32, on texts, as a replica runs both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployments.model.quantized import FILE
from deployments.optimise.distilling import (
    agreement,
    check_separator,
    keep_calibration,
    labels_of,
    load,
    task_of,
)
from deployments.optimise.finetuning import Task, score
from deployments.optimise.labelled import BadData
from deployments.optimise.running import CandidateFailed, score_texts
from deployments.optimise.saving import save
from deployments.pipeline.tasks.text_classification import REGRESSION

FLOAT32: dict[str, Any] = {"name": "torch", "dtype": "float32"}
INT8: dict[str, Any] = {"name": "torch", "dtype": "int8"}


@dataclass(frozen=True, slots=True)
class Limits:
    """min_agreement: share of texts with the same label. max_loss: of macro-F1, absolute."""

    min_agreement: float
    max_loss: float


@dataclass(frozen=True, slots=True)
class Quantizing:
    """logits: of float32 and int8, [n, labels]. gold: see `targets_of`. lost: of macro-F1.
    drift: the most that a logit moved."""

    logits: tuple[np.ndarray, np.ndarray]
    gold: np.ndarray
    agreement: float
    lost: float
    drift: float

    def refusals(self, limits: Limits) -> list[str]:
        """Why it must not be written; mostly nothing."""
        reasons = []
        if self.agreement < limits.min_agreement:
            reasons.append(
                f"{self.agreement:.2%} of {len(self.gold):,} texts keep their label; "
                f"--min-agreement is {limits.min_agreement:.2%}"
            )
        if self.lost > limits.max_loss:
            reasons.append(
                f"macro-F1 falls by {self.lost:.4f}; --max-f1-loss is {limits.max_loss:g}"
            )
        return reasons


def written(model: str, directory: Path, separator: str | None) -> tuple[tuple[str, ...], Task]:
    """The model in 16 bits, as it is quantised from, in `directory`; its labels and its task.

    Raises:
        BadBase: it can't be loaded.
        BadData: it is a regression, or the separator is not for it.
    """
    loaded, tokenizer = load(model)
    task, labels = task_of(loaded, separator), labels_of(loaded)
    if task.problem_type == REGRESSION:
        raise BadData(f"{model} gives numbers. Here 8 bits are judged by labels only.")
    check_separator(model, task)
    save(loaded, tokenizer, directory)
    keep_calibration(model, directory)
    return labels, task


def compared(
    model: str, directory: Path, texts: Sequence[str], task: Task, gold: np.ndarray | None
) -> Quantizing:
    """gold: None takes float32's own labels.

    Raises:
        CandidateFailed: one of them can't run here, or has no answer to a text.
    """
    before, after = (
        np.asarray(score_texts(name, engine, texts).logits, np.float32)
        for name, engine in ((model, FLOAT32), (str(directory), INT8))
    )
    missing = int((~np.isfinite(before) | ~np.isfinite(after)).any(1).sum())
    if missing:
        raise CandidateFailed(f"{missing:,} of {len(texts):,} texts got no answer.")
    if gold is None:
        gold = before.argmax(1) if task.separator is None else (before > 0).astype(np.float32)
    lost = score(before, gold, task)[1] - score(after, gold, task)[1]
    return Quantizing(
        (before, after), gold, agreement(before, after, task), lost,
        float(np.abs(before - after).max()),
    )  # fmt: skip


def pin(directory: Path, found: Quantizing, limits: Limits) -> None:
    """quantization.json: what the service reads, and what was found."""
    told = {
        "dtype": "int8",
        "min_agreement": limits.min_agreement,
        "measured": {
            "texts": len(found.gold),
            "agreement": round(found.agreement, 6),
            "macro_f1_lost": round(found.lost, 6),
            "max_logit_drift": round(found.drift, 6),
        },
    }
    (directory / FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
