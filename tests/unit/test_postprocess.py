"""Logits → answers, against torch's own softmax and sigmoid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deployments.pipeline.tasks.text_classification import LabelDecoder
from deployments.pipeline.types import Answer, Logits, ModelInfo, Options
from deployments.user_config import PostprocessorUserConfig

LABELS = ("negative", "neutral", "positive")
LOGITS = np.asarray([[1.0, -2.0, 3.0], [0.5, 0.25, 0.0]], np.float32)


def model(
    problem_type: str = "single_label_classification",
    temperature: float = 1.0,
    labels: tuple[str, ...] = LABELS,
) -> ModelInfo:
    return ModelInfo("m", None, labels, problem_type, 512, temperature)


def decode(
    info: ModelInfo, logits: np.ndarray = LOGITS, options: Options | None = None, **defaults: Any
) -> list[Answer]:
    decoder = LabelDecoder(info, PostprocessorUserConfig(**defaults))
    return decoder.decode(Logits(logits), [options or Options()] * len(logits))


def test_single_label_is_a_softmax_sorted_best_first() -> None:
    first, second = decode(model())
    expected = torch.softmax(torch.tensor(LOGITS), dim=1).numpy()
    assert first["label"] == "positive"
    assert list(first["scores"]) == ["positive", "negative", "neutral"]
    assert first["score"] == first["scores"]["positive"] == pytest.approx(expected[0, 2])
    assert [second["scores"][name] for name in LABELS] == pytest.approx(expected[1].tolist())
    assert "labels" not in first


def test_temperature_softens_scores_and_keeps_the_label() -> None:
    (answer, _) = decode(model(temperature=2.0))
    expected = torch.softmax(torch.tensor(LOGITS[0]) / 2.0, dim=0)
    assert answer["label"] == "positive"
    assert answer["score"] == pytest.approx(float(expected[2]))


def test_multi_label_is_a_sigmoid_per_label_never_a_softmax() -> None:
    (answer, _) = decode(model("multi_label_classification"))
    expected = torch.sigmoid(torch.tensor(LOGITS[0])).tolist()
    assert [answer["scores"][name] for name in LABELS] == pytest.approx(expected)
    assert answer["labels"] == ["positive", "negative"]
    assert sum(answer["scores"].values()) > 1


def test_threshold_from_the_request_wins_over_the_default() -> None:
    info = model("multi_label_classification")
    (default, _) = decode(info, threshold=0.9)
    (asked, _) = decode(info, threshold=0.9, options=Options(threshold=0.1))
    assert default["labels"] == ["positive"]
    assert asked["labels"] == ["positive", "negative", "neutral"]


def test_no_label_over_the_threshold_is_an_empty_list_and_the_best_still_named() -> None:
    (answer, _) = decode(model("multi_label_classification"), threshold=0.99)
    assert answer["labels"] == []
    assert answer["label"] == "positive"


def test_regression_gives_the_models_own_number() -> None:
    info = model("regression", temperature=3.0, labels=("stars",))
    (answer,) = decode(info, np.asarray([[4.25]], np.float32))
    assert answer == {"label": "stars", "score": 4.25, "scores": {"stars": 4.25}}


def test_raw_scores_are_the_logits_untouched_by_temperature() -> None:
    (answer, _) = decode(model(temperature=2.0), options=Options(raw_scores=True))
    assert answer["scores"] == {"positive": 3.0, "negative": 1.0, "neutral": -2.0}
    assert answer["score"] == 3.0


def test_top_k_from_the_request_wins_over_the_default() -> None:
    (default, _) = decode(model(), top_k=1)
    (asked, _) = decode(model(), top_k=1, options=Options(top_k=2))
    (more_than_there_are, _) = decode(model(), options=Options(top_k=99))
    assert list(default["scores"]) == ["positive"]
    assert list(asked["scores"]) == ["positive", "negative"]
    assert len(more_than_there_are["scores"]) == 3


def test_scores_show_no_digits_that_float32_does_not_have() -> None:
    for answer in decode(model()):
        assert all(len(repr(score)) <= 10 for score in answer["scores"].values())


finite_logits = hnp.arrays(
    np.float32, (3, 3), elements=st.floats(-1e4, 1e4, width=32, allow_nan=False)
)


@given(finite_logits)
def test_scores_are_probabilities_for_any_finite_logits(logits: np.ndarray) -> None:
    for answer in decode(model(), logits):
        assert sum(answer["scores"].values()) == pytest.approx(1.0, abs=1e-5)
        assert answer["score"] == max(answer["scores"].values())
    for answer in decode(model("multi_label_classification"), logits):
        assert all(0.0 <= score <= 1.0 for score in answer["scores"].values())


def test_rounding_is_of_what_is_shown_and_decides_nothing() -> None:
    decoder = LabelDecoder(
        model("multi_label_classification"), PostprocessorUserConfig(round_scores=1)
    )
    values = np.asarray([[0.21, 0.22, -0.4]], np.float32)  # 0.552, 0.555, 0.401
    (answer,) = decoder.decode(Logits(values), [Options(threshold=0.554)])
    best = answer["label"]
    assert answer["scores"] == dict(sorted(answer["scores"].items(), key=lambda kv: -kv[1]))
    assert set(answer["scores"].values()) == {0.6, 0.4}
    assert answer["labels"] == [best]
    (raw,) = decoder.decode(Logits(values), [Options(raw_scores=True)])
    assert set(raw["scores"].values()) == {0.2, -0.4}


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_a_caller_may_choose_what_makes_scores_of_the_logits(problem: str) -> None:
    logits = torch.tensor(LOGITS[0]) / 2.0
    for name, expected in (("softmax", torch.softmax(logits, 0)), ("sigmoid", logits.sigmoid())):
        info, usual = model(problem, temperature=2.0), decode(model(problem, temperature=2.0))[0]
        (answer, _) = decode(info, options=Options(activation=name))  # type: ignore[arg-type]
        assert [answer["scores"][one] for one in LABELS] == pytest.approx(expected.tolist())
        assert [*answer["scores"]] == [*usual["scores"]]
        assert answer.get("labels") == usual.get("labels")


def test_one_callers_choice_is_nobody_elses() -> None:
    options = [Options(activation="sigmoid"), Options()]
    both = LabelDecoder(model()).decode(Logits(np.stack([LOGITS[0]] * 2)), options)
    assert sum(both[0]["scores"].values()) > 1
    assert sum(both[1]["scores"].values()) == pytest.approx(1)
