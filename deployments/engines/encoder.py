"""One encoder for BERT and its kin: the same post-norm layer under eight names.

Their classes run query, key and value as three products and the last layer for every token. Here it
is one product, activation and residual go into the products, and where the head reads first tokens
only, the last layer computes only those. The weights are the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from deployments.engines.attention import Spans, attend
from deployments.engines.linear import ACTIVATIONS, Dense

_ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True)
class LayerParts:
    """Where one architecture keeps the modules of one layer."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.LayerNorm
    up: nn.Linear
    down: nn.Linear
    norm: nn.LayerNorm


class PostNormLayer(nn.Module):
    """One encoder layer over packed tokens. `first_only`: its output is only for first tokens."""

    def __init__(self, parts: LayerParts, heads: int, activation: str, first_only: bool) -> None:
        super().__init__()
        self.heads = heads
        self.first_only = first_only
        self.scale = float((parts.query.out_features // heads) ** -0.5)
        if first_only:
            self.query = _joined([parts.query])
            self.key_value = _joined([parts.key, parts.value])
        else:
            self.query_key_value = _joined([parts.query, parts.key, parts.value])
        self.output = _joined([parts.output])
        self.attention_norm = parts.attention_norm
        self.up = _joined([parts.up], activation)
        self.down = _joined([parts.down])
        self.norm = parts.norm

    def forward(self, x: torch.Tensor, spans: Spans, bias: torch.Tensor | None) -> torch.Tensor:
        """x [tokens, hidden] → the same; or [texts, hidden] where `first_only`."""
        if self.first_only:
            key, value = self.key_value(x).view(len(x), 2, self.heads, -1).unbind(1)
            x = x[spans.starts]
            query = self.query(x).view(len(x), self.heads, -1)
        else:
            joined = self.query_key_value(x).view(len(x), 3, self.heads, -1)
            query, key, value = joined.unbind(1)
        attended = attend(query, key, value, spans, self.scale, bias=bias)
        x = self.attention_norm(self.output(attended.flatten(1), x))
        y: torch.Tensor = self.norm(self.down(self.up(x), x))
        return y


class PostNormEncoder(nn.Module):
    """Embeddings and layers of a model that `can_encode`; the model's own are left as they are."""

    def __init__(self, model: Any, first_only: bool) -> None:
        super().__init__()
        config, base = model.config, model.base_model
        self._model_type = config.model_type
        self.embeddings = base.embeddings
        # ELECTRA's and ALBERT's embeddings may be narrower than their layers.
        self.projection = getattr(base, "embeddings_project", None) or getattr(
            base.encoder if hasattr(base, "encoder") else base, "embedding_hidden_mapping_in", None
        )
        activation = _ACTIVATION_NAMES[_activation(config)]
        heads = config.num_attention_heads
        made: dict[int, PostNormLayer] = {}  # ALBERT runs one layer many times
        sources = list(_LAYERS[self._model_type](base))
        layers = []
        for i, (source, parts) in enumerate(sources):
            last = first_only and i == len(sources) - 1
            if last or id(source) not in made:
                made[id(source)] = PostNormLayer(parts, heads, activation, last)
            layers.append(made[id(source)])
        self.layers = nn.ModuleList(layers)
        self._bias = _relative_bias(base, config) if self._model_type == "mpnet" else None

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None,
        spans: Spans,
    ) -> torch.Tensor:
        """int64 [1, tokens] each → hidden states [tokens, hidden], or [texts, hidden]."""
        kwargs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        x: torch.Tensor = self.embeddings(input_ids=input_ids, position_ids=position_ids, **kwargs)[
            0
        ]
        if self.projection is not None:
            x = self.projection(x)
        bias = self._bias
        if bias is not None:
            self._bias = bias = bias.to(x)
        for layer in self.layers:
            x = layer(x, spans, bias)
        return x


def can_encode(config: Any) -> bool:
    """Whether `PostNormEncoder` has this architecture's layers, with this configuration."""
    return (
        config.model_type in _LAYERS
        and _ACTIVATION_NAMES.get(_activation(config)) in ACTIVATIONS
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", "absolute") in ("absolute", None)
    )


def _activation(config: Any) -> str:
    # DistilBERT calls it activation, the others hidden_act.
    return str(getattr(config, "hidden_act", None) or getattr(config, "activation", None))


def _joined(linears: list[nn.Linear], activation: str | None = None) -> Dense:
    if len(linears) == 1:
        return Dense(linears[0].weight.data, linears[0].bias.data, activation)
    return Dense(
        torch.cat([linear.weight.data for linear in linears]),
        torch.cat([linear.bias.data for linear in linears]),
        activation,
    )


def _relative_bias(base: Any, config: Any) -> torch.Tensor:
    """MPNet's bias for its longest text [1, heads, tokens, tokens]; shorter ones use a corner."""
    longest = torch.empty(1, config.max_position_embeddings - 2, 1)
    bias: torch.Tensor = base.encoder.compute_position_bias(longest)
    return bias


Layers = Iterator[tuple[nn.Module, LayerParts]]


def _bert_layers(base: Any) -> Layers:
    for layer in base.encoder.layer:
        attention = layer.attention
        yield (
            layer,
            LayerParts(
                attention.self.query,
                attention.self.key,
                attention.self.value,
                attention.output.dense,
                attention.output.LayerNorm,
                layer.intermediate.dense,
                layer.output.dense,
                layer.output.LayerNorm,
            ),
        )


def _mpnet_layers(base: Any) -> Layers:
    for layer in base.encoder.layer:
        own = layer.attention.attn
        yield (
            layer,
            LayerParts(
                own.q,
                own.k,
                own.v,
                own.o,
                layer.attention.LayerNorm,
                layer.intermediate.dense,
                layer.output.dense,
                layer.output.LayerNorm,
            ),
        )


def _distilbert_layers(base: Any) -> Layers:
    for layer in base.transformer.layer:
        own = layer.attention
        yield (
            layer,
            LayerParts(
                own.q_lin,
                own.k_lin,
                own.v_lin,
                own.out_lin,
                layer.sa_layer_norm,
                layer.ffn.lin1,
                layer.ffn.lin2,
                layer.output_layer_norm,
            ),
        )


def _albert_layers(base: Any) -> Layers:
    config, encoder = base.config, base.encoder
    for i in range(config.num_hidden_layers):
        group = int(i / (config.num_hidden_layers / config.num_hidden_groups))
        for layer in encoder.albert_layer_groups[group].albert_layers:
            own = layer.attention
            yield (
                layer,
                LayerParts(
                    own.query,
                    own.key,
                    own.value,
                    own.dense,
                    own.LayerNorm,
                    layer.ffn,
                    layer.ffn_output,
                    layer.full_layer_layer_norm,
                ),
            )


_LAYERS: dict[str, Callable[[Any], Layers]] = {
    "bert": _bert_layers,
    "roberta": _bert_layers,
    "xlm-roberta": _bert_layers,
    "camembert": _bert_layers,
    "electra": _bert_layers,
    "mpnet": _mpnet_layers,
    "distilbert": _distilbert_layers,
    "albert": _albert_layers,
}


Head = Callable[[Any, torch.Tensor], torch.Tensor]
"""(model, pooled hidden states [n, hidden]) → logits [n, labels]."""


def _pooler(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    # The pooler and the heads below take the first of [n, tokens, hidden] themselves.
    logits: torch.Tensor = model.classifier(model.base_model.pooler(pooled[:, None]))
    return logits


def _albert(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    base = model.base_model
    logits: torch.Tensor = model.classifier(base.pooler_activation(base.pooler(pooled)))
    return logits


def _distilbert(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.classifier(model.pre_classifier(pooled).relu())
    return logits


def _first_of_tokens(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.classifier(pooled[:, None])
    return logits


def _context(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.classifier(model.pooler(pooled[:, None]))
    return logits


def _modernbert(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.classifier(model.head(pooled))
    return logits


HEADS: dict[str, Head] = {
    "bert": _pooler,
    "roberta": _first_of_tokens,
    "xlm-roberta": _first_of_tokens,
    "camembert": _first_of_tokens,
    "electra": _first_of_tokens,
    "mpnet": _first_of_tokens,
    "albert": _albert,
    "deberta": _context,
    "deberta-v2": _context,
    "distilbert": _distilbert,
    "modernbert": _modernbert,
}
"""`model_type` of config.json → head."""


def pools_mean(config: Any) -> bool:
    """Whether the head reads the mean of all tokens; else the first token."""
    return getattr(config, "classifier_pooling", "cls") == "mean"
