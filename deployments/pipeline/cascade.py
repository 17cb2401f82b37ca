"""A small model answers first; texts that it is unsure of go on to the large one.

Each answer says under `cascade` which model gave it. Where the large one can't answer, the small
one's answer stands, and says that it is unsure: an answer is worth more than a 429.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

from deployments.pipeline.errors import DeadlineExceeded, Overloaded, ServiceError
from deployments.pipeline.observer import SILENT, CascadeOutcome, Observer
from deployments.pipeline.types import Answer, ModelStage, Options, TextInput, TimedAnswer

CASCADE = "cascade"
"""Key of an answer: `{"stage": "first" | "second", "unsure": bool}`."""


class Model(Protocol):
    """One of the two, with all that is its own: `ModelChain` in production."""

    async def classify(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        """See `ClassifyService.classify_inputs`."""
        ...

    def labels(self) -> tuple[str, ...]:
        """Of the model that serves, in its own order; empty before one does."""
        ...


class FirstModel(Model, Protocol):
    """The one that is asked first."""

    async def none_runs(self) -> bool:
        """Whether no replica takes calls: dead, scaled to zero, or taken away by an update."""
        ...


# A call that Serve holds for a replica that never comes is noticed after so long.
_LOOK_S = 1.0


class Cascade:
    """threshold: the best score from which the first model's answer stands. limit_s: of a request.

    Texts that come as token ids go to the second model at once: they are its tokenizer's.
    """

    def __init__(
        self,
        first: FirstModel,
        second: Model,
        threshold: Callable[[], float],
        limit_s: float,
        observer: Observer = SILENT,
    ) -> None:
        self._first, self._second = first, second
        self._threshold = threshold
        self._limit_s = limit_s
        self._observer = observer
        self._counts: Counter[CascadeOutcome] = Counter()

    async def classify(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        """One result per input, in order; see `ClassifyService.classify_inputs`.

        Raises:
            Overloaded, DeadlineExceeded: of the first model.
            ServiceError: of the second, where no text of the request has an answer.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + min(timeout_s or self._limit_s, self._limit_s)
        results: list[Answer | ServiceError] = [
            item if isinstance(item, ServiceError) else ServiceError() for item in inputs
        ]
        texts = {i: item for i, item in enumerate(inputs) if isinstance(item, TextInput)}
        asked = [i for i, item in texts.items() if item.token_ids is None]
        unsure: dict[int, Answer] = {}
        passed = set(texts) - set(asked)
        if asked:
            threshold = self._threshold()
            given = [_at(texts[i], "first", threshold) for i in asked]
            for i, answer in zip(asked, await self._ask_first(given, until), strict=True):
                if isinstance(answer, dict) and self._stands(answer):
                    results[i] = self._in_order(_said(answer, "first", unsure=False))
                    continue
                passed.add(i)
                if isinstance(answer, dict) and answer["label"] in self._second.labels():
                    unsure[i] = answer
        if passed:
            await self._pass_on(texts, sorted(passed), unsure, until, results)
        self._count(results[i] for i in texts)
        return results

    def state(self) -> dict[str, Any]:
        """The part `cascade` of `GET /state`: texts of this replica since it started."""
        return {
            "threshold": self._threshold(),
            "first": self._counts["first"],
            "second": self._counts["second"],
            "degraded": self._counts["degraded"],
        }

    async def _ask_first(
        self, given: Sequence[TextInput], until: float
    ) -> list[Answer | ServiceError]:
        """Raises Overloaded and DeadlineExceeded; other errors send all texts on, and so does a
        model that no replica runs."""
        asked = asyncio.ensure_future(self._first.classify(given, _left_s(until)))
        failed = "NotReady"
        try:
            while not (await asyncio.wait({asked}, timeout=_LOOK_S))[0]:
                if await self._first.none_runs():
                    break
            else:
                return asked.result()
        except (Overloaded, DeadlineExceeded):
            raise
        except ServiceError as exc:
            failed = type(exc).__name__
        finally:
            asked.cancel()
            del asked  # with its error a cycle, which would keep the texts
        # Without the exception: its frames hold the texts.
        return [ServiceError(failed)] * len(given)

    def _stands(self, answer: Answer) -> bool:
        """A label that the second model does not have is no answer: an update may bring one."""
        labels = self._second.labels()
        return not answer.get("unsure", True) and (not labels or answer["label"] in labels)

    async def _pass_on(
        self,
        texts: dict[int, TextInput],
        passed: list[int],
        unsure: dict[int, Answer],
        until: float,
        results: list[Answer | ServiceError],
    ) -> None:
        """Fills in `results` of the texts that the first model did not settle."""
        given = [_at(texts[i], "second") for i in passed]
        failed: list[ServiceError] = []
        answers: list[Answer | ServiceError] = []
        try:
            answers = await self._second.classify(given, _left_s(until))
        except ServiceError as exc:
            failed.append(exc.with_traceback(None))  # its frames hold the texts
        if failed and not unsure and len(passed) == len(texts):
            raise failed.pop()
        answers = answers or [failed[0]] * len(passed)
        for i, answer in zip(passed, answers, strict=True):
            early = unsure.get(i)
            if isinstance(answer, dict):
                results[i] = _said(answer, "second", unsure=False, before=early)
            elif early is not None:
                results[i] = self._in_order(_said(early, "first", unsure=True))
            else:
                results[i] = answer

    def _in_order(self, answer: Answer) -> Answer:
        """Numbers of labels are the second model's, whichever answered."""
        if "label_ids" in answer:
            number = {label: i for i, label in enumerate(self._second.labels())}
            answer["label_ids"] = [number[label] for label in answer["scores"]]
        return answer

    def _count(self, results: Iterator[Answer | ServiceError]) -> None:
        found: Counter[CascadeOutcome] = Counter()
        for result in results:
            if isinstance(result, dict):
                said = result[CASCADE]
                found["degraded" if said["unsure"] else said["stage"]] += 1
        self._counts += found
        for outcome, n_texts in found.items():
            self._observer.cascaded(outcome, n_texts)


def _said(
    answer: Answer, stage: ModelStage, *, unsure: bool, before: Answer | None = None
) -> Answer:
    """The answer with its stage. before: what the text's first model answered; its time counts."""
    answer.pop("unsure", None)
    answer[CASCADE] = {"stage": stage, "unsure": unsure}
    if isinstance(answer, TimedAnswer) and isinstance(before, TimedAnswer):
        answer.tokenize_s += before.tokenize_s
        answer.model_s += before.model_s
    return answer


@lru_cache(maxsize=512)
def options_at(options: Options, stage: ModelStage, unsure_below: float | None = None) -> Options:
    """Equal options are one object, which pickle sends once."""
    return replace(options, stage=stage, unsure_below=unsure_below)


def _at(item: TextInput, stage: ModelStage, unsure_below: float | None = None) -> TextInput:
    return replace(item, options=options_at(item.options, stage, unsure_below))


def _left_s(until: float) -> float:
    """Seconds; never none at all, which would mean no limit."""
    return max(until - asyncio.get_running_loop().time(), 1e-3)
