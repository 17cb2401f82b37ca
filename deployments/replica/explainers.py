"""The ingress's way to Explainers, of which there may be none until somebody asks."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from deployments.pipeline.errors import NotReady, Overloaded
from deployments.pipeline.explaining import Unexplained
from deployments.pipeline.retry import LostReplica
from deployments.pipeline.types import OtherModel
from deployments.replica.model_chain import PLAIN_PICKLE, _tried

RETRY_AFTER_S = 5.0


class Explainers:
    """`await explainers(asked)`: an explanation, or which other version the Explainer has."""

    def __init__(self, explainer: DeploymentHandle) -> None:
        self._call = explainer.options(method_name="explain", **PLAIN_PICKLE)
        self._ready = explainer.options(method_name="ready")

    async def __call__(self, asked: Unexplained) -> dict[str, Any] | OtherModel:
        """Raises:
        Overloaded: enough questions wait already.
        NotReady: none was ready in time, or it died with this question.
        ServiceError: what the Explainer raised.
        """
        failed: list[Exception] = []
        try:
            # A deadline here: one that is only starting has no clock yet.
            async with asyncio.timeout(asked.left_s):
                # Without the text: Serve's queue would hold it until one has started, however long
                # its caller has been gone.
                await _tried(self._ready.remote())
                found: dict[str, Any] | OtherModel = await _tried(self._call.remote(asked))
                return found
        except TimeoutError:
            failed.append(
                NotReady(
                    f"No explanation within {asked.left_s:.0f} s: the explainer is starting, or "
                    "has others before this one. Retry, or allow more time: timeout_ms. "
                    "Explainer.min_replicas: 1 keeps one running.",
                    RETRY_AFTER_S,
                )
            )
        except LostReplica:
            failed.append(NotReady("The explainer ended with this question. Retry.", RETRY_AFTER_S))
        except (BackPressureError, Overloaded):
            failed.append(
                Overloaded(
                    "Enough texts wait for an explanation. Retry later, or raise max_replicas of "
                    "the Explainer.",
                    RETRY_AFTER_S,
                )
            )
        raise failed.pop()  # outside of `except`: as its context the other would keep the text
