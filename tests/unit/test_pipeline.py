"""The chain, with plain functions for stages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

import numpy as np
import pytest
from virtual_time import after

from deployments.engines.null import NullEngine
from deployments.pipeline.errors import DeadlineExceeded, EmptyText, NotReady, PredictionFailed
from deployments.pipeline.live_models import Encodings
from deployments.pipeline.pipeline import MODEL, Pipeline
from deployments.pipeline.tasks.text_classification import LabelDecoder
from deployments.pipeline.types import (
    DEFAULT_FLOW,
    Answer,
    Deadlines,
    Encoded,
    Flow,
    FlowRuns,
    Logits,
    ModelInfo,
    Options,
    OtherModel,
    Predicted,
    TextInput,
)

pytestmark = pytest.mark.anyio

DECODER = LabelDecoder(
    ModelInfo("m", None, ("long", "zero"), "single_label_classification", 512, 1.0)
)


async def encode(inputs: Sequence[TextInput]) -> Encodings:
    """One token per character; an empty text is refused, one of 9 characters was cut."""
    good = [i for i, item in enumerate(inputs) if item.text]
    lengths = np.asarray([len(inputs[i].text) for i in good], np.int32)
    return Encodings(
        Encoded(np.zeros(lengths.sum(), np.int32), lengths),
        good,
        {"": [len(inputs[i].text) == 9 for i in good]},
        {i: EmptyText("empty") for i, item in enumerate(inputs) if not item.text},
    )


async def postprocess(logits: Logits, options: Sequence[Options]) -> list[Answer]:
    return DECODER.decode(logits, options)


def in_s(*seconds: float) -> list[float]:
    """Deadlines."""
    return [after(one) for one in seconds]


class Predict:
    """The null engine, failing the text with `poison` tokens. Keeps the timeouts it was given."""

    def __init__(self, poison: int = 0) -> None:
        self.poison = poison
        self.timeouts_s: list[float] = []
        self.flows: FlowRuns | None = None

    async def __call__(
        self, batch: Encoded, deadlines: Deadlines, flows: FlowRuns | None
    ) -> Predicted:
        self.timeouts_s = (deadlines - asyncio.get_running_loop().time()).tolist()
        self.flows = flows
        values = NullEngine().predict(batch).values
        errors = {
            i: PredictionFailed("no") for i, n in enumerate(batch.lengths) if n == self.poison
        }
        return Predicted.of(Logits(values, errors), len(batch))


async def test_answers_stand_in_the_order_of_the_inputs_with_tokens_and_truncation() -> None:
    inputs = [TextInput("four"), TextInput("ninechars", options=Options(raw_scores=True))]
    first, second = await Pipeline(encode, Predict(), postprocess).run(inputs, in_s(1.0, 1.0))
    assert first["label"] == "long"
    assert (first["tokens"], first["truncated"]) == (4, False)
    assert (second["tokens"], second["truncated"]) == (9, True)
    assert second["score"] == 9.0  # each text has its own options


async def test_errors_of_encoding_and_of_the_model_stay_in_their_places() -> None:
    inputs = [TextInput(""), TextInput("four"), TextInput("seven.."), TextInput("six...")]
    predict = Predict(poison=7)
    results = await Pipeline(encode, predict, postprocess).run(inputs, in_s(0.0, 1.0, 2.0, 3.0))
    assert isinstance(results[0], EmptyText)
    assert results[1]["tokens"] == 4
    assert isinstance(results[2], PredictionFailed)
    assert results[3]["tokens"] == 6
    assert predict.timeouts_s == pytest.approx([1.0, 2.0, 3.0], abs=0.1)
    assert predict.flows is None


async def test_flows_follow_the_texts_that_are_left() -> None:
    bulk = Flow("bulk", "key", 7)
    texts = [("", bulk), ("four", bulk), ("seven..", bulk), ("six...", DEFAULT_FLOW)]
    predict = Predict()
    await Pipeline(encode, predict, postprocess).run(
        [TextInput(text, flow=flow) for text, flow in texts], in_s(1.0, 1.0, 1.0, 1.0)
    )
    assert predict.flows == [(bulk, 2), (DEFAULT_FLOW, 1)]


async def test_the_time_that_encoding_took_is_gone() -> None:
    async def slowly(inputs: Sequence[TextInput]) -> Encodings:
        await asyncio.sleep(0.2)
        return await encode(inputs)

    predict = Predict()
    await Pipeline(slowly, predict, postprocess).run(
        [TextInput("a"), TextInput("b")], in_s(0.1, 30.0)
    )
    dead, alive = predict.timeouts_s
    assert dead < 0 < 29 < alive < 29.9


async def test_the_model_is_not_called_for_nothing() -> None:
    predict = Predict()
    results = await Pipeline(encode, predict, postprocess).run([TextInput("")], in_s(1.0))
    assert isinstance(results[0], EmptyText)
    assert predict.timeouts_s == []


class Models:
    """`encode` and `meet` of an ingress that knows some models; each reads a text differently."""

    def __init__(self, *known: str) -> None:
        self.known = list(known)
        self.met: list[set[str]] = []

    async def encode(self, inputs: Sequence[TextInput]) -> Encodings:
        n = len(inputs)
        batch: Encoded | None = None
        for model in self.known:
            lengths = np.full(n, len(model), np.int32)
            batch = Encoded(np.zeros(lengths.sum(), np.int32), lengths, None, model, batch)
        assert batch is not None
        return Encodings(batch, list(range(n)), {m: [m == "new"] * n for m in self.known}, {})

    async def meet(self, versions: Collection[str]) -> bool:
        self.met.append(set(versions))
        self.known += sorted(versions)
        return True


def classifier_of(version: str) -> Callable[..., Awaitable[Predicted]]:
    async def predict(batch: Encoded, *_: object) -> Predicted:
        mine = batch.of(version)
        answer = OtherModel(version) if mine is None else NullEngine().predict(mine)
        if isinstance(answer, Logits):
            answer = Logits(answer.values, None, version)
        return Predicted.of(answer, len(batch))

    return predict


async def test_texts_for_a_model_that_is_gone_go_through_again_for_the_one_that_is_there() -> None:
    models = Models("before")
    pipeline = Pipeline(models.encode, classifier_of("new"), postprocess, models.meet, True)
    results = await pipeline.run([TextInput("a"), TextInput("b")], in_s(9.0, 9.0))
    assert [(r["tokens"], r["truncated"], r[MODEL]) for r in results] == [(3, True, "new")] * 2
    assert models.met == [{"new"}]


async def test_the_model_that_answered_counts_the_tokens_and_not_the_other_one_that_lives() -> None:
    models = Models("before", "new")
    pipeline = Pipeline(models.encode, classifier_of("before"), postprocess, models.meet)
    (result,) = await pipeline.run([TextInput("a")], in_s(9.0))
    assert (result["tokens"], result["truncated"]) == (6, False)
    assert MODEL not in result
    assert models.met == []


async def test_a_model_that_is_never_met_ends_with_the_deadline_and_not_in_a_loop() -> None:
    async def nobody(versions: Collection[str]) -> bool:
        return False

    pipeline = Pipeline(Models("before").encode, classifier_of("new"), postprocess, nobody)
    (result,) = await pipeline.run([TextInput("a")], in_s(0.3))
    assert isinstance(result, DeadlineExceeded)


async def test_an_error_while_a_model_is_met_stands_in_the_place_of_its_texts_only() -> None:
    async def fails(versions: Collection[str]) -> bool:
        raise NotReady("gone")

    async def predict(batch: Encoded, *_: object) -> Predicted:
        logits = Logits(np.zeros((1, 2), np.float32), None, "before")
        return Predicted((([0], logits),), {}, {1: "new"})

    pipeline = Pipeline(Models("before").encode, predict, postprocess, fails)
    first, second = await pipeline.run([TextInput("a"), TextInput("b")], in_s(9.0, 9.0))
    assert first["label"] == "long"
    assert isinstance(second, NotReady)
