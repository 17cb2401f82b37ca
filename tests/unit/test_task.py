"""Another kind of model through the whole chain: a task is all that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import without_ray

from deployments.model.load import load_parts
from deployments.pipeline.observer import Observer
from deployments.pipeline.tasks import TASKS, Task, task_of
from deployments.pipeline.tasks.text_classification import TextClassification
from deployments.pipeline.types import Answer, Encoded, Logits, ModelInfo, Options
from deployments.settings import ModelSettings, Settings

pytestmark = pytest.mark.anyio


class Embedding(TextClassification):
    """The model's numbers are the answer; inputs become sequences as everywhere."""

    name = "feature-extraction"

    def decoder(self, info: ModelInfo, *_: Any) -> Any:  # type: ignore[override]
        return self

    def decode(self, logits: Logits, options: Sequence[Options]) -> list[Answer]:
        return [{"embedding": row.tolist()} for row in logits.values]


def three_numbers(batch: Encoded, *_: Any) -> Logits:
    return Logits(np.outer(batch.lengths, np.ones(3, np.float32)))


async def test_its_answers_reach_callers_and_nothing_asks_for_a_label(
    demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Task = Embedding()
    monkeypatch.setitem(TASKS, task.name, task)
    parts = load_parts(ModelSettings(id=str(demo_model)))
    parts = replace(parts, info=replace(parts.info, task=task.name))
    tokenizer = without_ray.tokenizer(
        Settings.model_validate({"model": {"id": str(demo_model)}}),
        classifiers=without_ray.Classifiers(parts, three_numbers),
    )
    await tokenizer._chain.loading
    one = await tokenizer.classify("很好")
    assert one == {"embedding": [4.0] * 3, "tokens": 4, "truncated": False}
    good, bad = await tokenizer.classify(["太差了", " "])
    assert good["embedding"] == [5.0] * 3
    assert bad["error"]["code"] == "empty_text"


def test_a_model_says_its_task_and_an_unknown_one_is_an_error() -> None:
    info = ModelInfo("m", None, ("a", "b"), "single_label_classification", 512, 1.0)
    assert isinstance(task_of(info), TextClassification)
    with pytest.raises(KeyError):
        task_of(replace(info, task="translation"))


def test_texts_without_an_answer_are_not_counted_among_labels() -> None:
    class Heard(Observer):
        def labelled(self, labels: tuple[str, ...], best: Any, scores: Any) -> None:
            self.counts = [
                (labels[i], round(float(s), 2)) for i, s in zip(best, scores, strict=True)
            ]

    heard = Heard()
    info = ModelInfo("m", None, ("a", "b"), "single_label_classification", 512, 1.0)
    logits = Logits(np.asarray([[1, 0], [1, 0], [0, 1]], np.float32), {1: ValueError("no")})  # type: ignore[dict-item]
    TextClassification().decoder(info, observer=heard).decode(logits, [Options()] * 3)
    assert heard.counts == [("a", 0.73), ("b", 0.73)]
