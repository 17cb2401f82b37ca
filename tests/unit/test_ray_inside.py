"""What we rely on inside Ray is still there, in the version that it was read in."""

from __future__ import annotations

import re
from importlib import metadata, util
from pathlib import Path

import pytest

from deployments.config import ray_inside

PACKAGE = Path(__file__).parents[2] / "deployments"


def ray_file(name: str) -> Path:
    spec = util.find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], name)


def test_this_is_the_version_that_was_read() -> None:
    look_at = "\n".join(f"ray/{name}: {', '.join(w)}" for name, w in ray_inside.READ_IN.items())
    assert ray_inside.other_version() is None, f"Look at these, then change RAY:\n{look_at}"


@pytest.mark.parametrize("name", ray_inside.READ_IN)
def test_what_we_rely_on_stands_where_it_was_read(name: str) -> None:
    text = ray_file(name).read_text(encoding="utf-8")
    gone = [words for words in ray_inside.READ_IN[name] if words not in text]
    assert gone == [], f"ray/{name} has no longer: {gone}"


def test_another_version_is_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda package: "2.61.0")
    told = ray_inside.other_version()
    assert told is not None
    assert "ray is 2.61.0" in told
    assert "ray[serve]==2.60.*" in told


def test_flags_and_private_modules_of_serve_are_named_in_no_other_module() -> None:
    """A replica's base imports what it needs; it is listed in READ_IN."""
    told = r'"RAY_(?:SERVE|USAGE|DEFAULT|ACCEL|COLOR)_\w+"|^\s*(?:from|import) ray\S*\._'
    found = {
        str(path.relative_to(PACKAGE))
        for folder in ("config", "launch", "deploying", "replica")
        for path in (PACKAGE / folder).glob("*.py")
        if re.search(told, path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == {"config/ray_inside.py", "deploying/clusters.py", "replica/base.py"}
