"""A Ray cluster of several nodes on this machine, with Serve on the first.

`python -m scripts.bench.cluster` holds one in a process of its own, and does what its input asks.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from deployments.config.keys import SERVICER
from deployments.launch import processes
from deployments.launch.ports import ingress_environment
from deployments.scaling.policy import STATE_FILE
from deployments.scaling.report import read_state

from .child import answer_lines
from .process import wait_until
from .service import changed_config, free_port, is_ready, read_config

START_TIMEOUT_S = 120.0
STATE_STALE_S = 5.0
CPUS_PER_NODE = 4  # as Ray counts them: what is reserved, not what there is


def shipped_flags() -> dict[str, str]:
    """What serve_config.yaml puts into the environment, as the pods of k8s/ have it."""
    config = read_config()
    flags: dict[str, str] = config["controller_options"]["runtime_env"]["env_vars"]
    return {"RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0", **flags}


class LocalCluster:
    """Ray nodes that share this machine. `files`: HAProxy's; a short path, as sockets need it.

    grpc: whether `grpc_port` is a door too. dashboard: with Ray's, which takes jobs. head_cpus: 0
    keeps replicas off the head.
    """

    def __init__(
        self,
        files: Path,
        flags: dict[str, str],
        grpc: bool = False,
        dashboard: bool = False,
        head_cpus: int = CPUS_PER_NODE,
    ) -> None:
        # Ports and paths that no other Serve has.
        os.environ |= {
            **flags,
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
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

        config = read_config()
        self.port, self.grpc_port = free_port(), free_port()
        self._files = files
        self._workers: list[Any] = []
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": head_cpus,
                "include_dashboard": dashboard,
                "dashboard_port": free_port(),
            },
        )
        ray.init(address=self._cluster.address, namespace="serve", log_to_driver=False)
        # One door: the nodes share one machine, where a port can be had once.
        self.client = serve_start(
            http_options={**config["http_options"], "port": self.port},
            grpc_options={
                "port": self.grpc_port,
                "grpc_servicer_functions": [SERVICER] if grpc else [],
            },
            proxy_location="HeadOnly",
        )

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """`do` names the method that is wanted."""
        answered: dict[str, Any] = getattr(self, question.pop("do"))(**question)
        return answered

    def grow(self, nodes: int) -> dict[str, Any]:
        """Adds workers until there are so many nodes, the head among them."""
        while len(self._workers) + 1 < nodes:
            self.add_worker()
        return {"nodes": len(self._workers) + 1}

    def add_worker(self, **resources: float) -> dict[str, Any]:
        resources = resources or {"num_cpus": CPUS_PER_NODE}
        self._workers.append(self._cluster.add_node(**resources))
        return {"nodes": len(self._workers) + 1}

    def deploy(
        self,
        import_path: str,
        changes: list[str],
        options: dict[str, dict[str, Any]],
        wait: bool = True,
    ) -> dict[str, Any]:
        """Serves it. options: keys of a deployment by its name; None: without it."""
        from ray.serve.schema import ServeDeploySchema

        config = changed_config(read_config(), changes)
        config["proxy_location"] = "HeadOnly"
        config["http_options"]["port"] = self.port
        del config["controller_options"]
        application = config["applications"][0]
        application["import_path"] = import_path
        for one in application["deployments"]:
            one |= options.get(one["name"], {})
            for key in [key for key, value in one.items() if value is None]:
                del one[key]
        self.client.deploy_apps(ServeDeploySchema.model_validate(config), _blocking=False)
        wanted = {one["name"]: one.get("num_replicas") for one in application["deployments"]}
        if wait:
            wait_until(
                lambda: self._running() == wanted and is_ready(f"http://127.0.0.1:{self.port}"),
                "all replicas",
                START_TIMEOUT_S,
            )
        return {"url": f"http://127.0.0.1:{self.port}"}

    def delete(self) -> dict[str, Any]:
        """Ends the application, if there is one."""
        self.client.delete_apps(["classify"], blocking=True)
        return {}

    def scale(self) -> dict[str, Any]:
        """Deployment → replicas that are there in any state, that run, and that are aimed at.

        Under `work` of the Classifier: what its policy, if it is ours, says that they have to do.
        """
        from ray._private.worker import global_worker

        app = self.client.get_serve_details()["applications"].get("classify", {"deployments": {}})
        seen: dict[str, Any] = {
            name: {
                "there": len(one["replicas"]),
                "running": sum(r["state"] == "RUNNING" for r in one["replicas"]),
                "target": one["target_num_replicas"],
            }
            for name, one in app["deployments"].items()
        }
        name = STATE_FILE.format(app="classify", deployment="Classifier")
        file = Path(global_worker.node.get_logs_dir_path(), "serve", name)
        state = read_state(file.read_text(encoding="utf-8")) if file.exists() else None
        if state and time.time() - state["at"] < STATE_STALE_S:
            seen["work"] = state["work"]
        return seen

    def state(self) -> dict[str, Any]:
        """Processes that run: of replicas by deployment, of the controller, of HAProxy.

        nodes_with_classifier: how many.
        """
        import ray
        from ray.serve._private.constants import SERVE_CONTROLLER_NAME

        app = self.client.get_serve_details()["applications"]["classify"]
        replicas = {
            # Serve hears of a death only when it next looks.
            name: [
                r["pid"]
                for r in one["replicas"]
                if r["state"] == "RUNNING" and psutil.pid_exists(r["pid"])
            ]
            for name, one in app["deployments"].items()
        }
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace="serve")
        told = [app["message"], *(one["message"] for one in app["deployments"].values())]
        holding = {replica["node_id"] for replica in self._replicas().get("Classifier", [])}
        return {
            "status": app["status"],
            "message": " ".join(filter(None, told)),
            "replicas": replicas,
            "nodes_with_classifier": len(holding),
            "controller": [ray.get(controller.get_pid.remote())],
            "haproxy": [process.pid for process in self._haproxies()],
        }

    def address(self) -> dict[str, Any]:
        """Where others join this cluster."""
        return {"address": self._cluster.address}

    def lose_node(self) -> dict[str, Any]:
        """Kills a worker with all that runs on it, and adds another, as a cluster's autoscaler.

        gone: processes of the replicas that were on it.
        """
        # After a fault the application counts as whole a little later.
        running = wait_until(self._replicas, "the application", START_TIMEOUT_S)
        replicas = [r for of_one in running.values() for r in of_one]
        holding = {r["node_id"] for r in replicas}
        lost = next(worker for worker in self._workers if worker.node_id in holding)
        self._workers.remove(lost)
        self._cluster.remove_node(lost, allow_graceful=False)
        self.add_worker()
        return {"gone": [r["pid"] for r in replicas if r["node_id"] == lost.node_id]}

    def stop(self) -> None:
        """Ends all of it."""
        import ray
        from ray import serve

        serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()
        # One outlives a Serve that stops in the middle of a reload.
        processes.end(self._haproxies())

    def _replicas(self) -> dict[str, list[dict[str, Any]]]:
        app = self.client.get_serve_details()["applications"].get("classify")
        if app is None or app["status"] != "RUNNING":
            return {}
        return {name: one["replicas"] for name, one in app["deployments"].items()}

    def _running(self) -> dict[str, int]:
        return {
            name: sum(replica["state"] == "RUNNING" for replica in replicas)
            for name, replicas in self._replicas().items()
        }

    def _haproxies(self) -> list[psutil.Process]:
        """Known by the path of their configuration."""
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"].startswith("haproxy")
            and any(str(self._files) in part for part in process.info["cmdline"] or ())
        ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="haproxy", dir="/tmp") as folder:
        cluster = LocalCluster(Path(folder), shipped_flags())
        try:
            answer_lines(cluster.answer)
        finally:
            cluster.stop()
