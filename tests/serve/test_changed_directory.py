"""A model's directory that is changed in place, under a service that goes on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Config, Service, deployment, read_config, wait_until

pytestmark = pytest.mark.slow


def serving(model: Path) -> Config:
    config = read_config()
    config["applications"][0]["args"]["model"]["id"] = str(model)
    config["applications"][0]["args"]["engine"] |= {"name": "torch", "dtype": "float32"}
    deployment(config, "Classifier")["num_replicas"] = 2
    deployment(config, "Classifier").pop("autoscaling_config", None)
    return config


def test_a_replica_of_the_changed_files_waits_for_the_last_old_one_and_then_serves(
    service: Service, make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    old = make_tiny_model(id2label={0: "old", 1: "before"})
    new = make_tiny_model(id2label={0: "new", 1: "after"})
    place = Path(shutil.copytree(old, tmp_path / "model"))
    service.deploy(serving(place))

    def labels() -> set[str]:
        answer = service.post({"text": "很好"})
        assert answer.status_code == 200, answer.text
        return set(answer.json()["scores"])

    assert labels() == {"old", "before"}
    shutil.copytree(new, place, dirs_exist_ok=True)
    first, last = service.replica_pids("Classifier")
    os.kill(first, signal.SIGKILL)
    waiting = wait_until(
        lambda: service.logged("Classifier", "directory was changed after it was deployed"),
        "the new replica's warning",
    )
    assert "rayclassify deploy" in waiting
    for _ in range(20):
        assert labels() == {"old", "before"}
    os.kill(last, signal.SIGKILL)
    wait_until(lambda: _served(service) == {"new", "after"}, "the changed model")


def _served(service: Service) -> set[str]:
    answer = service.post({"text": "很好"})
    return set(answer.json().get("scores", ()))
