"""docs/ray.md, run as it stands there: on a real Ray, beside the demo model's service."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from pydantic import ValidationError
from running import ROOT, Service, read_config

from deployments.bulk import classify_dataset
from deployments.bulk.tables import BadTable
from deployments.engines.base import EngineUnavailable
from deployments.model.source import ModelNotFound
from deployments.pipeline.errors import InvalidInput

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "ray.md").read_text(encoding="utf-8")
# Each with the heading above it.
BLOCKS = [
    (title.strip(), block)
    for title, text in re.findall(r"^#+ (.*)\n((?:(?!#+ ).*\n)*)", PAGE, re.MULTILINE)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]
FLOAT32 = {"name": "torch", "dtype": "float32"}


@pytest.fixture(scope="module", autouse=True)
def running(service: Service) -> None:
    config = read_config()
    config["applications"][0]["args"]["engine"] |= FLOAT32
    service.deploy(config)


def printed(code: str) -> list[str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        # As a script's own names, which Ray sends to workers by value.
        exec(compile(code, "docs/ray.md", "exec"), {"__name__": "__main__"})  # noqa: S102
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_a_block_prints_what_stands_behind_its_prints(title: str, code: str) -> None:
    told = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert len(told) == code.count("print(")
    assert printed(code) == told


def test_all_blocks_are_found() -> None:
    assert len(BLOCKS) == PAGE.count("```python") == 8


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"text_column": "text"}, BadTable, "there is no column text. The columns are id, review"),
        ({"text_column": "id"}, BadTable, "column id holds int64, no texts"),
        ({"args": {"modle": {}}}, ValidationError, "modle"),
        ({"topk": 1}, InvalidInput, "no option topk; there are long_text, raw_scores, threshold"),
        ({"top_k": "all"}, InvalidInput, "top_k"),
        ({"concurrency": 0}, ValueError, "1"),
        ({"batch_size": 0}, ValueError, "batch_size is 0; it must be 1 or more"),
    ],
)
def test_wrong_arguments_are_refused_before_an_actor_starts(
    wrong: dict[str, Any], error: type[Exception], words: str
) -> None:
    import ray.data

    reviews = ray.data.from_items([{"id": 1, "review": "很好"}])
    with pytest.raises(error, match=words):
        classify_dataset(reviews, **{"text_column": "review", **wrong})


def test_a_model_that_is_not_whole_is_refused_too(make_tiny_model: Callable[..., Path]) -> None:
    import ray.data

    model = make_tiny_model()
    (model / "model.safetensors").unlink()
    reviews = ray.data.from_items([{"review": "很好"}])
    with pytest.raises(ModelNotFound, match="weights"):
        classify_dataset(reviews, text_column="review", args={"model": {"id": str(model)}})


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="of a torch that knows no GPU")
def test_a_gpu_is_refused_where_torch_knows_none() -> None:
    import ray.data

    reviews = ray.data.from_items([{"review": "很好"}])
    with pytest.raises(EngineUnavailable, match=r"num_gpus is 0\.5; this torch is built without"):
        classify_dataset(reviews, text_column="review", num_gpus=0.5)


# A minute, of which Ray Data's start is most; the blocks above run the same on this cluster.
@pytest.mark.trials
def test_the_job(service: Service, tmp_path: Path) -> None:
    """`ray job submit`, with the page's own command."""
    import ray

    source = tmp_path / "reviews"
    source.mkdir()
    rows = [(i, ["质量很好，会再来", "太差了", None][i % 3]) for i in range(90)]
    for number in range(3):
        ids, texts = zip(*rows[30 * number : 30 * number + 30], strict=True)
        table = pa.table({"id": ids, "review": pa.array(texts, pa.string())})
        pq.write_table(table, source / f"{number}.parquet")
    (command,) = re.findall(r"^ray job submit .*classify_dataset.py .*", PAGE, re.MULTILINE)
    _, _, entrypoint = command.partition(" -- python ")
    arguments = [
        {"/data/reviews": str(source), "/data/labelled": str(tmp_path / "labelled")}.get(word, word)
        for word in shlex.split(entrypoint)
    ]
    # As the page has it, but for an engine that needs no measuring.
    settings = tmp_path / "serve.yaml"
    settings.write_text(yaml.safe_dump({"applications": [{"args": {"engine": FLOAT32}}]}))
    arguments += ["--config", str(settings), "--actors", "1:2"]
    address = f"http://{ray._private.worker.get_dashboard_url()}"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit"),
            *("--address", address, "--", sys.executable, str(ROOT / arguments[0])),
            *arguments[1:],
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert "30 rows have no label" in done.stdout, done.stdout
    assert done.returncode == 1  # as the job: some rows are bad
    labelled = pyarrow.dataset.dataset(tmp_path / "labelled").to_table().sort_by("id").to_pylist()
    assert [row["id"] for row in labelled] == list(range(90))
    assert [row["label"] for row in labelled] == 30 * ["positive", "negative", None]
    assert {row["error"] for row in labelled} == {None, "unreadable: review is missing."}
