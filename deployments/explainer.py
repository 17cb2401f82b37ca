"""Explainer: why the model answered as it did. Beside the chain, so that nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from deployments.engines.machine import threads_for
from deployments.model.load import load_parts
from deployments.pipeline.errors import DeadlineExceeded, kind_and_place
from deployments.pipeline.explaining import Unexplained
from deployments.pipeline.types import OtherModel, TextInput
from deployments.privacy.coredump import forbid_core_dumps
from deployments.replica.base import (
    Replica,
    made_for_good,
    raises_service_errors,
    set_log_level,
    write_start,
)
from deployments.replica.metrics import RayObserver
from deployments.scaling.policy import BUSY, BusyClock
from deployments.scaling.starts import Start
from deployments.settings import Settings

logger = logging.getLogger(__name__)

# Of Linux: whoever classifies has the core first where both want it.
NICENESS = 10


class Explainer(Replica):
    """Holds the model's weights once more, in float32 and with gradients, on the CPU. One text at a
    time, on as many threads as Ray reserves CPUs for it (1 at least).

    Raises:
        ModelNotFound: the model can't be loaded.
    """

    def __init__(self, settings: Settings) -> None:
        forbid_core_dumps()
        set_log_level("INFO")
        os.nice(NICENESS)
        began = time.time()
        import torch  # takes seconds, which whoever only builds the application should not pay

        from deployments.explain.explainer import Explainer as OneModel

        torch.set_num_threads(threads_for(_assigned_cpus()))
        self._max_s = settings.explain.max_s
        self._observer = RayObserver("Explainer")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._worked_s = 0.0
        try:
            with made_for_good():
                parts = load_parts(settings.model)
                self._model = OneModel(settings, parts)
                # The first of a process imports captum, and a budget is reckoned by one pass.
                self._model.explain(TextInput("ready?"), parts.info.labels[0])
        except Exception as exc:
            logger.error("ends: model %s did not load, %s", settings.model.id, kind_and_place(exc))
            raise
        self._version = parts.version
        start = Start(began, time.time(), {})
        write_start(start)
        logger.info(
            "explains model %s, version %s, after %.1f s: %d threads, niceness %d",
            settings.model.id, self._version, start.ended - start.began, torch.get_num_threads(),
            os.nice(0),
        )  # fmt: skip

    async def ready(self) -> str:
        """The version of its model; whoever gets it knows that a replica runs."""
        return self._version

    @raises_service_errors
    async def explain(self, asked: Unexplained) -> dict[str, Any] | OtherModel:
        """See `explain.explainer.Explainer.explain`. Or, where this replica has another version of
        the model than the answer's, which one.

        Raises:
            DeadlineExceeded: its time was over before its turn, or before the fewest passes.
        """
        if asked.version != self._version:
            return OtherModel(self._version)
        until = time.monotonic() + asked.left_s
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, self._explained, asked, until)
        self._observer.stage("explain", found["seconds"], 1)
        return found

    def _explained(self, asked: Unexplained, until: float) -> dict[str, Any]:
        began = time.monotonic()
        if began >= until:
            raise DeadlineExceeded("Other texts were explained for too long before. Retry later.")
        try:
            return self._model.explain(
                asked.item,
                asked.target,
                asked.method,
                asked.passes,
                seconds=min(self._max_s, until - began),
                window=asked.window,
            )
        finally:
            self._worked_s += time.monotonic() - began

    def _stats(self, busy: BusyClock) -> dict[str, float]:
        """The model's own work."""
        return {BUSY: busy.share(self._worked_s)}


def _assigned_cpus() -> float:
    cpus: float = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
    return cpus
