"""One real Ray for all tests here: a head node and two workers with a pretended GPU each.

Each module deploys the configuration it needs; a deployment is an update in place, as for a user.
One with the `args:` of the one before starts no replica anew, so modules and tests of one
configuration are named and placed to follow each other.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import ROOT, Service

from scripts.bench.cluster import LocalCluster


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    # Short, as the path of a Unix socket has room for 107 characters only.
    haproxy_dir = Path(tempfile.mkdtemp(prefix="haproxy"))
    before = dict(os.environ)
    # What the pods of k8s/ have in their environment.
    flags = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.http.serve_edge:middlewares",
        # Log lines reach their files at once, where tests look for them.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        # Metrics are shown soon, instead of every 10 s.
        "RAY_metrics_report_interval_ms": "2000",
        "PYTHONPATH": str(ROOT),
    }
    # test_grpc.py asks at its port, test_service_ray.py sends it a job.
    cluster = LocalCluster(haproxy_dir, flags, grpc=True, dashboard=True)
    for _ in range(2):
        cluster.add_worker(num_cpus=2, num_gpus=1)
    try:
        yield Service(cluster.port, cluster.client, cluster.grpc_port)
    finally:
        cluster.stop()
        shutil.rmtree(haproxy_dir, ignore_errors=True)
        # Its ports are free again, for others too.
        os.environ.clear()
        os.environ.update(before)
