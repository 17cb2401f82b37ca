"""Where choices and converted models are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.model.cache import CACHE_DIR_ENV, cache_dir


def test_the_cache_is_made_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_DIR_ENV, str(tmp_path / "new" / "cache"))
    assert cache_dir() == tmp_path / "new" / "cache"
    assert (tmp_path / "new" / "cache").is_dir()


def test_without_a_place_to_write_there_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_DIR_ENV, str(tmp_path / "file" / "cache"))
    assert cache_dir() is None


def test_tests_write_into_no_home() -> None:
    found = cache_dir()
    assert found is not None
    assert not found.is_relative_to(Path.home())
