"""Smaller models made of a larger one: fewer layers, narrower feed-forward parts.

The results are models of the same class, plain directories that transformers loads: what is cut off
is gone, so that they run faster on any engine. Whole layers and feed-forward neurons can go this
way. Heads can't: BERT and its kin tie the width of all heads to that of the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

_WIDTHS = ("intermediate_size", "hidden_dim")
_DEPTHS = ("num_hidden_layers", "n_layers")


class CannotShrink(Exception):
    """This model can't be made smaller so. The message says why."""


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The two linear layers of one encoder layer: hidden → wide → hidden."""

    wide: nn.Linear
    back: nn.Linear


def layers_of(model: Any) -> nn.ModuleList:
    """The encoder's layers, first to last.

    Raises:
        CannotShrink: there are none to be told apart, as in ALBERT, whose layers are one.
    """
    depth = _get(model.config, _DEPTHS)
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise CannotShrink(
        f"{type(model).__name__} has no list of {depth} encoder layers. Take a student of another "
        "class: --student."
    )


def feed_forwards(model: Any) -> list[FeedForward]:
    """Of each layer. Raises CannotShrink where they have another form, as in ModernBERT."""
    width, hidden = _get(model.config, _WIDTHS), model.config.hidden_size
    found = []
    for layer in layers_of(model):
        linear = [module for module in layer.modules() if isinstance(module, nn.Linear)]
        wide = [m for m in linear if (m.in_features, m.out_features) == (hidden, width)]
        back = [m for m in linear if (m.in_features, m.out_features) == (width, hidden)]
        if len(wide) != 1 or len(back) != 1 or width == hidden:
            raise CannotShrink(
                f"{type(model).__name__} has no feed-forward part of two linear layers: its width "
                "can't be cut. --layers can."
            )
        found.append(FeedForward(wide[0], back[0]))
    return found


def evenly(n_layers: int, n_kept: int) -> list[int]:
    """Places of the layers to keep: the first, the last, and between them as evenly as can be.

    Raises:
        CannotShrink: there are fewer.
    """
    if n_kept > n_layers:
        raise CannotShrink(f"the model has {n_layers} layers; {n_kept} are asked for.")
    return sorted({round(place) for place in np.linspace(0, n_layers - 1, n_kept)}) or [0]


def with_layers(model: Any, kept: Sequence[int]) -> Any:
    """A copy with these layers only, in this order."""
    depth = len(layers_of(model))
    if not kept or not all(0 <= place < depth for place in kept):
        raise CannotShrink(
            f"the model has the layers 0 to {depth - 1}; {list(kept)} are asked for."
        )
    student = copy.deepcopy(model)
    layers = layers_of(student)
    chosen = [layers[place] for place in kept]
    del layers[:]
    layers.extend(chosen)
    config = student.config
    # As in ModernBERT, whose layers see all tokens or near ones, by place.
    types = getattr(config, "layer_types", None)
    _set(config, _DEPTHS, len(chosen))
    if isinstance(types, list) and len(types) == depth:
        config.layer_types = [types[place] for place in kept]
    return student


def with_width(model: Any, kept: Sequence[Sequence[int]]) -> Any:
    """A copy whose feed-forward parts keep these neurons of each layer, as many in each."""
    student = copy.deepcopy(model)
    for part, places in zip(feed_forwards(student), kept, strict=True):
        chosen = torch.as_tensor(sorted(places))
        part.wide.weight = nn.Parameter(part.wide.weight.data[chosen])
        part.back.weight = nn.Parameter(part.back.weight.data[:, chosen])
        if part.wide.bias is not None:
            part.wide.bias = nn.Parameter(part.wide.bias.data[chosen])
        part.wide.out_features = part.back.in_features = len(chosen)
    _set(student.config, _WIDTHS, len(kept[0]))
    return student


def importances(model: Any, losses: Iterable[Callable[[], torch.Tensor]]) -> list[torch.Tensor]:
    """What the loss would change without a neuron, to first order, by layer: float32 [width].

    losses: of some batches. |activation x gradient| summed over rows (Molchanov et al. 2017,
    "Pruning Convolutional Neural Networks for Resource Efficient Inference", eq. 7).
    """
    parts = feed_forwards(model)
    found = [torch.zeros(part.wide.out_features) for part in parts]
    inputs: list[torch.Tensor | None] = [None] * len(parts)

    def keep(place: int) -> Callable[..., None]:
        def hook(_: Any, args: tuple[torch.Tensor]) -> None:
            args[0].retain_grad()
            inputs[place] = args[0]

        return hook

    hooks = [part.back.register_forward_pre_hook(keep(i)) for i, part in enumerate(parts)]
    try:
        for loss in losses:
            loss().backward()  # type: ignore[no-untyped-call]
            for i, value in enumerate(inputs):
                assert value is not None  # noqa: S101 - every part runs in a forward pass
                assert value.grad is not None  # noqa: S101
                taylor = (value.detach() * value.grad).flatten(0, -2)
                found[i] += taylor.abs().sum(0).cpu()
            model.zero_grad()
    finally:
        for one in hooks:
            one.remove()
    return found


def _get(config: Any, names: Sequence[str]) -> int:
    for name in names:
        if isinstance(value := getattr(config, name, None), int):
            return value
    raise CannotShrink(f"the model's config has none of {', '.join(names)}.")


def _set(config: Any, names: Sequence[str], value: int) -> None:
    name = next(name for name in names if isinstance(getattr(config, name, None), int))
    setattr(config, name, value)
