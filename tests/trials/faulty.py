"""A model that does at one character what a model may do at its worst.

For `import_path: tests.trials.faulty:build`; everything else is the service as it is. Its label
says whether the sum of a text's token ids is odd, so that whoever asks knows what to be told.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
from ray.serve import Application

import deployments.app
import deployments.engines.loaded
from deployments.classifier import Classifier
from deployments.pipeline.types import Encoded, EngineInfo, Logits
from deployments.settings import Settings

from .steady import HANGS, KILLS, NO_MEMORY, NOT_A_NUMBER, RAISES, SLOW, encoder

HANGS_S = 3_600.0
SLOW_S = 3.0
PASS_S = 0.005


class FaultyEngine:
    """Answers right, but where a character of `FAULTS` stands."""

    row_tokens: int | None = None
    padding_tokens = 0

    def load(self) -> None:
        ids = encoder().ids
        self._faults = {ids(character)[0]: character for character in FAULTS}

    def predict(self, batch: Encoded) -> Logits:
        time.sleep(PASS_S)
        for token in set(batch.input_ids.tolist()) & self._faults.keys():
            FAULTS[self._faults[token]]()
        values = np.zeros((len(batch), 2), np.float32)
        nan = [token for token, character in self._faults.items() if character == NOT_A_NUMBER]
        for row, text in zip(values, batch.split(), strict=True):
            row[int(text.input_ids.sum()) % 2] = 5.0
            if nan[0] in text.input_ids:
                row[0] = np.nan
        return Logits(values)

    def info(self) -> EngineInfo:
        return EngineInfo("faulty", "none", "none", 0, {"numpy": np.__version__})


def _raise(error: Exception) -> None:
    raise error


FAULTS: dict[str, Any] = {
    RAISES: lambda: _raise(RuntimeError("a fault")),
    NOT_A_NUMBER: lambda: None,
    NO_MEMORY: lambda: _raise(MemoryError()),
    HANGS: lambda: time.sleep(HANGS_S),
    SLOW: lambda: time.sleep(SLOW_S),
    # As the kernel does where memory ends.
    KILLS: lambda: os.kill(os.getpid(), signal.SIGKILL),
}


class FaultyClassifier(Classifier):
    """The Classifier, with a FaultyEngine in the place of no engine."""

    def __init__(self, settings: Settings) -> None:
        if settings.engine.name == "none":
            deployments.engines.loaded.make_engine = lambda *_: FaultyEngine()  # type: ignore[attr-defined]
        super().__init__(settings)


def build(args: dict[str, Any]) -> Application:
    """deployments.app:build with the FaultyClassifier."""
    deployments.app.Classifier = FaultyClassifier  # type: ignore[attr-defined]
    return deployments.app.build(args)
