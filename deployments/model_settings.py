"""Which models an application serves, and how each is run.

They stand under `args:` as `model`, `engine`, `cascade` and `shadow`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]


class Strict(BaseModel):
    """Knows its fields, and takes no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _check_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError("no device; write auto, cpu, cuda, cuda:1 (the second GPU) or mps")
    return name


class ModelSettings(Strict):
    """Which model to serve."""

    id: str = Field(
        default="models/demo",
        min_length=1,
        description="Names the model: a hub id or a directory. Change it to serve your own.",
    )
    revision: str | None = Field(
        default=None,
        description="Names a hub model's branch, tag or commit. Set it to a commit: it can't move.",
    )
    fingerprint: str | None = Field(
        default=None,
        description="Says what the directory held. Leave it null: `rayclassify deploy` sets it.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Runs the model's own Python. Set it to true only if you trust its author.",
    )
    allow_pickle: bool = Field(
        default=False,
        description="Loads pickled weights (.bin) where there are no safetensors. Set it to true "
        "only for a model from somebody you trust: a pickle can hold code.",
    )
    max_length: PositiveInt | None = Field(
        default=None,
        description="Limits the tokens of a text; null takes the limit that model or tokenizer "
        "say, else 512. Lower it where long texts take too much time.",
    )
    temperature: Annotated[float, Field(ge=0.001, le=1_000)] | None = Field(
        default=None,
        description="Divides the logits, for calibrated scores; null takes `temperature` of the "
        "model's calibration.json, else 1. Set it to 1.0 for the scores of a transformers "
        "pipeline.",
    )


class EngineSettings(Strict):
    """How the model is run."""

    name: Literal["auto", "torch", "none"] = Field(
        default="auto",
        description="Chooses what runs the model. auto measures, and takes the fastest way here "
        "that agrees with the model; none runs no model at all. Set it to torch, and the dtype, "
        "where no start may measure.",
    )
    device: Annotated[str, AfterValidator(_check_device)] = Field(
        default="auto",
        description="Chooses the device: auto, cpu, cuda, cuda:1 (the second GPU) or mps. auto "
        "takes a GPU where torch sees one. Set it to cpu to leave the GPU to others.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        default="auto",
        description="Chooses the precision. auto takes the fastest that agrees with float32. Set "
        "it to float32, with `name: torch`, for the same scores on every machine.",
    )
    packing: bool = Field(
        default=True,
        description="Runs a batch as one row without padding, where the model allows it. Set it "
        "to false to compare, or where an architecture misbehaves.",
    )
    num_threads: PositiveInt | None = Field(
        default=None,
        description="Sets the CPU threads of one replica; null takes its num_cpus, from 1 to the "
        "cores that are here. Set it where a replica should use more than Ray reserves for it.",
    )
    max_logit_drift: Annotated[float, Field(gt=0)] = Field(
        default=0.1,
        description="Limits how far an engine's logits may be from float32's; auto refuses an "
        "engine beyond it. Lower it where scores matter, and not only labels.",
    )
    min_label_agreement: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.99,
        description="Sets the share of probe texts, 0 to 1, that must get float32's label; auto "
        "refuses an engine below it. Raise it where a changed label costs much.",
    )


class CascadeSettings(Strict):
    """A smaller model that answers first; what it is unsure of goes on to `args.model`."""

    model: ModelSettings | None = Field(
        default=None,
        description="Names the smaller model, by the keys of `args.model`; null has none answer "
        "first. Set it as `rayclassify cascade` writes it.",
    )
    engine: EngineSettings | None = Field(
        default=None,
        description="Says how it is run, by the keys of `args.engine`; null runs it as those say. "
        "Set it where the two models need different engines.",
    )
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9,
        description="Sets the score of its best label below which a text goes on. Raise it for "
        "fewer changed answers, lower it for speed; `rayclassify cascade` finds it.",
    )


class ShadowSettings(Strict):
    """A model that is asked a share of the texts after they were answered, and answers nobody."""

    model: ModelSettings | None = Field(
        default=None,
        description="Names the model to try, by the keys of `args.model`; null tries none. Set it "
        "before a new model replaces the old one.",
    )
    engine: EngineSettings | None = Field(
        default=None,
        description="Says how it is run, by the keys of `args.engine`; null runs it as those say. "
        "Set it where the two models need different engines.",
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.05,
        description="Sets the share of texts that it is asked too, 0 to 1. Raise it to know "
        "sooner, lower it where it takes the machine from callers.",
    )
    max_waiting_texts: PositiveInt = Field(
        default=256,
        description="Limits the texts that wait for it in one ingress replica; more are left out, "
        "and counted. Raise it where texts come in bursts.",
    )
