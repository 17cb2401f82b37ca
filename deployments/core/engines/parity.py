"""Whether two ways of running a model agree: what to compare them on, and how far is too far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deployments.core.types import Encoded, Float32

# Largest difference of logits, per unit of the largest logit (1 at least): rounding, no more.
MAX_DRIFT = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02, "int8": 0.5}
# Short, odd, repeated, and longer than the reach of ModernBERT's local attention (64).
_LENGTHS = (1, 2, 17, 40, 40, 7, 150)


def random_texts(config: Any, max_length: int, token_types: bool) -> Encoded:
    """The same few texts of random tokens each time, for any vocabulary."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(np.asarray(_LENGTHS, np.int32), max_length).astype(np.int32)
    ids = rng.integers(0, int(config.vocab_size), int(lengths.sum())).astype(np.int32)
    n_types = int(getattr(config, "type_vocab_size", 0) or 0)
    if not token_types or n_types < 2:
        return Encoded(ids, lengths)
    return Encoded(ids, lengths, rng.integers(0, n_types, len(ids)).astype(np.int32))


def one_by_one(run: Callable[[Encoded], Float32], texts: Encoded) -> Float32:
    """Answers to the same texts each alone, which have no padding."""
    return np.concatenate([run(text) for text in texts.split()])


def drift(logits: Float32, reference: Float32) -> float:
    """Largest difference per unit of the largest reference logit; infinite where one is NaN."""
    difference = float(np.abs(logits - reference).max() / max(1.0, np.abs(reference).max()))
    return difference if np.isfinite(difference) else float("inf")
