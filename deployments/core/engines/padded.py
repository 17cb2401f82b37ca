"""Padded rows, grouped by length so that little is padding: for what can't run packed."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch

from deployments.core.engines.padding import group_by_length, pad
from deployments.core.types import Encoded, Float32

# What starting one more forward pass costs, in tokens of padding that cost as much.
FORWARD_OVERHEAD_TOKENS = 32


def takes_token_types(model: Any) -> bool:
    """Whether the class's forward has `token_type_ids`."""
    return "token_type_ids" in inspect.signature(model.forward).parameters


def reads_zero_types(model: Any) -> bool:
    """Whether texts without types are texts of type 0 to the model.

    Others take none at all for them: GPT-2 adds the embedding of a *word* for each type.
    """
    return takes_token_types(model) and int(getattr(model.config, "type_vocab_size", 0) or 0) > 0


class PaddedRunner:
    """Any AutoModelForSequenceClassification through its own padded forward.

    overhead_tokens: of `group_by_length`; 0 where padding changes answers.
    """

    def __init__(self, model: Any, overhead_tokens: int = FORWARD_OVERHEAD_TOKENS) -> None:
        self.model = model
        self.overhead_tokens = overhead_tokens
        self._pad_token_id = int(getattr(model.config, "pad_token_id", None) or 0)
        self._zero_types = reads_zero_types(model)
        # Texts have types only where the model's tokenizer gives it some; see `ModelParts`.
        self._typed = takes_token_types(model)

    def __call__(self, batch: Encoded) -> Float32:
        """Logits float32 [n, labels], in the batch's order."""
        texts = batch.split()
        out: np.ndarray | None = None
        for group in group_by_length(batch.lengths, self.overhead_tokens):
            values = self._forward([texts[i] for i in group])
            if out is None:
                out = np.empty((len(batch), values.shape[1]), np.float32)
            out[group] = values
        assert out is not None  # noqa: S101 - a batch has at least one text
        return out

    @torch.inference_mode()
    def _forward(self, texts: list[Encoded]) -> np.ndarray:
        rows = pad(texts, self._pad_token_id)
        typed = self._typed and any(text.token_type_ids is not None for text in texts)
        if not (typed or self._zero_types):
            del rows["token_type_ids"]
        tensors = {k: torch.from_numpy(v).to(self.model.device) for k, v in rows.items()}
        logits: np.ndarray = self.model(**tensors).logits.float().cpu().numpy()
        return logits
