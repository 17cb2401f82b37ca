"""The replicas that the Serve config declares fit into the pods that the RayService declares.

Ray's own autoscaler is asked, as it would be on the cluster: with the RayService's groups and
labels, and the replicas' resources and selectors.
"""

from __future__ import annotations

import copy
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.config.capacity import whole

ROOT = Path(__file__).parents[2]
SPEC = yaml.safe_load((ROOT / "k8s/overlays/gpu/rayservice.yaml").read_text())["spec"]
CLUSTER = SPEC["rayClusterConfig"]
GROUPS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
SERVED = yaml.safe_load(SPEC["serveConfigV2"])
DEPLOYMENTS = {d["name"]: d for d in SERVED["applications"][0]["deployments"]}


def group_of(name: str) -> str:
    return "gpu" if DEPLOYMENTS[name]["ray_actor_options"].get("num_gpus") else "cpu"


def capacity(group: str) -> dict[str, float]:
    params = GROUPS[group]["rayStartParams"]
    return {"CPU": float(params["num-cpus"]), "GPU": float(params.get("num-gpus", 0))}


def peak(name: str, deployments: dict[str, Any] = DEPLOYMENTS) -> int:
    """Replicas during an update at full load."""
    deployment = whole(deployments[name])
    most = deployment["autoscaling_config"]["max_replicas"]
    return int(most + math.ceil(most * deployment["max_surge_percent"] / 100))


@pytest.mark.parametrize("group", ["cpu", "gpu"])
def test_one_replica_of_each_deployment_fits_into_one_worker(group: str) -> None:
    names = [n for n in DEPLOYMENTS if group_of(n) == group]
    assert names
    for resource, option in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
        needed = sum(DEPLOYMENTS[n]["ray_actor_options"].get(option, 0) for n in names)
        assert needed <= capacity(group)[resource]


@pytest.mark.parametrize("group", ["cpu", "gpu"])
def test_all_replicas_of_an_update_at_full_load_fit_into_the_workers(group: str) -> None:
    names = [n for n in DEPLOYMENTS if group_of(n) == group]
    for resource, option in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
        needed = sum(peak(n) * DEPLOYMENTS[n]["ray_actor_options"].get(option, 0) for n in names)
        assert needed <= GROUPS[group]["maxReplicas"] * capacity(group)[resource]


def test_two_replicas_of_the_ingress_get_two_pods() -> None:
    assert DEPLOYMENTS["Tokenizer"]["autoscaling_config"]["min_replicas"] >= 2
    assert GROUPS["cpu"]["minReplicas"] >= 2


def test_ray_counts_what_kubernetes_gives() -> None:
    for group in GROUPS.values():
        resources = group["template"]["spec"]["containers"][0]["resources"]
        params = group["rayStartParams"]
        assert float(params["num-cpus"]) == float(resources["requests"]["cpu"])
        gpus = resources["limits"].get("nvidia.com/gpu", 0)
        assert float(params.get("num-gpus", 0)) == float(gpus)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def launched(
    cluster: dict[str, Any],
    replicas: dict[str, int],
    deployments: dict[str, Any] = DEPLOYMENTS,
) -> dict[str, int]:
    """Workers that Ray's autoscaler starts for the replicas, and how many it cannot place."""
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    logging.disable()
    resource = {"metadata": {"name": "n", "namespace": "n"}, "spec": cluster}
    config = AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(resource))
    requests = []
    for name, count in replicas.items():
        options = deployments[name]["ray_actor_options"]
        bundle = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus", 0)}
        selector = [
            (key, LabelSelectorOperator.LABEL_OPERATOR_IN, [value])
            for key, value in options.get("label_selector", {}).items()
        ]
        requests += count * [
            ResourceRequestUtil.make(
                {k: v for k, v in bundle.items() if v},
                label_selectors=[selector] if selector else None,
            )
        ]
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(requests),
        )
    )
    logging.disable(logging.NOTSET)
    groups = {group["groupName"] for group in cluster["workerGroupSpecs"]}
    workers = {r.instance_type: r.count for r in reply.to_launch if r.instance_type in groups}
    return workers | {"unplaced": len(reply.infeasible_resource_requests)}


def test_the_autoscaler_places_the_first_replicas_on_the_smallest_cluster() -> None:
    first = {n: d["autoscaling_config"]["min_replicas"] for n, d in DEPLOYMENTS.items()}
    smallest = {name: group["minReplicas"] for name, group in GROUPS.items()}
    assert launched(CLUSTER, first) == smallest | {"unplaced": 0}


def test_the_autoscaler_places_all_replicas_of_an_update_at_full_load() -> None:
    largest = {name: group["maxReplicas"] for name, group in GROUPS.items()}
    assert launched(CLUSTER, {n: peak(n) for n in DEPLOYMENTS}) == largest | {"unplaced": 0}


@pytest.mark.parametrize("overlay", ["cpu", "local"])
def test_the_autoscaler_places_all_replicas_without_gpus_too(overlay: str) -> None:
    file = ROOT / "k8s" / "overlays" / overlay / "rayservice.yaml"
    spec = yaml.safe_load(file.read_text())["spec"]
    served = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["deployments"]
    deployments = {one["name"]: one for one in served}
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    first = {n: d["autoscaling_config"]["min_replicas"] for n, d in deployments.items()}
    full = {n: peak(n, deployments) for n in deployments}
    for replicas, pods in ((first, group["minReplicas"]), (full, group["maxReplicas"])):
        placed = launched(spec["rayClusterConfig"], replicas, deployments)
        assert placed == {"cpu": pods, "unplaced": 0}


def test_the_autoscaler_knows_the_idle_time_of_each_group() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    resource = {"metadata": {"name": "n", "namespace": "n"}, "spec": CLUSTER}
    types = _derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]
    assert {name: types[name]["idle_timeout_s"] for name in GROUPS} == {"cpu": 120.0, "gpu": 600.0}


def test_the_autoscaler_starts_no_gpu_for_a_cpu_deployment() -> None:
    for name in ("Tokenizer", "Postprocessor"):
        assert launched(CLUSTER, {name: 1000})["gpu"] == GROUPS["gpu"]["minReplicas"]


def test_without_its_label_a_group_gets_no_replica() -> None:
    cluster = copy.deepcopy(CLUSTER)
    del cluster["workerGroupSpecs"][0]["labels"]
    assert launched(cluster, {"Tokenizer": 1})["unplaced"] == 1


def test_cpu_deployments_are_kept_off_gpu_pods_and_classifiers_need_them() -> None:
    for name, deployment in DEPLOYMENTS.items():
        options = deployment["ray_actor_options"]
        if name == "Classifier":
            assert options["num_gpus"] > 0
            assert "label_selector" not in options
        else:
            assert options["label_selector"] == GROUPS["cpu"]["labels"]
    assert GROUPS["cpu"]["labels"] != GROUPS["gpu"]["labels"]
    assert CLUSTER["autoscalerOptions"]["version"] == "v2"
    assert CLUSTER["enableInTreeAutoscaling"] is True
