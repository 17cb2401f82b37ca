"""Finding a model and reading its labels, kind and limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.core import model_source
from deployments.core.model_source import ModelNotFound, find_model, model_info
from deployments.settings import ModelSettings


def info_of(config: dict[str, Any], **settings: Any) -> Any:
    return model_info(ModelSettings(id="x", **settings), config)


def test_a_relative_path_means_the_same_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_model("models/demo") == str(demo_model)


def test_the_working_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "models" / "demo"
    own.mkdir(parents=True)
    (own / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_model("models/demo") == str(own)


def test_an_installed_wheel_carries_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = tmp_path / "site" / "deployments" / "models" / "demo"
    packaged.mkdir(parents=True)
    (packaged / "config.json").write_text("{}")
    monkeypatch.setattr(model_source, "PACKAGE_DIR", tmp_path / "site" / "deployments")
    monkeypatch.chdir(tmp_path)
    assert find_model("models/demo") == str(packaged)


@pytest.mark.parametrize("missing", ["./none", "/no/such/model", "a/b/c", "~/none"])
def test_a_missing_directory_is_said_with_the_cure(missing: str) -> None:
    with pytest.raises(ModelNotFound, match=r"expected a directory with config\.json"):
        find_model(missing)


def test_a_hub_id_is_left_alone() -> None:
    assert find_model("org/some-model") == "org/some-model"


def test_labels_come_in_the_order_of_their_ids() -> None:
    config = {"id2label": {str(i): f"l{i}" for i in reversed(range(12))}}
    assert info_of(config).labels == tuple(f"l{i}" for i in range(12))


def test_without_names_labels_are_numbered() -> None:
    assert info_of({}).labels == ("LABEL_0", "LABEL_1")
    assert info_of({"num_labels": 3}).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_two_labels_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name to several of its 2 labels"):
        info_of({"id2label": {"0": "a", "1": "a"}})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"problem_type": "regression", "num_labels": 1}, "regression"),
        ({"problem_type": None, "num_labels": 1}, "multi_label_classification"),
        (
            {"problem_type": "single_label_classification", "num_labels": 1},
            "multi_label_classification",
        ),
        ({"num_labels": 3}, "single_label_classification"),
    ],
)
def test_problem_type_as_transformers_pipeline_reads_it(
    config: dict[str, Any], expected: str
) -> None:
    assert info_of(config).problem_type == expected


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 128}, 128),
        ({"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1}, 512),
        ({"max_position_embeddings": 514, "model_type": "xlm-roberta", "pad_token_id": 1}, 512),
        ({"max_position_embeddings": 4098, "model_type": "longformer", "pad_token_id": 1}, 4096),
        ({}, 512),
    ],
)
def test_the_length_limit_is_the_models(config: dict[str, Any], limit: int) -> None:
    assert info_of(config).max_length == limit
    with pytest.raises(
        ValueError, match=f"max_length is {limit + 1}; the model's limit is {limit}"
    ):
        info_of(config, max_length=limit + 1)
    assert info_of(config, max_length=limit - 1).max_length == limit - 1


def test_temperature_from_settings_then_from_the_model_then_one() -> None:
    assert info_of({"temperature": 1.7}, temperature=2.5).temperature == 2.5
    assert info_of({"temperature": 1.7}).temperature == 1.7
    assert info_of({}).temperature == 1.0


def test_an_unreadable_config_is_said_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ModelNotFound, match=r"can't read config\.json"):
        model_source.read_config(ModelSettings(id=str(tmp_path)))


def test_the_config_of_a_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_labels": 5}))
    assert len(model_info(ModelSettings(id=str(tmp_path))).labels) == 5


@pytest.mark.parametrize(("said", "limit"), [(32, 32), (10**30, 64), (None, 64), ("many", 64)])
def test_the_tokenizers_own_limit_holds_where_it_is_lower(
    make_tiny_model: Callable[..., Path], said: Any, limit: int
) -> None:
    directory = make_tiny_model()
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": said}))
    assert model_info(ModelSettings(id=str(directory))).max_length == limit
    assert model_info(ModelSettings(id=str(directory), max_length=50)).max_length == 50
