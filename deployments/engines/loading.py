"""Loading a classifier's weights, strictly: what would answer at random is refused."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification

from deployments.engines.weights import (
    lacking,
    left_out,
    misfit,
    refuse_other_task,
    refuse_whole_numbers,
)
from deployments.model.files import refuse_weights
from deployments.model.source import ModelNotFound, find_model
from deployments.model.steps import step
from deployments.settings import ModelSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, and what of its directory was left aside and why that is harmless."""

    model: Any
    remarks: tuple[str, ...]


def load_model(settings: ModelSettings, dtype: torch.dtype = torch.float32) -> Any:
    """The model on the CPU, ready to infer. safetensors are mapped, not read, into memory.

    Raises:
        ModelNotFound: the weights can't be read, don't fit the config, or don't classify.
    """
    return load(settings, dtype).model


def load(settings: ModelSettings, dtype: torch.dtype = torch.float32) -> Loaded:
    """As `load_model`, with its remarks.

    Raises:
        ModelNotFound: as `load_model`.
    """
    source = find_model(settings.id)
    refuse_weights(settings)
    try:
        with step("weights"):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                source,
                revision=settings.revision,
                trust_remote_code=settings.trust_remote_code,
                dtype=dtype,
                # None takes pickles too, through torch's loader of weights alone.
                use_safetensors=None if settings.allow_pickle else True,
                output_loading_info=True,
                # Else transformers raises without the name of what doesn't fit; `_judge` names it.
                ignore_mismatched_sizes=True,
            )
    except Exception as exc:
        logger.debug("loading failed", exc_info=True)
        if isinstance(exc, torch.OutOfMemoryError):
            raise
        raise _in_our_words(exc, settings) from exc
    remarks = _judge(model, report, settings)
    # How outputs are wrapped changes no number, and engines read them by name.
    model.config.return_dict = True
    if any(p.is_floating_point() and p.dtype != dtype for p in model.parameters()):
        model.to(dtype)
    return Loaded(model.eval().requires_grad_(False), remarks)


def _judge(model: Any, report: dict[str, Any], settings: ModelSettings) -> tuple[str, ...]:
    """Remarks on what the weights and the class don't share."""
    if mismatched := sorted(report["mismatched_keys"], key=str):
        raise ModelNotFound(misfit(mismatched[0], len(mismatched), settings.id))
    if missing := sorted(report["missing_keys"]):
        # transformers fills them with random numbers, and says so in a log only.
        raise ModelNotFound(
            lacking(missing, report["unexpected_keys"], model.base_model_prefix, settings.id)
        )
    refuse_whole_numbers(find_model(settings.id), settings.id)
    base = model.base_model
    parts = {name for name, _ in base.named_children()} if base is not model else set()
    remarks = left_out(report["unexpected_keys"], model.base_model_prefix, parts, settings.id)
    other = refuse_other_task(model.config.architectures, type(model).__name__, settings.id)
    return (*remarks, other) if other else remarks


def _in_our_words(exc: Exception, settings: ModelSettings) -> ModelNotFound:
    kind = type(exc).__name__
    if isinstance(exc, ImportError):
        missing = f"the package {exc.name}" if exc.name else "a package"
        return ModelNotFound(
            f"the class of {settings.id!r} needs {missing} that is not installed here ({kind}). "
            "Install it, or set args.model.id to a model that transformers runs alone."
        )
    if isinstance(exc, OSError):
        return ModelNotFound(
            f"can't load the weights of {settings.id!r} ({kind}). "
            "Check args.model.id and revision, that this machine reaches the hub, and that the "
            "model has safetensors: pickled weights (.bin) need args.model.allow_pickle."
        )
    if isinstance(exc, RuntimeError | SafetensorError):
        return ModelNotFound(
            f"the weights of {settings.id!r} are damaged or made for another "
            f"config.json ({kind}). Fetch or save the model again."
        )
    if "trust_remote_code" in str(exc):
        return ModelNotFound(
            f"the class of {settings.id!r} is code that comes with the model. If you trust who "
            "made it, set args.model.trust_remote_code: true."
        )
    detail = " ".join(str(exc).split())[:200]
    return ModelNotFound(
        f"transformers can't make a text classifier of {settings.id!r}: its config.json "
        "names no class with a …ForSequenceClassification, or holds what that class can't take "
        f"({kind}: {detail}). Set args.model.id to another model, or correct the file."
    )
