"""Loading a classifier's weights, strictly: what would answer at random is refused."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification

from deployments.core.model_source import ModelNotFound, find_model
from deployments.settings import ModelSettings


def load_model(settings: ModelSettings, dtype: torch.dtype = torch.float32) -> Any:
    """The model on the CPU, ready to infer. safetensors are mapped, not read, into memory.

    Raises:
        ModelNotFound: the weights can't be read, don't fit the config, or don't classify.
    """
    source = find_model(settings.id)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source,
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
            dtype=dtype,
            output_loading_info=True,
        )
    except OSError as exc:
        raise ModelNotFound(
            f"can't load the weights of {settings.id!r} ({type(exc).__name__}). "
            "Check args.model.id and revision, and that this machine reaches the hub."
        ) from exc
    except (RuntimeError, SafetensorError) as exc:
        raise ModelNotFound(
            f"the weights of {settings.id!r} are damaged or made for another "
            f"config.json ({type(exc).__name__}). Fetch or save the model again."
        ) from exc
    if missing := sorted(report["missing_keys"]):
        # transformers fills them with random numbers, and says so in a log only.
        raise ModelNotFound(
            f"the weights of {settings.id!r} have no {missing[0]}: it is not "
            "trained to classify and would answer at random. Set args.model.id to one that is."
        )
    return model.eval().requires_grad_(False)
