"""A small model in front of a large one: which of them answers a text, and what if one can't."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import without_ray

from deployments.pipeline import cascade as module
from deployments.pipeline.cascade import Cascade, options_at
from deployments.pipeline.errors import (
    DeadlineExceeded,
    EmptyText,
    NotReady,
    Overloaded,
    PredictionFailed,
    ServiceError,
)
from deployments.pipeline.observer import Observer
from deployments.pipeline.tasks.text_classification import LabelDecoder
from deployments.pipeline.types import Answer, Logits, ModelInfo, Options, TextInput, TimedAnswer
from deployments.settings import Settings

pytestmark = pytest.mark.anyio

LABELS = ("no", "yes")


class Fake:
    """Answers "yes", by what a text says: `0.8` is the score, `!` an error of that text."""

    def __init__(self, labels: tuple[str, ...] = LABELS, label: str = "yes") -> None:
        self._labels, self._label = labels, label
        self.asked: list[str] = []
        self.timeouts_s: list[float | None] = []
        self.fails: ServiceError | None = None
        self.gone = False

    async def none_runs(self) -> bool:
        return self.gone

    def labels(self) -> tuple[str, ...]:
        return self._labels

    async def classify(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        self.timeouts_s.append(timeout_s)
        if self.fails is not None:
            raise self.fails
        return [self._answer(item) for item in inputs if isinstance(item, TextInput)]

    def _answer(self, item: TextInput) -> Answer | ServiceError:
        self.asked.append(item.text)
        if item.text == "!":
            return PredictionFailed("The model failed on this text.")
        score = float(item.text)
        answer: Answer = {"label": self._label, "score": score, "scores": {"yes": score, "no": 0.0}}
        if item.options.label_ids:
            answer["label_ids"] = [self._labels.index(name) for name in answer["scores"]]
        if item.options.unsure_below is not None:
            answer["unsure"] = score < item.options.unsure_below
        return TimedAnswer.of(answer, 1.0, 2.0)


class Counts(Observer):
    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def cascaded(self, outcome: str, n_texts: int) -> None:
        self.seen[outcome] = self.seen.get(outcome, 0) + n_texts


def cascade(
    first: Fake, second: Fake, threshold: float = 0.9, observer: Observer | None = None
) -> Cascade:
    return Cascade(first, second, lambda: threshold, 30.0, observer or Counts())


def texts(*said: str, **options: Any) -> list[TextInput | ServiceError]:
    return [TextInput(one, options=Options(**options)) for one in said]


def stages(answers: list[Answer | ServiceError]) -> list[Any]:
    return [
        one.code if isinstance(one, ServiceError) else tuple(one["cascade"].values())
        for one in answers
    ]


async def test_only_what_the_small_model_is_unsure_of_goes_on_and_order_is_kept() -> None:
    first, second, counts = Fake(), Fake(), Counts()
    answers = await cascade(first, second, observer=counts).classify(
        texts("0.95", "0.5", "0.9", "0.1")
    )
    assert second.asked == ["0.5", "0.1"]
    assert stages(answers) == [("first", False), ("second", False)] * 2
    assert [a["score"] for a in answers if isinstance(a, dict)] == [0.95, 0.5, 0.9, 0.1]
    assert all("unsure" not in a for a in answers if isinstance(a, dict))
    assert counts.seen == {"first": 2, "second": 2}


async def test_the_second_model_is_left_alone_where_nothing_is_unsure() -> None:
    second = Fake()
    await cascade(Fake(), second).classify(texts("0.95"))
    assert second.timeouts_s == []


async def test_a_bad_text_stays_in_its_place_and_reaches_neither_model() -> None:
    first, second = Fake(), Fake()
    answers = await cascade(first, second).classify([*texts("0.1"), EmptyText("empty")])
    assert stages(answers) == [("second", False), "empty_text"]
    assert first.asked == second.asked == ["0.1"]


@pytest.mark.parametrize(
    "error", [Overloaded("busy"), DeadlineExceeded("late"), NotReady("loading"), ServiceError()]
)
async def test_where_the_large_model_cannot_answer_the_small_ones_answer_stands_and_says_so(
    error: ServiceError,
) -> None:
    second, counts = Fake(), Counts()
    second.fails = error
    answers = await cascade(Fake(), second, observer=counts).classify(texts("0.95", "0.5"))
    assert stages(answers) == [("first", False), ("first", True)]
    assert counts.seen == {"first": 1, "degraded": 1}


async def test_a_text_that_only_the_large_model_fails_on_keeps_its_first_answer() -> None:
    class Failing(Fake):
        def _answer(self, item: TextInput) -> Answer | ServiceError:
            return PredictionFailed("no")

    answers = await cascade(Fake(), Failing()).classify(texts("0.5"))
    assert stages(answers) == [("first", True)]


async def test_a_text_that_only_the_small_model_fails_on_is_answered_by_the_large_one() -> None:
    class Failing(Fake):
        def _answer(self, item: TextInput) -> Answer | ServiceError:
            return PredictionFailed("no")

    assert stages(await cascade(Failing(), Fake()).classify(texts("0.5"))) == [("second", False)]


async def test_a_small_model_that_is_down_sends_all_on() -> None:
    first, second = Fake(), Fake()
    first.fails = NotReady("loading")
    answers = await cascade(first, second).classify(texts("0.95", "0.5"))
    assert stages(answers) == [("second", False)] * 2


class Silent(Fake):
    """Serve holds each call, as it does where no replica runs."""

    cancelled = False

    async def classify(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        try:
            await asyncio.sleep(min(timeout_s or 60.0, 60.0))
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise DeadlineExceeded("late")


async def test_a_small_model_that_no_replica_runs_any_more_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    first, second = Silent(), Fake()
    first.gone = True
    answers = await cascade(first, second).classify(texts("0.95", "0.5"), 20.0)
    assert stages(answers) == [("second", False)] * 2
    await asyncio.sleep(0)
    assert first.cancelled
    assert (second.timeouts_s[0] or 0.0) > 15.0


async def test_a_small_model_that_runs_and_is_slow_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    second = Fake()
    with pytest.raises(DeadlineExceeded):
        await cascade(Silent(), second).classify(texts("0.95"), 0.1)
    assert second.asked == []


async def test_a_caller_that_goes_away_takes_its_question_along() -> None:
    first = Silent()
    request = asyncio.create_task(cascade(first, Fake()).classify(texts("0.95")))
    await asyncio.sleep(0.01)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await asyncio.sleep(0)
    assert first.cancelled


async def test_both_down_is_the_large_ones_error_for_the_whole_request() -> None:
    first, second = Fake(), Fake()
    first.fails, second.fails = NotReady("loading"), Overloaded("busy", 3.0)
    with pytest.raises(Overloaded) as caught:
        await cascade(first, second).classify(texts("0.95", "0.5"))
    assert caught.value.retry_after_s == 3.0


@pytest.mark.parametrize("error", [Overloaded("busy"), DeadlineExceeded("late")])
async def test_a_small_model_with_too_much_to_do_refuses_and_floods_nobody(
    error: ServiceError,
) -> None:
    first, second = Fake(), Fake()
    first.fails = error
    with pytest.raises(type(error)):
        await cascade(first, second).classify(texts("0.5"))
    assert second.timeouts_s == []


async def test_the_large_model_gets_the_time_that_is_left() -> None:
    class Slow(Fake):
        async def classify(
            self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
        ) -> list[Answer | ServiceError]:
            await asyncio.sleep(0.05)
            return await super().classify(inputs, timeout_s)

    first, second = Slow(), Fake()
    await cascade(first, second).classify(texts("0.5"), 10.0)
    (given,), (left,) = first.timeouts_s, second.timeouts_s
    assert given is not None
    assert left is not None
    assert left <= given - 0.05
    await cascade(first, second).classify(texts("0.5"))
    assert first.timeouts_s[-1] is not None
    assert first.timeouts_s[-1] <= 30.0


async def test_token_ids_are_the_large_models_own_and_go_to_it_at_once() -> None:
    first, second = Fake(), Fake()
    item = TextInput("0.95", token_ids=(1, 2))
    assert stages(await cascade(first, second).classify([item])) == [("second", False)]
    assert first.asked == []


async def test_label_ids_are_the_large_models_whichever_answers() -> None:
    first, second = Fake(("yes", "no")), Fake(("no", "yes"))
    answers = await cascade(first, second).classify(texts("0.95", "0.5", label_ids=True))
    assert [a["label_ids"] for a in answers if isinstance(a, dict)] == [[1, 0], [1, 0]]


async def test_a_label_that_the_large_model_lacks_is_never_answered() -> None:
    first, second = Fake(label="maybe"), Fake()
    answers = await cascade(first, second).classify(texts("0.95"))
    assert stages(answers) == [("second", False)]
    second.fails = Overloaded("busy")
    with pytest.raises(Overloaded):
        await cascade(first, second).classify(texts("0.95"))


async def test_the_threshold_is_read_anew_for_each_request() -> None:
    now, second = [0.9], Fake()
    one = Cascade(Fake(), second, lambda: now[0], 30.0)
    await one.classify(texts("0.5"))
    now[0] = 0.4
    await one.classify(texts("0.5"))
    assert second.asked == ["0.5"]
    assert one.state() == {"threshold": 0.4, "first": 1, "second": 1, "degraded": 0}


async def test_both_passes_count_for_the_time_of_a_text_that_went_on() -> None:
    (sure, passed) = await cascade(Fake(), Fake()).classify(texts("0.95", "0.5"))
    assert isinstance(sure, TimedAnswer)
    assert isinstance(passed, TimedAnswer)
    assert (sure.model_s, passed.model_s, passed.tokenize_s) == (2.0, 4.0, 2.0)


# What the Postprocessor says of it


class Labels(Observer):
    def __init__(self) -> None:
        self.best: list[int] = []

    def labelled(self, labels: tuple[str, ...], best: Any, scores: Any) -> None:
        self.best += best.tolist()


def decoded(options: Options, observer: Observer, problem: str = "single_label") -> list[Answer]:
    info = ModelInfo("m", None, LABELS, f"{problem}_classification", 512, 2.0)
    values = np.array([[0.0, 8.0], [1.0, 0.0]], np.float32)
    return LabelDecoder(info, observer=observer).decode(Logits(values), [options] * 2)


@pytest.mark.parametrize("raw_scores", [False, True])
def test_unsure_looks_at_calibrated_scores_whatever_is_shown(raw_scores: bool) -> None:
    options = options_at(Options(raw_scores=raw_scores), "first", 0.9)
    # Temperature 2: softmax of (0, 4) is 0.98, of (0.5, 0) 0.62.
    assert [one["unsure"] for one in decoded(options, Observer())] == [False, True]


def test_a_text_counts_once_by_the_label_that_was_answered() -> None:
    seen = Labels()
    decoded(options_at(Options(), "first", 0.9), seen)
    assert seen.best == [1]
    decoded(options_at(Options(), "second"), seen)
    assert seen.best == [1, 1, 0]
    decoded(options_at(Options(), "shadow"), seen)
    assert seen.best == [1, 1, 0]


def test_without_a_cascade_an_answer_says_nothing_of_one() -> None:
    assert all("unsure" not in one for one in decoded(Options(), Observer()))
    several = decoded(options_at(Options(), "first", 0.9), Observer(), "multi_label")
    assert all("unsure" not in one for one in several)


# The replica


async def test_an_ingress_with_both_parts_answers_by_the_first_and_tries_the_third(
    demo_model: Path, make_tiny_model: Callable[..., Path]
) -> None:
    names = {"id2label": {0: "positive", 1: "negative"}}
    first, tried = make_tiny_model(**names), make_tiny_model(**names)
    settings = Settings.model_validate(
        {
            "model": {"id": str(demo_model)},
            "cascade": {"model": {"id": str(first)}, "threshold": 1.0},
            "shadow": {"model": {"id": str(tried)}, "share": 1.0},
        }
    )
    replica = without_ray.tokenizer(settings)
    assert replica._beside is not None
    for chain in (replica._chain, *replica._beside.chains.values()):
        await chain.loading
    await replica.readiness()
    (passed,) = await replica.classify_inputs([TextInput("很好")])
    assert isinstance(passed, dict)
    assert passed["cascade"] == {"stage": "second", "unsure": False}
    replica.reconfigure({"cascade_threshold": 0.1})
    (sure,) = await replica.classify_inputs([TextInput("很好")])
    assert isinstance(sure, dict)
    assert sure["cascade"] == {"stage": "first", "unsure": False}
    for _ in range(500):
        if replica._beside.state()["shadow"]["compared"] == 2:
            break
        await asyncio.sleep(0.01)
    assert replica._beside.state()["shadow"]["compared"] == 2
    assert replica._beside.state()["cascade"] == {
        "threshold": 0.1, "first": 1, "second": 1, "degraded": 0,
    }  # fmt: skip
