"""`rayclassify deploy`, `status` and `rollback` on a real Ray, beside another application."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from launched import ROOT, TRIES, Run, serve
from running import wait_until
from typer.testing import CliRunner
from typer.testing import Result as CliResult

from deployments.cli import app as rayclassify
from deployments.config.ray_inside import MIN_DRAINING
from deployments.deploying.clusters import LocalRay, local_rays
from deployments.deploying.dashboard import Dashboard
from deployments.launch.targets import STATE_DIR_ENV
from scripts.bench.service import free_port

DEPLOY_S = 240

pytestmark = [pytest.mark.slow, pytest.mark.timeout(8 * DEPLOY_S)]


@dataclass
class Cluster:
    """A running service, the commands that change it, and what it answers."""

    ray: LocalRay
    port: int

    def run(self, *args: object) -> CliResult:
        """In this process: a command's own takes seconds to import what it needs."""
        return CliRunner().invoke(rayclassify, [*map(str, args), "--address", self.ray.url])

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
    # Nobody asks while replicas change, so none need be waited for.
    config["controller_options"]["runtime_env"]["env_vars"][MIN_DRAINING] = "0.1"
    app = config["applications"][0]
    app["args"]["model"] |= model
    app["args"]["engine"] |= {"name": "torch", "dtype": "float32", "num_threads": 1}
    for deployment in app["deployments"]:
        deployment["ray_actor_options"] = {"num_cpus": 0.1}
        deployment |= {"graceful_shutdown_wait_loop_s": 0.1, "health_check_period_s": 1.0}
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
    tmp_path: Path, make_tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STATE_DIR_ENV, str(tmp_path / "state"))
    one = make_tiny_model(id2label={0: "one-a", 1: "one-b"})
    two = make_tiny_model(id2label={0: "two-a", 1: "two-b"})
    other = make_tiny_model(id2label={0: "bad-a", 1: "bad-b"})
    weightless = tmp_path / "weightless"
    shutil.copytree(other, weightless)
    (weightless / "model.safetensors").unlink()
    port = free_port()
    first = config_for(tmp_path, "first", port, id=str(one))
    with serve(first, within_s=7 * DEPLOY_S, **{TRIES: "1"}) as run:
        run.wait_for("Ready:")
        cluster = Cluster(ray_of(run), port)
        assert cluster.label().startswith("one-")

        done = cluster.run("deploy", beside(first))
        assert done.exit_code == 0, done.output
        assert "left as they are: classify" in done.output
        assert cluster.label().startswith("one-")
        assert "not_ready" not in cluster.label("/second")
        others = cluster.pids("second", "Tokenizer")

        done = cluster.run("deploy", config_for(tmp_path, "next", port, id=str(two)))
        assert done.exit_code == 0, done.output
        assert cluster.label().startswith("two-")
        assert cluster.pids("second", "Tokenizer") == others

        # What a look at the files shows touches nothing; what only a replica finds is rolled back.
        done = cluster.run("deploy", config_for(tmp_path, "weightless", port, id=str(weightless)))
        assert done.exit_code == 2, done.output
        assert "Deploying" not in done.output

        bad = config_for(tmp_path, "bad", port, id=str(other))
        bad.write_text(bad.read_text().replace("device: auto", "device: cuda:99"))
        classifier = cluster.pids("classify", "Classifier")
        done = cluster.run("deploy", bad)
        assert done.exit_code == 1, done.output
        assert re.search(r"^  Classifier: .*torch sees \d+ GPUs", done.output, re.MULTILINE), (
            done.output
        )
        assert "It serves as before" in done.output
        assert cluster.label().startswith("two-")
        assert cluster.pids("classify", "Classifier") == classifier
        assert cluster.pids("second", "Tokenizer") == others
        assert cluster.run("status").exit_code == 0

        # As plain Serve leaves it: a Classifier that dies now is not replaced.
        done = cluster.run("deploy", bad, "--no-rollback")
        assert done.exit_code == 1, done.output
        (pid,) = cluster.pids("classify", "Classifier")
        psutil.Process(pid).kill()
        wait_until(lambda: not cluster.pids("classify", "Classifier"), "the death to be seen")
        status = cluster.run("status", "--app", "classify")
        assert status.exit_code == 1
        assert re.search(r"Classifier +0 of 1 running +failed to start", status.output)
        assert "to get back: `rayclassify rollback`" in status.output

        done = cluster.run("rollback", "--app", "classify")
        assert done.exit_code == 0, done.output
        assert cluster.label().startswith("two-")
        assert cluster.pids("second", "Tokenizer") == others
        assert run.interrupt() == 0, run.lines
