"""A Serve config and a target → a KubeRay RayService, as YAML text with its reasons in it."""

from __future__ import annotations

import copy
import math
import re
import string
from typing import Any

import yaml

from deployments.config.capacity import whole, with_explainer
from deployments.config.check import check_config
from deployments.config.crosscheck import longest_request_s, speaks_grpc
from deployments.settings import LimitSettings
from rayclassify_client import __version__
from scripts.kubernetes.kuberay import DNS_1035, MAX_NAME
from scripts.kubernetes.targets import GPU, ROOT, TOLERATE_GPU, Group, Pod, Target

TEMPLATE = ROOT / "k8s" / "rayservice.template.yaml"
GROUP_TEMPLATE = ROOT / "k8s" / "workergroup.template.yaml"
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
# The root is read-only: what Triton compiles goes to the volume `cache`, where ~/.cache is too.
CACHE_DIR = "/home/ray/.cache"
WRITES_ELSEWHERE = {"TRITON_CACHE_DIR": f"{CACHE_DIR}/triton"}
# A pod that is told to go: first it leaves the Service, then Ray drains it. Serve uses what is left
# beyond a replica's own shutdown to start another one elsewhere; then the processes end.
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
LEAVE_S, START_S, END_S = 10, 120, 10
KEYS_DIR = "/etc/rayclassify"
KEYS_FILE = "keys.yaml"


class RenderError(ValueError):
    """The config cannot be rendered; the message says the number, the limit and the cure."""


def render(
    config: dict[str, Any],
    image: str,
    name: str,
    namespace: str = "",
    keys_secret: str = "",
    *,
    target: Target = GPU,
    model_dir: str = "",
) -> str:
    """The RayService as YAML text.

    model_dir: directory in the pods that holds the model, from one of k8s/components/model-*.

    Raises: RenderError.
    """
    config = copy.deepcopy(config)
    if keys_secret:
        access = config["applications"][0]["args"].setdefault("access", {})
        access["keys_file"] = f"{KEYS_DIR}/{KEYS_FILE}"
    if len(name) > MAX_NAME or not DNS_1035.fullmatch(name):
        raise RenderError(
            f"name {name!r} has {len(name)} characters; a RayService takes up to {MAX_NAME} of "
            "a-z, 0-9 and -, beginning with a letter. Choose another with --name."
        )
    if problems := check_config(config):
        raise RenderError("\n".join(str(problem) for problem in problems))
    if model_dir:  # only now: the directory is in the pods, and not here
        config["applications"][0]["args"]["model"] = {"id": model_dir}
    app = with_explainer(config["applications"][0])
    config = {**config, "applications": [app, *config["applications"][1:]]}
    deployments = [whole(one) for one in app["deployments"]]
    limits = LimitSettings.model_validate(config["applications"][0]["args"].get("limits") or {})
    shutdown_s = max(d["graceful_shutdown_timeout_s"] for d in deployments)
    drain_s = START_S + shutdown_s
    shared: dict[str, Any] = {
        "image": image,
        "worker_env": _environment({**environment(config), DRAIN: str(math.ceil(drain_s))}),
        "port": (config.get("http_options") or {}).get("port", 8000),
        "leave": LEAVE_S,
        "grace": math.ceil(LEAVE_S + drain_s + END_S),
        "pod_security": _flow(POD_SECURITY),
        "container_security": _flow(CONTAINER_SECURITY),
    }
    head_mounts, head_volumes = storage(target.head)
    text = string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        shared,
        origin="Rendered by scripts/render_k8s.py from k8s/rayservice.template.yaml: edit that.",
        what=target.what,
        config=target.config_from,
        metadata=_indented(_metadata(name, namespace), 2).rstrip(),
        ray_version=ray_version(),
        serve_config=_indented(serve_config(config, target), 4),
        env=_environment(environment(config)),
        deletion_delay=math.ceil(shutdown_s + longest_request_s(limits, config)),
        head_cpus=f'"{target.head.cpus:g}"',
        head_memory=target.head.memory,
        head_store=target.head.object_store_bytes,
        volume_mounts=_flow(head_mounts),
        head_volumes=_flow(head_volumes),
        # KubeRay adds the volume of /tmp/ray to the sidecar.
        autoscaler_mounts=_flow([mount for mount in head_mounts if mount["name"] == "tmp"]),
        worker_groups="\n".join(
            _worker_group(group, deployments, target, shared, keys_secret)
            for group in target.groups
        ).rstrip(),
    )
    return f"{text}{_grpc_service(name, namespace, config)}" if speaks_grpc(config) else text


# 1000:100 is the user of the image; fsGroup lets it write to the volumes.
# OnRootMismatch: a volume with a large model is not walked through at each start.
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 100,
    "fsGroup": 100,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def storage(pod: Pod) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Mounts and volumes for all that a pod writes; its root is read-only.

    Ray's object store lives in /dev/shm, where containers get 64 MiB; in memory it counts against
    the container's limit. /tmp/ray has the logs, in files, for a collector to read; KubeRay knows
    the volume by this name.
    """
    places: list[tuple[str, str, dict[str, Any]]] = [
        ("shared-memory", "/dev/shm", {"medium": "Memory", "sizeLimit": pod.shm}),  # noqa: S108
        ("tmp", "/tmp", {"sizeLimit": "2Gi"}),  # noqa: S108
        ("ray-logs", "/tmp/ray", {"sizeLimit": "10Gi"}),  # noqa: S108
        ("cache", CACHE_DIR, {"sizeLimit": "10Gi"}),
    ]
    mounts = [{"name": name, "mountPath": path} for name, path, _ in places]
    return mounts, [{"name": name, "emptyDir": empty} for name, _, empty in places]


def _worker_group(
    group: Group,
    deployments: list[dict[str, Any]],
    target: Target,
    shared: dict[str, Any],
    keys_secret: str,
) -> str:
    pod = group.pod
    least, most = workers(deployments, group, target)
    mounts, volumes = storage(pod)
    if keys_secret and group.name == CPU_SELECTOR["pool"]:  # the ingress asks for keys
        # The directory and no subPath, which Kubernetes would never update.
        mounts = [*mounts, {"name": "keys", "mountPath": KEYS_DIR, "readOnly": True}]
        volumes = [*volumes, {"name": "keys", "secret": {"secretName": keys_secret}}]
    requests = {"cpu": f"{pod.cpus:g}", "memory": pod.memory}
    limits: dict[str, Any] = dict(requests) if group.guaranteed else {"memory": pod.memory}
    start = {"num-cpus": f"{pod.cpus:g}", "object-store-memory": str(pod.object_store_bytes)}
    why = "memory: limit = request, or a node under pressure kills the pod; CPU: the head's comment"
    if pod.gpus:
        limits["nvidia.com/gpu"] = math.ceil(pod.gpus)
        start["num-gpus"] = f"{pod.gpus:g}"
        why = "requests = limits: Guaranteed, so evicted last, and with CPUs of its own if static"
    text = string.Template(GROUP_TEMPLATE.read_text(encoding="utf-8")).substitute(
        shared,
        why=group.why,
        group=group.name,
        least=least,
        most=most,
        idle=group.idle_s,
        idle_why=group.idle_why,
        start_params=_flow(start),
        tolerations=f"tolerations: {_flow([TOLERATE_GPU])}" if pod.gpus else "",
        requests=_flow(requests),
        limits=_flow(limits),
        resources_why=why,
        volume_mounts=_flow(mounts),
        volumes=_flow(volumes),
    )
    return "".join(f"      {line}\n" for line in text.splitlines() if line.strip())


def serve_config(config: dict[str, Any], target: Target = GPU) -> dict[str, Any]:
    """The config for the cluster: flags moved to the pods, CPU deployments kept on CPU pods."""
    config = copy.deepcopy(config)
    config.pop("controller_options", None)
    config["applications"][0]["runtime_env"] = {"env_vars": {ROUTER_LOOP: "0"}}
    for deployment in config["applications"][0]["deployments"]:
        if not target.group_of(deployment).pod.gpus:
            options = deployment.get("ray_actor_options") or {}
            deployment["ray_actor_options"] = {**options, "label_selector": dict(CPU_SELECTOR)}
    return config


def environment(config: dict[str, Any]) -> dict[str, str]:
    """Variables that every Ray container needs before `ray start`."""
    options = config.get("controller_options") or {}
    flags = (options.get("runtime_env") or {}).get("env_vars") or {}
    return {**flags, ROUTER_LOOP: "1", **LOGS_TO_STDOUT, **WRITES_ELSEWHERE}


def _environment(variables: dict[str, str]) -> str:
    return _flow([{"name": name, "value": value} for name, value in variables.items()])


def workers(
    deployments: list[dict[str, Any]], group: Group, target: Target = GPU
) -> tuple[int, int]:
    """Fewest and most worker pods that the replicas of a group need."""
    fewest: list[tuple[float, float]] = []
    most: list[tuple[float, float]] = []
    two_nodes = 1
    for deployment in deployments:
        if target.group_of(deployment) is not group:
            continue
        options = deployment.get("ray_actor_options") or {}
        size = (options.get("num_cpus", 1), options.get("num_gpus", 0))
        low, high = _replicas(deployment)
        two_nodes = max(two_nodes, min(2, low))
        surge = math.ceil(high * deployment["max_surge_percent"] / 100)
        fewest += [size] * low
        most += [size] * (high + surge)
    # Two replicas are there so that one machine may fail: on one pod they would not help.
    pods = max(packed(fewest, group), two_nodes)
    return pods, max(packed(most, group), pods)


def _replicas(deployment: dict[str, Any]) -> tuple[int, int]:
    """Fewest and most; one where the config is silent, as Serve has it."""
    scaling = deployment.get("autoscaling_config")
    if scaling is None and deployment.get("num_replicas") != "auto":
        fixed = int(deployment.get("num_replicas") or 1)
        return fixed, fixed
    from ray.serve.config import AutoscalingConfig

    bounds = AutoscalingConfig(**{"max_replicas": 100, **(scaling or {})})
    return bounds.min_replicas, bounds.max_replicas


def packed(sizes: list[tuple[float, float]], group: Group) -> int:
    """Pods that hold all replicas: largest first, each into the first pod with room."""
    pod = group.pod
    free: list[tuple[float, float]] = []
    for cpus, gpus in sorted(sizes, reverse=True):
        if cpus > pod.cpus or gpus > pod.gpus:
            raise RenderError(
                f"a replica takes {cpus:g} CPUs and {gpus:g} GPUs; a {group.name} pod has "
                f"{pod.cpus:g} and {pod.gpus:g}. Lower ray_actor_options, or enlarge the pod in "
                "scripts/kubernetes/targets.py."
            )
        for index, (free_cpus, free_gpus) in enumerate(free):
            # In floats, as Ray's autoscaler counts: ten times 0.1 does not fit into 1.
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


class _Quoted(yaml.SafeDumper):
    """Strings with line breaks in double quotes, so that a value stays on its line."""


_Quoted.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if "\n" in text else None
    ),
)


def _flow(value: Any) -> str:
    """YAML on one line."""
    return yaml.dump(
        value, Dumper=_Quoted, sort_keys=False, default_flow_style=True, width=math.inf
    ).strip()


def _indented(value: Any, spaces: int) -> str:
    text = yaml.safe_dump(value, sort_keys=False, width=1000)
    return "".join(" " * spaces + line for line in text.splitlines(keepends=True))
