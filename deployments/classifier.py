"""Classifier: the model on its device. Merges micro-batches from all Tokenizers."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import os
import time
from collections.abc import Collection
from dataclasses import asdict
from typing import Any
from uuid import uuid4

import ray

from deployments.engines.loaded import Loaded, load, timed_passes
from deployments.engines.machine import threads_for
from deployments.model.certificate import certificate
from deployments.model.steps import Steps, step
from deployments.pipeline.batcher import ModelThread, TokenBatcher
from deployments.pipeline.errors import kind_and_place
from deployments.pipeline.health import ModelHealth
from deployments.pipeline.parts import ModelParts
from deployments.pipeline.types import (
    Encoded,
    EngineInfo,
    Float32,
    FlowRuns,
    Load,
    Logits,
    OtherModel,
)
from deployments.privacy.coredump import forbid_core_dumps
from deployments.replica.base import (
    Replica,
    live_settings,
    made_for_good,
    raises_service_errors,
    set_log_level,
    write_start,
)
from deployments.replica.cluster_store import ClusterStore
from deployments.replica.metrics import RayObserver
from deployments.replica.tracing import tracer_of
from deployments.replica.updates import wait_for_the_last_of
from deployments.scaling.policy import BUSY, TOKENS_PER_S, WAIT_S, BusyClock
from deployments.scaling.starts import Start
from deployments.settings import Settings
from deployments.user_config import ClassifierUserConfig

logger = logging.getLogger(__name__)


class Classifier(Replica):
    """Token ids in, logits out. Ready when the model is loaded and warm.

    Of the three it alone reads the model's files: Tokenizer and Postprocessor are told by it what
    they need to know, so that no text is ever read by one model and answered by another.
    """

    def __init__(self, settings: Settings) -> None:
        forbid_core_dumps()
        set_log_level("INFO")
        started, steps = time.time(), Steps()
        num_threads = settings.engine.num_threads or threads_for(_assigned_cpus())
        live = ClassifierUserConfig()
        self._live: ClassifierUserConfig | None = None
        thread = ModelThread()

        def load_and_time() -> tuple[Loaded, list[tuple[int, int, float]]]:
            with steps.collected():
                loaded = load(settings, num_threads, ClusterStore())
                with step("warm_up"):
                    return loaded, timed_passes(loaded)

        logger.info("loads model %s with %d threads", settings.model.id, num_threads)
        try:
            with made_for_good():
                loaded, passes = thread.wait_for(load_and_time)
        except Exception as exc:
            logger.error("ends: model %s did not load, %s", settings.model.id, kind_and_place(exc))
            raise
        self._parts, self._engine = loaded.parts, loaded.engine
        self._version = self._parts.version
        # Once: a version is a hash over all of a tokenizer.
        engine = self._engine.info()
        self._certificate = certificate(self._parts, engine).to_json()
        self._deployed = settings.model.fingerprint
        self._observer = RayObserver("Classifier")
        self._observer.about("engine_info", {**asdict(engine), "threads": engine.num_threads})
        model = {**asdict(self._parts.info), "version": self._version}
        self._observer.about("model_info", model)
        self._batcher = TokenBatcher(
            self._engine.predict,
            max_batch_tokens=live.max_batch_tokens,
            max_queue_tokens=live.max_queue_tokens,
            run=thread,
            observer=self._observer,
        )
        for name, read in (
            ("queue_tokens", lambda: self._batcher.queued_tokens),
            ("queue_oldest_seconds", lambda: self._batcher.oldest_s),
            ("padding_tokens_total", lambda: self._engine.padding_tokens),
        ):
            self._observer.watch(name, read)
        self._tracer = tracer_of(settings.tracing, "Classifier")
        if self._tracer is not None:
            self._batcher.on_pass = self._tracer.passed
        for passed in passes:
            self._batcher.observe(*passed)
        self._name = uuid4().hex[:12]
        self._health = ModelHealth(self._batcher, live.max_pass_s, self._parts.info.max_length)
        self._watch: asyncio.Task[None] | None = None
        logger.info(
            "model %s, version %s, loaded in %.1f s: engine %s %s on %s, %d threads, batches %s, "
            "chosen by %s; certificate: %s",
            settings.model.id, self._version, time.time() - started, engine.engine, engine.dtype,
            engine.device, engine.num_threads, engine.batching, engine.selected_by,
            json.dumps(self._certificate, ensure_ascii=False),
        )  # fmt: skip
        start = Start(started, time.time(), steps.seconds)
        self._start_s = start.ended - start.began
        write_start(start)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._live = live = live_settings(ClassifierUserConfig, user_config, self._live)
        self._batcher.max_batch_tokens = live.max_batch_tokens
        self._batcher.max_queue_tokens = live.max_queue_tokens
        self._batcher.target_p99_ms = live.target_p99_ms
        self._health.max_pass_s = live.max_pass_s
        set_log_level(live.log_level)

    @raises_service_errors
    async def predict(
        self,
        batch: Encoded,
        timeouts_s: Float32,
        flows: FlowRuns | None = None,
        alone: bool = False,
        call_id: int = 0,
        trace: str | None = None,
    ) -> Logits | OtherModel:
        """Logits of a micro-batch; see `TokenBatcher.submit`. Or, where none of its ids are for
        this model, which model this is."""
        mine = batch.of(self._version)
        if mine is None:
            return OtherModel(self._version)
        if self._watch is None:
            # In a context of its own, as this request's ends with it. Exit code 1; a thread that
            # hangs lets no process end otherwise.
            watching = self._health.watch(lambda: os._exit(1))
            loop = asyncio.get_running_loop()
            self._watch = loop.create_task(watching, context=contextvars.Context())
        call = (mine, timeouts_s, flows, alone, call_id)
        if self._tracer is None or trace is None:
            logits = await self._batcher.submit(*call)
        else:
            with self._tracer.call(call_id, trace, len(mine), mine.total_tokens):
                logits = await self._batcher.submit(*call)
        batcher = self._batcher
        load = Load(
            self._name,
            batcher.tokens_per_s,
            batcher.queued_tokens,
            self._start_s,
            batcher.passes,
            batcher.read_texts,
            batcher.read_tokens,
        )
        return Logits(logits.values, logits.errors, self._version, load, logits.model_s)

    async def parts(self, known: Collection[str] = ()) -> ModelParts | None:
        """What others need to know of the model; None where its version is among these."""
        return None if self._version in known else self._parts

    async def fingerprint(self) -> str:
        """Of the model's files, as they were when this replica loaded them."""
        return self._parts.fingerprint

    def _stats(self, busy: BusyClock) -> dict[str, float]:
        """The model's own work, not the event loop's."""
        speed = self._batcher.tokens_per_s
        return {
            BUSY: busy.share(self._batcher.worked_s),
            WAIT_S: self._batcher.queued_tokens / speed if speed else 0.0,
            TOKENS_PER_S: speed,
        }

    async def holding(self) -> set[int]:
        """The `call_id` of calls that need no second replica; see `TokenBatcher.holding`."""
        return self._batcher.holding()

    async def info(self) -> tuple[EngineInfo, ClassifierUserConfig, dict[str, Any]]:
        """How this replica runs the model, its live settings, and its certificate."""
        live = self._live or ClassifierUserConfig()
        return self._engine.info(), live, self._certificate

    async def check_health(self) -> None:
        """Serve replaces a replica that raises here three times; see `ModelHealth.check`.

        It lets no new one serve before this has returned once.

        Raises:
            ModelStalled: a forward pass does not end.
            PredictionFailed: the model fails on any text.
        """
        if self._deployed not in (None, self._parts.fingerprint):
            await wait_for_the_last_of(self._deployed, self._parts.fingerprint)
            self._deployed = None
        try:
            await self._health.check()
        except Exception as exc:
            logger.error("not healthy, and replaced if that stays so: %s", kind_and_place(exc))
            raise


def _assigned_cpus() -> float:
    cpus: float = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
    return cpus
