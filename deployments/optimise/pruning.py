"""Feed-forward neurons that matter least to a model's loss on some rows, cut off."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from deployments.optimise.bases import positions_of
from deployments.optimise.distilling import labels_of, task_of
from deployments.optimise.finetuning import asks, targets_of, task_loss, tokens_of
from deployments.optimise.labelled import Labelled
from deployments.optimise.students import feed_forwards, importances, with_width
from deployments.optimise.training import Recipe, batches

_ROWS = 512
"""Enough to rank neurons: twice as many change the ranking little, and cost twice the time."""
_MULTIPLE = 16
"""Of widths: matrix products of other widths are padded to it."""


def narrowed(
    model: Any,
    tokenizer: Any,
    rows: Labelled,
    share: float,
    recipe: Recipe,
    separator: str | None = None,
) -> tuple[Any, int]:
    """A copy with this share of each layer's feed-forward neurons, and how many those are.

    Raises:
        CannotShrink: the model's feed-forward parts have another form.
    """
    width = feed_forwards(model)[0].wide.out_features
    n_kept = min(width, max(_MULTIPLE, round(share * width / _MULTIPLE) * _MULTIPLE))
    task, labels = task_of(model, separator), labels_of(model)
    drawn = np.random.default_rng(recipe.seed).permutation(len(rows))[:_ROWS]
    some = rows.rows(drawn.tolist())
    encoded = tokens_of(tokenizer, some, min(recipe.max_length, positions_of(tokenizer, model)))
    targets = torch.from_numpy(targets_of(some, labels, task))
    forward = asks(model, tokenizer)

    def loss(places: list[int]) -> torch.Tensor:
        return task_loss(forward([encoded[i] for i in places]), targets[places], task, None, "sum")

    lengths = [len(row["input_ids"]) for row in encoded]
    losses = [partial(loss, places) for places in batches(lengths, recipe, 0)]
    found = importances(model, losses)
    return with_width(model, [one.topk(n_kept).indices.tolist() for one in found]), n_kept
