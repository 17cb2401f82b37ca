"""A cascade and a model on trial in one application: asked, watched, compared, and taken away."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from running import Config, Service, deployment, read_config, wait_until
from typer.testing import CliRunner

from deployments.cli import app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TEXTS = ["很好", "太差了", "mixed 中文 and English 😀", "好" * 40]
BESIDE = ("FirstClassifier", "ShadowClassifier")
START_S = 360.0  # three models at once


def serving(model: Path, **beside: Any) -> Config:
    config = read_config()
    (application,) = config["applications"]
    application["args"]["model"]["id"] = str(model)
    application["args"]["engine"] |= {"name": "torch", "dtype": "float32", "num_threads": 1}
    application["args"] |= beside
    for one in application["deployments"]:
        one.pop("autoscaling_config")
        one |= {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.1}}
    if beside:
        classifier = deployment(config, "Classifier")
        application["deployments"] += [{**classifier, "name": name} for name in BESIDE]
    return config


@contextmanager
def asked_all_the_while(service: Service) -> Iterator[Counter[int]]:
    """How many answers had which status, of callers that never pause."""
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            statuses[service.post({"text": TEXTS}).status_code] += 1

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        yield statuses
    finally:
        over.set()
        for caller in callers:
            caller.join()


def test_both_at_once_and_then_the_one_on_trial_takes_over_with_no_failed_request(
    service: Service, make_tiny_model: Callable[..., Path]
) -> None:
    import ray

    # Equal weights: the same number is another label.
    large = make_tiny_model(id2label={0: "negative", 1: "positive"})
    other = make_tiny_model(id2label={0: "positive", 1: "negative"})
    config = serving(
        large,
        cascade={"model": {"id": str(other)}, "threshold": 1.0},
        shadow={"model": {"id": str(other)}, "share": 1.0},
    )
    service.deploy(config, START_S)
    pids = {name: service.replica_pids(name) for name in ("Tokenizer", *BESIDE)}

    def asked(stage: str) -> list[str]:
        answers = service.post({"text": TEXTS}).json()
        assert {one["cascade"]["stage"] for one in answers} == {stage}, answers
        assert not any(one["cascade"]["unsure"] for one in answers)
        return [one["label"] for one in answers]

    of_large = asked("second")
    deployment(config, "Tokenizer")["user_config"] = {"cascade_threshold": 0.01}
    service.deploy(config)
    of_small = asked("first")
    assert all(a != b for a, b in zip(of_large, of_small, strict=True))
    assert pids == {name: service.replica_pids(name) for name in pids}

    info, state = service.get("/info").json(), service.get("/state").json()
    assert (info["cascade"]["model"], info["shadow"]["model"]) == (str(other), str(other))
    assert info["model"] == str(large)
    assert state["cascade"] == {"threshold": 0.01, "first": 4, "second": 4, "degraded": 0}
    wait_until(
        lambda: service.get("/state").json()["shadow"]["compared"] == 8, "all texts to be compared"
    )
    # It says what the first model of the cascade says, and never what the second does.
    assert service.get("/state").json()["shadow"]["agreed"] == 4

    address = f"http://{ray._private.worker.get_dashboard_url()}"
    compare = ["compare", "--address", address, "--json"]

    def compared() -> list[dict[str, Any]]:
        found = CliRunner().invoke(app, compare)
        return json.loads(found.stdout) if found.exit_code == 0 else []

    def exported() -> bool:
        """Whether each of the three replicas has sent its metrics: each has a clock of its own."""
        times = ("seconds_per_text", "shadow_seconds_per_text")
        return any(one["compared"] == 8 and all(one[t] for t in times) for one in compared())

    wait_until(exported, "the metrics")
    (told,) = compared()
    assert (told["agreement"], told["failed"], told["dropped"]) == (0.5, 0, 0)
    assert sum(one["texts"] for one in told["changes"]) == 4

    with asked_all_the_while(service) as statuses:
        service.deploy(serving(other), START_S)
        old = pids["Tokenizer"]
        wait_until(lambda: not any(map(psutil.pid_exists, old)), "the old ingress to end")
        wait_until(lambda: statuses.total() > 100, "some more answers")
    assert set(statuses) == {200}
    answers = service.post({"text": TEXTS}).json()
    assert [one["label"] for one in answers] == of_small
    assert not any("cascade" in one for one in answers)
