"""A loaded model beside transformers' own forward pass in float32, from text to logits."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from deployments.engines.loaded import REFUSALS, Loaded
from deployments.model.source import own_words
from deployments.pipeline.types import Float32, TextInput
from deployments.settings import ModelSettings

N_TEXTS = 24
N_PAIRS = 8


def measured_drift(settings: ModelSettings, loaded: Loaded) -> float:
    """Largest difference of a logit on probe texts and pairs, per unit of the largest logit (1 at
    least). transformers gets text by text, as its text-classification pipeline gives it.

    Raises:
        ModelNotFound: transformers can't run the model on plain texts.
    """
    from deployments.engines import parity
    from deployments.engines.loading import load_model
    from deployments.model.probe import probe_texts
    from deployments.model.reading import auto_tokenizer

    texts = probe_texts()
    inputs = [TextInput(text) for text in texts[:N_TEXTS]]
    inputs += [TextInput(a, b) for a, b in zip(texts[:N_PAIRS], texts[-N_PAIRS:], strict=True)]
    encoded = loaded.parts.encoder().encode(inputs)
    logits = loaded.engine.predict(encoded.batch)
    fit = [k for k in range(len(encoded.index)) if k not in (logits.errors or {})]
    with own_words(settings.id, *REFUSALS):
        tokenizer, model = auto_tokenizer(settings), load_model(settings)
        limit = loaded.parts.info.max_length
        theirs = [_forward(model, tokenizer, inputs[encoded.index[k]], limit) for k in fit]
    return parity.drift(logits.values[fit], np.concatenate(theirs))


def _forward(model: Any, tokenizer: Any, item: TextInput, limit: int) -> Float32:
    import torch

    tensors = tokenizer(
        item.text,
        text_pair=item.text_pair,
        truncation=True,
        max_length=limit,
        return_tensors="pt",
    )
    takes = inspect.signature(model.forward).parameters
    given = {name: value for name, value in tensors.items() if name in takes}
    if "use_cache" in takes:
        given["use_cache"] = False
    with torch.inference_mode():
        values: Float32 = model(**given).logits.float().numpy()
    return values
