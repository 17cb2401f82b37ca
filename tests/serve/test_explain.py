"""Explanations on a real Ray: an Explainer starts at the first question, and delays nobody else."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from ray import serve
from running import Service, read_config

pytestmark = pytest.mark.slow

TEXT = "质量很好，会再来 👩‍👩‍👧"
LONG = "房间很干净，离地铁站也近，就是早餐一般。" * 20
ASKED = 20  # more than one runs, one stands ready and eight wait


def explain(service: Service, body: Any) -> requests.Response:
    return requests.post(f"{service.url}/explain", json=body, timeout=120)


def test_an_explainer_starts_when_asked_and_delays_nobody(service: Service) -> None:
    config = read_config()
    args = config["applications"][0]["args"]
    args["limits"] = {"request_timeout_s": 59.0}
    args["explain"] = {"enabled": True, "max_s": 1.0, "max_passes": 512}
    service.deploy(config)
    assert service.replica_pids("Explainer") == set()
    assert service.get("/info").json()["explain"]["max_passes"] == 512

    answer = explain(service, {"text": TEXT})
    while answer.status_code == 503:  # on a machine where a start takes longer than a request may
        assert "Explainer.min_replicas" in answer.json()["error"]["message"]
        answer = explain(service, {"text": TEXT})
    assert answer.status_code == 200, answer.text
    found = answer.json()["explanation"]
    assert found["label"] == answer.json()["label"]
    assert [t["text"] for t in found["tokens"]] == [
        TEXT[t["start"] : t["end"]] for t in found["tokens"]
    ]
    assert "👩‍👩‍👧" in {t["text"] for t in found["tokens"]}
    assert len(service.replica_pids("Explainer")) == 1
    # By 10 below other replicas, and Ray's workers of this cluster begin at 15.
    assert "niceness 19" in (service.logged("Explainer", "explains model") or "")
    assert "explanation" in service.post({"text": TEXT, "explain": True}).json()
    handle = serve.get_app_handle("classify")
    by_handle = handle.explain.remote(TEXT, method="occlusion", passes=4).result()
    assert by_handle["explanation"]["passes"] <= 4
    assert service.logged("Explainer", TEXT) is None

    with ThreadPoolExecutor(ASKED) as pool:
        asked = [pool.submit(explain, service, {"text": LONG, "passes": 512}) for _ in range(ASKED)]
        labels = [service.post({"text": TEXT}).json()["label"] for _ in range(20)]
        assert labels == [answer.json()["label"]] * 20
        # All 20 were answered while explanations were under way.
        assert not all(one.done() for one in asked)
        answers = [one.result() for one in asked]
    statuses = Counter(one.status_code for one in answers)
    # 408: the machine became so slow that what was planned took longer than it may.
    assert statuses.keys() - {408} == {200, 429}
    refused = next(one for one in answers if one.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert "Explainer" in refused.json()["error"]["message"]
    explained = next(one for one in answers if one.status_code == 200).json()["explanation"]
    assert explained["passes"] < 512
