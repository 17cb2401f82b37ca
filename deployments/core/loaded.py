"""A model ready to answer: its parts and its engine, loaded and proven by one function for all.

Replicas, LocalClassifier, `rayclassify tune`, the benchmark and the trials load a model here.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployments.core.engines import Engine, make_engine
from deployments.core.engines.base import EngineUnavailable, ModelBroken
from deployments.core.health import prove
from deployments.core.model_source import ModelNotFound, own_words
from deployments.core.parts import ModelParts, load_parts
from deployments.settings import Settings

REFUSALS = (ModelNotFound, EngineUnavailable, ModelBroken)
"""All that `load` raises: messages in our own words, written for who runs the service."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model: what texts and logits need of it, and what runs it. The engine is warm."""

    parts: ModelParts
    engine: Engine


def load(settings: Settings, num_threads: int) -> Loaded:
    """Parts first, as a fault in a small file should show before gigabytes are read.

    To be called in the thread that will call the engine; see `ModelThread`.

    Raises:
        ModelNotFound, EngineUnavailable, ModelBroken: see `REFUSALS`.
    """
    parts = load_parts(settings.model)
    return Loaded(parts, load_engine(settings, num_threads, parts.info.max_length))


def load_engine(settings: Settings, num_threads: int, max_length: int = 512) -> Engine:
    """The engine that the settings name, loaded and proven, with every error in our own words.

    max_length: tokens that the model reads, if known.

    Raises:
        ModelNotFound, EngineUnavailable, ModelBroken: see `REFUSALS`.
    """
    with own_words(settings.model.id, *REFUSALS):
        engine = make_engine(settings, num_threads)
        engine.load()
        prove(engine.predict, settings.model.id, max_length)
        return engine
