"""Padded rows, grouped by length so that little is padding: for what can't run packed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deployments.core.types import Encoded, Float32

# What starting one more forward pass costs, in tokens of padding that cost as much.
FORWARD_OVERHEAD_TOKENS = 32


class PaddedRunner:
    """Any AutoModelForSequenceClassification through its own padded forward."""

    def __init__(self, model: Any, takes_token_types: bool) -> None:
        self.model = model
        self._pad_token_id = int(getattr(model.config, "pad_token_id", None) or 0)
        self.takes_token_types = takes_token_types

    def __call__(self, batch: Encoded) -> Float32:
        """Logits float32 [n, labels], in the batch's order."""
        texts = batch.split()
        out: np.ndarray | None = None
        for group in group_by_length(batch.lengths, FORWARD_OVERHEAD_TOKENS):
            values = self._forward([texts[i] for i in group])
            if out is None:
                out = np.empty((len(batch), values.shape[1]), np.float32)
            out[group] = values
        assert out is not None  # noqa: S101 - a batch has at least one text
        return out

    @torch.inference_mode()
    def _forward(self, texts: list[Encoded]) -> np.ndarray:
        shape = (len(texts), max(text.total_tokens for text in texts))
        input_ids = np.full(shape, self._pad_token_id, np.int64)
        attention_mask = np.zeros(shape, np.int64)
        token_types = np.zeros(shape, np.int64)
        for row, text in enumerate(texts):
            input_ids[row, : text.total_tokens] = text.input_ids
            attention_mask[row, : text.total_tokens] = 1
            if text.token_type_ids is not None:
                token_types[row, : text.total_tokens] = text.token_type_ids
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.takes_token_types:
            arrays["token_type_ids"] = token_types
        tensors = {k: torch.from_numpy(v).to(self.model.device) for k, v in arrays.items()}
        logits: np.ndarray = self.model(**tensors).logits.float().cpu().numpy()
        return logits


def group_by_length(lengths: np.ndarray, overhead_tokens: int) -> list[list[int]]:
    """Indices of texts to pad together, longest first.

    A group ends where its padding would cost more than one more forward pass: mixed lengths in one
    padded batch are slower than no batch at all.
    """
    groups: list[list[int]] = []
    padding = longest = 0
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        padding += longest - length
        if not groups or padding > overhead_tokens:
            groups.append([])
            longest, padding = length, 0
        groups[-1].append(i)
    return groups
