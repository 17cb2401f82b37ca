"""Padded rows, grouped by length so that little is padding: for what can't run packed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deployments.core.engines.padding import group_by_length, pad
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
        rows = pad(texts, self._pad_token_id)
        if not self.takes_token_types:
            del rows["token_type_ids"]
        tensors = {k: torch.from_numpy(v).to(self.model.device) for k, v in rows.items()}
        logits: np.ndarray = self.model(**tensors).logits.float().cpu().numpy()
        return logits
