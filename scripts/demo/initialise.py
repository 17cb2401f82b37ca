"""Start a small BERT from what the training texts can tell before the first gradient step.

Two thirds of a short pre-training would go into rediscovering that neighbouring characters
belong together and which characters keep the same company. Both are cheap to write down:
word embeddings from factorised co-occurrence, and first-layer heads that look at neighbours.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sparse
import torch
from sklearn.utils.extmath import randomized_svd
from torch import nn
from transformers import BertModel

from .tokens import FIRST_ORDINARY

WINDOW = 5
POSITION_SCALE = 0.022
WORD_SCALE = 0.02
HEAD_SHARPNESS = 1.2
# For each layer, the offset that each head looks at; other heads keep their random start.
HEAD_OFFSETS = ((-1, 1, -2, 2), (-1, 1))


def cooccurrence_embeddings(rows: Sequence[np.ndarray], vocabulary: int, width: int) -> np.ndarray:
    """Factorise the positive pointwise mutual information of tokens within a window."""
    gap = np.zeros(WINDOW, dtype=np.int64)
    stream = np.concatenate([part for row in rows for part in (row, gap)])
    counts = sparse.csr_matrix((vocabulary, vocabulary))
    for distance in range(1, WINDOW + 1):
        left, right = stream[:-distance], stream[distance:]
        ordinary = (left >= FIRST_ORDINARY) & (right >= FIRST_ORDINARY)
        weights = np.full(ordinary.sum(), 1 / distance)
        pairs = (left[ordinary], right[ordinary])
        counts = counts + sparse.csr_matrix((weights, pairs), shape=counts.shape)
    counts = (counts + counts.T).tocoo()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    # The context distribution is flattened (power 0.75), or rare contexts dominate.
    context = totals**0.75 / (totals**0.75).sum()
    information = np.log(counts.data / (totals[counts.row] * context[counts.col]))
    kept = information > 0
    matrix = sparse.csr_matrix(
        (information[kept], (counts.row[kept], counts.col[kept])), shape=counts.shape
    )
    vectors, strengths, _ = randomized_svd(matrix, width, random_state=0)
    vectors = vectors * np.sqrt(strengths)
    unit: np.ndarray = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-6)
    return unit


@torch.no_grad()
def start_embeddings(bert: BertModel, rows: Sequence[np.ndarray], rng: np.random.Generator) -> None:
    """Give positions the first head's width of the embedding, and words the rest."""
    embeddings, config = bert.embeddings, bert.config
    head = config.hidden_size // config.num_attention_heads
    width = config.hidden_size - head
    vectors = cooccurrence_embeddings(rows, config.vocab_size, width)
    rotation = np.linalg.qr(rng.standard_normal((width, width)))[0]
    words = vectors @ rotation * WORD_SCALE * math.sqrt(width)
    random = embeddings.word_embeddings.weight.mul(0.3)
    random[:, head:] += torch.from_numpy(words).float()
    random[:, :head] *= 0.3
    embeddings.word_embeddings.weight.copy_(random)
    embeddings.token_type_embeddings.weight.zero_()
    angles = torch.arange(config.max_position_embeddings)[:, None] * _frequencies(head)
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    embeddings.position_embeddings.weight.zero_()
    embeddings.position_embeddings.weight[:, :head] = POSITION_SCALE * waves


@torch.no_grad()
def start_neighbour_heads(bert: BertModel) -> None:
    """Turn the queries of some heads so that they attend to a fixed offset from the start."""
    head = bert.config.hidden_size // bert.config.num_attention_heads
    for layer, offsets in zip(bert.encoder.layer, HEAD_OFFSETS, strict=False):
        attention = layer.attention.self
        for index, offset in enumerate(offsets[: bert.config.num_attention_heads]):
            rows = slice(index * head, (index + 1) * head)
            for linear, turn in ((attention.query, offset), (attention.key, 0)):
                linear.weight[rows] *= 0.1
                linear.weight[rows, :head] += HEAD_SHARPNESS * _rotation(head, turn)
    for layer in bert.encoder.layer:
        for linear in (layer.attention.self.value, layer.attention.output.dense):
            _double(linear)


def _frequencies(head: int) -> torch.Tensor:
    # Spread over (0, pi) so that the waves of different offsets are orthogonal, jittered so that
    # they don't come round again after 2·head positions.
    jitter = torch.rand(head // 2, generator=torch.Generator().manual_seed(3))
    return (torch.arange(head // 2) + jitter) * math.pi / (head // 2)


def _rotation(head: int, offset: int) -> torch.Tensor:
    angles = _frequencies(head) * offset
    cos, sin = angles.cos(), angles.sin()
    blocks = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    rotation: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return rotation


def _double(linear: nn.Linear) -> None:
    linear.weight *= 2
