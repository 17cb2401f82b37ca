"""The two training stages: masked-language modelling, then classification with a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .loop import Stage
from .recipe import Recipe
from .tokens import FIRST_ORDINARY, MASK, PAD, crop, epoch_batches, pad

# Lengths of masked spans and how often each is drawn.
SPAN_LENGTHS, SPAN_ODDS = (1, 2, 3), (0.5, 0.3, 0.2)
MEAN_SPAN = 1.7
AVERAGE_DECAY = 0.99
WEIGHT_DECAY = 0.05


@dataclass(frozen=True, slots=True)
class Examples:
    """Token ids of texts and the probability [n, labels] that each label should get."""

    rows: Sequence[np.ndarray]
    targets: np.ndarray


def masked_language_stage(
    rows: Sequence[np.ndarray], vocabulary: int, recipe: Recipe, seed: int
) -> Stage:
    """Guess masked spans; the model is a BertForMaskedLM."""
    schedule = [
        batch
        for epoch in range(recipe.epochs)
        for batch in _batches(rows, recipe, np.random.default_rng([seed, epoch]))
    ]

    def loss(model: Any, step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        ids = pad([crop(rows[i], recipe.crop_length, rng) for i in schedule[step]])
        masked = _span_mask(ids, recipe.noise, rng)
        gold = ids[masked]
        corrupted = ids.clone()
        corrupted[masked] = _replacement(gold, vocabulary)
        hidden = model.bert(
            corrupted,
            attention_mask=ids != PAD,
            position_ids=_positions(ids, recipe, model.config.max_position_embeddings, rng),
        ).last_hidden_state
        # The vocabulary projection costs as much as a layer: only where it is scored.
        return functional.cross_entropy(model.cls(hidden[masked]), gold)

    return Stage("pretrain", loss, len(schedule), recipe.learning_rate, WEIGHT_DECAY, AVERAGE_DECAY)


def classification_stage(epochs: Sequence[Examples], recipe: Recipe, seed: int) -> Stage:
    """Match target probabilities; the model is a BertForSequenceClassification."""
    schedule = [
        (examples, batch)
        for epoch, examples in enumerate(epochs)
        for batch in _batches(examples.rows, recipe, np.random.default_rng([seed, epoch]))
    ]

    def loss(model: Any, step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        examples, batch = schedule[step]
        ids = pad([crop(examples.rows[i], recipe.crop_length, rng) for i in batch])
        dropped = torch.from_numpy(rng.random(ids.shape) < recipe.noise) & (ids >= FIRST_ORDINARY)
        logits = model(
            input_ids=ids.masked_fill(dropped, MASK),
            attention_mask=ids != PAD,
            position_ids=_positions(ids, recipe, model.config.max_position_embeddings, rng),
        ).logits
        wanted = torch.from_numpy(examples.targets[batch]).float()
        return functional.cross_entropy(logits, wanted)

    return Stage("finetune", loss, len(schedule), recipe.learning_rate, WEIGHT_DECAY, AVERAGE_DECAY)


def _batches(
    rows: Sequence[np.ndarray], recipe: Recipe, rng: np.random.Generator
) -> list[np.ndarray]:
    lengths = [min(len(row), recipe.crop_length) for row in rows]
    return epoch_batches(lengths, recipe.token_budget, rng)


def _span_mask(ids: torch.Tensor, share: float, rng: np.random.Generator) -> torch.Tensor:
    starts = torch.from_numpy(rng.random(ids.shape) < share / MEAN_SPAN)
    lengths = torch.from_numpy(rng.choice(SPAN_LENGTHS, p=SPAN_ODDS, size=ids.shape))
    masked = starts.clone()
    for reach in range(1, max(SPAN_LENGTHS)):
        masked[:, reach:] |= (starts & (lengths > reach))[:, :-reach]
    masked &= ids >= FIRST_ORDINARY
    if not masked.any():
        masked[0, 1] = True
    return masked


def _replacement(gold: torch.Tensor, vocabulary: int) -> torch.Tensor:
    # BERT's 80/10/10: mask, random token, unchanged.
    draw = torch.rand(len(gold))
    random = torch.randint(FIRST_ORDINARY, vocabulary, gold.shape)
    return torch.where(
        draw < 0.8, torch.full_like(gold, MASK), torch.where(draw > 0.9, random, gold)
    )


def _positions(
    ids: torch.Tensor, recipe: Recipe, limit: int, rng: np.random.Generator
) -> torch.Tensor:
    # Crops are short; moved along the axis they train the positions of long texts as well.
    room = limit - ids.shape[1]
    start = int(rng.integers(room + 1)) if rng.random() < recipe.shifted_share else 0
    return torch.arange(start, start + ids.shape[1])[None]
