"""The RayServices that k8s/ comes with: from which Serve config, and on which pods."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.config.check import load_config

ROOT = Path(__file__).resolve().parents[2]
TOLERATE_GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
"""The usual taint that keeps other pods off GPU machines."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What one pod has. cpus and gpus: what Ray counts; memory, shm: Kubernetes quantities."""

    cpus: float
    gpus: float
    memory: str
    # Our messages are small; Ray's default takes 30 % of the memory.
    object_store_bytes: int = 1_000_000_000
    shm: str = "2Gi"
    """Of /dev/shm, where the object store lives; it counts against `memory`."""


@dataclass(frozen=True, slots=True)
class Group:
    """A worker group. guaranteed: requests are limits, for the CPU too."""

    name: str
    pod: Pod
    why: str
    idle_s: int
    idle_why: str
    guaranteed: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """One RayService. what, config_from: for the reader of the file."""

    name: str
    what: str
    config_from: str
    head: Pod
    groups: tuple[Group, ...]

    @property
    def output(self) -> Path:
        """Where it is rendered to."""
        return ROOT / "k8s" / "overlays" / self.name / "rayservice.yaml"

    def config(self) -> dict[str, Any]:
        """The Serve config that it runs."""
        if self.name == "local":
            return load_config(ROOT / "serve_config.yaml")
        gpu = load_config(ROOT / "serve_config.gpu.yaml")
        return gpu if self.name == "gpu" else without_gpus(gpu)

    def group_of(self, deployment: dict[str, Any]) -> Group:
        """The worker group that a deployment's replicas run in."""
        gpus = bool((deployment.get("ray_actor_options") or {}).get("num_gpus"))
        found = [group for group in self.groups if bool(group.pod.gpus) == gpus]
        return found[0] if found else self.groups[0]


def without_gpus(config: dict[str, Any]) -> dict[str, Any]:
    """A GPU cluster's config for CPUs: the Classifier takes cores, and batches as a CPU likes."""
    config = copy.deepcopy(config)
    laptop = load_config(ROOT / "serve_config.yaml")["applications"][0]["deployments"]
    (likes,) = [one["user_config"] for one in laptop if one["name"] == "Classifier"]
    for deployment in config["applications"][0]["deployments"]:
        if deployment["ray_actor_options"].pop("num_gpus", None):
            deployment["ray_actor_options"]["num_cpus"] = CLASSIFIER_CPUS
            deployment["user_config"] = likes
    return config


CLASSIFIER_CPUS = 4.0  # also its threads: past four, a second replica gains more than a fifth one

_TOGETHER = """\
# All three deployments. Their label_selector keeps them off pods that you may add for others."""
_CPU = """\
# Tokenizer and Postprocessor. Their label_selector keeps them here, off the GPU pods, where they
# would take the CPU that a Classifier needs. A label, not a custom resource: it needs no counting
# and no JSON inside a shell argument. Ray's autoscaler (v2) and scheduler both read it here."""
_GPU = """\
# Classifier. num_gpus brings it here and nowhere else. It has no label_selector: with one selector
# in the application, Serve runs the task that builds it on that selector's pods, not on the head.
# Kubernetes has whole GPUs only; num_gpus 0.5 divides one inside the pod. MIG: the component
# gpu-mig."""

GPU = Target(
    name="gpu",
    what="The application of serve_config.gpu.yaml on Kubernetes",
    config_from="serve_config.gpu.yaml.",
    head=Pod(2, 0, "8Gi"),
    groups=(
        Group(
            "cpu",
            Pod(4, 0, "8Gi"),
            _CPU,
            120,
            "machines without a GPU come back in a minute or two",
        ),
        Group(
            "gpu",
            Pod(4, 1, "16Gi"),
            _GPU,
            600,
            "keeps a GPU through a lull: a machine and an image take minutes",
            guaranteed=True,
        ),
    ),
)
CPU = Target(
    name="cpu",
    what="The application on a cluster without GPUs",
    config_from="serve_config.gpu.yaml; the Classifier on 4 CPUs, batches of serve_config.yaml.",
    head=Pod(2, 0, "8Gi"),
    groups=(Group("cpu", Pod(8, 0, "16Gi"), _TOGETHER, 300, "an image pull takes minutes"),),
)
LOCAL = Target(
    name="local",
    what="The application of serve_config.yaml on kind or minikube: 3 CPUs and 9 GiB for all",
    config_from="serve_config.yaml.",
    head=Pod(0.5, 0, "4Gi", 200_000_000, "512Mi"),
    groups=(
        Group("cpu", Pod(2, 0, "4Gi", 200_000_000, "512Mi"), _TOGETHER, 60, "a laptop has no more"),
    ),
)
TARGETS = {target.name: target for target in (GPU, CPU, LOCAL)}
