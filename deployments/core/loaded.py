"""A model ready to answer: its parts and its engine, loaded and proven by one function for all.

Replicas, LocalClassifier, `rayclassify tune`, the benchmark and the trials load a model here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from deployments.core.engines import Engine, make_engine
from deployments.core.engines.base import EngineUnavailable
from deployments.core.errors import kind_and_place, raised_by_us
from deployments.core.health import ModelBroken, prove
from deployments.core.model_source import ModelNotFound, ModelRefused
from deployments.core.parts import ModelParts, load_parts
from deployments.settings import Settings

logger = logging.getLogger(__name__)

REFUSALS = (ModelNotFound, EngineUnavailable, ModelBroken)
"""All that `load` raises: messages in our own words, written for who runs the service."""

T = TypeVar("T")


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
    return Loaded(read_parts(settings), load_engine(settings, num_threads))


def read_parts(settings: Settings) -> ModelParts:
    """`load_parts`, with every error in our own words.

    Raises:
        ModelNotFound: a file is missing, or says what can't be honoured.
    """
    return _in_our_words(lambda: load_parts(settings.model), settings.model.id)


def load_engine(settings: Settings, num_threads: int) -> Engine:
    """The engine that the settings name, loaded and proven, with every error in our own words.

    Raises:
        ModelNotFound, EngineUnavailable, ModelBroken: see `REFUSALS`.
    """

    def loaded() -> Engine:
        engine = make_engine(settings, num_threads)
        engine.load()
        prove(engine.predict, settings.model.id)
        return engine

    return _in_our_words(loaded, settings.model.id)


def _in_our_words(work: Callable[[], T], model: str) -> T:
    """What `work` gives. Nothing that it raises holds a text of a user: there is none yet."""
    try:
        return work()
    except REFUSALS:
        raise
    except ValueError as exc:
        if not raised_by_us(exc):
            raise _refusal(exc, model) from None
        raise ModelRefused(str(exc)) from None
    except MemoryError:
        raise ModelRefused(
            f"model {model!r} does not fit into this machine's memory. Give the replica more, or "
            "set args.model.id to a smaller model."
        ) from None
    except Exception as exc:
        raise _refusal(exc, model) from None


def _refusal(exc: Exception, model: str) -> ModelRefused:
    logger.warning("model %r can't be loaded", model, exc_info=exc)
    return ModelRefused(
        f"model {model!r} can't be loaded ({kind_and_place(exc)}); the log has the traceback. "
        "Check that transformers' own AutoModelForSequenceClassification loads this directory "
        "with the versions installed here, or set args.model.id to another one."
    )
