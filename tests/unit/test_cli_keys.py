"""`rayclassify keys` on real files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.access.keys import find_key, hash_of, new_token, parse_keys
from deployments.cli import app


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("RAYCLASSIFY_KEYS_FILE", raising=False)

    def run(*args: str, code: int = 0):
        result = CliRunner().invoke(app, ["keys", *args])
        assert result.exit_code == code, result.output
        return result

    return run


def test_a_key_is_made_shown_once_listed_and_revoked(run):
    token = run("new", "--id", "shop").stdout.strip()
    other = run(
        *("new", "--id", "batch", "--scopes", "classify,explain", "--texts-per-s", "2.5"),
        *("--burst-texts", "100", "--texts-per-day", "10000", "--expires", "2031-05-01"),
    ).stdout.strip()
    content = Path("keys.yaml").read_bytes()
    keys = parse_keys(content)
    assert find_key(keys, token.encode()).id == "shop"
    batch = find_key(keys, other.encode())
    assert (batch.scopes, batch.texts_per_s, batch.burst_texts, batch.texts_per_day) == (
        ("classify", "explain"), 2.5, 100, 10_000,
    )  # fmt: skip
    assert f"{batch.expires:%Y-%m-%d}" == "2031-05-01"
    assert token.encode() not in content

    listed = run("list").stdout
    assert "shop" in listed
    assert "2031-05-01" in listed
    assert token not in listed

    run("revoke", "shop")
    keys = parse_keys(Path("keys.yaml").read_bytes())
    assert find_key(keys, token.encode()) is None
    assert find_key(keys, other.encode()).id == "batch"
    run("revoke", "batch")
    assert parse_keys(Path("keys.yaml").read_bytes()) == {}
    run("new", "--id", "shop")


def test_the_file_is_for_its_owner_and_keeps_mode_links_and_comments(run, tmp_path):
    run("new", "--id", "a")
    path = Path("keys.yaml")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    path.write_text(path.read_text().replace("keys:", "# ours\nkeys:"))
    Path("link.yaml").symlink_to("keys.yaml")
    run("new", "--id", "b", "--file", "link.yaml")
    assert Path("link.yaml").is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "# ours" in path.read_text()
    assert len(parse_keys(path.read_bytes())) == 2
    assert {entry.name for entry in tmp_path.iterdir()} == {"keys.yaml", "link.yaml"}


def test_a_file_of_another_user_stays_his_or_is_left_alone(run, monkeypatch):
    """One that the service could not read any more would leave the revoked key working."""
    run("new", "--id", "a")
    was = Path("keys.yaml").stat()
    given = []
    monkeypatch.setattr(os, "chown", lambda _, *owner: given.append(owner))
    run("new", "--id", "b")
    assert given == [(was.st_uid, was.st_gid)]

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    assert "belongs to another user" in run("revoke", "a", code=2).output
    assert len(parse_keys(Path("keys.yaml").read_bytes())) == 2
    assert [entry.name for entry in Path().iterdir()] == ["keys.yaml"]


def test_a_json_file_stays_readable(run):
    entry = {"id": "a", "sha256": hash_of(new_token())}
    Path("keys.json").write_text(json.dumps({"keys": [entry]}))
    run("new", "--id", "b", "--file", "keys.json")
    assert {key.id for key in parse_keys(Path("keys.json").read_bytes()).values()} == {"a", "b"}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["new", "--id", "a"], "has a key 'a'"),
        (["new", "--id", "a b"], "id: "),
        (["new", "--id", "b", "--scopes", "root"], "scopes: "),
        (["new", "--id", "b", "--texts-per-s", "-1"], "texts_per_s: "),
        (["revoke", "nobody"], "has no key 'nobody'"),
        (["list", "--file", "none.yaml"], "can't be read"),
        (["list", "--file", "wrong.yaml"], "must hold `keys:`"),
        (["list", "--file", "latin.yaml"], "latin.yaml: "),
        (["new", "--id", "b", "--file", "keys.yaml/keys.yaml"], "keys.yaml/keys.yaml"),
        (["new", "--id", "b", "--file", "wrong.yaml"], "must hold `keys:`"),
    ],
)
def test_mistakes_are_told_and_change_nothing(run, args, told):
    run("new", "--id", "a")
    Path("wrong.yaml").write_text("users: []\n")
    Path("latin.yaml").write_bytes("keys: [ä]\n".encode("latin-1"))
    before = Path("keys.yaml").read_bytes()
    result = run(*args, code=2)
    assert told in result.stderr
    assert result.stdout == ""
    assert Path("keys.yaml").read_bytes() == before
    assert Path("wrong.yaml").read_text() == "users: []\n"
