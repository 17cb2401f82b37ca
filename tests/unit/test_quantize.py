"""`rayclassify quantize`: 8 bits where the owner's own texts allow them, and nowhere else."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from deployments.cli import app
from deployments.engines import ways
from deployments.engines.auto import AutoEngine
from deployments.engines.measurement import Measured
from deployments.model.cache import CACHE_DIR_ENV
from deployments.model.quantized import FILE, quantized
from deployments.model.source import ModelRefused
from deployments.optimise import quantizing, running
from deployments.settings import EngineSettings, ModelSettings

GOOD, BAD = "质量不错很满意", "太差了不会再买"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_DIR_ENV, str(tmp_path / "cache"))


def table(path: Path, header: Sequence[str] = ("text", "label")) -> Path:
    rows = [
        (f"第{i}次{GOOD if i % 2 else BAD}", "positive" if i % 2 else "negative") for i in range(40)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *(row[: len(header)] for row in rows)])
    return path


def run(*args: Any) -> Result:
    return CliRunner().invoke(app, ["quantize", *map(str, args), "--no-speeds"])


@pytest.mark.usefixtures("at_once")
def test_the_written_model_runs_in_int8_and_says_what_it_was_held_to(
    demo_model: Path, tmp_path: Path
) -> None:
    data, out = table(tmp_path / "held.csv"), tmp_path / "int8"
    ended = run(demo_model, "--data", data, "--out", out)
    assert ended.exit_code == 0, ended.output
    told = json.loads((out / FILE).read_text())
    assert (told["dtype"], told["min_agreement"], told["measured"]["texts"]) == ("int8", 0.99, 40)
    assert 0 < told["measured"]["max_logit_drift"] < 1
    assert "largest move of a logit" in (out / "README.md").read_text()
    assert not list(tmp_path.glob(".quantize-*"))
    assert run(demo_model, "--data", data, "--out", out).exit_code == 2  # it is there
    assert run(out, "--data", data, "--out", out, "--force").exit_code == 2  # the original itself
    (tmp_path / "cache" / "mine").mkdir(parents=True)
    assert run(demo_model, "--data", data, "--out", tmp_path / "cache", "--force").exit_code == 2


def test_beyond_the_limits_nothing_is_written(
    demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(model: str, engine: dict[str, Any], texts: Sequence[str]) -> running.Scored:
        sign = 1.0 if engine["dtype"] == "float32" else -1.0
        logits = [[sign, -sign] if i < 4 else [2.0, -2.0] for i in range(len(texts))]
        return running.Scored(logits, ("negative", "positive"))

    monkeypatch.setattr(quantizing, "score_texts", noisy)
    data, out = table(tmp_path / "plain.csv", ("text",)), tmp_path / "int8"
    ended = run(demo_model, "--data", data, "--no-labels", "--out", out)
    assert ended.exit_code == 1
    assert "90.00% of 40 texts keep their label; --min-agreement is 99.00%" in ended.output
    assert not out.exists()
    ended = run(demo_model, "--data", data, "--no-labels", "--out", out, "--min-agreement", 0.9,
                "--max-f1-loss", 1)  # fmt: skip
    assert ended.exit_code == 0, ended.output


def test_where_8_bits_can_not_be_had_it_says_so(
    demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(model: str, engine: dict[str, Any], texts: Sequence[str]) -> running.Scored:
        if engine["dtype"] == "int8":
            raise running.CandidateFailed("this CPU has no 8-bit products.")
        return running.Scored([[1.0, 0.0]] * len(texts), ("negative", "positive"))

    monkeypatch.setattr(quantizing, "score_texts", without)
    ended = run(demo_model, "--data", table(tmp_path / "held.csv"), "--out", tmp_path / "int8")
    assert ended.exit_code == 1
    assert "nothing is written. this CPU has no 8-bit products." in ended.output


def test_labels_that_the_model_lacks_and_regressions_are_refused(
    demo_model: Path, make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    data = table(tmp_path / "held.csv")
    other = tmp_path / "other.csv"
    other.write_text(data.read_text("utf-8").replace("positive", "great"), "utf-8")
    ended = run(demo_model, "--data", other, "--out", tmp_path / "int8")
    assert ended.exit_code == 2
    assert "20 of 40 rows have labels" in ended.output
    assert run(demo_model, "--data", data, "--out", tmp_path / "int8", "--label-separator", ";"
               ).exit_code == 2  # fmt: skip
    numbers = make_tiny_model(num_labels=1)
    ended = run(numbers, "--data", data, "--no-labels", "--out", tmp_path / "int8")
    assert (ended.exit_code, "gives numbers" in ended.output) == (2, True)


# --- what the service makes of it


@pytest.fixture
def model(make_tiny_model: Callable[..., Path], tmp_path: Path) -> ModelSettings:
    copied = tmp_path / "model"
    copied.mkdir()
    for file in make_tiny_model().iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    (copied / FILE).write_text('{"dtype": "int8", "min_agreement": 0.97}')
    return ModelSettings(id=str(copied))


class Measurer:
    """Finds int8 faster than float32 by `times`."""

    def __init__(self, times: float) -> None:
        self.asked: list[tuple[list[str], float, float]] = []
        self._times = times

    def __call__(
        self, model: ModelSettings, engine: EngineSettings, threads: int, dtypes: Sequence[str]
    ) -> list[Measured]:
        limits = engine.min_label_agreement, engine.max_logit_drift
        self.asked.append((list(dtypes), *limits))
        speeds = {"float32": 1.0, "int8": self._times}
        return [Measured(dtype, {"full": speeds[dtype]}, 0.3, agrees=True) for dtype in dtypes]


def test_auto_judges_it_by_its_owners_limit_and_takes_int8_or_float32(
    model: ModelSettings,
) -> None:
    for times, dtype in ((2.0, "int8"), (0.5, "float32")):
        measurer = Measurer(times)
        Path(model.id, FILE).write_text(f'{{"dtype": "int8", "min_agreement": 0.9{int(times)}}}')
        for _ in range(2):  # the second reads what the first kept
            engine = AutoEngine(model, EngineSettings(device="cpu"), 1, measure=measurer)
            engine.load()
            assert engine.info().dtype == dtype
        assert measurer.asked == [(["float32", "int8"], float(f"0.9{int(times)}"), np.inf)]


def test_where_int8_does_not_load_it_runs_in_float32(
    model: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    can = ways.accelerate
    monkeypatch.setattr(
        ways, "accelerate", lambda encoder, dtype: dtype != "int8" and can(encoder, dtype)
    )
    engine = AutoEngine(model, EngineSettings(device="cpu"), 1, measure=Measurer(2.0))
    engine.load()
    assert engine.info().dtype == "float32"


@pytest.mark.parametrize(
    "content", ['{"dtype": "int4", "min_agreement": 1}', '{"dtype": "int8"}', "[]", "null"]
)
def test_a_damaged_quantization_json_is_refused_by_name(model: ModelSettings, content: str) -> None:
    Path(model.id, FILE).write_text(content)
    with pytest.raises(ModelRefused, match=r"quantization\.json"):
        quantized(model)
