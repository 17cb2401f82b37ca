"""What `build` makes of a model before any replica is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deployments.model.deployed import as_deployed
from deployments.model.load import fingerprint
from deployments.model.source import ModelNotFound
from deployments.settings import ModelSettings, Settings

COMMIT = "4c1e8f2b9d0a7c6e5f4a3b2c1d0e9f8a7b6c5d4e"


def settings_for(model: Path | str, **engine: Any) -> Settings:
    return Settings.model_validate({"model": {"id": str(model)}, "engine": engine})


@pytest.fixture
def model(demo_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_model, tmp_path / "model"))


def test_a_directory_is_named_by_what_it_holds_now(model: Path) -> None:
    before = as_deployed(settings_for(model)).model.fingerprint
    assert before == fingerprint(ModelSettings(id=str(model)))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = {"0": "bad", "1": "good"}
    config["label2id"] = {"bad": 0, "good": 1}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert as_deployed(settings_for(model)).model.fingerprint != before


def test_what_was_deployed_stays_named_where_the_config_names_it(model: Path) -> None:
    named = Settings(model=ModelSettings(id=str(model), fingerprint="of old"))
    assert as_deployed(named).model.fingerprint == "of old"


def test_a_model_that_its_files_give_away_is_refused_before_anything_is_touched(
    model: Path,
) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match="weights"):
        as_deployed(settings_for(model))
    assert as_deployed(settings_for(model, name="none")).model.fingerprint  # asks for no weights


def test_a_directory_that_only_the_workers_have_is_left_to_them(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "on-the-workers")
    assert as_deployed(settings) == settings


def test_a_branch_of_the_hub_becomes_the_commit_that_every_replica_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repo = tmp_path / "models--org--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    (repo / "snapshots" / COMMIT).mkdir(parents=True)
    (repo / "snapshots" / COMMIT / "config.json").write_text("{}", encoding="utf-8")
    assert as_deployed(settings_for("org/model")).model.revision == COMMIT
    with pytest.raises(ModelNotFound, match="HF_HUB_OFFLINE"):
        as_deployed(settings_for("org/another"))
