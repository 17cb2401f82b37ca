"""Splitting and joining of encoded texts."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deployments.pipeline import errors
from deployments.pipeline.types import Encoded, Logits


def encoded(rows: list[list[int]], with_types: bool) -> Encoded:
    ids = np.asarray([token for row in rows for token in row], np.int32)
    lengths = np.asarray([len(row) for row in rows], np.int32)
    return Encoded(ids, lengths, ids % 2 if with_types else None)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1), min_size=1), st.booleans())
def test_concat_undoes_split(rows: list[list[int]], with_types: bool) -> None:
    whole = encoded(rows, with_types)
    parts = whole.split()
    joined = Encoded.concat(parts)
    assert [part.input_ids.tolist() for part in parts] == rows
    assert joined.input_ids.tolist() == whole.input_ids.tolist()
    assert joined.lengths.tolist() == whole.lengths.tolist()
    assert (joined.token_type_ids is not None) == with_types


def test_texts_without_types_count_as_zeros_beside_texts_with() -> None:
    joined = Encoded.concat([encoded([[2, 2]], False), encoded([[1, 2]], True)])
    assert joined.token_type_ids is not None
    assert joined.token_type_ids.tolist() == [0, 0, 1, 0]


@given(st.lists(st.lists(st.integers(0, 9), min_size=1), min_size=1), st.booleans())
def test_texts_and_logits_survive_the_way_between_processes(
    rows: list[list[int]], with_types: bool
) -> None:
    whole = encoded(rows, with_types)
    copy = pickle.loads(pickle.dumps(whole))  # noqa: S301 - our own bytes
    for name in ("input_ids", "lengths", "token_type_ids"):
        np.testing.assert_equal(getattr(copy, name), getattr(whole, name))
    logits = Logits(np.ones((2, 3), np.float32), {1: errors.PredictionFailed("why")})
    back = pickle.loads(pickle.dumps(logits))  # noqa: S301
    np.testing.assert_equal(back.values, logits.values)
    assert back.errors[1].message == "why"


def test_every_error_survives_the_way_between_processes() -> None:
    def tree(cls: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
        return [cls, *(leaf for sub in cls.__subclasses__() for leaf in tree(sub))]

    classes = tree(errors.ServiceError)
    assert len(classes) > 10
    for cls in classes:
        copy = pickle.loads(pickle.dumps(cls("why")))  # noqa: S301 - our own bytes
        assert (type(copy), copy.message, copy.status, copy.code) == (
            cls,
            "why",
            cls.status,
            cls.code,
        )
    overloaded = pickle.loads(pickle.dumps(errors.Overloaded("full", 7.0)))  # noqa: S301
    assert overloaded.retry_after_s == 7.0
