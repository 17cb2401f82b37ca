"""One real Ray for all tests here: a head node and two workers with a pretended GPU each.

Each module deploys the configuration it needs; a deployment is an update in place, as for a user.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from running import ROOT, Service, free_port, read_config

from deployments.launch.ports import ingress_environment


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    # Short, as the path of a Unix socket has room for 107 characters only.
    haproxy_dir = Path(tempfile.mkdtemp(prefix="haproxy"))
    before = dict(os.environ)
    # What the pods of k8s/rayservice.yaml have in their environment, and ports and paths that no
    # other Serve has.
    os.environ |= {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.http.serve_edge:middlewares",
        # Log lines reach their files at once, where tests look for them.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy_dir / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy_dir / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy_dir),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy_dir / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy_dir / "metrics.sock"),
        "RAY_USAGE_STATS_ENABLED": "0",
        **ingress_environment(),
        "PYTHONPATH": str(ROOT),
    }
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster
    from ray.serve._private.api import serve_start

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=2, num_gpus=1)
    ray.init(address=cluster.address, namespace="serve", log_to_driver=False)
    port = free_port()
    client = serve_start(
        http_options={**read_config()["http_options"], "port": port},
        proxy_location="HeadOnly",
    )
    try:
        yield Service(port, client)
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
        _stop_haproxy(haproxy_dir)
        shutil.rmtree(haproxy_dir, ignore_errors=True)
        # Its ports are free again, for others too.
        os.environ.clear()
        os.environ.update(before)


def _stop_haproxy(config_dir: Path) -> None:
    """HAProxy outlives a Serve that stops in the middle of a reload; ours is known by its path."""
    ours = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(config_dir) in part for part in process.info["cmdline"] or ())
    ]
    for process in ours:
        process.kill()
    psutil.wait_procs(ours, timeout=10)
