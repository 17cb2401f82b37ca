"""Which calls Classifiers hold, and get on with: asked of all of them."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

logger = logging.getLogger(__name__)

TIMEOUT_S = 0.5


class Holding:
    """`await holding()`: the ids of those calls."""

    def __init__(self, classifier: DeploymentHandle) -> None:
        self._classifier = classifier
        self._asking: asyncio.Task[set[int]] | None = None

    async def __call__(self) -> set[int]:
        if self._asking is None or self._asking.done():
            # All that are stuck ask together, and whoever leaves does not take the answer along.
            self._asking = asyncio.get_running_loop().create_task(
                self._ask(), context=contextvars.Context()
            )
        return await asyncio.shield(self._asking)

    async def none_runs(self) -> bool:
        """Whether Serve has no Classifier that takes calls: scaled to zero, dead, or not up yet."""
        try:
            await self._told()
        except DeploymentUnavailableError:  # what Serve raises where there is no replica
            return True
        except Exception as exc:
            logger.debug("the classifiers can't be asked: %s", type(exc).__name__)
        return False

    async def _ask(self) -> set[int]:
        try:
            told = await self._told()
        except Exception as exc:
            logger.debug("the classifiers don't say what they hold: %s", type(exc).__name__)
            return set()
        return {call_id for ids in told if isinstance(ids, set) for call_id in ids}

    async def _told(self) -> list[Any]:
        """By each replica: the ids, or what it raised."""
        asked = self._classifier.broadcast("holding")
        return list(await asked.results_async(timeout_s=TIMEOUT_S, return_exceptions=True))
