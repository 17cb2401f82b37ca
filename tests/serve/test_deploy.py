"""`rayclassify deploy`, `status` and `rollback` on a real Ray, beside another application."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from launched import ROOT, Run, serve
from running import wait_until

from deployments.deploying.clusters import LocalRay, local_rays
from deployments.deploying.dashboard import Dashboard
from scripts.bench.service import free_port

DEPLOY_S = 240

pytestmark = [pytest.mark.slow, pytest.mark.timeout(8 * DEPLOY_S)]


@dataclass
class Cluster:
    """A running service, the commands that change it, and what it answers."""

    ray: LocalRay
    port: int
    directory: Path

    def run(self, *args: object) -> subprocess.CompletedProcess[str]:
        address = () if args[0] == "check" else ("--address", self.ray.url)
        return subprocess.run(
            [sys.executable, "-m", "deployments.cli", *map(str, args), *address],
            cwd=self.directory,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "RAYCLASSIFY_STATE_DIR": str(self.directory / "state"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * DEPLOY_S,
            check=False,
        )

    def label(self, route: str = "") -> str:
        url = f"http://127.0.0.1:{self.port}{route}/classify"
        answer = requests.post(url, json={"text": "很好"}, timeout=60).json()
        return str(answer.get("label", answer))

    def pids(self, app: str, deployment: str) -> set[int]:
        told = Dashboard(self.ray.cluster()).serve_details()["applications"][app]
        replicas = told["deployments"][deployment]["replicas"]
        return {replica["pid"] for replica in replicas if replica["state"] == "RUNNING"}


def config_for(directory: Path, name: str, port: int, **model: Any) -> Path:
    """Our config, with replicas that fit twice on two cores, and an engine that needs no choice."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    config["http_options"]["port"] = port
    app = config["applications"][0]
    app["args"]["model"] |= model
    app["args"]["engine"] |= {"name": "torch", "dtype": "float32", "num_threads": 1}
    for deployment in app["deployments"]:
        deployment["ray_actor_options"] = {"num_cpus": 0.1}
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def beside(config: Path) -> Path:
    """Another application of ours, without a model."""
    document = copy.deepcopy(yaml.safe_load(config.read_text(encoding="utf-8")))
    app = document["applications"][0]
    app |= {"name": "second", "route_prefix": "/second"}
    app["args"]["engine"]["name"] = "none"
    path = config.parent / "second.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def ray_of(run: Run) -> LocalRay:
    found = [ray for ray in local_rays() if ray.owner == run.process.pid]
    assert len(found) == 1, found
    return found[0]


def test_an_update_a_failure_and_the_ways_back(
    tmp_path: Path, make_tiny_model: Callable[..., Path]
) -> None:
    one = make_tiny_model(id2label={0: "one-a", 1: "one-b"})
    two = make_tiny_model(id2label={0: "two-a", 1: "two-b"})
    other = make_tiny_model(id2label={0: "bad-a", 1: "bad-b"})
    weightless = tmp_path / "weightless"
    shutil.copytree(other, weightless)
    (weightless / "model.safetensors").unlink()
    port = free_port()
    first = config_for(tmp_path, "first", port, id=str(one))
    with serve(first, within_s=7 * DEPLOY_S) as run:
        run.wait_for("Ready:")
        cluster = Cluster(ray_of(run), port, tmp_path)
        assert cluster.label().startswith("one-")

        done = cluster.run("deploy", beside(first))
        assert done.returncode == 0, done.stdout
        assert "left as they are: classify" in done.stdout
        assert cluster.label().startswith("one-")
        assert "not_ready" not in cluster.label("/second")
        others = cluster.pids("second", "Tokenizer")

        done = cluster.run("deploy", config_for(tmp_path, "next", port, id=str(two)))
        assert done.returncode == 0, done.stdout
        assert cluster.label().startswith("two-")
        assert cluster.pids("second", "Tokenizer") == others

        # What a look at the files shows touches nothing; what only a replica finds is rolled back.
        done = cluster.run("deploy", config_for(tmp_path, "weightless", port, id=str(weightless)))
        assert done.returncode == 2, done.stdout
        assert "Deploying" not in done.stdout

        bad = config_for(tmp_path, "bad", port, id=str(other))
        bad.write_text(bad.read_text().replace("device: auto", "device: cuda:99"))
        classifier = cluster.pids("classify", "Classifier")
        done = cluster.run("deploy", bad)
        assert done.returncode == 1, done.stdout
        assert re.search(r"^  Classifier: .*torch sees \d+ GPUs", done.stdout, re.MULTILINE), (
            done.stdout
        )
        assert "It serves as before" in done.stdout
        assert cluster.label().startswith("two-")
        assert cluster.pids("classify", "Classifier") == classifier
        assert cluster.pids("second", "Tokenizer") == others
        assert cluster.run("status").returncode == 0

        # As plain Serve leaves it: a Classifier that dies now is not replaced.
        done = cluster.run("deploy", bad, "--no-rollback")
        assert done.returncode == 1, done.stdout
        (pid,) = cluster.pids("classify", "Classifier")
        psutil.Process(pid).kill()
        wait_until(lambda: not cluster.pids("classify", "Classifier"), "the death to be seen")
        status = cluster.run("status", "--app", "classify")
        assert status.returncode == 1
        assert re.search(r"Classifier +0 of 1 running +failed to start", status.stdout)
        assert "to get back: `rayclassify rollback`" in status.stdout

        done = cluster.run("rollback", "--app", "classify")
        assert done.returncode == 0, done.stdout
        assert cluster.label().startswith("two-")
        assert cluster.pids("second", "Tokenizer") == others
        assert run.interrupt() == 0, run.lines
