"""At the limits: overload, a model that isn't there, a replica that dies."""

from __future__ import annotations

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from running import Service, deployment, read_config, wait_until

pytestmark = pytest.mark.slow


def post_many(service: Service, n: int, body: dict[str, Any]) -> list[requests.Response]:
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda _: service.post(body), range(n)))


def test_a_full_service_refuses_at_once_and_answers_what_it_took(service: Service) -> None:
    config = read_config()
    config["applications"][0]["args"]["limits"] = {"max_pending_texts": 40}
    service.deploy(config)
    answers = post_many(service, 16, {"text": ["很好" * 200] * 30})
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "overloaded"
            assert "the limit is 40" in answer.json()["error"]["message"]
        else:
            assert [item["label"] for item in answer.json()] == [answer.json()[0]["label"]] * 30
    assert service.post({"text": "很好"}).status_code == 200  # and room comes back


def test_a_full_classifier_is_told_as_429_too(service: Service) -> None:
    config = read_config()
    deployment(config, "Classifier")["user_config"] |= {
        "max_batch_tokens": 512,
        "max_queue_tokens": 512,
    }
    service.deploy(config)
    answers = post_many(service, 16, {"text": ["很好" * 200] * 8})
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 429}
    assert statuses[429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "tokens wait for the model; the limit is 512" in refused.json()["error"]["message"]


def test_a_killed_classifier_fails_no_request(service: Service) -> None:
    config = read_config()
    scaling = deployment(config, "Classifier")["autoscaling_config"]
    scaling |= {"min_replicas": 2, "initial_replicas": 2, "max_replicas": 2}
    service.deploy(config)
    before = service.replica_pids("Classifier")
    assert len(before) == 2
    victim = min(before)

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(service.post, {"text": ["很好" * 100] * 10}) for _ in range(60)]
        wait_until(lambda: sum(f.done() for f in futures) >= 5, "the first answers")
        os.kill(victim, signal.SIGKILL)
        statuses = Counter(future.result().status_code for future in futures)
    assert statuses == {200: 60}

    def capacity_is_back() -> bool:
        now = service.replica_pids("Classifier")
        return len(now) == 2 and victim not in now

    wait_until(capacity_is_back, "a new replica")


def test_without_a_model_the_service_says_so_and_lives(service: Service) -> None:
    """A Classifier that no node has room for: the rest runs and answers 503 until it comes."""
    from ray import serve

    serve.delete("classify")
    config = read_config()
    deployment(config, "Classifier")["ray_actor_options"] = {"num_cpus": 0.1, "num_gpus": 64}
    service.submit(config)
    # The one before may answer for a moment more: HAProxy hears of its end a little later.
    wait_until(
        lambda: service.answers("/health") and not service.answers("/ready"), "the new ingress"
    )

    ready = service.get("/ready")
    info = service.get("/info")
    refused = service.post({"text": "很好"})
    for answer in (ready, info, refused):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "not_ready"

    service.deploy(read_config())
    assert service.post({"text": "很好"}).status_code == 200
