"""The Classifier grows and shrinks on pretended GPUs, as the GPU file says; and goes to zero."""

from __future__ import annotations

import threading
from collections import Counter

import psutil
import pytest
import requests
from running import Service, deployment, read_config, wait_until

pytestmark = pytest.mark.slow

# One classifier per pretended GPU.
MAX_REPLICAS = 2


class Load:
    """Callers that ask again as soon as they are answered, until told to stop."""

    def __init__(self, service: Service, callers: int) -> None:
        self.statuses: Counter[int] = Counter()
        self._service = service
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(callers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=120)

    def _ask(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                answer = session.post(
                    f"{self._service.url}/classify", json={"text": "很好" * 200}, timeout=60
                )
                self.statuses[answer.status_code] += 1


@pytest.fixture
def scaled(service: Service) -> Service:
    config = read_config("serve_config.gpu.yaml")
    # The cluster here has two GPUs, and the test no five minutes; all else is the file's own.
    for name in ("Tokenizer", "Postprocessor"):
        deployment(config, name)["ray_actor_options"] = {"num_cpus": 0.1}
        deployment(config, name)["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": 1}
    classifier = deployment(config, "Classifier")
    assert classifier["ray_actor_options"]["num_gpus"] == 1
    classifier["ray_actor_options"] = {"num_cpus": 1, "num_gpus": 1}
    classifier["autoscaling_config"] |= {
        "min_replicas": 1,
        "max_replicas": MAX_REPLICAS,
        "target_ongoing_requests": 2,
        "metrics_interval_s": 0.5,
        "look_back_period_s": 2.0,
        "upscale_delay_s": 1.0,
        "downscale_delay_s": 4.0,
    }
    service.deploy(config)
    return service


def test_load_grows_the_classifier_to_its_maximum_and_back(scaled: Service) -> None:
    assert len(scaled.replica_pids("Classifier")) == 1
    with Load(scaled, callers=16) as load:
        wait_until(
            lambda: len(scaled.replica_pids("Classifier")) == MAX_REPLICAS, "the second classifier"
        )
        grown = sum(load.statuses.values())
        wait_until(lambda: sum(load.statuses.values()) > grown + 50, "answers from both")
    assert set(load.statuses) == {200}
    wait_until(lambda: len(scaled.replica_pids("Classifier")) == 1, "the classifier to shrink")
    assert scaled.post({"text": "很好"}).status_code == 200


def test_who_comes_when_no_classifier_runs_is_answered_or_told_when_to_come_again(
    service: Service,
) -> None:
    config = read_config()
    deployment(config, "Classifier")["autoscaling_config"] |= {
        "min_replicas": 0,
        "initial_replicas": 1,
        "max_replicas": 1,
        "metrics_interval_s": 0.5,
        "look_back_period_s": 1.0,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 2.0,
    }
    service.deploy(config)
    assert service.post({"text": "很好"}).status_code == 200
    there = service.replica_pids("Classifier")
    wait_until(lambda: not service.replica_pids("Classifier"), "the classifier to go")
    # One that stops may still be asked; one that has ended is not.
    wait_until(lambda: not any(map(psutil.pid_exists, there)), "its process to end")
    impatient = service.post({"text": "很好", "timeout_ms": 300})
    error = impatient.json()["error"]
    assert (impatient.status_code, error["code"]) == (503, "not_ready")
    assert "one is started now" in error["message"]
    assert int(impatient.headers["Retry-After"]) >= 1
    assert service.post({"text": "很好"}).json()["label"] == "positive"
