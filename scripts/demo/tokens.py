"""A WordPiece vocabulary of our own, and batches of its tokens, the same whenever asked again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from transformers import BertTokenizer, PreTrainedTokenizerBase

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_LENGTH = 512
MIN_CHARACTER_COUNT = 2
MIN_WORD_COUNT = 5

_WORD = re.compile(r"[a-z0-9]{2,}")
_ASCII = "abcdefghijklmnopqrstuvwxyz0123456789"
PAD, UNK, CLS, SEP, MASK = range(5)
FIRST_ORDINARY = 5
LENGTH_NOISE = 0.1
PAD_MULTIPLE = 8


def build_vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """Hold every character seen twice, frequent Latin words, and pieces to spell the rest.

    Counted here because the WordPiece trainer of `tokenizers` breaks ties differently from run
    to run, and the ids must not move.
    """
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for text in texts:
        text = text.lower()
        characters.update(text)
        words.update(_WORD.findall(text))
    tokens = list(SPECIAL_TOKENS)
    tokens += [c for c in _frequent(characters, MIN_CHARACTER_COUNT) if not c.isspace()]
    tokens += [c for c in _ASCII if characters[c] < MIN_CHARACTER_COUNT]
    tokens += _frequent(words, MIN_WORD_COUNT)
    tokens += [f"##{c}" for c in _ASCII]
    return {token: index for index, token in enumerate(tokens)}


def build_tokenizer(texts: Iterable[str]) -> BertTokenizer:
    """Return a fast (Rust) lower-casing BERT tokenizer over the vocabulary of these texts."""
    vocabulary = build_vocabulary(texts)
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=MAX_LENGTH)


def _frequent(counter: Counter[str], minimum: int) -> list[str]:
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return [token for token, count in ranked if count >= minimum]


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
