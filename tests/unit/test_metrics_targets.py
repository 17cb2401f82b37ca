"""Where Prometheus looks for what runs here: the file for service discovery, and its port."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.launch import ports
from deployments.launch.preflight import check_port
from deployments.launch.targets import STATE_DIR_ENV, announced


def test_the_file_is_there_as_long_as_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STATE_DIR_ENV, str(tmp_path / "not" / "there"))
    with announced(8000, 8080) as path, announced(8001, 8081) as other:
        assert path is not None
        assert other is not None
        assert path.stat().st_mode & 0o777 == 0o644
        (group,) = json.loads(path.read_text())
        assert group["targets"] == ["127.0.0.1:8080"]
        assert sorted(path.parent.glob("*.json")) == [path, other]
    assert not list(path.parent.iterdir())


def test_without_a_place_for_it_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(STATE_DIR_ENV, str(tmp_path / "file" / "below"))
    with announced(8000, 8080) as path:
        assert path is None


def test_a_port_that_is_taken_gives_way_unless_somebody_named_it() -> None:
    free = ports.next_port()
    assert ports.claimed(free) == free
    with ports.socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ports.claimed(port) != port
        (problem,) = check_port("", port, "--metrics-port")
    assert "or set --metrics-port to a free one" in problem.message
