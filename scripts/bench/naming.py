"""What it costs a micro-batch that ids and logits name their model.

`python -m scripts.bench.naming`: the best of many rounds, in microseconds a micro-batch, in one
thread.
"""

from __future__ import annotations

import pickle
import time
import timeit
from types import SimpleNamespace
from typing import Any

import numpy as np

from deployments.model.load import load_parts
from deployments.pipeline.live_models import LiveModels
from deployments.pipeline.parts import ModelParts
from deployments.pipeline.types import Encoded, Logits, Predicted, TextInput
from deployments.settings import ModelSettings

ROUNDS, CALLS = 100, 1_000
_TEXTS = (1, 32)


async def _nobody(known: object) -> None:
    return None


def _best_us(work: object) -> float:
    return min(timeit.repeat(work, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6  # type: ignore[arg-type]


class _Encoded:
    """As `ModelParts`, of a model that has encoded already: only what is around it is measured."""

    def __init__(self, parts: ModelParts, inputs: list[TextInput]) -> None:
        self.version, self.info = parts.version, parts.info
        self.made = parts.encoder().encode(inputs)

    def encoder(self) -> Any:
        return SimpleNamespace(encode=lambda inputs: self.made)


def cost_us(parts: ModelParts, n_texts: int) -> float:
    """Of all steps that a version adds, from the encoder to the decoder."""
    inputs = [TextInput("质量很好，会再来")] * n_texts
    there = _Encoded(parts, inputs)
    models = LiveModels(_nobody)
    models.add(there)  # type: ignore[arg-type]
    version, plain = there.version, there.made.batch
    named = models.encode(inputs).batch
    values = np.zeros((n_texts, 2), np.float32)

    def steps() -> None:
        batch = models.encode(inputs).batch
        batch.of(version)
        logits = Logits(values, None, version)
        models.heard_of(version)
        for _, one in Predicted.of(logits, n_texts).parts:
            batch.of(one.model)

    def wire(ids: Encoded, logits: Logits) -> float:
        return _best_us(lambda: pickle.loads(pickle.dumps((ids, logits, logits), 5)))  # noqa: S301

    on_the_wire = wire(named, Logits(values, None, version)) - wire(plain, Logits(values))
    return _best_us(steps) + max(on_the_wire, 0.0)


if __name__ == "__main__":
    demo = load_parts(ModelSettings())
    started = time.monotonic()
    for n in _TEXTS:
        print(f"{n} texts a micro-batch: {cost_us(demo, n):.1f} µs")
    print(f"measured in {time.monotonic() - started:.0f} s")
