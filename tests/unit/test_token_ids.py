"""Token ids of callers, among texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.model.load import load_parts
from deployments.pipeline.errors import EmptyText, InvalidInput, TextTooLong
from deployments.pipeline.token_ids import encoded
from deployments.pipeline.types import Options, TextInput
from deployments.settings import ModelSettings


@pytest.fixture(scope="module")
def encoder(demo_model: Path):
    return load_parts(ModelSettings(id=str(demo_model), max_length=8)).encoder()


def ids(*of: int, **options) -> TextInput:
    return TextInput("ids", options=Options(**options), token_ids=of)


def test_texts_and_ids_keep_their_places(encoder):
    inputs = [TextInput("很好"), ids(5, 6), TextInput(" "), TextInput("不错"), ids(7)]
    alone = encoder.encode([inputs[0], inputs[3]]).batch.split()
    made = encoded(encoder, inputs, redacted=False)
    assert made.index == [0, 1, 3, 4]
    rows = [one.input_ids.tolist() for one in made.batch.split()]
    assert rows == [alone[0].input_ids.tolist(), [5, 6], alone[1].input_ids.tolist(), [7]]
    assert isinstance(made.errors[2], EmptyText)
    assert made.truncated == [False] * 4


def test_too_many_are_cut_at_the_end_that_is_asked_for(encoder):
    many = range(100, 120)
    left = ids(*many, truncation_side="left")
    made = encoded(encoder, [ids(*many), left, ids(*many, truncation=False)], redacted=False)
    rows = [one.input_ids.tolist() for one in made.batch.split()]
    assert rows == [[*many][:8], [*many][-8:]]
    assert made.truncated == [True, True]
    assert isinstance(made.errors[2], TextTooLong)


@pytest.mark.parametrize("wrong", [(-1,), (1, 10**9), (2**31,)])
def test_what_the_vocabulary_has_not_is_refused_alone(encoder, wrong):
    made = encoded(encoder, [ids(*wrong), ids(1)], redacted=False)
    assert made.index == [1]
    assert "the model's vocabulary" in made.errors[0].message


def test_ids_alone_and_nothing_good(encoder):
    made = encoded(encoder, [ids(-1)], redacted=False)
    assert (len(made.batch), made.index) == (0, [])


def test_where_texts_are_redacted_there_are_no_ids(encoder):
    made = encoded(encoder, [ids(1), TextInput("很好")], redacted=True)
    assert isinstance(made.errors[0], InvalidInput)
    assert made.index == [1]
