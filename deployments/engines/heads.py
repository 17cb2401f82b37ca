"""What each architecture does after its encoder: pooling and head, as its own class defines them.

A new architecture is one line in `HEADS`, and one in the test that holds it to its class's forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Head = Callable[[Any, torch.Tensor], torch.Tensor]
"""(model, pooled hidden states [n, hidden]) → logits [n, labels]."""


def _pooler(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    # The pooler and the heads below take the first of [n, tokens, hidden] themselves.
    logits: torch.Tensor = model.classifier(model.base_model.pooler(pooled[:, None]))
    return logits


def _albert(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    base = model.base_model
    logits: torch.Tensor = model.classifier(base.pooler_activation(base.pooler(pooled)))
    return logits


def _distilbert(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.classifier(model.pre_classifier(pooled).relu())
    return logits


def _first_of_tokens(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.classifier(pooled[:, None])
    return logits


def _modernbert(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.classifier(model.head(pooled))
    return logits


HEADS: dict[str, Head] = {
    "bert": _pooler,
    "roberta": _first_of_tokens,
    "xlm-roberta": _first_of_tokens,
    "camembert": _first_of_tokens,
    "electra": _first_of_tokens,
    "mpnet": _first_of_tokens,
    "albert": _albert,
    "distilbert": _distilbert,
    "modernbert": _modernbert,
}
"""`model_type` of config.json → head."""


def pools_mean(config: Any) -> bool:
    """Whether the head reads the mean of all tokens; else the first token."""
    return getattr(config, "classifier_pooling", "cls") == "mean"
