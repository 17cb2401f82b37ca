"""Keys at rest: what a file may say, and that a change is seen without a restart."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.access.keys import (
    TOKEN_PREFIX,
    find_key,
    hash_of,
    new_token,
    parse_keys,
)
from deployments.access.watched_file import CHECK_EVERY_S, WatchedFile, WrongFileError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def tick(self) -> None:
        self.now += CHECK_EVERY_S


def written(path: Path, *ids: str) -> dict[str, str]:
    """A keys file with a key for each id; id → token."""
    tokens = {key_id: new_token() for key_id in ids}
    keys = [{"id": key_id, "sha256": hash_of(token)} for key_id, token in tokens.items()]
    path.write_text(json.dumps({"keys": keys}))
    return tokens


def test_a_token_is_256_random_bits_and_its_hash_finds_the_key():
    tokens = {new_token() for _ in range(1_000)}
    assert len(tokens) == 1_000
    assert {len(token) for token in tokens} == {len(TOKEN_PREFIX) + 43}
    token = tokens.pop()
    keys = parse_keys(f"keys: [{{id: a, sha256: {hash_of(token)}}}]".encode())
    found = find_key(keys, token.encode())
    assert found is not None
    assert (found.id, found.scopes, found.expires) == ("a", ("classify",), None)
    assert [find_key(keys, other.encode()) for other in tokens] == [None] * 999


def test_nothing_of_a_token_is_in_its_entry(tmp_path):
    tokens = written(tmp_path / "keys.json", "a", "b")
    content = (tmp_path / "keys.json").read_text()
    assert not any(token in content or token[4:20] in content for token in tokens.values())


def test_all_fields_are_read_from_yaml():
    (key,) = parse_keys(
        f"""
keys:
  - id: shop.frontend@eu-1
    sha256: {"0a" * 32}
    scopes: [classify, explain]
    texts_per_s: 2.5
    burst_texts: 100
    texts_per_day: 10000
    expires: 2027-01-01
""".encode()
    ).values()
    assert (key.texts_per_s, key.burst_texts, key.texts_per_day) == (2.5, 100, 10_000)
    assert key.expires == datetime(2027, 1, 1, tzinfo=UTC)


HASH = "ab" * 32


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "must hold `keys:`"),
        ("[]", "must hold `keys:`"),
        ("keys: {a: b}", "must hold `keys:`"),
        ("keys: [\n  - }", "line 2 is no YAML"),
        ("keys: []\nusers: []", "unknown keys stand beside"),
        (f"keys: [{{id: a, sha256: {HASH}, scope: x}}]", "keys[0].scope: Extra inputs"),
        (f"keys: [{{id: a, sha256: {HASH}, scopes: [root]}}]", "keys[0].scopes.0"),
        (f"keys: [{{id: a, sha256: {HASH}, scopes: []}}]", "keys[0].scopes"),
        (f"keys: [{{id: a, sha256: {HASH}, texts_per_s: .inf}}]", "keys[0].texts_per_s"),
        (f"keys: [{{id: 'a b', sha256: {HASH}}}]", "keys[0].id"),
        (f"keys: [{{id: a, sha256: {HASH}}}, {{id: a, sha256: {'cd' * 32}}}]", "twice"),
        (f"keys: [{{id: a, sha256: {HASH}}}, {{id: b, sha256: {HASH}}}]", "twice"),
        ("keys: [{id: a}]", "keys[0].sha256: Field required"),
        ("keys: [{id: a, sha256: rck_secret-by-mistake}]", "keys[0].sha256"),
        ("keys: !!python/object/apply:os.system [echo]", "is no YAML"),
    ],
)
def test_a_wrong_file_is_told_by_place_and_never_quoted(content, told):
    with pytest.raises(WrongFileError) as caught:
        parse_keys(content.encode())
    assert told in str(caught.value)
    assert "secret-by-mistake" not in str(caught.value)
    assert HASH not in str(caught.value)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(WrongFileError, match="neither YAML nor JSON"):
        parse_keys(b"\xff\xfe\x00")


def test_a_changed_file_is_seen_at_the_next_check(tmp_path):
    clock, path = Clock(), tmp_path / "keys.json"
    old = written(path, "a")
    watched = WatchedFile(path, parse_keys, clock)
    new = written(path, "b", "c")
    assert find_key(watched.value, old["a"].encode())  # not looked at yet
    clock.tick()
    assert find_key(watched.value, old["a"].encode()) is None
    assert {find_key(watched.value, token.encode()).id for token in new.values()} == {"b", "c"}


def test_a_swapped_symlink_is_seen_as_kubernetes_swaps_it(tmp_path):
    """keys.json → ..data/keys.json, and ..data → a directory of the version."""
    clock = Clock()
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
    old = written(tmp_path / "v1" / "keys.json", "a")
    new = written(tmp_path / "v2" / "keys.json", "b")
    times = (1_000_000_000, 1_000_000_000)
    for version in ("v1", "v2"):
        os.utime(tmp_path / version / "keys.json", times)  # only the inode differs
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "keys.json").symlink_to("..data/keys.json")
    watched = WatchedFile(tmp_path / "keys.json", parse_keys, clock)
    assert find_key(watched.value, old["a"].encode())
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    clock.tick()
    assert find_key(watched.value, old["a"].encode()) is None
    assert find_key(watched.value, new["b"].encode())


@pytest.mark.parametrize("damage", ["half", "gone"])
def test_a_broken_file_keeps_the_old_keys_and_says_so_once(tmp_path, caplog, damage):
    clock, path = Clock(), tmp_path / "keys.json"
    tokens = written(path, "a")
    watched = WatchedFile(path, parse_keys, clock)
    content = path.read_text()
    with caplog.at_level(logging.INFO, logger="deployments"):
        if damage == "half":
            path.write_text(content[: len(content) // 2])
        else:
            path.unlink()
        for _ in range(3):
            clock.tick()
            assert find_key(watched.value, tokens["a"].encode())
        errors = [record for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 1
        assert "the old one stays" in errors[0].getMessage()
        again = written(path, "b")
        clock.tick()
        assert find_key(watched.value, again["b"].encode())


def test_a_file_that_is_wrong_from_the_start_stops_the_start(tmp_path):
    with pytest.raises(WrongFileError, match="can't be read"):
        WatchedFile(tmp_path / "none.yaml", parse_keys)
