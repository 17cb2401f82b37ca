"""The model that a training starts from: loaded, its head, and whether it can read the texts."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from deployments.pipeline.tasks.text_classification import REGRESSION

MOST_UNKNOWN = 0.5
"""Share of unknown tokens above which the texts all look alike to a model."""
_CANNOT_LOAD = (
    OSError,
    ValueError,
    KeyError,
    ImportError,  # the library of a tokenizer
    RuntimeError,
    pickle.UnpicklingError,
    SafetensorError,
)
_WANTED = (
    "Name a directory or a hub id of an encoder that transformers has with a classifier's head, "
    "and with a tokenizer."
)


class BadBase(Exception):
    """The model to start from can't be used. The message says why, and what can."""


def loaded(base: str, labels: Sequence[str], problem_type: str) -> tuple[Any, Any, bool]:
    """Tokenizer, model, and whether its head for these labels is new. Raises BadBase."""
    # Its report of a head that is new would look like a fault.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    names = dict(enumerate(labels))
    refuse_no_directory(base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        config = AutoConfig.from_pretrained(base)
        had = any("ForSequenceClassification" in one for one in config.architectures or ())
        fits = had and config.num_labels == len(labels)
        # A number has no name that could differ.
        same = fits and (problem_type == REGRESSION or dict(config.id2label) == names)
        model = AutoModelForSequenceClassification.from_pretrained(
            base,
            dtype=torch.float32,
            num_labels=len(labels),
            id2label=names,
            label2id={name: i for i, name in names.items()},
            ignore_mismatched_sizes=True,
        )
    except _CANNOT_LOAD as exc:
        said = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise BadBase(f"{base} can't be trained: {said[:200]} {_WANTED}") from exc
    if tokenizer.pad_token_id is None:
        raise BadBase(
            f"{base} can't be trained: its tokenizer has no padding token, so texts of several "
            "lengths make no batch. Name an encoder, or set pad_token in tokenizer_config.json."
        )
    if fits and not same and (head := head_of(model)) is not None:
        # It tells other labels apart: what it knows would point the wrong way.
        nn.init.normal_(head.weight, std=getattr(config, "initializer_range", None) or 0.02)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
    model.config.problem_type = problem_type
    return tokenizer, model, not same


def refuse_no_directory(model: str) -> None:
    """Raises BadBase: it looks like a path, and no such directory exists."""
    if model.startswith((".", "/", "~")) and not Path(model).is_dir():
        raise BadBase(f"there is no directory {model}: name the one that holds config.json.")


def ordered_as(base: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels, in the base's order where it has the same ones: its head then stays of use."""
    try:
        names = AutoConfig.from_pretrained(base).id2label
    except _CANNOT_LOAD:  # `loaded` tells why
        return tuple(labels)
    own = tuple(names[i] for i in sorted(names))
    return own if sorted(own) == sorted(labels) else tuple(labels)


def positions_of(tokenizer: Any, model: Any) -> int:
    """Tokens that the model reads."""
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    # RoBERTa and its kin count from the padding's id on.
    if getattr(model.config, "model_type", "") in {"roberta", "xlm-roberta", "camembert"}:
        positions -= (model.config.pad_token_id or 0) + 1
    return int(min(positions, tokenizer.model_max_length))


def share_unknown(base: str, tokenizer: Any, model: Any, ids: Sequence[Sequence[int]]) -> float:
    """Of the tokens of some texts, those that the tokenizer does not know.

    Raises:
        BadBase: most are unknown, or the model has no embedding for some.
    """
    special = {one for one in tokenizer.all_special_ids if one != tokenizer.unk_token_id}
    every = [one for row in ids for one in row if one not in special]
    n_embeddings = model.get_input_embeddings().num_embeddings
    if (most := max(every, default=0)) >= n_embeddings:
        raise BadBase(
            f"{base} can't be trained: its tokenizer gives token {most:,}, and the model has "
            f"embeddings for {n_embeddings:,}. The two are not of the same model."
        )
    share: float = sum(one == tokenizer.unk_token_id for one in every) / max(1, len(every))
    if share > MOST_UNKNOWN:
        raise BadBase(
            f"{base} can't be trained: {share:.0%} of the texts' tokens are unknown to its "
            "tokenizer. Name a base of the texts' language, with the files of its tokenizer."
        )
    return share


def head_of(model: Any) -> nn.Linear | None:
    """The layer that makes the logits; None where it is of another kind."""
    inside = {id(one) for one in model.base_model.modules()} - {id(model)}
    found = [
        one
        for one in model.modules()
        if isinstance(one, nn.Linear)
        and id(one) not in inside
        and one.out_features == model.config.num_labels
    ]
    return found[-1] if found else None


@torch.no_grad()
def rescale(model: Any, times: float, plus: float) -> None:
    """Makes it answer `times` · what it did `+ plus`. Its head needs a bias."""
    if (head := head_of(model)) is not None:
        head.weight.mul_(times)
        head.bias.mul_(times).add_(plus)
