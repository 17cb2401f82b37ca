"""The models an ingress encodes for, as Classifiers come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import without_ray

from deployments.model.load import load_parts
from deployments.pipeline.errors import InvalidInput, NotReady, TextTooLong
from deployments.pipeline.live_models import LIVE_S, MAX_MODELS, LiveModels
from deployments.pipeline.parts import ModelParts
from deployments.pipeline.types import Logits, Options, TextInput
from deployments.settings import ModelSettings, Settings

pytestmark = pytest.mark.anyio


class Place:
    """Some Classifier, which has the `parts` it is given; and a clock."""

    def __init__(self, parts: ModelParts) -> None:
        self.parts = parts
        self.asked = 0
        self.now = 0.0

    async def ask(self, known: Collection[str]) -> ModelParts | None:
        self.asked += 1
        await asyncio.sleep(0)
        return None if self.parts.version in known else self.parts

    def models(self) -> LiveModels:
        return LiveModels(self.ask, clock=lambda: self.now)


@pytest.fixture(scope="module")
def parts(demo_model: Path) -> Callable[..., ModelParts]:
    """Those of the demo model, with as many labels."""
    demo = load_parts(ModelSettings(id=str(demo_model)))

    def made(n_labels: int, **info: Any) -> ModelParts:
        names = tuple(f"{n_labels}.{i}" for i in range(n_labels))
        return replace(demo, info=replace(demo.info, labels=names, **info))

    return made


async def test_before_the_first_model_is_met_nothing_can_be_encoded(
    parts: Callable[..., ModelParts],
) -> None:
    place = Place(parts(2))
    models, version = place.models(), place.parts.version
    assert models.info_of(version) is None
    with pytest.raises(NotReady):
        models.encode([TextInput("好")])
    assert await models.meet()
    assert models.encode([TextInput("好")]).batch.model == version
    assert models.info_of(version) is not None


async def test_texts_are_encoded_for_both_models_while_both_are_heard_of(
    parts: Callable[..., ModelParts],
) -> None:
    place = Place(parts(2))
    models = place.models()
    await models.meet()
    old = place.parts.version
    place.parts = parts(3, max_length=4)
    new = place.parts.version
    await models.meet({new})
    made = models.encode([TextInput("好好好好好"), TextInput("好")])
    assert [
        (b.model, b.lengths.tolist()) for b in (made.batch.of(new), made.batch.of(old)) if b
    ] == [
        (new, [4, 3]),
        (old, [7, 3]),
    ]
    assert made.truncated == {new: [True, False], old: [False, False]}
    place.now += LIVE_S + 1
    models.heard_of(new)
    assert models.encode([TextInput("好")]).batch.of(old) is None
    models.heard_of(old)  # it lives after all: an update was taken back
    assert models.encode([TextInput("好")]).batch.of(old) is not None


async def test_after_a_silence_texts_are_for_the_model_last_heard_of(
    parts: Callable[..., ModelParts],
) -> None:
    place = Place(parts(2))
    models = place.models()
    await models.meet()
    old = place.parts.version
    place.parts = parts(3)
    await models.meet({place.parts.version})
    place.now += 1
    models.heard_of(old)
    place.now += 9 * LIVE_S
    made = models.encode([TextInput("好")])
    assert (made.batch.model, made.batch.also) == (old, None)


async def test_a_text_that_one_of_the_models_refuses_is_refused_and_harms_no_other(
    parts: Callable[..., ModelParts],
) -> None:
    place = Place(parts(2))
    models = place.models()
    await models.meet()
    old = place.parts.version
    place.parts = parts(3, max_length=4)
    new = place.parts.version
    await models.meet({new})
    whole = Options(truncation=False)
    long, odd, good = TextInput("好" * 9, options=whole), TextInput("\ud800"), TextInput("好")
    made = models.encode([long, odd, good])
    assert {i: type(error) for i, error in made.errors.items()} == {0: TextTooLong, 1: InvalidInput}
    assert made.index == [2]
    assert {m: made.batch.of(m).lengths.tolist() for m in (old, new)} == {old: [3], new: [3]}
    assert made.truncated == {old: [False], new: [False]}
    none_left = models.encode([odd])
    assert (none_left.index, len(none_left.batch)) == ([], 0)


async def test_all_that_meet_a_model_at_once_ask_for_it_once(
    parts: Callable[..., ModelParts],
) -> None:
    place = Place(parts(2))
    models = place.models()
    assert (
        await asyncio.gather(*[models.meet({place.parts.version}) for _ in range(9)]) == [True] * 9
    )
    assert place.asked == 1


async def test_a_model_that_nobody_has_any_more_is_given_up(
    parts: Callable[..., ModelParts],
) -> None:
    models = Place(parts(2)).models()
    assert not await models.meet({"gone"})


async def test_no_more_models_are_kept_than_may_live(parts: Callable[..., ModelParts]) -> None:
    place = Place(parts(2))
    models = place.models()
    versions = []
    for n in range(2, 4 + MAX_MODELS):
        place.now += 1
        place.parts = parts(n)
        versions.append(place.parts.version)
        await models.meet({versions[-1]})
    assert [v for v in versions if models.info_of(v) is not None] == versions[-MAX_MODELS:]


def logits_of(n_labels: int) -> Callable[..., Logits]:
    return lambda batch, *_: Logits(np.zeros((len(batch), n_labels), np.float32))


@pytest.mark.parametrize(
    ("n_labels", "changed"),
    [
        (2, {}),
        (4, {}),
        (2, {"problem_type": "multi_label_classification"}),
        (2, {"max_length": 4}),
        (2, {"temperature": 2.0}),
    ],
    ids=["other labels", "more labels", "another problem type", "another limit", "calibration"],
)
async def test_each_answer_is_wholly_of_the_model_that_is_there(
    parts: Callable[..., ModelParts], n_labels: int, changed: dict[str, Any]
) -> None:
    old, new = parts(3), parts(n_labels, **changed)
    there = without_ray.Classifiers(old, logits_of(3))
    replica = without_ray.tokenizer(Settings(), classifiers=there)
    await replica._chain.loading
    for now in (new, old, new):
        there.serve(now, logits_of(len(now.info.labels)))
        answer = await replica.classify("好好好好")
        assert isinstance(answer, dict)
        assert set(answer["scores"]) == set(now.info.labels)
        assert ("labels" in answer) == now.info.problem_type.startswith("multi_label")
        assert answer["truncated"] == (now.info.max_length < 6)
