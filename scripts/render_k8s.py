"""Render k8s/rayservice.yaml from serve_config.gpu.yaml.

The shape of the pods stands in k8s/rayservice.template.yaml; this script fills in what follows
from the Serve config: how many workers the replicas need, the environment, ports and timeouts.
"""

from __future__ import annotations

import copy
import math
import os
import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from deployments.config.capacity import whole, with_explainer
from deployments.config.check import ConfigError, check_config, load_config
from deployments.config.crosscheck import longest_request_s, speaks_grpc
from deployments.settings import LimitSettings
from rayclassify_client import __version__
from scripts.rendered import console, write_or_check

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "k8s" / "rayservice.template.yaml"
CPU_SELECTOR = {"pool": "cpu"}
# Under the throughput flag a handle works in an event loop only, unless its router has a loop of
# its own. Pods have the flag, so Ray jobs there need that loop; Serve's replicas do not.
ROUTER_LOOP = "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"
# `kubectl logs` shows what replicas say; with `encoding: JSON` a JSON object a line. Serve's files
# in the volume `ray-logs` stay. The second is Ray's: workers write where `ray start` does.
LOGS_TO_STDOUT = {
    "RAY_SERVE_LOG_TO_STDERR": "1",
    "RAY_LOG_TO_STDERR": "1",
    "RAY_BACKEND_LOG_JSON": "1",
}
# A pod that is told to go: first it leaves the Service, then Ray drains it. Serve uses what is left
# beyond a replica's own shutdown to start another one elsewhere; then the processes end.
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
LEAVE_S, START_S, END_S = 10, 120, 10
# KubeRay appends a suffix for the cluster, and Kubernetes ends names at 63 characters.
MAX_NAME = 47
KEYS_DIR = "/etc/rayclassify"
KEYS_FILE = "keys.yaml"
OBJECT_STORE_BYTES = 1_000_000_000  # our messages are small; Ray's default takes 30 % of the memory

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@dataclass(frozen=True, slots=True)
class Pod:
    """What one worker pod offers to replicas."""

    cpus: float
    gpus: float
    memory: str


PODS = {"cpu": Pod(4, 0, "8Gi"), "gpu": Pod(4, 1, "16Gi")}


class RenderError(ValueError):
    """The config cannot be rendered; the message says the number, the limit and the cure."""


@app.command()
def main(
    config: Annotated[
        Path,
        typer.Option(
            help="The Serve config to put on Kubernetes.", show_default="serve_config.gpu.yaml"
        ),
    ] = ROOT / "serve_config.gpu.yaml",
    output: Annotated[
        Path, typer.Option(help="Where the RayService goes.", show_default="k8s/rayservice.yaml")
    ] = ROOT / "k8s" / "rayservice.yaml",
    image: Annotated[
        str,
        typer.Option(
            help="What the Dockerfile builds, with the registry that the cluster pulls from.",
            show_default="rayclassify:<version>",
        ),
    ] = "",
    name: Annotated[
        str, typer.Option(help=f"Name of the RayService, up to {MAX_NAME} characters.")
    ] = "rayclassify",
    namespace: Annotated[
        str,
        typer.Option(help="Namespace of the RayService.", show_default="what kubectl is set to"),
    ] = "",
    keys_secret: Annotated[
        str,
        typer.Option(
            help=f"Secret that holds {KEYS_FILE}, made by `rayclassify keys`; then callers need a "
            "key.",
            show_default="none: open to all",
        ),
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 with a diff if stale.")
    ] = False,
) -> None:
    """Render a KubeRay RayService from a Serve config.

    How many workers may run follows from `min_replicas`, `max_replicas` and `max_surge_percent` in
    the config, so there is no option for it: change the replicas there, and render again.

    Deploy it with `kubectl apply -f k8s/rayservice.yaml`; requests go to `<name>-serve-svc:8000`.
    """
    try:
        text = render(
            load_config(config), image or f"rayclassify:{version()}", name, namespace, keys_secret
        )
    except (ConfigError, RenderError) as error:
        console.print(f"[red]{error}[/red]", soft_wrap=True)
        raise typer.Exit(1) from None
    apply = f"; next: kubectl apply -f {os.path.relpath(output)}"
    write_or_check(text, output, "scripts/render_k8s.py", check=check, then=apply)


def render(
    config: dict[str, Any], image: str, name: str, namespace: str = "", keys_secret: str = ""
) -> str:
    """The RayService as YAML text."""
    if keys_secret:
        config = copy.deepcopy(config)
        access = config["applications"][0]["args"].setdefault("access", {})
        access["keys_file"] = f"{KEYS_DIR}/{KEYS_FILE}"
    if len(name) > MAX_NAME or not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
        raise RenderError(
            f"name {name!r} has {len(name)} characters; a RayService takes up to {MAX_NAME} of "
            "a-z, 0-9 and -, beginning with a letter. Choose another with --name."
        )
    if problems := check_config(config):
        raise RenderError("\n".join(str(problem) for problem in problems))
    app = with_explainer(config["applications"][0])
    config = {**config, "applications": [app, *config["applications"][1:]]}
    deployments = [whole(one) for one in app["deployments"]]
    limits = LimitSettings.model_validate(config["applications"][0]["args"].get("limits") or {})
    request_s = longest_request_s(limits, config)
    shutdown_s = max(d["graceful_shutdown_timeout_s"] for d in deployments)
    drain_s = START_S + shutdown_s
    values: dict[str, Any] = {
        "origin": "Rendered by scripts/render_k8s.py from k8s/rayservice.template.yaml: edit that.",
        "metadata": _indented(_metadata(name, namespace), 2).rstrip(),
        "image": image,
        "ray_version": ray_version(),
        "serve_config": _indented(serve_config(config), 4),
        "env": _environment(environment(config)),
        "worker_env": _environment({**environment(config), DRAIN: str(math.ceil(drain_s))}),
        "port": config["http_options"]["port"],
        "leave": LEAVE_S,
        "grace": math.ceil(LEAVE_S + drain_s + END_S),
        "deletion_delay": math.ceil(shutdown_s + request_s),
        "object_store": OBJECT_STORE_BYTES,
        **_pod_blocks(keys_secret),
    }
    for group, pod in PODS.items():
        fewest, most = workers(deployments, group)
        values |= {f"{group}_min": fewest, f"{group}_max": most}
        values |= {f"{group}_pod_cpus": f"{pod.cpus:g}", f"{group}_pod_memory": pod.memory}
        values |= {f"{group}_pod_gpus": f"{pod.gpus:g}"}
    text = string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)
    return f"{text}{_grpc_service(name, namespace, config)}" if speaks_grpc(config) else text


def serve_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config for the cluster: flags moved to the pods, CPU deployments kept on CPU pods."""
    config = copy.deepcopy(config)
    config.pop("controller_options", None)
    config["applications"][0]["runtime_env"] = {"env_vars": {ROUTER_LOOP: "0"}}
    for deployment in config["applications"][0]["deployments"]:
        if group_of(deployment) == "cpu":
            deployment["ray_actor_options"]["label_selector"] = dict(CPU_SELECTOR)
    return config


def environment(config: dict[str, Any]) -> dict[str, str]:
    """Variables that every Ray container needs before `ray start`."""
    options = config.get("controller_options") or {}
    flags = (options.get("runtime_env") or {}).get("env_vars") or {}
    return {**flags, ROUTER_LOOP: "1", **LOGS_TO_STDOUT}


def _environment(variables: dict[str, str]) -> str:
    return _flow([{"name": name, "value": value} for name, value in variables.items()])


def group_of(deployment: dict[str, Any]) -> str:
    """The worker group that a deployment's replicas run in."""
    return "gpu" if deployment["ray_actor_options"].get("num_gpus") else "cpu"


def workers(deployments: list[dict[str, Any]], group: str) -> tuple[int, int]:
    """Fewest and most worker pods that the replicas of a group need."""
    fewest: list[tuple[float, float]] = []
    most: list[tuple[float, float]] = []
    two_nodes = 1
    for deployment in deployments:
        if group_of(deployment) != group:
            continue
        options, scaling = deployment["ray_actor_options"], deployment["autoscaling_config"]
        size = (options["num_cpus"], options.get("num_gpus", 0))
        two_nodes = max(two_nodes, min(2, scaling["min_replicas"]))
        surge = math.ceil(scaling["max_replicas"] * deployment["max_surge_percent"] / 100)
        fewest += [size] * scaling["min_replicas"]
        most += [size] * (scaling["max_replicas"] + surge)
    # Two replicas are there so that one machine may fail: on one pod they would not help.
    low = max(packed(fewest, PODS[group], group), two_nodes)
    return low, max(packed(most, PODS[group], group), low)


def packed(sizes: list[tuple[float, float]], pod: Pod, group: str) -> int:
    """Pods that hold all replicas: largest first, each into the first pod with room."""
    free: list[tuple[float, float]] = []
    for cpus, gpus in sorted(sizes, reverse=True):
        if cpus > pod.cpus or gpus > pod.gpus:
            raise RenderError(
                f"a replica takes {cpus:g} CPUs and {gpus:g} GPUs; a {group} pod has "
                f"{pod.cpus:g} and {pod.gpus:g}. Lower ray_actor_options, or enlarge PODS in "
                "scripts/render_k8s.py."
            )
        for index, (free_cpus, free_gpus) in enumerate(free):
            if cpus <= free_cpus and gpus <= free_gpus:
                free[index] = (free_cpus - cpus, free_gpus - gpus)
                break
        else:
            free.append((pod.cpus - cpus, pod.gpus - gpus))
    return len(free)


def version() -> str:
    """The package's version, which is the image's tag."""
    return __version__


def ray_version() -> str:
    """Ray's version in the image, from the lock."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    if found := re.search(r"^ray==(\S+)$", text, re.MULTILINE):
        return found[1]
    raise RenderError("constraints.txt has no line `ray==…`; `make lock` writes it.")


def _pod_blocks(keys_secret: str) -> dict[str, str]:
    """Blocks that all pods share, and the volumes of the CPU pods, where keys are asked for."""
    mounts = [
        {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
        {"name": "ray-logs", "mountPath": "/tmp/ray"},  # noqa: S108
    ]
    # Ray's object store lives in /dev/shm, where containers get 64 MiB; in memory it counts
    # against the container's limit. Logs: in files, for a collector to read.
    volumes: list[dict[str, Any]] = [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
        {"name": "ray-logs", "emptyDir": {}},
    ]
    # The directory and no subPath, which Kubernetes would never update.
    keys_mounts = [{"name": "keys", "mountPath": KEYS_DIR, "readOnly": True}]
    keys_volumes = [{"name": "keys", "secret": {"secretName": keys_secret}}]
    return {
        # 1000:100 is the user of the image; fsGroup lets it write to the volumes.
        "pod_security": _flow(
            {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 100,
                "fsGroup": 100,
                "seccompProfile": {"type": "RuntimeDefault"},
            }
        ),
        "container_security": _flow(
            {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        ),
        "volume_mounts": _flow(mounts),
        "volumes": _flow(volumes),
        "cpu_volume_mounts": _flow(mounts + (keys_mounts if keys_secret else [])),
        "cpu_volumes": _flow(volumes + (keys_volumes if keys_secret else [])),
    }


def _grpc_service(name: str, namespace: str, config: dict[str, Any]) -> str:
    """A Service for gRPC: KubeRay's own has the port named `serve`, and no other."""
    port = config["grpc_options"]["port"]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(f"{name}-grpc-svc", namespace),
        "spec": {
            # KubeRay's label of the pods whose proxy is healthy.
            "selector": {"ray.io/serve": "true"},
            "ports": [
                {
                    "name": "grpc",
                    "port": port,
                    "targetPort": port,
                    "appProtocol": "kubernetes.io/h2c",
                }
            ],
        },
    }
    return "---\n" + yaml.safe_dump(service, sort_keys=False)


def _metadata(name: str, namespace: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "rayclassify", "app.kubernetes.io/version": version()}
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels}


def _flow(value: Any) -> str:
    """YAML on one line."""
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=math.inf).strip()


def _indented(value: Any, spaces: int) -> str:
    text = yaml.safe_dump(value, sort_keys=False, width=1000)
    return "".join(" " * spaces + line for line in text.splitlines(keepends=True))


if __name__ == "__main__":
    app()
