"""A model's parts, made by another process, are those that transformers would have made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.model import read_apart as apart
from deployments.model.read_apart import read_apart
from deployments.model.reading import load_tokenizer, read
from deployments.model.source import ModelNotFound, ModelRefused
from deployments.settings import ModelSettings


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYCLASSIFY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(apart, "_memory", {})
    return tmp_path / "cache"


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What a process knows is gone, as at its next start."""
    return lambda: monkeypatch.setattr(apart, "_memory", {})


@pytest.fixture
def cased(demo_model: Path, tmp_path: Path) -> ModelSettings:
    """tokenizer_config.json keeps upper case, tokenizer.json does not: transformers obeys the
    first."""
    directory = tmp_path / "cased"
    shutil.copytree(demo_model, directory)
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "do_lower_case": False}), encoding="utf-8")
    return ModelSettings(id=str(directory))


def test_they_are_what_transformers_makes_of_all_files_also_when_kept(
    cased: ModelSettings, own_cache: Path, forget: Callable[[], None]
) -> None:
    ours = json.loads((Path(cased.id) / "tokenizer.json").read_text(encoding="utf-8"))
    expected = load_tokenizer(cased).to_str()
    assert json.loads(expected)["normalizer"] != ours["normalizer"]  # else the test shows nothing
    here = read(cased)
    assert here.tokenizer == expected
    assert apart._read(cased) == here  # in a process of its own
    assert read_apart(cased) == here
    assert len(list(own_cache.rglob("*.json"))) == 1
    forget()
    assert read_apart(cased) == here


def test_a_changed_file_makes_them_anew(
    cased: ModelSettings, own_cache: Path, forget: Callable[[], None]
) -> None:
    first = read_apart(cased)
    (kept,) = own_cache.rglob("*.json")
    kept.write_text(json.dumps(replace(first, texts_proven=7).to_json()), encoding="utf-8")
    forget()
    assert read_apart(cased).texts_proven == 7  # reads what is kept, whoever wrote it
    (Path(cased.id) / "calibration.json").write_text('{"temperature": 2}')
    changed = read_apart(cased)
    assert changed.info.temperature == 2
    assert changed.texts_proven == first.texts_proven


@pytest.mark.parametrize("content", ["", '{"fingerprint": "", "inf', "[]", '{"info": {}}'])
def test_damaged_ones_in_the_cache_are_made_anew(
    cased: ModelSettings,
    own_cache: Path,
    content: str,
    caplog: pytest.LogCaptureFixture,
    forget: Callable[[], None],
) -> None:
    expected = read_apart(cased)
    (kept,) = own_cache.rglob("*.json")
    kept.write_text(content)
    forget()
    assert read_apart(cased) == expected
    assert "are damaged" in caplog.text
    assert json.loads(kept.read_text(encoding="utf-8"))["tokenizer"] == expected.tokenizer


def test_a_model_that_moves_keeps_its_parts_under_its_new_name(
    cased: ModelSettings, own_cache: Path, forget: Callable[[], None]
) -> None:
    read_apart(cased)
    moved = Path(cased.id).rename(Path(cased.id).with_name("moved"))
    forget()
    parts = read_apart(ModelSettings(id=str(moved)))
    assert parts.info.model == str(moved)
    assert len(list(own_cache.rglob("*.json"))) == 1


def test_why_there_are_none_is_told_as_in_the_same_process(
    make_tiny_model: Callable[..., Path],
) -> None:
    directory = make_tiny_model()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    said: list[str] = []
    for way in (read, apart._read, read_apart):
        with pytest.raises(ModelRefused, match="has no tokenizer: expected") as caught:
            way(ModelSettings(id=str(directory)))
        said.append(str(caught.value))
    assert len(set(said)) == 1


def test_a_reading_process_that_dies_is_a_refusal(
    cased: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ModelNotFound, match="ended with exit code 1 and no answer"):
        apart._read(cased)


def test_who_asks_never_loads_torch(demo_model: Path) -> None:
    programme = """
import sys
import deployments.tokenizer
from deployments.model.load import load_parts
from deployments.settings import ModelSettings
parts = load_parts(ModelSettings(id=sys.argv[1]))
print(parts.info.labels[1], "torch" in sys.modules, "transformers" in sys.modules)
"""
    root: Any = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", programme, str(demo_model)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["positive", "False", "False"]
