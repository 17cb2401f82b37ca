"""Attention inside each text of a packed row, without a mask over the whole row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from deployments.pipeline.types import Int32

# Queries that look at their neighbours together, where a model's attention is local.
WINDOW_BLOCK_TOKENS = 256
# torch's attention on a CPU with AVX-512 takes scores 16 at a time, and what is left one by one,
# which is slower than 16 more: 73 keys take longer than 96. With AVX2 nothing is gained.
_KEYS_STEP = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 1


@dataclass(frozen=True)
class Spans:
    """Where each text lies in a packed row. lengths: int32 [n], in the row's order."""

    lengths: Int32
    device: torch.device

    @property
    def n_texts(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> torch.Tensor:
        """First token of each text. int64 [n]."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        return torch.from_numpy(ends - self.lengths).to(self.device)

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """Neighbours of one length, which attention takes in one call: (texts, length)."""
        return [(len(list(same)), length) for length, same in groupby(self.lengths.tolist())]

    @cached_property
    def max_length(self) -> int:
        return int(self.lengths.max())

    @cached_property
    def cu_seqlens(self) -> torch.Tensor:
        """Cumulative lengths from 0, as varlen kernels take them. int32 [n + 1]."""
        return torch.from_numpy(np.cumsum([0, *self.lengths], dtype=np.int32)).to(self.device)

    @cached_property
    def one_each(self) -> torch.Tensor:
        """`cu_seqlens` of one query per text. int32 [n + 1]."""
        return torch.arange(self.n_texts + 1, dtype=torch.int32, device=self.device)

    def means(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over the tokens of each text. [tokens, hidden] → [n, hidden]."""
        return torch.stack([text.mean(0) for text in torch.split(values, self.lengths.tolist())])


class BufferedSpans(Spans):
    """Spans of a row whose lengths lie on the device only, as a recorded pass reads them.

    cu_seqlens: int32 [n + 1], the last of them the row's tokens. max_length: none is longer.
    """

    def __init__(self, cu_seqlens: torch.Tensor, max_length: int) -> None:
        # Frozen, so by the dict, where cached properties look first. torch.compile can't follow
        # them, so none is left for later.
        device = cu_seqlens.device
        self.__dict__.update(
            device=device,
            cu_seqlens=cu_seqlens,
            max_length=max_length,
            starts=cu_seqlens[:-1].long(),
            one_each=torch.arange(len(cu_seqlens), dtype=torch.int32, device=device),
        )

    @property
    def n_texts(self) -> int:
        return len(self.cu_seqlens) - 1

    @cached_property
    def lengths(self) -> Int32:
        """For attention that runs a call for each length, which no recorded pass can.

        Raises:
            LengthsUnknown: on a GPU.
        """
        if self.device.type != "cpu":
            raise LengthsUnknown("its attention takes a call for each length of a text")
        lengths: Int32 = self.cu_seqlens.diff().numpy()
        return lengths

    def means(self, values: torch.Tensor) -> torch.Tensor:
        """One product, whose shape doesn't depend on the lengths."""
        token = torch.arange(len(values), device=self.device)
        ends = self.cu_seqlens[1:, None]
        inside = (token >= self.cu_seqlens[:-1, None]) & (token < ends)
        sums = inside.float() @ values.float()
        return (sums / self.cu_seqlens.diff()[:, None]).to(values.dtype)


class LengthsUnknown(Exception):
    """A recorded pass asks how long its texts are. The message says what for."""


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spans: Spans,
    scale: float,
    reach: int | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of each text to itself. All tensors are [tokens, heads, head size].

    query: one row per token, or one row per text: then only first tokens ask.
    reach: tokens further apart than this don't see each other. None: all do.
    bias: [1, heads, longest, longest], added to the scores of every text (relative positions).
    """
    first_only = len(query) != len(key)
    if bias is None and _takes_varlen(query):
        return _attend_varlen(query, key, value, spans, scale, reach, first_only)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    fills = _KEYS_STEP > 1 and bias is None and query.is_cpu
    hidden = _hidden_after(spans.max_length, query) if fills else None
    token = row = 0
    for n, length in spans.runs:
        n_queries = n if first_only else n * length
        q = query[row : row + n_queries].view(n, -1, *query.shape[1:]).transpose(1, 2)
        run = out[row : row + n_queries].view(n, -1, *out.shape[1:])
        if reach is not None and length > reach + 1:
            k, v = (_keys(part, token, n, length, length) for part in (key, value))
            _attend_nearby(q, k, v, run, scale, reach)
        else:
            n_keys, mask = length, None if bias is None else bias[..., : q.shape[2], :length]
            filled = length + -length % _KEYS_STEP
            if hidden is not None and length < filled <= len(key) - token - (n - 1) * length:
                n_keys, mask = filled, hidden[:, spans.max_length - length :][:, :filled]
            k, v = (_keys(part, token, n, length, n_keys) for part in (key, value))
            run.copy_(
                scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)
            )
        token, row = token + n * length, row + n_queries
    return out


def _hidden_after(length: int, query: torch.Tensor) -> torch.Tensor:
    """A mask that shows `length` keys and hides those behind. [1, length + `_KEYS_STEP`]."""
    mask = query.new_zeros((1, length + _KEYS_STEP))
    mask[:, length:] = -torch.inf
    return mask


def _keys(part: torch.Tensor, token: int, n: int, length: int, n_keys: int) -> torch.Tensor:
    """Of n texts of one length, from a token on: [n, heads, n_keys, head size].

    More than their length: the keys behind a text, which are its neighbour's, without a copy.
    """
    seen = part[token : token + (n - 1) * length + n_keys]
    return seen.unfold(0, n_keys, length).transpose(2, 3)


def _attend_nearby(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    scale: float,
    reach: int,
) -> None:
    """Writes local attention to `out` [n, queries, heads, size] in blocks of queries.

    q, k, v: [n, heads, tokens, size]. Memory grows with the length, not with its square.
    """
    n_queries, n_keys = q.shape[2], k.shape[2]
    for first in range(0, n_queries, WINDOW_BLOCK_TOKENS):
        last = min(first + WINDOW_BLOCK_TOKENS, n_queries)
        left, right = max(0, first - reach), min(n_keys, last + reach)
        asking = torch.arange(first, last, device=q.device)[:, None]
        seen = (asking - torch.arange(left, right, device=q.device)).abs() <= reach
        out[:, first:last] = scaled_dot_product_attention(
            q[:, :, first:last],
            k[:, :, left:right],
            v[:, :, left:right],
            attn_mask=seen,
            scale=scale,
        ).transpose(1, 2)


def _takes_varlen(query: torch.Tensor) -> bool:
    """Flash attention over a packed row: half precision on a GPU."""
    return query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and _has_varlen()


def _has_varlen() -> bool:
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401
    except ImportError:
        return False
    return True


def _attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spans: Spans,
    scale: float,
    reach: int | None,
    first_only: bool,
) -> torch.Tensor:
    """`attend` in one kernel for all texts. Not run on a GPU yet."""
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        spans.one_each if first_only else spans.cu_seqlens,
        spans.cu_seqlens,
        1 if first_only else spans.max_length,
        spans.max_length,
        scale=scale,
        window_size=(-1, -1) if reach is None else (reach, reach),
    )
    assert isinstance(out, torch.Tensor)  # noqa: S101 - a tuple only where more is asked for
    return out
