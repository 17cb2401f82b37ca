"""What is said before an update of where it finds room is what Ray then does, on a real Ray."""

from __future__ import annotations

import copy
import os

import pytest
from running import Config, Service, deployment, read_config, wait_until

from deployments.deploying.clusters import Cluster
from deployments.deploying.dashboard import Dashboard
from deployments.deploying.room import read_nodes
from deployments.deploying.serve_state import read_applications
from deployments.deploying.surge import Wave, first_wave
from deployments.launch.token_file import read_token

# Its rule is held by unit/test_surge.py, and by `scripts/cluster_trial.py surge` on a cluster.
pytestmark = [pytest.mark.slow, pytest.mark.trials]

GPUS = 2  # the cluster of these tests has one on each of two workers


@pytest.fixture
def dashboard(service: Service) -> Dashboard:
    import ray

    url = f"http://{ray._private.worker.get_dashboard_url()}"
    return Dashboard(Cluster(url, "the test's", read_token(os.environ)))


def on_gpus(classifiers: int) -> Config:
    config = read_config()
    config["applications"][0]["args"]["engine"] = {"name": "none"}
    for name in ("Tokenizer", "Classifier", "Postprocessor"):
        del deployment(config, name)["autoscaling_config"]
        deployment(config, name)["num_replicas"] = 1
    deployment(config, "Classifier").update(
        num_replicas=classifiers, ray_actor_options={"num_cpus": 0.1, "num_gpus": 1}
    )
    return config


def updated(config: Config) -> Config:
    config = copy.deepcopy(config)
    config["applications"][0]["args"]["limits"] = {"max_batch_texts": 99}
    return config


def said_of_classifier(dashboard: Dashboard, config: Config) -> Wave:
    there = read_applications(dashboard.serve_details())["classify"]
    nodes = read_nodes(dashboard.nodes())
    waves = first_wave(there, config["applications"][0], nodes)
    (found,) = (wave for wave in waves if wave.deployment == "Classifier")
    return found


def test_an_update_finds_room_where_it_was_said_and_waits_where_none_was(
    service: Service, dashboard: Dashboard
) -> None:
    one = on_gpus(1)
    service.deploy(one)
    # The dashboard learns of what is free a little later.
    wait_until(lambda: said_of_classifier(dashboard, updated(one)).fits == 1, "what is free")
    service.deploy(updated(one))

    all_of_them = on_gpus(GPUS)
    service.deploy(all_of_them)
    wait_until(lambda: said_of_classifier(dashboard, updated(all_of_them)).fits == 0, "the same")
    wave = said_of_classifier(dashboard, updated(all_of_them))
    assert wave.said().startswith("no room for the surge: Classifier asks for 0.1 CPU and 1 GPU; ")
    before = service.replica_pids("Classifier")
    service.submit(updated(all_of_them))

    def waits() -> bool:
        app = service.client.get_serve_details()["applications"]["classify"]
        replicas = app["deployments"]["Classifier"]["replicas"]
        return any(not one["node_id"] for one in replicas)

    wait_until(waits, "a new Classifier without a place")
    assert service.replica_pids("Classifier") == before
    assert service.post({"text": "很好"}).status_code == 200
    service.deploy(one)  # the next test finds GPUs
