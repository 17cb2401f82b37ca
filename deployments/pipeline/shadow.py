"""A model on trial: it is asked a share of the texts once they are answered, and answers nobody."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from deployments.pipeline.cascade import Model
from deployments.pipeline.errors import NotReady, Overloaded, ServiceError
from deployments.pipeline.observer import SILENT, Observer, ShadowOutcome
from deployments.pipeline.types import Answer, Options, TextInput, flow_of

# Texts asked at once: few enough that a replica which stops loses little.
_AT_ONCE = 32
# All labels: the score of the label that was served must be among them.
_ALL_LABELS = 1_000_000


class _Waiting(NamedTuple):
    """A text, and what the caller was told: held until both models have answered, no longer."""

    item: TextInput
    label: str
    score: float


class Shadow:
    """labels: of the model that serves, in order. share: of texts, 0 to 1. max_waiting: texts that
    wait or are under way; beyond it they are dropped. timeout_s: of one question."""

    def __init__(
        self,
        model: Model,
        labels: Callable[[], tuple[str, ...]],
        share: float,
        max_waiting: int,
        timeout_s: float,
        observer: Observer = SILENT,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._model = model
        self._labels = labels
        self._share, self._max_waiting, self._timeout_s = share, max_waiting, timeout_s
        self._observer = observer
        self._rng = rng
        self._waiting: deque[_Waiting] = deque()
        self._asked = 0
        self._task: asyncio.Task[None] | None = None
        self._counts: Counter[str] = Counter()

    def offer(
        self,
        inputs: Sequence[TextInput | ServiceError],
        answers: Sequence[Answer | ServiceError],
    ) -> None:
        """Takes its share of them, for later; returns at once. Texts that got an error, that came
        as token ids, or whose caller asked for other scores, can't be compared and are passed by.
        """
        for item, answer in zip(inputs, answers, strict=True):
            if self._rng() >= self._share or not _comparable(item, answer):
                continue
            if len(self._waiting) + self._asked >= self._max_waiting:
                self._became("dropped", 1)
                continue
            assert isinstance(item, TextInput)  # noqa: S101 - as `_comparable` has found
            assert isinstance(answer, dict)  # noqa: S101
            self._waiting.append(_Waiting(item, answer["label"], answer["score"]))
        if self._waiting and self._task is None:
            # In a context of its own: the request's ends with its caller, and would end this too.
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), context=contextvars.Context())

    def state(self) -> dict[str, Any]:
        """The part `shadow` of `GET /state`: texts of this replica since it started."""
        names = ("compared", "agreed", "dropped", "failed")
        waiting = len(self._waiting) + self._asked
        return {
            "share": self._share,
            "waiting": waiting,
            **{name: self._counts[name] for name in names},
        }

    async def _run(self) -> None:
        try:
            while self._waiting:
                n_texts = min(_AT_ONCE, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(n_texts)]
                self._asked = n_texts
                await self._compare(batch)
                self._asked = 0
        finally:
            self._asked = 0
            self._task = None

    async def _compare(self, batch: list[_Waiting]) -> None:
        flow = flow_of("bulk", "", len(batch))
        given: list[TextInput | ServiceError] = [
            replace(one.item, options=_options(one.item.options), flow=flow) for one in batch
        ]
        try:
            answers = await self._model.classify(given, self._timeout_s)
        except (Overloaded, NotReady):
            self._became("dropped", len(batch))
            return
        except Exception:  # whatever it is, callers have their answers
            self._became("failed", len(batch))
            return
        labels = self._labels()
        for one, answer in zip(batch, answers, strict=True):
            if not isinstance(answer, dict):
                self._became("failed", 1)
                continue
            self._became("compared", 1)
            other: str = answer["label"]
            self._counts["agreed"] += one.label == other
            difference = abs(one.score - answer["scores"].get(one.label, 0.0))
            self._observer.compared(labels, one.label, other, difference)

    def _became(self, outcome: ShadowOutcome, n_texts: int) -> None:
        self._counts[outcome] += n_texts
        self._observer.shadowed(outcome, n_texts)


def _comparable(item: TextInput | ServiceError, answer: Answer | ServiceError) -> bool:
    return (
        isinstance(item, TextInput)
        and isinstance(answer, dict)
        and item.token_ids is None
        and not item.options.raw_scores
        and item.options.activation is None
    )


@lru_cache(maxsize=256)
def _options(options: Options) -> Options:
    """Equal options are one object, which pickle sends once."""
    return replace(options, stage="shadow", top_k=_ALL_LABELS, label_ids=False, unsure_below=None)
