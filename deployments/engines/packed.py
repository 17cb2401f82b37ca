"""Texts without padding: all of a batch in one row, each attending to itself only."""

from __future__ import annotations

import heapq
import threading
import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from deployments.engines import disentangled
from deployments.engines.attention import Spans, attend
from deployments.engines.encoder import HEADS, PostNormEncoder, can_encode, pools_mean
from deployments.engines.forward import takes_token_types
from deployments.engines.side_by_side import Faster, SideBySide
from deployments.pipeline.types import Encoded, Float32

# A CPU's rows are cut so that a layer's activations stay in its cache; see `Engine.row_tokens`.
CPU_ROW_TOKENS = 512
# oneDNN makes a program for each number of tokens and layer, in milliseconds and up to 2 MB, and
# keeps a thousand. So rows are filled up to few sizes: multiples of 8, and 16 sizes an octave, 6 %
# more at most. A service soon has met all of them.
_SMALLEST_STEP = 8
_SIZES_PER_OCTAVE = 16


class CannotPack(Exception):
    """This model can't run packed. The message says why, for `batching_reason`."""


class StockEncoder(nn.Module):
    """The class's own encoder, with attention that keeps to each text of the packed row."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.base = model.base_model
        self.base.set_attn_implementation("packed")

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None,
        spans: Spans,
    ) -> torch.Tensor:
        """int64 [1, tokens] each → hidden states [tokens, hidden]."""
        kwargs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.base(
            input_ids=input_ids, position_ids=position_ids, packed_spans=spans, **kwargs
        )
        hidden: torch.Tensor = output[0][0]
        return hidden


class PackedRunner:
    """Runs a model packed. stock: in its class's own encoder, though there is a faster one here.

    On a CPU with the threads that torch has now; see side_by_side.py.

    Raises:
        CannotPack: its architecture has no head here, or attention that can't be told where a
            text ends. The model is as it was.
    """

    def __init__(self, model: Any, stock: bool = False) -> None:
        config = model.config
        if config.model_type not in HEADS:
            raise CannotPack(f"{type(model).__name__} has no head here")
        if getattr(config, "is_decoder", False):
            raise CannotPack("is_decoder is true in config.json: a token sees only those before it")
        if stock and not can_encode(config):
            raise CannotPack(f"{type(model).__name__} runs in its own encoder anyway")
        self.model = model
        self.row_tokens = CPU_ROW_TOKENS
        self.padding_tokens = 0
        self._head = HEADS[config.model_type]
        self._mean = pools_mean(config)
        self._n_threads = torch.get_num_threads()
        self._side_by_side: SideBySide | None = None
        # Few texts make uneven rows, so batches are judged by their texts a thread: none, 1, 2 or
        # 3, more.
        self._faster = tuple(Faster() for _ in range(4))
        self._counting = threading.Lock()  # rows side by side count their padding too
        self.takes_token_types = takes_token_types(model)
        self._first_position, self._pad_token_id = _positions(model)
        self.encoder: nn.Module
        if can_encode(config) and not stock:
            self.encoder = PostNormEncoder(model, first_only=not self._mean)
        elif config.model_type in disentangled.TYPES:
            if getattr(model.base_model, "z_steps", 0) > 1:
                raise CannotPack(f"{type(model).__name__} runs its last layer several times")
            self.encoder = disentangled.DisentangledEncoder(model)
        elif getattr(model, "_supports_attention_backend", False):
            self.encoder = StockEncoder(model)
        else:
            raise CannotPack(f"{type(model).__name__} has an attention of its own")

    def __call__(self, batch: Encoded) -> Float32:
        """Logits float32 [n, labels], in the batch's order."""
        if not self._on_cpu:
            order, rows = _rows(batch.lengths, None)
            return self._in_order(order, [self._run(row) for row in _split(batch, order, rows)])
        if self._n_threads == 1 or len(batch) == 1:
            return self._on_threads(batch, side_by_side=False)
        texts_a_thread = len(batch) // self._n_threads
        faster = self._faster[min(texts_a_thread.bit_length(), len(self._faster) - 1)]
        way, started = faster.choose(batch.total_tokens), time.perf_counter()
        logits = self._on_threads(batch, way)
        faster.took(way, time.perf_counter() - started, batch.total_tokens)
        return logits

    def _on_threads(self, batch: Encoded, side_by_side: bool) -> Float32:
        if not side_by_side:
            order, rows = _rows(batch.lengths, self.row_tokens)
            return self._in_order(order, [self._run(row) for row in _split(batch, order, rows)])
        if self._side_by_side is None:
            self._side_by_side = SideBySide(self._n_threads)
        order, rows = _even_rows(batch.lengths, self.row_tokens, self._n_threads)
        return self._in_order(order, self._side_by_side(self._run, _split(batch, order, rows)))

    def _in_order(self, order: np.ndarray, parts: list[torch.Tensor]) -> Float32:
        logits = torch.cat(parts)
        out = np.empty(logits.shape, np.float32)
        out[order] = logits.float().cpu().numpy()
        return out

    def release(self) -> None:
        """Frees what the class's own forward needs and this doesn't: it can't be called again."""
        if isinstance(self.encoder, PostNormEncoder):
            for name in ("encoder", "transformer"):
                if hasattr(self.model.base_model, name):
                    setattr(self.model.base_model, name, nn.Identity())

    @property
    def _on_cpu(self) -> bool:
        return bool(self.model.device.type == "cpu")

    @torch.inference_mode()
    def _run(self, row: Encoded) -> torch.Tensor:
        device, n, texts = self.model.device, len(row), row
        if self._on_cpu:
            row = _filled(texts)
            with self._counting:
                self.padding_tokens += row.total_tokens - texts.total_tokens
        types = None
        if self.takes_token_types and row.token_type_ids is not None:
            types = _to_device(row.token_type_ids, device)
        elif self.takes_token_types:
            types = torch.zeros((1, row.total_tokens), dtype=torch.long, device=device)
        logits = self.forward(
            _to_device(row.input_ids, device),
            _to_device(self.positions(row), device),
            types,
            Spans(row.lengths, device),
        )
        logits = logits[:n]
        if self._on_cpu and n > 1 and not torch.isfinite(logits).all():
            # A neighbour's keys weigh nothing (see `attend`), but nothing times NaN is NaN.
            return torch.cat([self._run(text) for text in texts.split()])
        return logits

    def positions(self, row: Encoded) -> np.ndarray:
        """Positions as this class counts them, anew with each text. int64 [tokens]."""
        return _position_ids(row, self._first_position, self._pad_token_id)

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None,
        spans: Spans,
    ) -> torch.Tensor:
        """int64 [1, tokens] each, on the model's device → logits [texts, labels] there."""
        hidden = self.encoder(input_ids, position_ids, token_type_ids, spans)
        if self._mean:
            pooled = spans.means(hidden)
        else:
            pooled = hidden if len(hidden) == spans.n_texts else hidden[spans.starts]
        return self._head(self.model, pooled)


def _rows(lengths: np.ndarray, max_tokens: int | None) -> tuple[np.ndarray, list[slice]]:
    """The order in which texts are packed, longest first, and which of them share a row.

    Equal lengths lie side by side, as attention takes them together. A text over `max_tokens` has
    a row of its own. None: all in one row.
    """
    order = np.argsort(-lengths, kind="stable")
    if max_tokens is None:
        return order, [slice(0, len(order))]
    rows, first, tokens = [], 0, 0
    for i, length in enumerate(lengths[order].tolist()):
        if tokens + length > max_tokens and i > first:
            rows.append(slice(first, i))
            first, tokens = i, 0
        tokens += length
    rows.append(slice(first, len(order)))
    return order, rows


def _even_rows(
    lengths: np.ndarray, max_tokens: int, n_threads: int
) -> tuple[np.ndarray, list[slice]]:
    """As `_rows`, but as many rows for each thread, of about as many tokens.

    Longest first, each text to the row with the fewest tokens (Graham 1969, doi 10.1137/0117039).
    """
    n_rows = n_threads * -(-int(lengths.sum()) // (n_threads * max_tokens))
    rows: list[list[int]] = [[] for _ in range(min(n_rows, len(lengths)))]
    filled = [(0, i) for i in range(len(rows))]
    for text in np.argsort(-lengths, kind="stable").tolist():
        tokens, i = filled[0]
        rows[i].append(text)
        heapq.heapreplace(filled, (tokens + int(lengths[text]), i))
    ends = np.cumsum([len(row) for row in rows]).tolist()
    return np.concatenate(rows), [slice(a, b) for a, b in pairwise([0, *ends])]


def _split(batch: Encoded, order: np.ndarray, rows: list[slice]) -> list[Encoded]:
    texts = batch.split()
    return [Encoded.concat([texts[i] for i in order[row]]) for row in rows]


def row_size(n_tokens: int) -> int:
    """The next size of a CPU's row, in tokens; of more than 8 texts too."""
    octave = 1 << (n_tokens.bit_length() - 1)
    step = max(_SMALLEST_STEP, octave // _SIZES_PER_OCTAVE)
    return n_tokens + -n_tokens % step


def _filled(row: Encoded) -> Encoded:
    """The row with texts of nothing behind it, where its tokens or texts are none of the sizes.

    The last layer runs over first tokens only: there it is texts that make a shape.
    """
    n, tokens, longest = len(row), row.total_tokens, int(row.lengths.max())
    if row_size(tokens) == tokens and _text_size(n) == n:
        return row
    # None is longer than the row's own: the model may have no more positions.
    more = _text_size(n + 1) - n
    while row_size(tokens + more) - tokens > more * longest:
        more = _text_size(n + more + 1) - n
    return filled_up(row, more, row_size(tokens + more) - tokens)


def filled_up(row: Encoded, n_texts: int, n_tokens: int) -> Encoded:
    """The row with so many texts of nothing behind it, which share so many tokens evenly."""
    lengths = np.full(n_texts, n_tokens // n_texts, np.int32)
    lengths[: n_tokens % n_texts] += 1
    return Encoded.concat([row, Encoded(np.zeros(n_tokens, np.int32), lengths)])


def _text_size(n_texts: int) -> int:
    return 1 << (n_texts - 1).bit_length() if n_texts <= _SMALLEST_STEP else row_size(n_texts)


def _positions(model: Any) -> tuple[int, int | None]:
    """Number of a text's first position; and the id that RoBERTa's kin count no position for."""
    padding = getattr(getattr(model.base_model, "embeddings", None), "padding_idx", None)
    return (0, None) if padding is None else (int(padding) + 1, int(padding))


def _position_ids(row: Encoded, first: int, pad_token_id: int | None) -> np.ndarray:
    """Positions that start anew with each text. int64 [tokens]."""
    starts = np.cumsum(row.lengths, dtype=np.int64) - row.lengths
    counted = np.ones(row.total_tokens, np.int64)
    if pad_token_id is not None:
        counted[row.input_ids == pad_token_id] = 0
    upto = np.cumsum(counted)
    before = np.repeat(upto[starts] - counted[starts], row.lengths)
    return np.where(counted == 1, upto - before - 1 + first, first - 1)


def _to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64))[None].to(device)


def _packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed_spans: Spans | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: [1, heads, tokens, size] → [1, tokens, heads, size]."""
    if packed_spans is None:
        raise CannotPack(
            f"{type(module).__name__} doesn't hand its attention what it is called with"
        )
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    out = attend(
        q,
        k,
        v,
        packed_spans,
        scaling if scaling is not None else float(query.shape[-1] ** -0.5),
        # transformers counts the token itself, as flash attention's interface does.
        reach=None if sliding_window is None else sliding_window - 1,
    )
    return out[None], None


AttentionInterface.register("packed", _packed_attention)
AttentionMaskInterface.register("packed", lambda *args, **kwargs: None)
