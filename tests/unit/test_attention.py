"""Attention inside the texts of a row, against a mask over the whole row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from deployments.engines import attention
from deployments.engines.attention import Spans, attend

CPU = torch.device("cpu")


def masked(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: list[int], reach: int | None
) -> torch.Tensor:
    text = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    position = torch.arange(len(text))
    seen = text[:, None] == text
    if reach is not None:
        seen &= (position[:, None] - position).abs() <= reach
    q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.3)[0].transpose(0, 1)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.none() | st.integers(1, 20),
    st.integers(1, 50),
    st.sampled_from((1, 4, 16)),
)
def test_each_text_sees_itself_only(
    lengths: list[int], reach: int | None, block: int, keys_step: int
) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, sum(lengths), 2, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "WINDOW_BLOCK_TOKENS", block)
        patch.setattr(attention, "_KEYS_STEP", keys_step)
        out = attend(q, k, v, Spans(np.asarray(lengths, np.int32), CPU), 0.3, reach)
    torch.testing.assert_close(out, masked(q, k, v, lengths, reach), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keys_step", [1, 16])
def test_first_tokens_alone_ask_the_same(keys_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_KEYS_STEP", keys_step)
    torch.manual_seed(0)
    spans = Spans(np.asarray([4, 4, 1, 9], np.int32), CPU)
    q, k, v = torch.randn(3, 18, 2, 8)
    everyone = attend(q, k, v, spans, 0.3)
    first = attend(q[spans.starts], k, v, spans, 0.3)
    torch.testing.assert_close(first, everyone[spans.starts])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_of_neighbours_fill_a_texts_own_up(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And weigh nothing: whatever the neighbours say, the answer stays the same to the bit."""
    monkeypatch.setattr(attention, "_KEYS_STEP", 16)
    asked: list[int] = []

    def counted(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **rest: Any) -> torch.Tensor:
        asked.append(k.shape[2])
        return scaled_dot_product_attention(q, k, v, **rest)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", counted)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 40, 2, 8).to(dtype)
    spans = Spans(np.asarray([9, 7, 7, 17], np.int32), CPU)
    before = attend(q, k, v, spans, 0.3)
    assert asked == [16, 16, 17]  # behind the last there are none
    k[9:] *= 1e4
    v[9:] *= -1e4
    assert torch.equal(attend(q, k, v, spans, 0.3)[:9], before[:9])


def test_neighbours_of_one_length_run_together() -> None:
    spans = Spans(np.asarray([7, 7, 3, 7], np.int32), CPU)
    assert spans.runs == [(2, 7), (1, 3), (1, 7)]
    assert spans.starts.tolist() == [0, 7, 14, 17]


def test_what_a_gpus_kernel_is_told() -> None:
    spans = Spans(np.asarray([7, 3], np.int32), CPU)
    assert spans.cu_seqlens.tolist() == [0, 7, 10]
    assert spans.one_each.tolist() == [0, 1, 2]
    assert spans.cu_seqlens.dtype is spans.one_each.dtype is torch.int32
    assert spans.max_length == 7
