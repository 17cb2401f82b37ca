"""Whether two ways of running a model agree: what to compare them on, and how far is too far."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deployments.engines.ids import Ids
from deployments.pipeline.types import Encoded, Float32

# Largest difference of logits, per unit of the largest logit (1 at least): rounding, no more.
MAX_DRIFT = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02, "int8": 0.5}
# Short, odd, repeated, longer than the reach of ModernBERT's local attention (64), and BERT's own
# limit; each text at most as long as the model reads.
_LENGTHS = (1, 2, 17, 40, 40, 7, 150, 512)


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
