"""The process that holds a Ray cluster whose parts are killed; see faults.py."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from scripts.bench.child import answer_lines
from scripts.bench.cluster import CPUS_PER_NODE, START_TIMEOUT_S, LocalCluster
from scripts.bench.service import CONFIG, changed_config


class Nodes(LocalCluster):
    """A head with Serve's controller and proxy, and workers with the replicas."""

    def __init__(self, files: Path) -> None:
        shipped = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["controller_options"]
        os.environ |= shipped["runtime_env"]["env_vars"]
        super().__init__(files)
        self._files = files
        self._workers = [self._cluster.add_node(num_cpus=CPUS_PER_NODE) for _ in range(2)]

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """`do` names what is wanted: deploy, state, address, lose_node."""
        answered: dict[str, Any] = getattr(self, question.pop("do"))(**question)
        return answered

    def deploy(
        self, changes: list[str], options: dict[str, dict[str, Any]], wait: bool = True
    ) -> dict[str, Any]:
        """Serves the faulty model. options: keys of a deployment by its name; None: without it."""
        config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
        config = changed_config(config, changes)
        config["proxy_location"] = "HeadOnly"
        config["http_options"]["port"] = self.port
        config.pop("controller_options", None)
        application = config["applications"][0]
        application["import_path"] = "tests.trials.faulty:build"
        for one in application["deployments"]:
            one |= {"num_replicas": 2, **options.get(one["name"], {})}
            for key in [key for key, value in one.items() if value is None]:
                del one[key]
        self._deploy(config, wait=wait)
        return {"url": f"http://127.0.0.1:{self.port}"}

    def state(self) -> dict[str, Any]:
        """Processes that run: of replicas by deployment, of the controller, of HAProxy."""
        import ray
        from ray.serve._private.constants import SERVE_CONTROLLER_NAME

        app = self._client.get_serve_details()["applications"]["classify"]
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
        return {
            "status": app["status"],
            "message": " ".join(filter(None, told)),
            "replicas": replicas,
            "controller": [ray.get(controller.get_pid.remote())],
            "haproxy": [
                process.pid
                for process in psutil.process_iter(["name", "cmdline"])
                if process.info["name"].startswith("haproxy")
                and any(str(self._files) in part for part in process.info["cmdline"] or ())
            ],
        }

    def address(self) -> dict[str, Any]:
        """Where others join this cluster."""
        return {"address": self._cluster.address}

    def lose_node(self) -> dict[str, Any]:
        """Kills a worker with all that runs on it, and adds another, as a cluster's autoscaler.

        gone: processes of the replicas that were on it.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (running := self._replicas()) and time.monotonic() < deadline:
            time.sleep(0.2)  # after a fault the application counts as whole a little later
        replicas = [r for of_one in running.values() for r in of_one]
        holding = {r["node_id"] for r in replicas}
        lost = next(worker for worker in self._workers if worker.node_id in holding)
        self._workers.remove(lost)
        self._cluster.remove_node(lost, allow_graceful=False)
        self._workers.append(self._cluster.add_node(num_cpus=CPUS_PER_NODE))
        return {"gone": [r["pid"] for r in replicas if r["node_id"] == lost.node_id]}


if __name__ == "__main__":
    os.environ["RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"] = "0"
    # Short, as the path of a Unix socket has room for 107 characters only.
    with tempfile.TemporaryDirectory(prefix="haproxy", dir="/tmp") as folder:
        nodes = Nodes(Path(folder))
        try:
            answer_lines(nodes.answer)
        finally:
            nodes.stop()
