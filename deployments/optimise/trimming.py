"""A vocabulary cut, what it changes on texts held out, and the model written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from deployments.optimise.bases import positions_of
from deployments.optimise.distilling import agreement, keep_calibration, labels_of, task_of
from deployments.optimise.finetuning import asks, in_batches, tokens_of
from deployments.optimise.labelled import Labelled
from deployments.optimise.saving import open_to_readers
from deployments.optimise.vocabulary import changed, trim
from deployments.pipeline.tasks.text_classification import REGRESSION

_SEED = 0


@dataclass(frozen=True, slots=True)
class Trim:
    """n_tokens, n_weights: before and after. n_held_out: texts that the vocabulary was not cut by
    when these were counted; n_changed: of them, with other tokens; agreement: of labels on all of
    them, None of a regression; furthest: the most that a logit moved."""

    labels: tuple[str, ...]
    n_tokens: tuple[int, int]
    n_weights: tuple[int, int]
    n_held_out: int
    n_changed: int
    agreement: float | None
    furthest: float

    def figures(self) -> list[tuple[str, str]]:
        """Names and values, for a terminal and for a card."""
        rows = [
            ("tokens, of the original", f"{self.n_tokens[0]:,}"),
            ("tokens", f"{self.n_tokens[1]:,}"),
            ("weights, of the original", f"{self.n_weights[0]:,}"),
            ("weights", f"{self.n_weights[1]:,}"),
            (
                f"of {self.n_held_out:,} texts held out, with the same tokens",
                f"{1 - self.n_changed / self.n_held_out:.2%}",
            ),
            ("the most that one of their logits moved", f"{self.furthest:.4f}"),
        ]
        if self.agreement is not None:
            rows.append(("agreement with the original on them", f"{self.agreement:.2%}"))
        return rows


def trim_and_save(
    original: str,
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    out: Path,
    clear: Callable[[], None] = lambda: None,
    min_count: int = 1,
) -> Trim:
    """Cuts by nine tenths of the texts to see what changes on the others, then by all.

    Weights keep the original's type, and its calibration comes along, as logits stay.
    clear: called before anything is written.

    Raises:
        CannotTrim: the tokenizer or the model is of another kind.
    """
    drawn = np.random.default_rng(_SEED).permutation(len(texts)).tolist()
    n = max(1, len(texts) // 10)
    held_out = [texts[i] for i in drawn[:n]]
    tried = trim(model, tokenizer, [texts[i] for i in drawn[n:]], min_count)
    others = changed(tokenizer, tried, held_out)
    agreed, furthest = _compared(model, tokenizer, tried, others)
    found = trim(model, tokenizer, texts, min_count)
    clear()
    out.mkdir(parents=True, exist_ok=True)
    dtype = AutoConfig.from_pretrained(original).dtype or model.dtype
    found.model.to(dtype).save_pretrained(out)
    found.tokenizer.save_pretrained(out)
    open_to_readers(out)
    keep_calibration(original, out)
    return Trim(
        labels_of(model),
        (len(tokenizer), len(found.kept)),
        (model.num_parameters(), found.model.num_parameters()),
        n,
        len(others),
        None if agreed is None else 1 - (1 - agreed) * len(others) / n,
        furthest,
    )


def _compared(
    model: Any, tokenizer: Any, tried: Any, texts: Sequence[str]
) -> tuple[float | None, float]:
    """Agreement on these texts, None of a regression; the most that a logit moves."""
    task, n_labels = task_of(model), len(labels_of(model))
    if not texts:
        return (None if task.problem_type == REGRESSION else 1.0), 0.0
    rows = Labelled(list(texts), [""] * len(texts))
    logits = []
    for one, its in ((model, tokenizer), (tried.model, tried.tokenizer)):
        encoded = tokens_of(its, rows, positions_of(its, one))
        logits.append(in_batches(encoded, asks(one, its), n_labels))
    furthest = float(np.abs(logits[0] - logits[1]).max())
    if task.problem_type == REGRESSION:
        return None, furthest
    return agreement(logits[0], logits[1], task), furthest
