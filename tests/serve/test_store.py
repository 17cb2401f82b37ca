"""What replicas find out stays with the cluster, on a real Ray."""

from __future__ import annotations

import json

import pytest
from ray.experimental import internal_kv
from running import Service, read_config

from deployments.replica.cluster_store import NAMESPACE, ClusterStore

pytestmark = pytest.mark.slow


def test_what_is_put_is_got_anywhere_in_the_cluster(service: Service) -> None:
    import ray

    store = ClusterStore()
    assert store.get("nothing") is None
    store.put("one", "很好")
    assert store.get("one") == "很好"
    assert ray.get(ray.remote(num_cpus=0)(lambda: ClusterStore().get("one")).remote()) == "很好"


def test_a_classifier_leaves_its_proof_there_for_others(service: Service) -> None:
    config = read_config()
    config["applications"][0]["args"]["engine"] |= {"name": "torch", "dtype": "float32"}
    service.deploy(config)
    assert service.post({"text": "很好"}).status_code == 200
    keys = internal_kv._internal_kv_list(b"proofs ", namespace=NAMESPACE)
    kept = [json.loads(ClusterStore().get(key.decode()) or "{}") for key in keys]
    assert any(one["dtype"] == "float32" and one["found"]["way"] == 0 for one in kept)
