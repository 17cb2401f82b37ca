"""Explained answers: a text is classified as ever, and then the label that it got is explained.

Two processes do this. The version of the model goes with the question, so that no answer is ever
explained by another model than the one that gave it.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from deployments.pipeline.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    ServiceError,
    TooLarge,
)
from deployments.pipeline.types import Answer, OtherModel, TextInput, TimedAnswer
from deployments.settings import ExplainSettings

Method = Literal["auto", "integrated_gradients", "gradient_x_input", "occlusion"]
"""auto: by what is installed and the passes that the budget allows."""

DEFAULT_PASSES = 32
MIN_PASSES, MAX_PASSES = 2, 512

OFF = "This service does not explain. Set args.explain.enabled to true and deploy it."

EXPLANATION = "explanation"
"""Key of an answer."""

# An update replaces Classifiers and Explainers side by side: for a while they are of two versions.
_TRIES = 3
_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Explain:
    """How answers are to be explained. target: a label; None: the one answered. passes: at most;
    None leaves it to the service.
    """

    target: str | None = field(default=None, repr=False)
    method: Method = "auto"
    passes: int | None = None


@dataclass(frozen=True, slots=True)
class Unexplained:
    """What an Explainer is asked: to explain one answer.

    version: of the model that gave it. window: the part of the text that decided, where a long text
    was read in windows, in characters after redaction. left_s: how long it is waited for.
    """

    item: TextInput
    version: str
    target: str
    method: Method
    passes: int
    left_s: float
    window: tuple[int, int] | None = None


Classify = Callable[
    [Sequence[TextInput | ServiceError], float | None], Awaitable[list[Answer | ServiceError]]
]
Ask = Callable[[Unexplained], Awaitable[dict[str, Any] | OtherModel]]


class Explaining:
    """classify: by the one model that Explainers have too. ask: an Explainer. labels: of the model;
    empty before one serves. limit_s: of a request.
    """

    def __init__(
        self,
        classify: Classify,
        ask: Ask,
        labels: Callable[[], tuple[str, ...]],
        settings: ExplainSettings,
        limit_s: float,
    ) -> None:
        self._classify, self._ask, self._labels = classify, ask, labels
        self._settings = settings
        self._limit_s = limit_s

    async def answers(
        self,
        inputs: Sequence[TextInput | ServiceError],
        how: Explain,
        timeout_s: float | None = None,
    ) -> list[Answer | ServiceError]:
        """One result per input, in order: what `classify` answers, with `explanation`.

        Texts of one request are explained one after the other, so that a list leaves room for the
        requests of others.

        Raises:
            TooLarge, InvalidInput: more texts or passes than are explained, or an unknown label.
            ServiceError: nothing of this call was classified.
        """
        self._check(len(inputs), how)
        loop = asyncio.get_running_loop()
        until = loop.time() + min(timeout_s or self._limit_s, self._limit_s)
        answers = await self._classify(inputs, timeout_s)
        results: list[Answer | ServiceError] = []
        for item, answer in zip(inputs, answers, strict=True):
            if isinstance(item, TextInput) and not isinstance(answer, ServiceError):
                try:
                    answer = await self._explained(item, answer, how, until)
                except ServiceError as exc:
                    answer = exc.with_traceback(None)  # its frames hold the text
            results.append(answer)
        return results

    async def _explained(
        self, item: TextInput, answer: Answer, how: Explain, until: float
    ) -> Answer | ServiceError:
        loop = asyncio.get_running_loop()
        passes = how.passes or min(DEFAULT_PASSES, self._settings.max_passes)
        for tried in range(_TRIES):
            if tried:
                await asyncio.sleep(_AGAIN_S)
                (again,) = await self._classify([item], max(until - loop.time(), 1e-3))
                if isinstance(again, ServiceError):
                    return again
                answer = again
            if (left_s := until - loop.time()) <= 0:
                return DeadlineExceeded("No time was left to explain this text. Send fewer texts.")
            version = answer.model if isinstance(answer, TimedAnswer) else ""
            target = answer["label"] if how.target is None else how.target
            window = window_of(answer)
            asked = Unexplained(item, version, target, how.method, passes, left_s, window)
            found = await self._ask(asked)
            if not isinstance(found, OtherModel):
                answer[EXPLANATION] = found
                if isinstance(answer, TimedAnswer):
                    answer.model_s += found["seconds"]
                return answer
        return NotReady(
            "The explainer has another version of the model than the one that answered. Retry "
            "after the update; where none is under way, deploy again.",
            5.0,
        )

    def _check(self, n_texts: int, how: Explain) -> None:
        most = self._settings.max_texts
        if n_texts > most:
            raise TooLarge(
                f"text has {n_texts} texts; at most {most} are explained at once. Send several "
                "requests, or texts without explain."
            )
        if how.passes is not None and how.passes > self._settings.max_passes:
            raise InvalidInput(
                f"passes is {how.passes}; the limit is {self._settings.max_passes}. Lower it."
            )
        if how.target is not None and (labels := self._labels()):
            check_target(how.target, labels)


def about(settings: ExplainSettings) -> dict[str, Any]:
    """The part `explain` of `GET /info`."""
    has_captum = importlib.util.find_spec("captum") is not None
    return {
        "methods": [m for m in get_args(Method) if has_captum or m != "integrated_gradients"],
        "max_texts": settings.max_texts,
        "max_passes": settings.max_passes,
        "max_s": settings.max_s,
    }


def check_target(target: str, labels: Sequence[str]) -> None:
    """Raises InvalidInput: the label is not the model's."""
    if target not in labels:
        known = ", ".join(labels[:10]) + (" …" if len(labels) > 10 else "")
        raise InvalidInput(f"target is none of the model's {len(labels)} labels: {known}.")


def window_of(answer: Answer) -> tuple[int, int] | None:
    """The window that decided, in characters of the redacted text; None: the text was one piece."""
    if "windows" not in answer:
        return None
    deciding = answer["windows"]["deciding"]
    return deciding["start"], deciding["end"]
