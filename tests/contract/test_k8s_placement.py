"""Serve places replicas as k8s/overlays/gpu means it, on nodes with its groups and labels.

The nodes are processes on this machine and the GPU is only counted, which is all that Ray's
scheduler sees of it in a real cluster too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SPEC = yaml.safe_load((ROOT / "k8s/overlays/gpu/rayservice.yaml").read_text())["spec"]
SERVED = yaml.safe_load(SPEC["serveConfigV2"])
STORE_BYTES = 80_000_000


def stage() -> type:
    """Stands in for a deployment: only its resources matter. Local, so that it travels by value."""

    class Stage:
        def __init__(self, *following: Any) -> None:
            pass

        def __call__(self) -> None:
            pass

    return Stage


@pytest.fixture
def nodes() -> Iterator[dict[str, str]]:
    """A cluster of a head and the smallest worker groups; node id → group."""
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
        },
    )
    for group in SPEC["rayClusterConfig"]["workerGroupSpecs"]:
        for _ in range(group["minReplicas"]):
            cluster.add_node(
                num_cpus=int(group["rayStartParams"]["num-cpus"]),
                num_gpus=int(group["rayStartParams"].get("num-gpus", 0)),
                labels=group["labels"],
                object_store_memory=STORE_BYTES,
            )
    ray.init(address=cluster.address)
    try:
        yield {n["NodeID"]: n["Labels"].get("pool", "head") for n in ray.nodes()}
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_replicas_run_where_they_belong(nodes: dict[str, str]) -> None:
    from ray import serve
    from ray._private.state import actors

    serve.start(proxy_location="Disabled")
    following: list[Any] = []
    for deployment in SERVED["applications"][0]["deployments"]:
        placed_as = serve.deployment(
            name=deployment["name"],
            num_replicas=deployment["autoscaling_config"]["min_replicas"],
            ray_actor_options=deployment["ray_actor_options"],
        )(stage())
        following = [placed_as.bind(*following)]
    serve.run(following[0], route_prefix=None)

    placed: Counter[tuple[str, str]] = Counter()
    machines: dict[str, set[str]] = {}
    for actor in actors().values():
        _, _, name = actor["ActorClassName"].rpartition(":")
        if actor["State"] == "ALIVE" and "ServeReplica" in actor["ActorClassName"]:
            node = actor["Address"]["NodeID"]
            placed[name, nodes[node]] += 1
            machines.setdefault(name, set()).add(node)
    assert placed == {
        ("Tokenizer", "cpu"): 2,
        ("Classifier", "gpu"): 1,
        ("Postprocessor", "cpu"): 2,
    }
    assert len(machines["Tokenizer"]) == 2
