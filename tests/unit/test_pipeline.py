"""The chain, with plain functions for stages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from deployments.core.engines.null import NullEngine
from deployments.core.errors import EmptyText, PredictionFailed
from deployments.core.flow import DEFAULT_FLOW, Flow, FlowRuns
from deployments.core.pipeline import Pipeline
from deployments.core.postprocess import LabelDecoder
from deployments.core.tokenize import EncodedTexts
from deployments.core.types import Answer, Encoded, Float32, Logits, ModelInfo, Options, TextInput

pytestmark = pytest.mark.anyio

DECODER = LabelDecoder(
    ModelInfo("m", None, ("long", "zero"), "single_label_classification", 512, 1.0)
)


async def encode(inputs: Sequence[TextInput]) -> EncodedTexts:
    """One token per character; an empty text is refused, one of 9 characters was cut."""
    good = [i for i, item in enumerate(inputs) if item.text]
    lengths = np.asarray([len(inputs[i].text) for i in good], np.int32)
    return EncodedTexts(
        Encoded(np.zeros(lengths.sum(), np.int32), lengths),
        good,
        [len(inputs[i].text) == 9 for i in good],
        {i: EmptyText("empty") for i, item in enumerate(inputs) if not item.text},
    )


async def postprocess(logits: Logits, options: Sequence[Options]) -> list[Answer]:
    return DECODER.decode(logits, options)


class Predict:
    """The null engine, failing the text with `poison` tokens. Keeps the timeouts it was given."""

    def __init__(self, poison: int = 0) -> None:
        self.poison = poison
        self.timeouts_s: list[float] = []
        self.flows: FlowRuns | None = None

    async def __call__(self, batch: Encoded, timeouts_s: Float32, flows: FlowRuns | None) -> Logits:
        self.timeouts_s = timeouts_s.tolist()
        self.flows = flows
        values = NullEngine().predict(batch).values
        errors = {
            i: PredictionFailed("no") for i, n in enumerate(batch.lengths) if n == self.poison
        }
        return Logits(values, errors)


async def test_answers_stand_in_the_order_of_the_inputs_with_tokens_and_truncation() -> None:
    inputs = [TextInput("four"), TextInput("ninechars", options=Options(raw_scores=True))]
    first, second = await Pipeline(encode, Predict(), postprocess).run(inputs, [1.0, 1.0])
    assert first["label"] == "long"
    assert (first["tokens"], first["truncated"]) == (4, False)
    assert (second["tokens"], second["truncated"]) == (9, True)
    assert second["score"] == 9.0  # each text has its own options


async def test_errors_of_encoding_and_of_the_model_stay_in_their_places() -> None:
    inputs = [TextInput(""), TextInput("four"), TextInput("seven.."), TextInput("six...")]
    predict = Predict(poison=7)
    results = await Pipeline(encode, predict, postprocess).run(inputs, [0.0, 1.0, 2.0, 3.0])
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
        [TextInput(text, flow=flow) for text, flow in texts], [1.0] * 4
    )
    assert predict.flows == [(bulk, 2), (DEFAULT_FLOW, 1)]


async def test_the_time_that_encoding_took_is_gone() -> None:
    async def slowly(inputs: Sequence[TextInput]) -> EncodedTexts:
        await asyncio.sleep(0.2)
        return await encode(inputs)

    predict = Predict()
    await Pipeline(slowly, predict, postprocess).run([TextInput("a"), TextInput("b")], [0.1, 30.0])
    dead, alive = predict.timeouts_s
    assert dead < 0 < 29 < alive < 29.9


async def test_the_model_is_not_called_for_nothing() -> None:
    predict = Predict()
    results = await Pipeline(encode, predict, postprocess).run([TextInput("")], [1.0])
    assert isinstance(results[0], EmptyText)
    assert predict.timeouts_s == []
