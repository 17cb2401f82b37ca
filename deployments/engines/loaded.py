"""A model ready to answer: its parts and its engine, loaded and proven by one function for all.

Replicas, LocalClassifier, `rayclassify tune`, the benchmark and the trials load a model here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deployments.engines import make_engine
from deployments.engines.base import Engine, EngineUnavailable, ModelBroken
from deployments.engines.kept import Store
from deployments.model.load import load_parts
from deployments.model.source import ModelNotFound, own_words
from deployments.model.steps import step
from deployments.pipeline.health import PROBE_TOKENS, harmless
from deployments.pipeline.parts import ModelParts
from deployments.pipeline.types import Encoded, Logits
from deployments.settings import Settings

logger = logging.getLogger(__name__)

# What the passes that are timed hold: texts of the length of a sentence or two.
_TEXTS, _TEXT_TOKENS = 8, 64
_SHORT_S = 0.1

REFUSALS = (ModelNotFound, EngineUnavailable, ModelBroken)
"""All that `load` raises: messages in our own words, written for who runs the service."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model: what texts and logits need of it, and what runs it. The engine is warm."""

    parts: ModelParts
    engine: Engine


def load(settings: Settings, num_threads: int, store: Store | None = None) -> Loaded:
    """Parts first, as a fault in a small file should show before gigabytes are read.

    store: where the application keeps the choice of an engine.
    To be called in the thread that will call the engine; see `ModelThread`.

    Raises:
        ModelNotFound, EngineUnavailable, ModelBroken: see `REFUSALS`.
    """
    with step("files"):
        parts = load_parts(settings.model)
    return Loaded(parts, load_engine(settings, num_threads, parts.info.max_length, store))


def load_engine(
    settings: Settings, num_threads: int, max_length: int = 512, store: Store | None = None
) -> Engine:
    """The engine that the settings name, loaded and proven, with every error in our own words.

    max_length: tokens that the model reads, if known.

    Raises:
        ModelNotFound, EngineUnavailable, ModelBroken: see `REFUSALS`.
    """
    with own_words(settings.model.id, *REFUSALS):
        with step("imports"):
            engine = make_engine(settings, num_threads, store)
        with step("proof"):
            engine.load()
        with step("warm_up"):
            prove(engine.predict, settings.model.id, max_length)
        return engine


def timed_passes(loaded: Loaded) -> list[tuple[int, int, float]]:
    """Tokens, tokens of the longest text, and seconds, of passes over harmless texts.

    So that it is known how fast the model is before anybody asks: one short text and many. Twice
    where a pass is short, as the first of a kind may take some milliseconds longer.
    """
    longest = min(loaded.parts.info.max_length, _TEXT_TOKENS)
    few = harmless(loaded.parts.info.max_length)
    text = Encoded(np.resize(few.input_ids, longest), np.asarray([longest], np.int32))
    seen = []
    for batch in (few, Encoded.concat([text] * _TEXTS)):
        elapsed_s = _timed(loaded.engine, batch)
        if elapsed_s < _SHORT_S:
            elapsed_s = _timed(loaded.engine, batch)
        seen.append((batch.total_tokens, int(batch.lengths.max()), elapsed_s))
    return seen


def _timed(engine: Engine, batch: Encoded) -> float:
    started = time.perf_counter()
    engine.predict(batch)
    return time.perf_counter() - started


def prove(predict: Callable[[Encoded], Logits], model: str, max_length: int = PROBE_TOKENS) -> None:
    """One pass before the first caller's, so that an update to a broken model is not carried out.

    Raises:
        ModelBroken: it fails on a harmless text, or not all of its logits are finite numbers.
    """
    try:
        logits = predict(harmless(max_length))
    except Exception as exc:
        logger.debug("a harmless text fails", exc_info=True)
        raise ModelBroken(
            f"the model {model!r} fails on a harmless text ({type(exc).__name__}): its files don't "
            "fit together. Save it again with its tokenizer, or set args.model.id to another."
        ) from exc
    for error in (logits.errors or {}).values():
        raise ModelBroken(f"the model {model!r} fails on a harmless text. {error}")
    if not np.isfinite(logits.values).all():
        raise ModelBroken(
            f"the model {model!r} gives no finite number for a harmless text: its weights are "
            "damaged, or too large for this precision. Save it again, or set "
            "args.engine.dtype: float32."
        )
