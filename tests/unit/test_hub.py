"""Which commit a config means: asked of a hub, of the local cache, or refused in our own words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from deployments.model import hub
from deployments.model.source import ModelNotFound
from deployments.settings import ModelSettings

MAIN, TAGGED, CACHED = "a" * 40, "b" * 40, "c" * 40


class Hub(ThreadingHTTPServer):
    """The two addresses of a hub that tell a commit; `silent` answers nobody."""

    daemon_threads = True

    def __init__(self) -> None:
        self.silent = False
        self.status = 200
        self.asked: list[str] = []
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        if self.server.silent:
            self.server.closing.wait(60)
            return
        commits = {
            "/api/models/org/model": MAIN,
            "/api/models/org/model/revision/main": MAIN,
            "/api/models/org/model/revision/v1.0": TAGGED,
            "/api/models/org/model/revision/refs%2Fpr%2F7": TAGGED,
        }
        headers, body, status = {}, b"{}", self.server.status
        if status == 200 and path in commits:
            body = json.dumps({"id": "org/model", "sha": commits[path]}).encode()
        elif status == 200:
            status = 404
            known = path.startswith("/api/models/org/model/")
            headers["X-Error-Code"] = "RevisionNotFound" if known else "RepoNotFound"
        elif status == 403:
            headers["X-Error-Code"] = "GatedRepo"
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub on this machine, which huggingface_hub takes for the only one, and an empty cache."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()


@pytest.fixture
def cache(server: Hub) -> Path:
    """The model at one commit, as huggingface_hub lays it out when it fetches it from `main`."""
    folder = Path(constants.HF_HUB_CACHE, "models--org--model")
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(CACHED)
    (folder / "snapshots" / CACHED).mkdir(parents=True)
    (folder / "snapshots" / CACHED / "config.json").write_text("{}")
    return folder


def commit_of(revision: str | None, id: str = "org/model") -> str | None:
    return hub.resolved(ModelSettings(id=id, revision=revision)).revision


@pytest.mark.parametrize(
    ("revision", "commit"),
    [(None, MAIN), ("main", MAIN), ("v1.0", TAGGED), ("refs/pr/7", TAGGED)],
)
def test_a_revision_becomes_the_commit_that_the_hub_names(
    server: Hub, revision: str | None, commit: str
) -> None:
    assert commit_of(revision) == commit


def test_all_other_settings_stay(server: Hub) -> None:
    asked = ModelSettings(id="org/model", max_length=7, temperature=2.0, trust_remote_code=True)
    assert hub.resolved(asked) == asked.model_copy(update={"revision": MAIN})


def test_a_commit_and_a_directory_are_asked_of_nobody(server: Hub, demo_model: Path) -> None:
    pinned = ModelSettings(id="org/model", revision=TAGGED)
    local = ModelSettings(id=str(demo_model))
    packaged = ModelSettings()
    assert [hub.resolved(s) for s in (pinned, local, packaged)] == [pinned, local, packaged]
    assert server.asked == []


def test_a_hub_that_never_answers_is_given_up_in_time(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.silent = True
    monkeypatch.setattr(hub, "PATIENCE_S", 0.3)
    with pytest.raises(ModelNotFound) as caught:
        commit_of("main")
    message = str(caught.value)
    for told in ("'org/model'", "'main'", constants.ENDPOINT, "0.3 s", "cache", "args.model.id"):
        assert told in message


def test_where_nobody_listens_nothing_is_waited_for(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ModelNotFound, match=r"can't be asked \(ConnectError\).*reaches the hub"):
        commit_of(None)


@pytest.mark.parametrize("trouble", ["silent", "500", "429", "offline"])
def test_without_the_hub_the_cache_gives_the_commit(
    server: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(hub, "PATIENCE_S", 0.3 if trouble == "silent" else 10.0)
    server.silent = trouble == "silent"
    server.status = int(trouble) if trouble.isdigit() else 200
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", trouble == "offline")
    assert commit_of(None) == CACHED
    assert commit_of("main") == CACHED
    with pytest.raises(ModelNotFound, match=r"'v1\.0'"):
        commit_of("v1.0")
    assert (server.asked == []) == (trouble == "offline")


def test_a_cache_without_the_files_of_the_commit_does_not_count(server: Hub, cache: Path) -> None:
    server.status = 503
    (cache / "snapshots" / CACHED / "config.json").unlink()
    with pytest.raises(ModelNotFound, match=r"answered 503, and the local cache does not hold it"):
        commit_of("main")


def test_offline_without_a_cache_names_the_variable(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFound, match=r"HF_HUB_OFFLINE is set.*Unset HF_HUB_OFFLINE"):
        commit_of(None)


def test_what_the_hub_does_not_have_is_not_taken_from_the_cache(server: Hub, cache: Path) -> None:
    (cache / "refs" / "gone").write_text(CACHED)
    with pytest.raises(ModelNotFound, match="has no revision 'gone'"):
        commit_of("gone")
    with pytest.raises(ModelNotFound, match="no model 'org/other'"):
        commit_of(None, id="org/other")


def test_a_gated_model_says_what_is_missing(server: Hub) -> None:
    server.status = 403
    with pytest.raises(ModelNotFound, match="HF_TOKEN"):
        commit_of(None)


def test_what_can_be_no_id_is_said(server: Hub) -> None:
    with pytest.raises(ModelNotFound, match="neither a directory"):
        commit_of(None, id="no such model")
