"""Explanations: whole characters of the caller's own text, sums that hold, clear refusals."""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deployments.cli import app
from deployments.explain.attribution import log_odds, occlusion
from deployments.explain.spans import Replaced, Span, whole_spans
from deployments.local import LocalClassifier
from deployments.pipeline.errors import EmptyText, InvalidInput, NotImplementedHere

FAMILY = "👩‍👩‍👧"
METHODS = ("integrated_gradients", "gradient_x_input", "occlusion")


@pytest.fixture(scope="module")
def demo(demo_model: Path) -> Iterator[LocalClassifier]:
    settings = {
        "model": {"id": str(demo_model)},
        "engine": {"name": "torch", "dtype": "float32"},
        "redaction": {"kinds": ["phone"]},
    }
    with LocalClassifier(settings) as classifier:
        yield classifier


def test_bytes_of_one_character_are_one_span() -> None:
    assert whole_spans("a好", [(0, 1), (1, 2), (1, 2), (1, 2)]) == [
        Span(0, 1, (0,)),
        Span(1, 2, (1, 2, 3)),
    ]


def test_a_span_splits_no_grapheme() -> None:
    text = f"é{FAMILY}x"  # e with a combining accent
    one_each = [(i, i + 1) for i in range(len(text))]
    assert [text[s.start : s.end] for s in whole_spans(text, one_each)] == ["é", FAMILY, "x"]


def test_spaces_and_tokens_without_characters_belong_to_no_span() -> None:
    assert whole_spans(" a  b", [(0, 2), (2, 2), (2, 5)]) == [Span(1, 2, (0,)), Span(4, 5, (2,))]


def test_a_placeholder_stands_for_what_it_replaced() -> None:
    text = "call 13800138000 now"  # read as: call <PHONE> now
    read = [(0, 4), (5, 6), (6, 11), (11, 12), (13, 16)]
    spans = whole_spans(text, read, [Replaced(5, 16, 7)])
    assert [text[s.start : s.end] for s in spans] == ["call", "13800138000", "now"]


def test_log_odds_are_those_of_the_score() -> None:
    logits = torch.tensor([[1.0, 3.0, -2.0]])
    score = logits.softmax(1)[0, 1]
    expected = torch.log(score / (1 - score))
    assert torch.isclose(log_odds(logits, 1, "single_label_classification")[0], expected)
    assert log_odds(logits, 1, "multi_label_classification")[0] == 3.0
    assert log_odds(logits[:, :1], 0, "regression")[0] == 1.0


def test_occlusion_finds_what_counts_and_keeps_its_budget() -> None:
    seen = []

    def predict(rows: list[Any]) -> Any:
        seen.extend(rows)
        return np.asarray([[float((row == 7).sum())] for row in rows], np.float32)

    ids = np.asarray([1, 5, 7, 5, 5, 2], np.int32)
    units = [(1,), (2,), (3,), (4,)]
    found = occlusion(predict, ids, units, 0, "regression", 0, passes=5)
    assert found.values.tolist() == [0, 0, 1, 0, 0, 0]
    assert found.passes == len(seen) == 5
    coarse = occlusion(predict, ids, units, 0, "regression", 0, passes=3)
    assert coarse.values.tolist() == [0, 0.5, 0.5, 0, 0, 0]
    assert coarse.passes == 3


@pytest.mark.parametrize("method", METHODS)
def test_offsets_point_into_the_callers_text(demo: LocalClassifier, method: str) -> None:
    text = f"質量很好 GOOD {FAMILY} café 打13800138000"
    answer = demo.explain(text, method=method)
    found = answer["explanation"]
    tokens = found["tokens"]
    assert [t["text"] for t in tokens] == [text[t["start"] : t["end"]] for t in tokens]
    assert {FAMILY, "é", "13800138000"} <= {t["text"] for t in tokens}
    assert found["label"] == answer["label"]
    assert found["method"] == method
    assert found["passes"] <= 32
    assert all(a["end"] <= b["start"] for a, b in itertools.pairwise(tokens))


def test_integrated_gradients_sum_to_what_they_should(demo: LocalClassifier) -> None:
    found = demo.explain("质量很好，会再来", passes=64)["explanation"]
    assert found["method"] == "integrated_gradients"
    assert abs(found["convergence_delta"]) < 0.01 * abs(found["sum"])
    shown = sum(token["attribution"] for token in found["tokens"])
    assert shown + found["elsewhere"] == pytest.approx(found["sum"], abs=1e-4)


@pytest.mark.parametrize(
    ("passes", "there", "method"),
    [
        (2, True, "gradient_x_input"),
        (3, True, "integrated_gradients"),
        (2, False, "gradient_x_input"),
        (3, False, "occlusion"),
    ],
)
def test_few_passes_go_to_the_method_that_makes_most_of_them(
    demo: LocalClassifier, passes: int, there: bool, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not there:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    found = demo.explain("质量很好，会再来", passes=passes)["explanation"]
    assert found["method"] == method
    assert found["passes"] <= passes


def test_another_label_of_two_is_the_mirror(demo: LocalClassifier) -> None:
    labels = ("positive", "negative")
    one, other = (demo.explain("质量很好", target=x)["explanation"]["tokens"] for x in labels)
    for a, b in zip(one, other, strict=True):
        assert a["attribution"] == pytest.approx(-b["attribution"], abs=1e-3)


def test_a_text_cut_off_is_explained_as_far_as_it_was_read(
    make_tiny_model: Callable[..., Path],
) -> None:
    settings = {"model": {"id": str(make_tiny_model())}, "engine": {"name": "torch"}}
    with LocalClassifier(settings) as tiny:
        found = tiny.explain("好" * 100, passes=10)["explanation"]
        assert found["truncated"]
        assert found["tokens"][-1]["end"] == len(found["tokens"]) == 62  # 64 less two marks
        pair = tiny.explain("很好", "太差", method="occlusion")["explanation"]["tokens"]
    assert [(t["part"], t["start"]) for t in pair] == [
        ("text", 0), ("text", 1), ("text_pair", 0), ("text_pair", 1)
    ]  # fmt: skip


def test_bad_questions_say_the_cure(demo: LocalClassifier) -> None:
    with pytest.raises(InvalidInput, match="negative, positive"):
        demo.explain("好", target="neutral")
    with pytest.raises(InvalidInput, match="method must be one of auto"):
        demo.explain("好", method="lime")
    with pytest.raises(InvalidInput, match="2 to 512"):
        demo.explain("好", passes=1)
    with pytest.raises(EmptyText):
        demo.explain(" ")


def test_without_captum_the_rest_still_works(
    demo: LocalClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert demo.explain("很好")["explanation"]["method"] == "occlusion"
    with pytest.raises(NotImplementedHere, match=r"\[explain\]"):
        demo.explain("很好", method="integrated_gradients")


def test_the_command_prints_marks_and_json(demo_model: Path) -> None:
    asked = ["explain", "质量很好", "--model", str(demo_model), "--method", "occlusion"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "质量很好" in shown.output
    assert "occlusion, 5 passes" in shown.output
    lines = CliRunner().invoke(app, [*asked, " ", "--json"])
    assert lines.exit_code == 1
    (line,) = [x for x in lines.output.splitlines() if x.startswith("{")]
    assert len(json.loads(line)["explanation"]["tokens"]) == 4
