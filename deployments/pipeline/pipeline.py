"""The order of the stages, in one place: encode → predict → postprocess.

The three stages are async callables: handles of Ray deployments in production, plain functions in
tests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deployments.pipeline.errors import DeadlineExceeded, EmptyText, ServiceError
from deployments.pipeline.live_models import Encodings
from deployments.pipeline.observer import SILENT, Observer
from deployments.pipeline.types import (
    Answer,
    Deadlines,
    Encoded,
    FlowRuns,
    Logits,
    Options,
    Predicted,
    TextInput,
    TimedAnswer,
    runs_of,
)
from deployments.pipeline.windows import Plan, Pooling, pooled

Encode = Callable[[Sequence[TextInput]], Awaitable[Encodings]]
Predict = Callable[[Encoded, Deadlines, FlowRuns | None], Awaitable[Predicted]]
Postprocess = Callable[[Logits, Sequence[Options]], Awaitable[list[Answer]]]
Planned = Callable[[Sequence[TextInput]], Awaitable[Plan | None]]
Meet = Callable[[Collection[str]], Awaitable[bool]]

Answered = Callable[[Encoded, Sequence[int], Callable[[int], TextInput]], None]
"""Told of texts that got answers: as one model read them, their places there, and place → text."""

MODEL = "model"
"""Key of an answer under which the version stands that gave it, where `name_model` asks for it."""

# Where a model was gone before its parts could be had; its replica's successor may be there by now.
_AGAIN_S = 0.05


async def _none_is_long(inputs: Sequence[TextInput]) -> None:
    return None


def _nobody_watches(
    read: Encoded, places: Sequence[int], text_at: Callable[[int], TextInput]
) -> None:
    pass


async def _no_other(versions: Collection[str]) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Text in, label out, for one micro-batch.

    Each text is answered by one model, from its first token to its label. meet: makes models known
    to `encode`, by their versions; texts whose ids were for none that is there go through again.
    plan, pooling: long texts in windows; see windows.py.
    """

    encode: Encode
    predict: Predict
    postprocess: Postprocess
    meet: Meet = _no_other
    name_model: bool = False
    plan: Planned = _none_is_long
    pooling: Pooling = "mean"
    observer: Observer = SILENT
    answered: Answered = _nobody_watches

    async def run(
        self, inputs: Sequence[TextInput], deadlines: Sequence[float]
    ) -> list[Answer | ServiceError]:
        """One answer or error per input, in order.

        deadlines: of each input; see `types.Deadlines`. The Classifier drops what is past its time.

        Raises:
            ServiceError: the whole batch failed, e.g. Overloaded.
        """
        loop = asyncio.get_running_loop()
        until = np.asarray(deadlines, np.float64)
        plan = await self.plan(inputs)
        if plan is not None:
            inputs, until = plan.inputs, until[plan.text_of]
        results: list[Answer | ServiceError | None] = [None] * len(inputs)
        strange: dict[int, str] = {}
        if inputs:
            strange = await self._once(inputs, range(len(inputs)), until, results, plan)
        while strange and float(until[list(strange)].max()) > loop.time():
            try:
                if not await self.meet(set(strange.values())):
                    await asyncio.sleep(_AGAIN_S)
                strange = await self._once(inputs, list(strange), until, results, plan)
            except ServiceError as exc:
                for i in strange:
                    results[i] = exc
                break
        if plan is not None:
            results = plan.answers(results)
        return [_too_late() if result is None else result for result in results]

    async def _once(
        self,
        inputs: Sequence[TextInput],
        chosen: Sequence[int],
        deadlines: Deadlines,
        results: list[Answer | ServiceError | None],
        plan: Plan | None,
    ) -> dict[int, str]:
        """Fills in `results` of the chosen inputs, and returns which were for no model that is
        there, with the version that is."""
        started = time.perf_counter()
        encoded = await self.encode([inputs[i] for i in chosen])
        tokenize_s = time.perf_counter() - started
        self.observer.stage("tokenize", tokenize_s, len(chosen))
        for k, error in encoded.errors.items():
            results[chosen[k]] = error
        if not encoded.index:
            return {}
        index = [chosen[k] for k in encoded.index]
        flows = runs_of([inputs[i].flow for i in index])
        predicted = await self.predict(encoded.batch, deadlines[index], flows)
        for k, error in predicted.errors.items():
            results[index[k]] = error
        for places, logits in predicted.parts:
            made = encoded.batch.of(logits.model)
            assert made is not None  # noqa: S101 - a Classifier takes its own
            cut = encoded.truncated[logits.model]
            seen: dict[int, dict[str, Any]] = {}
            if plan is not None:
                nothing = {i for i, one in enumerate(results) if isinstance(one, EmptyText)}
                together = pooled(
                    plan, index, places, logits, made.lengths.tolist(), cut, nothing, self.pooling
                )
                places, logits, seen = together.places, together.logits, together.seen
                if not places:
                    continue
            started = time.perf_counter()
            answers = await self.postprocess(logits, [inputs[index[k]].options for k in places])
            self.observer.stage("postprocess", time.perf_counter() - started, len(answers))
            if n_cut := sum(cut[k] for k in places):
                self.observer.truncated(n_cut)
            failed = logits.errors or {}
            good = [k for row, k in enumerate(places) if row not in failed] if failed else places
            self.answered(made, good, lambda k: inputs[index[k]])
            for row, k in enumerate(places):
                answer = {
                    **answers[row],
                    "tokens": int(made.lengths[k]),
                    "truncated": cut[k],
                    **({} if encoded.redacted is None else {"redacted": encoded.redacted[k]}),
                    **({MODEL: logits.model} if self.name_model else {}),
                    **seen.get(k, {}),
                }
                results[index[k]] = failed.get(row) or TimedAnswer.of(
                    answer, tokenize_s, logits.model_s, logits.model
                )
        strange = {index[k]: version for k, version in predicted.strange.items()}
        if plan is None or not predicted.parts:
            return strange
        return plan.split(strange, chosen, results, predicted.parts[0][1].model)


def _too_late() -> ServiceError:
    return DeadlineExceeded("The model did not answer in time. Retry later.")
