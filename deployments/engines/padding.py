"""Texts of a batch as padded rows, grouped by length so that little is padding. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deployments.pipeline.types import Encoded, Int32

Int64 = npt.NDArray[np.int64]


def group_by_length(
    lengths: Int32, overhead_tokens: int, max_tokens: int | None = None
) -> list[list[int]]:
    """Indices of texts to pad together, longest first.

    A group ends where its padding would cost more than one more forward pass: mixed lengths in one
    padded batch are slower than no batch at all. overhead_tokens: what starting a forward pass
    costs, in tokens that cost as much. max_tokens: a group is no larger, padding included, unless
    it is one text.
    """
    groups: list[list[int]] = []
    padding = longest = 0
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        padding += longest - length
        full = bool(groups and max_tokens and (len(groups[-1]) + 1) * longest > max_tokens)
        if not groups or full or padding > overhead_tokens:
            groups.append([])
            longest, padding = length, 0
        groups[-1].append(i)
    return groups


def pad(texts: Sequence[Encoded], pad_token_id: int) -> dict[str, Int64]:
    """`input_ids`, `attention_mask` and `token_type_ids` of one text each, int64 [n, longest]."""
    shape = (len(texts), max(text.total_tokens for text in texts))
    input_ids = np.full(shape, pad_token_id, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    token_type_ids = np.zeros(shape, np.int64)
    for row, text in enumerate(texts):
        input_ids[row, : text.total_tokens] = text.input_ids
        attention_mask[row, : text.total_tokens] = 1
        if text.token_type_ids is not None:
            token_type_ids[row, : text.total_tokens] = text.token_type_ids
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "token_type_ids": token_type_ids,
    }
