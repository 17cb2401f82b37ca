"""Arrow tables through a LocalClassifier: what an actor of `classify_dataset` does, without Ray."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from deployments.bulk.batches import BatchClassifier, Columns
from deployments.bulk.columns import ADDED
from deployments.bulk.tables import BadTable
from deployments.pipeline.errors import PredictionFailed
from deployments.settings import Settings

FLOAT32 = {"engine": {"name": "torch", "dtype": "float32"}, "limits": {"max_text_chars": 50}}

Make = Callable[..., BatchClassifier]


@pytest.fixture
def make(demo_model: Path) -> Iterator[Make]:
    made: list[BatchClassifier] = []

    def classifier(columns: Columns, model: Path = demo_model, **options: Any) -> BatchClassifier:
        settings = Settings.model_validate({"model": {"id": str(model)}, **FLOAT32})
        made.append(BatchClassifier(settings, columns, 1_000, 4_096, 1, options))
        return made[-1]

    yield classifier
    for one in made:
        one.close()


def test_rows_and_columns_stay_and_bad_rows_say_why(make: Make) -> None:
    table = pa.table(
        {
            "id": [1, 2, 3, 4, 5],
            "review": ["质量很好，会再来", "  ", None, "好" * 51, "太差了"],
            "vector": [[0.5], [], None, [1.0], [2.0]],
        }
    )
    found = make(Columns("review"))(table)
    assert found.select(table.column_names) == table
    assert found.column_names == [*table.column_names, "label", "score", "error"]
    rows = found.to_pylist()
    assert [row["label"] for row in rows] == ["positive", None, None, None, "negative"]
    assert [row["score"] is None for row in rows] == [False, True, True, True, False]
    assert [row["error"] and row["error"].partition(":")[0] for row in rows] == [
        None, "empty_text", "unreadable", "text_too_long", None,
    ]  # fmt: skip
    assert rows[2]["error"] == "unreadable: review is missing."
    assert "51 characters; the limit is 50" in rows[3]["error"]


def test_every_column_has_the_type_that_the_command_gives_it(make: Make) -> None:
    classify = make(Columns("t", add=ADDED, prefix="p_"), top_k=1)
    found = classify(pa.table({"t": pa.array(["很好", None]).dictionary_encode()}))
    assert [str(found.schema.field(f"p_{name}").type) for name in (*ADDED, "error")] == [
        "string", "double", "string", "list<item: string>", "int64", "bool", "string",
    ]  # fmt: skip
    good, bad = found.to_pylist()
    assert list(json.loads(good["p_scores"])) == ["positive"]
    assert (good["p_tokens"], good["p_truncated"]) == (4, False)
    assert [bad[f"p_{name}"] for name in ADDED] == [None] * len(ADDED)
    # Blocks of one dataset must agree, those without rows and without a good row too.
    for few in (found.slice(0, 0), found.slice(1)):
        assert classify(few.select(["t"])).schema == found.schema


def test_pairs(make: Make) -> None:
    table = pa.table({"a": ["很好", "很好"], "b": ["还行", None]})
    good, bad = make(Columns("a", "b", add=("tokens",)))(table).to_pylist()
    assert good["tokens"] == 7
    assert bad["error"] == "unreadable: b is missing."


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns("text"), "there is no column text. The columns are id, review"),
        (Columns("review", "other"), "there is no column other"),
        (Columns("id"), "column id holds int64, no texts"),
        (Columns("review", add=("labl",)), "labl; there are label, score"),
        (Columns("review", add=("id",)), "id; there are label"),
    ],
)
def test_wrong_columns_are_named_before_anything_starts(columns: Columns, message: str) -> None:
    with pytest.raises(BadTable, match=message):
        columns.check({"id": pa.int64(), "review": pa.string()})


def test_a_column_that_is_there_already_asks_for_a_prefix() -> None:
    there = {"review": pa.large_string(), "error": pa.string()}
    with pytest.raises(BadTable, match=r'error already\. Say prefix="predicted_"'):
        Columns("review").check(there)
    Columns("review", prefix="predicted_").check(there)


def test_a_model_that_fails_on_all_ends_the_job_and_on_one_fails_its_row(
    make: Make, demo_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(demo_model, tmp_path / "model"))
    token = AutoTokenizer.from_pretrained(model).convert_tokens_to_ids("蟹")
    weights = load_file(model / "model.safetensors")
    (words,) = (name for name in weights if name.endswith("word_embeddings.weight"))
    weights[words][token] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    classify = make(Columns("t"), model=model)
    good, bad = classify(pa.table({"t": ["很好", "蟹"]})).to_pylist()
    assert good["label"] == "positive"
    assert bad["error"].startswith("prediction_failed: ")
    with pytest.raises(PredictionFailed, match="all 40 texts"):
        classify(pa.table({"t": ["蟹"] * 40}))


def test_the_command_imports_neither_ray_nor_torch() -> None:
    code = (
        "import sys, deployments.bulk.run;"
        "sys.exit(any(name in sys.modules for name in ('ray', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
