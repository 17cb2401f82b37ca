"""The one protocol behind which every way of running the model stands."""

from __future__ import annotations

from typing import Protocol

from deployments.core.types import Encoded, EngineInfo, Logits


class EngineUnavailable(Exception):
    """This engine can't run this model here; another one may. The message says why, and the cure.

    Raised by `load`: its package is not installed, it can't convert the model's class, or it has
    no such device or dtype.
    """


class Engine(Protocol):
    """Runs the model. Called from one thread at a time, never from the event loop."""

    def load(self) -> None:
        """Bring the model into memory and warm it; afterwards `predict` runs at full speed."""

    def predict(self, batch: Encoded) -> Logits:
        """Logits float32 [n, labels] of n texts, in the order given.

        May raise anything: the batcher isolates the text at fault.
        """

    def info(self) -> EngineInfo:
        """Engine, device, dtype and versions, for `/info`."""
