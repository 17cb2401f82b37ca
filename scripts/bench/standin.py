"""A stand-in for a model that needs no core of this machine, as one on a GPU would not.

It waits as long as a model of a given speed would take, so that more replicas can be faster than
two cores. For `import_path: scripts.bench.standin:build`; everything else is the service as it is.
passes.py says how long.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from ray.serve import Application

import deployments.app
import deployments.engines.loaded
from deployments.classifier import Classifier
from deployments.pipeline.types import Encoded, EngineInfo, Logits
from deployments.settings import Settings

from .passes import PassTime, told


class WaitingEngine:
    """Answers as the null engine does, after the time of a pass."""

    row_tokens: int | None = None
    padding_tokens = 0

    def __init__(self, cost: PassTime | None = None) -> None:
        self._cost = cost or told()

    def load(self) -> None:
        pass

    def predict(self, batch: Encoded) -> Logits:
        time.sleep(self._cost.of_pass(batch.lengths))
        values = np.zeros((len(batch), 2), np.float32)
        values[:, 0] = batch.lengths
        return Logits(values)

    def info(self) -> EngineInfo:
        return EngineInfo("waiting", "none", "none", 0, {"numpy": np.__version__})


class WaitingClassifier(Classifier):
    """The Classifier, with a WaitingEngine in the place of the engine that its settings name."""

    def __init__(self, settings: Settings) -> None:
        deployments.engines.loaded.make_engine = lambda *_: WaitingEngine()  # type: ignore[attr-defined]
        super().__init__(settings)


def build(args: dict[str, Any]) -> Application:
    """deployments.app:build with the WaitingClassifier."""
    deployments.app.Classifier = WaitingClassifier  # type: ignore[attr-defined]
    return deployments.app.build(args)
