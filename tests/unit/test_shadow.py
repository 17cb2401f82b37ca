"""A model on trial: what it is asked, what is compared, and that no caller ever feels it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from deployments.pipeline.errors import EmptyText, NotReady, Overloaded, ServiceError
from deployments.pipeline.observer import Observer
from deployments.pipeline.shadow import Shadow
from deployments.pipeline.types import Answer, Options, TextInput

pytestmark = pytest.mark.anyio

LABELS = ("no", "yes")


class Tried:
    """Says "no" to a text of even length, by 0.7."""

    def __init__(self) -> None:
        self.asked: list[TextInput] = []
        self.free = asyncio.Event()
        self.free.set()
        self.fails: Exception | None = None

    def labels(self) -> tuple[str, ...]:
        return LABELS

    async def classify(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        await self.free.wait()
        if self.fails is not None:
            raise self.fails
        given = [item for item in inputs if isinstance(item, TextInput)]
        self.asked += given
        return [self._answer(item.text) for item in given]

    def _answer(self, text: str) -> Answer | ServiceError:
        if text == "!":
            return ServiceError()
        label, other = LABELS if len(text) % 2 == 0 else LABELS[::-1]
        return {"label": label, "score": 0.7, "scores": {label: 0.7, other: 0.3}}


class Pairs(Observer):
    def __init__(self) -> None:
        self.pairs: list[tuple[str, str, float]] = []
        self.became: dict[str, int] = {}

    def compared(self, labels: tuple[str, ...], served: str, other: str, difference: float) -> None:
        assert labels == LABELS
        self.pairs.append((served, other, round(difference, 6)))

    def shadowed(self, outcome: str, n_texts: int) -> None:
        self.became[outcome] = self.became.get(outcome, 0) + n_texts


def shadow(model: Tried, seen: Pairs | None = None, **how: Any) -> Shadow:
    how = {"share": 1.0, "max_waiting": 8, "timeout_s": 5.0} | how
    return Shadow(model, lambda: LABELS, observer=seen or Pairs(), **how)


def served(*texts: str, **options: Any) -> tuple[list[Any], list[Any]]:
    items = [TextInput(one, options=Options(**options)) for one in texts]
    return items, [{"label": "yes", "score": 0.9, "scores": {"yes": 0.9}} for _ in texts]


async def done(one: Shadow) -> None:
    for _ in range(50):
        await asyncio.sleep(0)
    assert one.state()["waiting"] == 0


async def test_both_labels_and_the_scores_of_the_one_that_was_served_are_compared() -> None:
    seen = Pairs()
    one = shadow(Tried(), seen)
    one.offer(*served("a", "bb"))
    await done(one)
    assert seen.pairs == [("yes", "yes", 0.2), ("yes", "no", 0.6)]
    assert seen.became == {"compared": 2}
    assert one.state() == {
        "share": 1.0, "waiting": 0, "compared": 2, "agreed": 1, "dropped": 0, "failed": 0,
    }  # fmt: skip


async def test_it_is_asked_as_bulk_for_all_labels_and_after_the_answer() -> None:
    model = Tried()
    one = shadow(model)
    one.offer(*served("a", top_k=1, truncation=False))
    assert model.asked == []
    await done(one)
    (item,) = model.asked
    assert item.flow.priority == "bulk"
    assert (item.options.stage, item.options.truncation) == ("shadow", False)
    assert (item.options.top_k or 0) > 1_000


async def test_a_share_of_the_texts_is_chosen_each_by_itself() -> None:
    drawn = iter([0.2, 0.01, 0.049, 0.05])
    model = Tried()
    one = shadow(model, share=0.05, rng=lambda: next(drawn))
    one.offer(*served("a", "b", "c", "d"))
    await done(one)
    assert [item.text for item in model.asked] == ["b", "c"]


async def test_what_a_slow_model_would_pile_up_is_dropped_and_counted() -> None:
    model, seen = Tried(), Pairs()
    model.free.clear()
    one = shadow(model, seen, max_waiting=3)
    for _ in range(4):
        one.offer(*served("a", "b"))
        await asyncio.sleep(0)
    assert one.state()["waiting"] == 3
    assert seen.became == {"dropped": 5}
    model.free.set()
    await done(one)
    assert seen.became == {"dropped": 5, "compared": 3}
    one.offer(*served("a"))  # and it goes on
    await done(one)
    assert one.state()["compared"] == 4


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Overloaded("busy"), "dropped"),
        (NotReady("loading"), "dropped"),
        (ServiceError(), "failed"),
        (RuntimeError("broken"), "failed"),
    ],
)
async def test_whatever_it_raises_is_counted_and_the_next_text_is_asked(
    error: Exception, outcome: str
) -> None:
    model, seen = Tried(), Pairs()
    one = shadow(model, seen)
    model.fails = error
    one.offer(*served("a"))
    await done(one)
    model.fails = None
    one.offer(*served("!", "a"))
    await done(one)
    expected = {"dropped": 1, "failed": 1} if outcome == "dropped" else {"failed": 2}
    assert seen.became == {**expected, "compared": 1}


async def test_texts_without_a_comparable_answer_are_passed_by() -> None:
    model = Tried()
    one = shadow(model)
    one.offer(*served("a", raw_scores=True))
    one.offer(*served("a", activation="sigmoid"))
    one.offer([TextInput("a"), EmptyText("empty")], [ServiceError(), EmptyText("empty")])
    one.offer([TextInput("a", token_ids=(1,))], [{"label": "yes", "score": 0.9}])
    await asyncio.sleep(0)
    assert one.state()["waiting"] == 0
    assert model.asked == []


async def test_a_caller_that_goes_away_ends_no_comparison() -> None:
    model = Tried()
    model.free.clear()
    one = shadow(model)

    async def request() -> None:
        one.offer(*served("a"))
        await asyncio.sleep(60)

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    model.free.set()
    await done(one)
    assert one.state()["compared"] == 1


async def test_its_questions_are_held_no_longer_than_they_take() -> None:
    one = shadow(Tried())
    one.offer(*served("a", "b"))
    await done(one)
    assert not one._waiting
    assert one._task is None
