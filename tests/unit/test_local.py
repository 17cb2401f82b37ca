"""LocalClassifier answers as the service's handle does, without Ray."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from deployments.local import LocalClassifier
from deployments.model.source import ModelNotFound
from deployments.pipeline.errors import EmptyText, InvalidInput
from deployments.settings import Settings

FLOAT32 = {"engine": {"name": "torch", "dtype": "float32", "num_threads": 1}}


@pytest.fixture(scope="module")
def local(demo_model: Path) -> Iterator[LocalClassifier]:
    with LocalClassifier({"model": {"id": str(demo_model)}, **FLOAT32}) as classifier:
        yield classifier


def test_one_text_gives_one_answer_and_a_list_gives_a_list(local: LocalClassifier) -> None:
    alone = local.classify("质量很好，会再来")
    listed = local.classify(["质量很好，会再来", "太差了"])
    assert isinstance(alone, dict)
    assert alone["label"] == "positive"
    assert isinstance(listed, list)
    assert [answer["label"] for answer in listed] == ["positive", "negative"]
    assert listed[0]["score"] == pytest.approx(alone["score"], abs=1e-5)
    assert {"label", "score", "scores", "tokens", "truncated"} <= set(alone)


def test_a_bad_text_raises_alone_and_stands_in_its_place_in_a_list(local: LocalClassifier) -> None:
    with pytest.raises(EmptyText):
        local.classify("  ")
    answers: Any = local.classify(["很好", " ", "太差了"])
    assert answers[1]["error"]["code"] == "empty_text"
    assert [answers[0]["label"], answers[2]["label"]] == ["positive", "negative"]


def test_options_are_those_of_a_request(local: LocalClassifier) -> None:
    answer: Any = local.classify("很好", top_k=1, raw_scores=True)
    assert list(answer["scores"]) == ["positive"]
    assert local.classify("很好", "还行") == local.classify("很好", text_pair="还行")
    with pytest.raises(InvalidInput, match="truncation"):
        local.classify("很好", truncate=True)
    with pytest.raises(InvalidInput, match="timeout_s"):
        local.classify("很好", timeout_s=0)


@pytest.mark.parametrize("column", [np.array, pa.array, lambda texts: pa.chunked_array([texts])])
def test_a_column_is_a_list(local: LocalClassifier, column: Callable[[list[str]], Any]) -> None:
    texts = ["质量很好，会再来", "太差了"]
    assert local.classify(column(texts)) == local.classify(texts)
    paired = local.classify(column(texts), text_pair=column(texts))
    assert paired == local.classify(texts, text_pair=texts)


def test_what_a_column_lacks_fails_alone(local: LocalClassifier) -> None:
    answers = local.classify(pa.array(["好", None]))
    assert [answer.get("label", answer.get("error", {}).get("code")) for answer in answers] == [
        local.classify("好")["label"],
        "invalid_input",
    ]


def test_threads_may_share_one(local: LocalClassifier) -> None:
    texts = [f"第 {i} 条：质量很好" for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together: list[Any] = list(pool.map(local.classify, texts))
    alone: Any = local.classify(texts)
    assert [a["score"] for a in together] == pytest.approx([a["score"] for a in alone], abs=1e-5)


def test_personal_data_is_redacted_as_in_the_service(demo_model: Path) -> None:
    settings = Settings.model_validate(
        {"model": {"id": str(demo_model)}, **FLOAT32, "redaction": {"kinds": ["email"]}}
    )
    with LocalClassifier(settings) as classifier:
        answer: Any = classifier.classify("很好，写信给 someone@example.org")
    assert answer["redacted"] == 1


def test_wrong_args_are_refused_before_a_model_is_read() -> None:
    with pytest.raises(ValidationError, match="modle"):
        LocalClassifier({"modle": {}})
    with pytest.raises(ModelNotFound, match="no model in"):
        LocalClassifier({"model": {"id": "./nowhere"}})


def test_what_a_library_raises_while_loading_is_said_in_our_words(
    make_tiny_model: Callable[..., Path],
) -> None:
    directory = make_tiny_model()
    (directory / "tokenizer.json").write_text("[]")
    with pytest.raises(ModelNotFound):
        LocalClassifier({"model": {"id": str(directory)}, **FLOAT32})


def test_it_imports_no_ray() -> None:
    code = "import sys, deployments.local; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
