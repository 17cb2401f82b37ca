"""Keys, limits and bounds through the real proxy, and keys that change while requests arrive."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests
from running import Config, Service, read_config, wait_until

from deployments.access.keys import hash_of, new_token

pytestmark = pytest.mark.slow

SHOP, BATCH, EXPLAINER, SLOW = (new_token() for _ in range(4))


def write_keys(path: Path, **tokens: tuple[str, dict[str, Any]]) -> None:
    """As a secret's update does: all of it at once."""
    keys = [{"id": name, "sha256": hash_of(t), **extra} for name, (t, extra) in tokens.items()]
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"keys": keys}))
    new.replace(path)


ALL: dict[str, tuple[str, dict[str, Any]]] = {
    "shop": (SHOP, {}),
    "explainer": (EXPLAINER, {"scopes": ["explain"]}),
    "slow": (SLOW, {"texts_per_s": 0.01, "burst_texts": 3}),
}


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "keys.json"
    write_keys(path, **ALL)
    return path


@pytest.fixture(scope="module", autouse=True)
def guarded(service: Service, keys_file: Path) -> None:
    config = read_config()
    args = config["applications"][0]["args"]
    args["access"] |= {"keys_file": str(keys_file)}
    args["engine"] |= {"name": "none"}
    service.deploy(config)


def ask(service: Service, token: str | None, text: Any = "很好") -> requests.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return service.post({"text": text}, headers=headers)


def test_keys_scopes_and_limits_hold_through_the_proxy(service: Service) -> None:
    told = {
        name: ask(service, token)
        for name, token in {"none": None, "wrong": new_token(), "shop": SHOP,
                            "explainer": EXPLAINER}.items()
    }  # fmt: skip
    statuses = {name: answer.status_code for name, answer in told.items()}
    assert statuses == {"none": 401, "wrong": 401, "shop": 200, "explainer": 403}
    assert told["none"].headers["www-authenticate"] == "Bearer"
    assert ask(service, SLOW, ["a", "b", "c"]).status_code == 200
    limited = ask(service, SLOW)
    assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limited")
    assert int(limited.headers["retry-after"]) > 60
    for answer in (*told.values(), limited):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    for path, status in {"/health": 200, "/ready": 200, "/docs": 200, "/info": 401}.items():
        assert service.get(path).status_code == status


def test_a_handle_inside_ray_is_trusted(service: Service) -> None:
    from ray import serve

    handle = serve.get_app_handle("classify")
    assert handle.classify.remote("很好").result(timeout_s=30)["label"]


def test_keys_are_rotated_under_load_without_a_restart(service: Service, keys_file: Path) -> None:
    """Old and new key side by side, then the new alone: its caller never notices."""
    pids = service.replica_pids("Tokenizer")
    statuses: dict[str, Counter[int]] = {"old": Counter(), "both": Counter()}
    token = {"both": SHOP}
    stop = threading.Event()

    def keep_asking(name: str) -> None:
        while not stop.is_set():
            statuses[name][ask(service, token.get(name, SHOP)).status_code] += 1

    threads = [threading.Thread(target=keep_asking, args=(name,)) for name in statuses]
    for thread in threads:
        thread.start()
    try:
        write_keys(keys_file, **ALL, batch=(BATCH, {}))
        wait_until(lambda: ask(service, BATCH).ok, "the new key to be known", 10)
        token["both"] = BATCH
        # One of them was under way with the old key.
        switched = statuses["both"].total()
        wait_until(lambda: statuses["both"].total() >= switched + 2, "an answer with the new key")
        started = time.monotonic()
        write_keys(keys_file, batch=(BATCH, {}))
        wait_until(lambda: statuses["old"][401], "the old key to end", 10)
        assert time.monotonic() - started < 5
        served = statuses["both"][200]
        wait_until(lambda: statuses["both"][200] > served + 20, "answers with the new key", 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        write_keys(keys_file, **ALL)
    assert set(statuses["both"]) == {200}
    assert set(statuses["old"]) == {200, 401}
    assert service.replica_pids("Tokenizer") == pids
    wait_until(lambda: ask(service, SHOP).ok, "the old key to be back", 10)


def test_huge_headers_are_refused_and_harm_nobody(service: Service) -> None:
    for size in (8_000, 60_000, 1_000_000):
        try:
            status = ask(service, "x" * size).status_code
        except requests.RequestException:
            continue  # the proxy hung up on it
        assert 400 <= status < 500
    assert ask(service, SHOP).status_code == 200


@pytest.mark.parametrize("name", ["x-request-id", "x-session-id", "serve_multiplexed_model_id"])
def test_a_header_that_is_no_text_is_not_serves_undoing(service: Service, name: str) -> None:
    headers: dict[str, Any] = {"X-API-Key": SHOP, name: b"\xff\xfe"}
    assert service.post({"text": "很好"}, headers=headers).status_code == 200


@pytest.fixture(scope="module")
def slow_model(service: Service) -> Config:
    """The demo model, open to all, with a deadline that a long batch can't meet."""
    config = read_config()
    args = config["applications"][0]["args"]
    args["limits"] = {"request_timeout_s": 0.3}
    args["engine"] |= {"name": "torch", "dtype": "float32"}
    service.deploy(config)
    return config


LONG = {"text": ["很好" * 200] * 500}


@pytest.mark.parametrize("value", ["0", "-1", "1e9", "inf", "nan", "soon"])
@pytest.mark.usefixtures("slow_model")
def test_no_caller_lifts_the_deadline(service: Service, value: str) -> None:
    answer = service.post(LONG, headers={"x-request-timeout-seconds": value})
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "deadline_exceeded")
    assert "0.3 s" in answer.json()["error"]["message"]


@pytest.mark.usefixtures("slow_model")
def test_a_request_that_takes_too_long_is_told_408(service: Service) -> None:
    answer = service.post(LONG)
    assert answer.status_code == 408
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert "0.3 s" in answer.json()["error"]["message"]


@pytest.mark.usefixtures("slow_model")
def test_a_caller_may_shorten_it_and_is_told_in_json(service: Service) -> None:
    answer = service.post({"text": "很好"}, headers={"x-request-timeout-seconds": "0.000001"})
    assert answer.status_code == 408
    error = answer.json()["error"]
    assert error["code"] == "deadline_exceeded"
    assert error["request_id"] == answer.headers["x-request-id"]
