"""The process that holds a Ray cluster of several nodes on this machine; see growth.py."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import requests
import yaml

from deployments.launch.ports import ingress_environment

from .child import answer_lines
from .service import CONFIG, changed_config, free_port

START_TIMEOUT_S = 120.0
DRAIN = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
CPUS_PER_NODE = 4  # as Ray counts them: what is reserved, not what there is


class LocalCluster:
    """Ray nodes that share this machine, with Serve on the first. Nodes are only ever added."""

    def __init__(self, files: Path) -> None:
        # As in the pods of k8s/rayservice.yaml, and ports and paths that no other Serve has.
        os.environ |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            DRAIN: os.environ.get(DRAIN, "5"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(files / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(files / "metrics.sock"),
            "RAY_USAGE_STATS_ENABLED": "0",
            **ingress_environment(),
        }
        import ray
        from ray.cluster_utils import Cluster
        from ray.serve._private.api import serve_start

        config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
        self.port = free_port()
        self._nodes = 1
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": CPUS_PER_NODE, "include_dashboard": False},
        )
        ray.init(address=self._cluster.address, namespace="serve", log_to_driver=False)
        # One door: the nodes share one machine, where a port can be had once.
        self._client = serve_start(
            http_options={**config["http_options"], "port": self.port}, proxy_location="HeadOnly"
        )

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Deploys the service: nodes, replicas of each deployment by name, import_path."""
        while self._nodes < question["nodes"]:
            self._cluster.add_node(num_cpus=CPUS_PER_NODE)
            self._nodes += 1
        config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
        config = changed_config(config, ["engine.name=none"])
        config["proxy_location"] = "HeadOnly"
        config["http_options"]["port"] = self.port
        config.pop("controller_options", None)
        application = config["applications"][0]
        application["import_path"] = question["import_path"]
        for one in application["deployments"]:
            one["num_replicas"] = question["replicas"].get(one["name"], 1)
        self._deploy(config)
        return {"url": f"http://127.0.0.1:{self.port}", **self._placed()}

    def _deploy(self, config: dict[str, Any], *, wait: bool = True) -> None:
        from ray.serve.schema import ServeDeploySchema

        self._client.deploy_apps(ServeDeploySchema.model_validate(config), _blocking=False)
        if not wait:
            return
        wanted = {d["name"]: d["num_replicas"] for d in config["applications"][0]["deployments"]}
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._running() == wanted and self._answers():
                return
            time.sleep(0.2)
        raise TimeoutError(f"not running after {START_TIMEOUT_S:g} s")

    def _replicas(self) -> dict[str, list[dict[str, Any]]]:
        app = self._client.get_serve_details()["applications"].get("classify")
        if app is None or app["status"] != "RUNNING":
            return {}
        return {name: one["replicas"] for name, one in app["deployments"].items()}

    def _running(self) -> dict[str, int]:
        return {
            name: sum(replica["state"] == "RUNNING" for replica in replicas)
            for name, replicas in self._replicas().items()
        }

    def _placed(self) -> dict[str, Any]:
        holding = {replica["node_id"] for replica in self._replicas().get("Classifier", [])}
        return {"nodes": self._nodes, "nodes_with_classifier": len(holding)}

    def _answers(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/ready", timeout=2).ok
        except requests.RequestException:
            return False

    def stop(self) -> None:
        import ray
        from ray import serve

        serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()


if __name__ == "__main__":
    # Short, as the path of a Unix socket has room for 107 characters only.
    with tempfile.TemporaryDirectory(prefix="haproxy", dir="/tmp") as folder:
        held: list[LocalCluster] = []

        def answer(question: dict[str, Any]) -> dict[str, Any]:
            if not held:
                held.append(LocalCluster(Path(folder)))
            return held[0].answer(question)

        try:
            answer_lines(answer)
        finally:
            for cluster in held:
                cluster.stop()
