"""Finding a model, and what its absence is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.model import source as model_source
from deployments.model.source import ModelNotFound, ModelRefused, find_model, own_words
from deployments.settings import ModelSettings


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


def test_an_unreadable_config_is_said_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ModelNotFound, match=r"can't read config\.json"):
        model_source.read_config(ModelSettings(id=str(tmp_path)))


def test_a_config_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(ModelRefused, match="holds a list; it should hold a mapping"):
        model_source.read_config(ModelSettings(id=str(tmp_path)))


def test_an_adapter_alone_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelRefused, match=r"is an adapter.*Merge it first"):
        find_model(str(tmp_path))


def test_errors_of_libraries_leave_in_our_words_and_ours_as_they_are() -> None:
    with (
        pytest.raises(ModelRefused, match=r"'m' can't be loaded \(KeyError at .*the log has"),
        own_words("m"),
    ):
        raise KeyError("anything")
    with pytest.raises(ModelNotFound, match="as it was"), own_words("m"):
        raise ModelNotFound("as it was")
    with pytest.raises(ModelRefused, match="does not fit into this"), own_words("m"):
        raise MemoryError
    with pytest.raises(ArithmeticError), own_words("m", ArithmeticError):
        raise ArithmeticError
