"""A model that sleeps as a device would work: START_S a pass, and as long again a token.

For `import_path: scripts.scale.device:build`; everything else is the service as it is.
"""

from __future__ import annotations

from typing import Any

from ray.serve import Application

import deployments.app
import deployments.engines.loaded
from deployments.classifier import Classifier
from deployments.settings import Settings
from scripts.bench.passes import PassTime
from scripts.bench.standin import WaitingEngine

START_S = 0.020
TOKENS_PER_S = 20_000.0
COST = PassTime(START_S, 1 / TOKENS_PER_S, 0.0)


class DeviceClassifier(Classifier):
    """The Classifier, with a stand-in in the place of the engine that its settings name."""

    def __init__(self, settings: Settings) -> None:
        deployments.engines.loaded.make_engine = lambda *_: WaitingEngine(COST)  # type: ignore[attr-defined]
        super().__init__(settings)


def build(args: dict[str, Any]) -> Application:
    """deployments.app:build with the DeviceClassifier."""
    deployments.app.Classifier = DeviceClassifier  # type: ignore[attr-defined]
    return deployments.app.build(args)
