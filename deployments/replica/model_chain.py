"""All that an ingress holds of one model, from a text's arrival to its answer."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

from deployments import __version__
from deployments.pipeline.drift import baseline_of
from deployments.pipeline.drift_texts import features_of
from deployments.pipeline.errors import DeadlineExceeded, NotReady, ServiceError
from deployments.pipeline.gate import Gate, Readiness, work_of
from deployments.pipeline.live_models import Encodings, LiveModels
from deployments.pipeline.microbatch import MicroBatcher, is_long
from deployments.pipeline.observer import SILENT, Observer
from deployments.pipeline.parts import ModelParts
from deployments.pipeline.pipeline import Pipeline
from deployments.pipeline.quarantine import Quarantine
from deployments.pipeline.retry import Attempts, LostReplica, RetryBudget
from deployments.pipeline.token_views import TokenViews
from deployments.pipeline.types import (
    Answer,
    Deadlines,
    Encoded,
    Logits,
    ModelInfo,
    Options,
    OtherModel,
    TextInput,
)
from deployments.pipeline.windows import Plan
from deployments.privacy.redact import redactor_of
from deployments.replica.base import LOST_REPLICA, as_service_error
from deployments.replica.holding import Holding
from deployments.replica.tracing import Tracer
from deployments.replica.updates import update_state
from deployments.settings import Settings

logger = logging.getLogger(__name__)

# For handle calls: cloudpickle, the default, takes twice as long for what plain pickle can carry.
PLAIN_PICKLE = {"request_serialization": "pickle", "response_serialization": "pickle"}
# Characters beyond it cost the model nothing: they are cut off. English has 4 to 5 in a token.
MAX_CHARS_PER_TOKEN = 5
# Callers keep their own deadlines; this only ends a call that would hang for ever.
POSTPROCESS_TIMEOUT_S = 60.0
INFO_TIMEOUT_S = 10.0
_OF_MODEL = ("model", "revision", "fingerprint", "labels", "problem_type", "max_length",
             "temperature", "calibration")  # fmt: skip
_SHOWN_LIMITS = {"max_body_bytes", "max_batch_texts", "max_text_chars", "request_timeout_s"}

# The Rust tokenizer's own threads, one per CPU of the machine, would crowd out the model's. Read at
# each call; micro-batches are encoded beside each other anyway.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

T = TypeVar("T")


class ModelChain:
    """The way of a text to its answer: gate, micro-batch, encoder, Classifier, Postprocessor.

    An ingress holds one for each model that it serves. It reads no file of the model: the
    Classifiers tell what they have, see `LiveModels`. To be made on a running event loop.

    name_model: answers say under `pipeline.MODEL` which version gave them, and `engine` is known.
    tokens: texts as the model's tokenizer sees them.
    loading: done once a text has gone through the whole chain.
    engine: what the first Classifier runs the model on, and in which dtype.
    """

    engine: str | None = None

    def __init__(
        self,
        settings: Settings,
        classifier: DeploymentHandle,
        postprocessor: DeploymentHandle,
        *,
        observer: Observer = SILENT,
        name_model: bool = False,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._settings = settings
        # Once: each `handle.method` makes a new handle, which costs as much as pickling does.
        self._predict_call = classifier.options(method_name="predict", **PLAIN_PICKLE)
        self._info_call = classifier.options(method_name="info")
        # Not in a message of gRPC's: a tokenizer may have 20 MB, the message 4 MiB.
        self._parts_call = classifier.options(method_name="parts", _by_reference=True)
        self._postprocess_call = postprocessor.options(method_name="postprocess", **PLAIN_PICKLE)
        self._live_call = postprocessor.options(method_name="live")
        self._models = LiveModels(
            self._ask_for_parts, redactor_of(settings.redaction), observer=observer
        )
        self.tokens = TokenViews(self._models.tokenizer)
        self._long_texts = ThreadPoolExecutor(1, thread_name_prefix="long-texts")
        batching, limits = settings.batching, settings.limits
        lost, stuck = (RetryBudget(reserve=batching.max_inflight_batches) for _ in range(2))
        self._predicting = Attempts(lost, stuck, loading=True, observer=observer)
        self._postprocessing = Attempts(lost, stuck, loading=True, observer=observer)
        self._asking = Attempts(lost, stuck)
        self._holding = Holding(classifier)
        self.none_runs = self._holding.none_runs
        quarantine = Quarantine(self._predict, self._predicting, self._holding, observer)
        self._pipeline = Pipeline(
            self._encode if tracer is None else self._encode_traced,
            quarantine.predict,
            self._postprocess,
            self._models.meet,
            name_model=name_model,
            plan=self._plan,
            pooling=settings.long_text.pooling,
            observer=observer,
            answered=self._watch_drift,
        )
        self._observer = observer
        self._gate = Gate(limits.max_pending_texts, limits.max_queue_s, time.monotonic)
        self._microbatcher = MicroBatcher(
            self._pipeline.run,
            max_texts=batching.max_microbatch_texts,
            max_inflight=batching.max_inflight_batches,
            min_gap_s=batching.min_gap_ms / 1_000,
            gate=self._gate,
            work_of=self._work_of,
            tracer=tracer,
        )
        self._max_chars = 0  # known once the model is
        self._ready = Readiness(limits.max_pending_texts, limits.max_queue_s)
        self.loading = asyncio.get_running_loop().create_task(
            self._become_ready(), context=contextvars.Context()
        )

    async def classify(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        """See `ClassifyService.classify_inputs`.

        Raises:
            NotReady: the model is not loaded yet, or no Classifier ran within the time.
            Overloaded: too many texts wait.
            DeadlineExceeded: no answer in time.
        """
        limit_s = self._settings.limits.request_timeout_s
        timeout_s = min(timeout_s or limit_s, limit_s)
        # The one place where a deadline is made.
        deadline = asyncio.get_running_loop().time() + timeout_s
        good = [item for item in inputs if isinstance(item, TextInput)]
        if good and not self._ready:
            await self._ready.wait(len(good), deadline)
        late: list[ServiceError] = []
        answers: Iterator[Answer | ServiceError] = iter(())
        try:
            if good:
                answers = iter(await self._microbatcher.submit(good, deadline, timeout_s))
        except DeadlineExceeded as exc:
            late.append(exc)
        if late:  # outside of `except`: as its context the other would keep the texts
            raise await self._none_runs() or late.pop()
        return [next(answers) if isinstance(item, TextInput) else item for item in inputs]

    @property
    def pending(self) -> int:
        """Texts taken in and not answered yet."""
        return self._gate.pending

    def labels(self) -> tuple[str, ...]:
        """See `LiveModels.labels`."""
        return self._models.labels()

    def ahead_s(self) -> float:
        """How long all that was taken in here would take one Classifier."""
        return self._gate.ahead_s()

    def state(self) -> dict[str, Any]:
        """See `Gate.state`."""
        return self._gate.state()

    async def _none_runs(self) -> NotReady | None:
        """The error of who waited in vain for a Classifier to start, if none runs."""
        start_s = self._gate.capacity.start_s
        if start_s is None or not await self.none_runs():
            return None
        return NotReady(
            f"No classifier runs; one is started now, which took {start_s:.1f} s last time. Retry "
            "then, or allow more time: timeout_ms. Classifier.min_replicas: 1 keeps one running.",
            start_s,
        )

    async def readiness(self) -> None:
        """Raises NotReady until a text has gone through the whole chain once."""
        self._ready.check()

    async def info(self, certificate: bool = False) -> dict[str, Any]:
        """Model, engine, limits and versions, as GET /info shows them; and what was proven.

        Raises:
            NotReady: the model is not loaded yet.
        """
        await self.readiness()
        engine, live, proven = await _answered(
            self._asking, lambda: _tried(self._info_call.remote()), INFO_TIMEOUT_S
        )
        decoding = await _answered(
            self._postprocessing, lambda: _tried(self._live_call.remote()), INFO_TIMEOUT_S
        )
        # All of one Classifier: in an update the next one may have another model.
        model, revision = proven["model"], proven["revision"]
        return {
            **{name: proven[name] for name in _OF_MODEL},
            "labels": list(proven["labels"]),
            "postprocessing": decoding,
            "engine": engine.engine,
            "device": engine.device,
            "dtype": engine.dtype,
            "num_threads": engine.num_threads,
            "batching": engine.batching,
            "batching_reason": engine.batching_reason,
            "selected_by": engine.selected_by,
            "max_batch_tokens": live.max_batch_tokens,
            "limits": self._settings.limits.model_dump(include=_SHOWN_LIMITS),
            "long_text": self._settings.long_text.model_dump(),
            "dialects": list(self._settings.dialects.spoken),
            "versions": {"rayclassify": __version__, **engine.versions},
            "update": await update_state(self._settings.model, model, revision),
            "certificate": proven if certificate else None,
        }

    async def _become_ready(self) -> None:
        warm, loop = TextInput("ready?"), asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                await self._models.meet()
                (result,) = await self._pipeline.run([warm], [loop.time() + 3_600.0])
                if self._pipeline.name_model:
                    engine, *_ = await _tried(self._info_call.remote())
                    self.engine = f"{engine.engine} {engine.dtype}"
                if not isinstance(result, ServiceError):
                    break
                logger.warning("the chain is not ready yet: %s", result.code)
            except Exception as exc:
                logger.warning("the chain is not ready yet: %s", type(exc).__name__)
            await asyncio.sleep(1.0)
        self._predicting.loaded()
        self._postprocessing.loaded()
        self._ready.begin()
        logger.info(
            "ready after %.1f s: a text has gone through the whole chain; dialects %s",
            loop.time() - began, ", ".join(self._settings.dialects.spoken),
        )  # fmt: skip

    def _work_of(self, item: TextInput) -> float:
        """A text in windows is read whole."""
        whole = item.options.in_windows(self._settings.long_text.strategy)
        return work_of(item, sys.maxsize if whole else self._max_chars)

    async def _plan(self, inputs: Sequence[TextInput]) -> Plan | None:
        settings = self._settings.long_text
        asked = (item for item in inputs if item.options.in_windows(settings.strategy))
        if all(map(self._models.surely_fits, asked)):
            return None
        thread = self._long_texts if any(map(is_long, inputs)) else None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(thread, self._models.plan, inputs, settings)

    async def _encode(self, inputs: Sequence[TextInput]) -> Encodings:
        n_chars = sum(len(item.text) + len(item.text_pair or "") for item in inputs)
        # Beyond it the event loop answers others meanwhile: tokenizers hold no interpreter lock.
        # The first text that is cut at another end than usual has a vocabulary copied.
        if (
            n_chars <= self._models.inline_chars
            and not self._settings.redaction.kinds
            and not any(item.options.truncation_side for item in inputs)
        ):
            return self._models.encode(inputs)
        # Long texts take turns: they leave the threads, and all cores but one, to the others.
        thread = self._long_texts if any(map(is_long, inputs)) else None
        return await asyncio.get_running_loop().run_in_executor(thread, self._models.encode, inputs)

    async def _predict(
        self, batch: Encoded, deadlines: Deadlines, *how: Any
    ) -> Logits | OtherModel:
        """One try; see `Quarantine`. What crosses to the Classifier is the seconds left."""
        left_s = (deadlines - asyncio.get_running_loop().time()).astype(np.float32)
        if self._tracer is None:
            answer: Logits | OtherModel = await _tried(
                self._predict_call.remote(batch, left_s, *how)
            )
        else:
            with self._tracer.span("predict", about={"rayclassify.texts": len(batch)}) as span:
                trace = self._tracer.traceparent(span)
                answer = await _tried(self._predict_call.remote(batch, left_s, *how, trace))
        if isinstance(answer, Logits):
            self._models.heard_of(answer.model)
            if answer.load is not None:
                self._gate.heard(answer.load)
        return answer

    async def _encode_traced(self, inputs: Sequence[TextInput]) -> Encodings:
        assert self._tracer is not None  # noqa: S101 - chosen where there is one
        with self._tracer.span("tokenize", about={"rayclassify.texts": len(inputs)}):
            return await self._encode(inputs)

    async def _postprocess(self, logits: Logits, options: Sequence[Options]) -> list[Answer]:
        answers = await self._decoded(logits, options)
        if answers is None:  # a replica that has seen no logits of this model yet
            answers = await self._decoded(logits, options, self._models.info_of(logits.model))
        if answers is None:
            raise NotReady("The model was replaced meanwhile. Retry.", 1.0)
        return answers

    async def _decoded(
        self, logits: Logits, options: Sequence[Options], info: ModelInfo | None = None
    ) -> list[Answer] | None:
        call: tuple[Any, ...] = (logits, options) if info is None else (logits, options, info)
        if self._tracer is not None:
            call = (logits, options, info, self._tracer.traceparent())
        return await _answered(
            self._postprocessing,
            lambda: _tried(self._postprocess_call.remote(*call)),
            POSTPROCESS_TIMEOUT_S,
        )

    def _watch_drift(
        self, read: Encoded, places: Sequence[int], text_at: Callable[[int], TextInput]
    ) -> None:
        info = self._models.info_of(read.model)
        # The text that proves readiness is nobody's traffic.
        if info is None or info.drift is None or not places or not self._ready:
            return
        # A cascade's second model sees what is hard, and one on trial is not what serves.
        if text_at(places[0]).options.stage in ("second", "shadow"):
            return
        baseline = baseline_of(info.drift, info.labels)
        if baseline is not None:
            inputs = [text_at(place) for place in places]
            self._observer.features(baseline, features_of(baseline, read, places, inputs))

    async def _ask_for_parts(self, known: Collection[str]) -> ModelParts | None:
        """Of some Classifier; however long the first takes to be there."""

        def ask() -> Awaitable[ModelParts | None]:
            return _tried(self._parts_call.remote(known))

        parts = await (_answered(self._asking, ask, INFO_TIMEOUT_S) if known else ask())
        if parts is not None:
            self._max_chars = MAX_CHARS_PER_TOKEN * parts.info.max_length
        return parts


async def _answered(attempts: Attempts, call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    """Raises ServiceError: what the replica raised, or that all tries or the time ran out."""
    try:
        return await attempts.run(call, asyncio.get_running_loop().time() + timeout_s)
    except LostReplica:
        raise ServiceError("The service's replicas died with this request. Retry.") from None


async def _tried(response: Awaitable[T]) -> T:
    """The answer of one handle call. Serve itself tries again what a replica had not accepted.

    Raises:
        LostReplica: the replica died with the call on it.
        ServiceError: what the replica raised.
    """
    # Raised from here, outside of `except`, and taken out: an error whose context or frames lead
    # back to itself is a cycle, and what hangs on it are the frames that hold the texts.
    failed: list[Exception] = []
    try:
        return await response
    except RayTaskError as exc:
        lost = exc.cause if isinstance(exc.cause, LostReplica) else None
        failed.append(lost or as_service_error(exc) or ServiceError())
    except LOST_REPLICA as exc:
        failed.append(LostReplica(type(exc).__name__))
    except asyncio.CancelledError:
        # Ours, or the replica's, which then stopped with the call on it.
        if _is_cancelled():
            raise
        failed.append(LostReplica("cancelled"))
    except Exception as exc:
        failed.append(as_service_error(exc) or exc)
    raise failed.pop()


def _is_cancelled() -> bool:
    """Whether this task is. In a function, as a task in a frame of its own error is a cycle."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
