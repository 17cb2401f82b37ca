"""DeBERTa without padding: attention by relative positions inside runs of equal length, the rest in
one row.

Its scores depend on the distance of two tokens, so texts of one length share a table of distances
and a call; that of another length needs another. Everything that works token by token takes all
texts at once. The attention is the class's own, which keeps it exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from deployments.engines.attention import Spans

TYPES = ("deberta", "deberta-v2")
"""`model_type` of DeBERTa v1, and of v2 and v3."""


class DisentangledEncoder(nn.Module):
    """He et al. 2021 (arXiv:2006.03654, 2111.09543), as transformers has it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings = model.base_model.embeddings
        self.inner = model.base_model.encoder

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None,
        spans: Spans,
    ) -> torch.Tensor:
        """int64 [1, tokens] each → hidden states [tokens, hidden]."""
        hidden: torch.Tensor = self.embeddings(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids
        )[0]
        distances = self.inner.get_rel_embedding()
        all_seen = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=hidden.device)
        shapes = [(n, length, hidden.shape[1]) for n, length in spans.runs]
        sizes = [n * length for n, length in spans.runs]
        between = [
            self.inner.get_rel_pos(run.view(shape))
            for run, shape in zip(torch.split(hidden, sizes), shapes, strict=True)
        ]
        convolution = getattr(self.inner, "conv", None)
        for number, layer in enumerate(self.inner.layer):
            runs = [
                run.view(shape)
                for run, shape in zip(torch.split(hidden, sizes), shapes, strict=True)
            ]
            seen = [
                layer.attention.self(
                    run, all_seen, relative_pos=positions, rel_embeddings=distances
                )[0].reshape(-1, hidden.shape[1])
                for run, positions in zip(runs, between, strict=True)
            ]
            attended = layer.attention.output(torch.cat(seen), hidden)
            hidden = layer.output(layer.intermediate(attended), attended)
            if number == 0 and convolution is not None:
                parts = zip(runs, torch.split(hidden, sizes), shapes, strict=True)
                hidden = torch.cat(
                    [
                        convolution(
                            before, after.view(shape), torch.ones(shape[:2], device=hidden.device)
                        ).reshape(-1, hidden.shape[1])
                        for before, after, shape in parts
                    ]
                )
        return hidden
