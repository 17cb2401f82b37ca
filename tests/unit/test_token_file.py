"""Ray's token is found where Ray looks, and its file is its owner's alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deployments.launch.token_file import NoToken, read_token, secure_token


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_is_looked_for_where_ray_looks(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("home\n")
    (tmp_path / "named").write_text("named\n")
    home = {"HOME": str(tmp_path)}
    assert read_token(home) == "home"
    assert read_token({**home, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "named")}) == "named"
    assert read_token({**home, "RAY_AUTH_TOKEN": "told"}) == "told"
    assert read_token({"HOME": str(tmp_path / "nobody")}) == ""


def test_a_new_token_is_its_owners_alone_from_the_start(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert secure_token(home, make=True) is None
    assert mode(tmp_path / ".ray" / "auth_token") == 0o600
    assert mode(tmp_path / ".ray") == 0o700
    assert len(read_token(home)) == 64
    assert [p.name for p in (tmp_path / ".ray").iterdir()] == ["auth_token"]
    first = read_token(home)
    assert secure_token(home, make=True) is None
    assert read_token(home) == first


def test_a_token_that_others_could_read_is_taken_from_them_and_said(tmp_path: Path) -> None:
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir(mode=0o755)
    path.write_text("token")
    path.chmod(0o644)
    told = secure_token({"HOME": str(tmp_path)}, make=False)
    assert told is not None
    assert "was readable by other users" in told
    assert "delete it while no Ray runs" in told
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert path.read_text() == "token"
    assert secure_token({"HOME": str(tmp_path)}, make=False) is None


def test_a_named_file_keeps_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "shared" / "token"
    path.parent.mkdir(mode=0o755)
    path.write_text("token")
    path.chmod(0o640)
    environment = {"HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": str(path)}
    assert secure_token(environment, make=True) is not None
    assert (mode(path), mode(path.parent)) == (0o600, 0o755)


def test_a_token_in_the_environment_needs_no_file(tmp_path: Path) -> None:
    assert secure_token({"HOME": str(tmp_path), "RAY_AUTH_TOKEN": "t"}, make=True) is None
    assert list(tmp_path.iterdir()) == []
    assert secure_token({"HOME": str(tmp_path)}, make=False) is None
    assert list(tmp_path.iterdir()) == []


def test_where_none_can_be_made_it_says_how_to_name_one(tmp_path: Path) -> None:
    (tmp_path / ".ray").write_text("a file in the way")
    home = {"HOME": str(tmp_path)}
    with pytest.raises(NoToken, match="export RAY_AUTH_TOKEN="):
        secure_token(home, make=True)
    assert secure_token({**home, "RAY_AUTH_TOKEN": "named"}, make=True) is None


def test_it_is_as_long_as_one_that_ray_makes(tmp_path: Path) -> None:
    from ray._private.authentication.authentication_token_generator import (
        generate_new_authentication_token,
    )

    home = {"HOME": str(tmp_path)}
    secure_token(home, make=True)
    assert len(read_token(home)) == len(generate_new_authentication_token())
