"""Batches of similar length under a token budget, the same ones whenever asked again."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

PAD, UNK, CLS, SEP, MASK = range(5)
FIRST_ORDINARY = 5
LENGTH_NOISE = 0.1
PAD_MULTIPLE = 8


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text at full length, with [CLS] and [SEP]."""
    ids = tokenizer(list(texts), verbose=False)["input_ids"]
    return [np.array(row, dtype=np.int64) for row in ids]


def crop(ids: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a random window of `length` tokens, keeping [CLS] and [SEP] at its ends."""
    if len(ids) <= length:
        return ids
    start = rng.integers(1, len(ids) - length + 2)
    return np.concatenate([ids[:1], ids[start : start + length - 2], ids[-1:]])


def pad(rows: Sequence[np.ndarray]) -> torch.Tensor:
    """Stack rows of ids into one tensor."""
    # A few round widths instead of many odd ones: the CPU allocator reuses its blocks.
    width = -(-max(map(len, rows)) // PAD_MULTIPLE) * PAD_MULTIPLE
    batch = np.full((len(rows), width), PAD, dtype=np.int64)
    for line, row in zip(batch, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(batch)


def epoch_batches(
    lengths: Sequence[int], token_budget: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Group indices of similar length into shuffled batches of at most `token_budget` tokens."""
    sizes = np.asarray(lengths)
    # Without noise the same texts would meet in the same batch in every epoch.
    order = np.argsort(sizes * (1 + LENGTH_NOISE * rng.standard_normal(len(sizes))))
    batches, start, widest = [], 0, 0
    for position, index in enumerate(order):
        widest = max(widest, sizes[index])
        if position > start and widest * (position - start + 1) > token_budget:
            batches.append(order[start:position])
            start, widest = position, sizes[index]
    batches.append(order[start:])
    return [batches[i] for i in rng.permutation(len(batches))]
