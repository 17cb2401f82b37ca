"""Whether two ways of running a model agree: what to compare them on, and how far is too far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deployments.engines.ids import Ids
from deployments.pipeline.types import Encoded, Float32

if TYPE_CHECKING:
    # scripts/gpu_check.py runs where pydantic is not installed.
    from deployments.settings import EngineSettings

# Largest difference of logits, per unit of the largest logit (1 at least): rounding, no more.
MAX_DRIFT = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02, "int8": 0.5}
# Short, odd, repeated, longer than the reach of ModernBERT's local attention (64), and BERT's own
# limit; each text at most as long as the model reads.
_LENGTHS = (1, 2, 17, 40, 40, 7, 150, 512)

# A text whose labels are this close for the reference itself is decided by a hair: rounding may
# turn it over, and so may a comma. A larger max_logit_drift must not make it larger, or it would
# excuse every label that it lets turn over.
UNDECIDED_MARGIN = 0.1


def random_texts(ids: Ids) -> Encoded:
    """The same few texts of random words each time, for any vocabulary."""
    return ids.texts([min(length, ids.max_tokens) for length in _LENGTHS])


def one_by_one(run: Callable[[Encoded], Float32], texts: Encoded) -> Float32:
    """Answers to the same texts each alone, which have no padding."""
    return np.concatenate([run(text) for text in texts.split()])


def drift(logits: Float32, reference: Float32) -> float:
    """Largest difference per unit of the largest reference logit; infinite where one is NaN."""
    if logits.shape != reference.shape:
        return float("inf")
    difference = float(np.abs(logits - reference).max() / max(1.0, np.abs(reference).max()))
    return difference if np.isfinite(difference) else float("inf")


@dataclass(frozen=True, slots=True)
class Agreement:
    """max_drift: the largest difference of a logit; label_agreement: the share of decided texts
    that keep their labels, None where the model has none or no text is decided; refusal: why this
    is not near enough, with its figures, or None."""

    max_drift: float
    label_agreement: float | None
    refusal: str | None


def compare(
    reference: Float32, values: Float32, problem_type: str, settings: EngineSettings
) -> Agreement:
    """Both float32 [n, labels], of the same texts."""
    if values.shape != reference.shape or not np.isfinite(values).all():
        return Agreement(float("inf"), None, "refused: logits are missing, NaN or infinite")
    furthest = float(np.abs(values - reference).max())
    margin = min(UNDECIDED_MARGIN, settings.max_logit_drift)
    agreement = _label_agreement(reference, values, problem_type, margin)
    reasons = []
    if furthest > settings.max_logit_drift:
        reasons.append(f"drift {_figures(furthest)} > {settings.max_logit_drift:g}")
    if agreement is not None and agreement < settings.min_label_agreement:
        reasons.append(f"label agreement {agreement:.3f} < {settings.min_label_agreement:g}")
    return Agreement(furthest, agreement, f"refused: {', '.join(reasons)}" if reasons else None)


def _label_agreement(
    reference: Float32, values: Float32, problem_type: str, margin: float
) -> float | None:
    if problem_type == "regression":
        return None
    if problem_type == "multi_label_classification" or reference.shape[1] == 1:
        # Each label for itself, at a score of 0.5. A text agrees if all its decided labels do.
        decided = np.abs(reference) >= margin
        same = (np.sign(values) == np.sign(reference)) | ~decided
        agrees, counts = same.all(axis=1), decided.any(axis=1)
    else:
        best_two = np.sort(reference, axis=1)[:, -2:]
        counts = best_two[:, 1] - best_two[:, 0] >= margin
        agrees = values.argmax(axis=1) == reference.argmax(axis=1)
    return float(agrees[counts].mean()) if counts.any() else None


def _figures(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"
