"""Loading a classifier's weights, strictly: what would answer at random is refused."""

from __future__ import annotations

from pathlib import Path
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
    _refuse_pickle(source, settings)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source,
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
            dtype=dtype,
            # None takes pickles too, through torch's loader of weights alone.
            use_safetensors=None if settings.allow_pickle else True,
            output_loading_info=True,
        )
    except OSError as exc:
        raise ModelNotFound(
            f"can't load the weights of {settings.id!r} ({type(exc).__name__}). "
            "Check args.model.id and revision, that this machine reaches the hub, and that the "
            "model has safetensors: pickled weights (.bin) need args.model.allow_pickle."
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


def _refuse_pickle(source: str, settings: ModelSettings) -> None:
    folder = Path(source)
    if settings.allow_pickle or not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise ModelNotFound(
            f"the weights of {settings.id!r} are pickled ({pickled[0]}), and a pickle can hold "
            "code. Load the model with transformers and save it again, which writes safetensors; "
            "or, if you trust who made it, set args.model.allow_pickle: true."
        )
