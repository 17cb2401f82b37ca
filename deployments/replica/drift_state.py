"""Drift as an ingress tells it: what it counts itself, and what a Postprocessor does."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.replica.metrics import RayObserver

# A state is told soon, or without this part.
ASK_TIMEOUT_S = 1.0


class DriftState:
    """observer: of the ingress, which counts tokens; labels and scores are the Postprocessor's."""

    def __init__(self, observer: RayObserver, postprocessor: DeploymentHandle) -> None:
        self._observer = observer
        self._ask = postprocessor.options(method_name="drift")

    async def seen(self) -> list[dict[str, Any]]:
        """Rows of the part `drift` of `GET /state`; none where no text was held to a baseline. A
        Postprocessor that does not answer in time is left out."""
        own = self._observer.drift()
        if not own:
            return []
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return [*own, *await self._ask.remote()]
        except Exception:  # whatever it is, the ingress has its own
            return own
