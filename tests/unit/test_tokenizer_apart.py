"""The tokenizer made by another process is the one transformers would have made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.core.tokenize import load_tokenizer
from deployments.core.tokenizer_apart import load_tokenizer_apart
from deployments.settings import ModelSettings


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYCLASSIFY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


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


def test_it_is_what_transformers_makes_of_all_files_also_when_kept(
    cased: ModelSettings, own_cache: Path
) -> None:
    ours = json.loads((Path(cased.id) / "tokenizer.json").read_text(encoding="utf-8"))
    expected = load_tokenizer(cased).to_str()
    assert json.loads(expected)["normalizer"] != ours["normalizer"]  # else the test shows nothing
    assert load_tokenizer_apart(cased).to_str() == expected
    assert len(list(own_cache.rglob("*.json"))) == 1
    assert load_tokenizer_apart(cased).to_str() == expected


def test_a_changed_file_makes_it_anew(cased: ModelSettings, own_cache: Path) -> None:
    load_tokenizer_apart(cased)
    (kept,) = own_cache.rglob("*.json")
    kept.write_text((Path(cased.id) / "tokenizer.json").read_text(encoding="utf-8"))
    changed = load_tokenizer_apart(cased).to_str()  # reads what is kept, whoever wrote it
    assert changed != load_tokenizer(cased).to_str()
    (Path(cased.id) / "special_tokens_map.json").write_text("{}")
    assert load_tokenizer_apart(cased).to_str() == load_tokenizer(cased).to_str()


@pytest.mark.parametrize("content", ["", '{"version": "1.0", "trunc', "[]"])
def test_a_damaged_one_in_the_cache_is_made_anew(
    cased: ModelSettings, own_cache: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load_tokenizer_apart(cased).to_str()
    (kept,) = own_cache.rglob("*.json")
    kept.write_text(content)
    assert load_tokenizer_apart(cased).to_str() == expected
    assert "is damaged" in caplog.text
    assert json.loads(kept.read_text(encoding="utf-8")) == json.loads(expected)


def test_why_there_is_none_is_told_as_in_the_same_process(
    make_tiny_model: Callable[..., Path],
) -> None:
    directory = make_tiny_model()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    with pytest.raises(ValueError, match="has no vocabulary"):
        load_tokenizer_apart(ModelSettings(id=str(directory)))


def test_the_ingress_never_loads_torch(demo_model: Path) -> None:
    programme = """
import sys
import deployments.tokenizer as ingress
from deployments.settings import ModelSettings
ids = ingress.load_tokenizer_apart(ModelSettings(id=sys.argv[1])).encode("很好").ids
print(len(ids), "torch" in sys.modules, "transformers" in sys.modules)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", programme, str(demo_model)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["4", "False", "False"]
