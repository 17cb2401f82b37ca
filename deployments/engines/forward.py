"""How a class's own forward is called, and what of it another call would not find again."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from deployments.engines.ids import Ids, marks_of


def takes(model: Any, name: str) -> bool:
    """Whether the class's forward names this argument."""
    return name in inspect.signature(model.forward).parameters


def takes_token_types(model: Any) -> bool:
    """Whether the class's forward has `token_type_ids`."""
    return takes(model, "token_type_ids")


def reads_zero_types(model: Any) -> bool:
    """Whether texts without types are texts of type 0 to the model.

    Others take none at all for them: GPT-2 adds the embedding of a *word* for each type.
    """
    return takes_token_types(model) and int(getattr(model.config, "type_vocab_size", 0) or 0) > 0


def reads_any_types(model: Any) -> bool:
    """Whether it takes types, where a text has some, of which its config names no rows."""
    return takes_token_types(model) and not reads_zero_types(model)


def ids_of(model: Any, max_length: int) -> Ids:
    """What of token ids this model reads."""
    config = model.config
    n_types: int | None = 0
    if reads_any_types(model):
        n_types = None
    elif reads_zero_types(model):
        n_types = _type_rows(model)
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, list | tuple):
        end = end[0] if end else None
    reads_end = bool(getattr(config, "is_encoder_decoder", False))
    return Ids(
        n_ids=_rows(model),
        n_types=n_types,
        max_tokens=max_length,
        marks=marks_of(config.to_dict()),
        end=int(end) if reads_end and end is not None else None,
    )


def logits_of(output: Any) -> torch.Tensor:
    """Also of a model whose config.json says `return_dict: false`."""
    logits: torch.Tensor = output[0] if isinstance(output, tuple) else output.logits
    return logits


def _rows(model: Any) -> int | None:
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        # CANINE, which hashes code points, names no size either: any id has its row.
        return getattr(model.config, "vocab_size", None)
    return int(weight.shape[0])


def _type_rows(model: Any) -> int:
    rows = [
        module.num_embeddings
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("token_type_embeddings")
    ]
    return min([*rows, int(model.config.type_vocab_size)])


class Unchanged:
    """A model as it is now, but for its weights: a pass that changes it can be undone.

    BigBird exchanges its attention for another class when it meets a short text, for good: the
    answer to one text must not depend on which came before.
    """

    def __init__(self, model: nn.Module) -> None:
        self._before = [(module, _state(module)) for module in model.modules()]

    def undo(self) -> bool:
        """Brings everything back; whether a pass had changed anything."""
        changed = [(m, state) for m, state in self._before if not _same(_state(m), state)]
        for module, state in changed:
            for name in set(module.__dict__) - set(state):
                del module.__dict__[name]
            for name, value in state.items():
                module.__dict__[name] = dict(value) if name in _TABLES else value
        return bool(changed)


_TABLES = ("_buffers", "_modules")
"""What `nn.Module` keeps in dicts of its own."""


def _state(module: nn.Module) -> dict[str, Any]:
    state = dict(module.__dict__)
    for name in _TABLES:
        state[name] = dict(state[name])
    return state


def _same(now: dict[str, Any], before: dict[str, Any]) -> bool:
    return now.keys() == before.keys() and all(
        _equal(now[name], before[name], name in _TABLES) for name in now
    )


def _equal(now: Any, before: Any, table: bool) -> bool:
    if table:
        return now.keys() == before.keys() and all(now[k] is before[k] for k in now)
    if now is before:
        return True
    return (
        isinstance(now, str | int | float | tuple) and type(now) is type(before) and now == before
    )
