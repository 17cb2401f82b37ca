"""A running Serve as the tests see it: its URL, its configuration, and a way to change it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from scripts.bench import service
from scripts.bench.machine import ROOT
from scripts.bench.process import wait_until

Config = service.Config


@dataclass
class Service:
    """A running Serve, and the way to give it another configuration."""

    port: int
    client: Any
    grpc_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, body: Any, timeout_s: float = 60, **kwargs: Any) -> requests.Response:
        return requests.post(f"{self.url}/classify", json=body, timeout=timeout_s, **kwargs)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=10)

    def submit(self, config: Config) -> None:
        """Deploys `config`, on this service's port, without waiting."""
        from ray.serve.schema import ServeDeploySchema

        config = {**config, "http_options": {**config["http_options"], "port": self.port}}
        self.client.deploy_apps(ServeDeploySchema.model_validate(config), _blocking=False)

    def deploy(self, config: Config, within_s: float = 180.0) -> None:
        """Deploys `config` and waits until all of it runs."""
        from ray import serve

        self.submit(config)

        def running() -> bool:
            app = serve.status().applications.get("classify")
            assert app is None or app.status != "DEPLOY_FAILED", app.message
            healthy = app is not None and app.status == "RUNNING"
            return healthy and self.answers("/ready")

        wait_until(running, "the application to run", within_s)

    def replica_pids(self, name: str) -> set[int]:
        """Processes of the replicas of one deployment that run now."""
        app = self.client.get_serve_details()["applications"]["classify"]
        replicas = app["deployments"][name]["replicas"]
        return {replica["pid"] for replica in replicas if replica["state"] == "RUNNING"}

    def logged(self, deployment: str, words: str) -> str | None:
        """The first line with these words in the logs of that deployment's replicas."""
        return next(iter(self.all_logged(deployment, words)), None)

    def all_logged(self, deployment: str, words: str) -> list[str]:
        """All of those lines."""
        return [
            line
            for path in log_files()
            if f"replica_classify_{deployment}" in path.name
            for line in path.read_text(encoding="utf-8").splitlines()
            if words in line
        ]

    def answers(self, path: str) -> bool:
        try:
            return self.get(path).ok
        except requests.RequestException:
            return False


def log_files() -> list[Path]:
    """All that the running Ray has written."""
    import ray

    session = Path(ray._private.worker._global_node.get_session_dir_path())
    return [path for path in session.rglob("*") if path.is_file()]


def read_config(name: str = "serve_config.yaml") -> Config:
    """The file that users start, as a dict of one's own; proxies on the head node only.

    The nodes here share one machine, so one port can't be had on each. The flags are in the
    environment here, as in the pods of k8s/. Serve looks more often which replicas have died, and
    which of those that stop are idle.
    """
    config = service.read_config(ROOT / name)
    config["proxy_location"] = "HeadOnly"
    del config["controller_options"]
    for one in config["applications"][0]["deployments"]:
        one |= {"health_check_period_s": 1.0, "graceful_shutdown_wait_loop_s": 0.1}
    config["applications"][0]["runtime_env"] = {
        "env_vars": {"RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0"}
    }
    return config


def deployment(config: Config, name: str) -> dict[str, Any]:
    """The part of `config` for the deployment called `name`, to be changed in place."""
    (found,) = (d for d in config["applications"][0]["deployments"] if d["name"] == name)
    return found


def without_numbers(model: Path) -> Path:
    """It loads and runs, and computes NaN."""
    import torch
    from safetensors.torch import load_file, save_file

    (file,) = model.glob("*.safetensors")
    weights = {name: torch.full_like(w, torch.nan) for name, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return model
