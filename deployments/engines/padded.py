"""Padded rows, grouped by length so that little is padding: for what can't run packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deployments.engines.forward import (
    Unchanged,
    logits_of,
    reads_any_types,
    reads_zero_types,
    takes,
)
from deployments.pipeline.types import Encoded, Float32, Int32

Int64 = npt.NDArray[np.int64]

# What starting one more forward pass costs, in tokens of padding that cost as much.
FORWARD_OVERHEAD_TOKENS = 32


class PaddedRunner:
    """Any AutoModelForSequenceClassification through its own padded forward.

    overhead_tokens: of `group_by_length`; 0 where padding changes answers. alone: each text has a
    pass of its own. unchanged: brings the model back after each pass, where one changes it.
    """

    def __init__(
        self, model: Any, overhead_tokens: int = FORWARD_OVERHEAD_TOKENS, alone: bool = False
    ) -> None:
        self.model = model
        self.unchanged: Unchanged | None = None
        self.padding_tokens = 0
        self._overhead_tokens = overhead_tokens
        self._alone = alone
        self._pad_token_id = int(getattr(model.config, "pad_token_id", None) or 0)
        self._takes = [name for name in ("input_ids", "attention_mask") if takes(model, name)]
        self._zero_types = reads_zero_types(model)
        # Texts have types only where the model's tokenizer gives it some; see `ModelParts`.
        self._any_types = reads_any_types(model)
        # BART's kin read the last end mark, and want as many in each text of a pass.
        self._end = None
        if getattr(model.config, "is_encoder_decoder", False):
            self._end = getattr(model.config, "eos_token_id", None)

    def __call__(self, batch: Encoded) -> Float32:
        """Logits float32 [n, labels], in the batch's order."""
        texts = batch.split()
        out: np.ndarray | None = None
        for group in self._groups(texts):
            values = self._forward([texts[i] for i in group])
            if out is None:
                out = np.empty((len(batch), values.shape[1]), np.float32)
            out[group] = values
        assert out is not None  # noqa: S101 - a batch has at least one text
        return out

    def _groups(self, texts: list[Encoded]) -> list[list[int]]:
        """Which texts share a pass."""
        if self._alone:
            return [[i] for i in range(len(texts))]
        alike: dict[int, list[int]] = {}
        for i, text in enumerate(texts):
            n_ends = 0 if self._end is None else int(np.isin(text.input_ids, self._end).sum())
            alike.setdefault(n_ends, []).append(i)
        groups = []
        for indices in alike.values():
            lengths = np.asarray([texts[i].total_tokens for i in indices], np.int32)
            for group in group_by_length(lengths, self._overhead_tokens):
                groups.append([indices[k] for k in group])
        return groups

    @torch.inference_mode()
    def _forward(self, texts: list[Encoded]) -> np.ndarray:
        rows = pad(texts, self._pad_token_id)
        self.padding_tokens += rows["input_ids"].size - sum(text.total_tokens for text in texts)
        names = list(self._takes)
        typed = any(text.token_type_ids is not None for text in texts)
        if self._zero_types or (self._any_types and typed):
            names.append("token_type_ids")
        tensors = {name: torch.from_numpy(rows[name]).to(self.model.device) for name in names}
        try:
            logits = logits_of(self.model(**tensors))
        finally:
            if self.unchanged is not None:
                self.unchanged.undo()
        values: np.ndarray = logits.float().cpu().numpy()
        if values.shape[:1] != (len(texts),) or values.ndim != 2:
            raise ValueError(f"logits have the shape {values.shape} for {len(texts)} texts")
        return values


def group_by_length(lengths: Int32, overhead_tokens: int) -> list[list[int]]:
    """Indices of texts to pad together, longest first.

    A group ends where its padding would cost more than one more forward pass: mixed lengths in one
    padded batch are slower than no batch at all. overhead_tokens: what starting a forward pass
    costs, in tokens that cost as much.
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
