"""A folder with a kustomization.yaml → the documents that kustomize makes of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from scripts.kubernetes.targets import ROOT

K8S = ROOT / "k8s"
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"}
Document = dict[str, Any]


class NoKustomize(RuntimeError):
    """There is no kustomize on this machine; the message says how to get one."""


class KustomizeError(RuntimeError):
    """kustomize refuses the folder; the message is kustomize's own."""


def command() -> list[str]:
    """kustomize as it is here. Components need kubectl 1.21 or kustomize 3.7.

    Raises: NoKustomize.
    """
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    raise NoKustomize(
        "neither kubectl nor kustomize is here: install kubectl 1.21 or newer from "
        "https://kubernetes.io/docs/tasks/tools/ (no cluster is asked)."
    )


def rendered(folder: Path) -> list[Document]:
    """What `kubectl apply -k FOLDER` would send. No cluster and no network is asked.

    Raises: NoKustomize, KustomizeError.
    """
    done = subprocess.run(
        [*command(), str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise KustomizeError(f"{folder}: {done.stderr.strip()}")
    return documents(done.stdout)


def documents(text: str) -> list[Document]:
    """All documents of a YAML file."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [one for one in yaml.load_all(text, loader) if one]


def name_of(document: Document) -> str:
    """`Kind/name`, as kubectl says it."""
    return f"{document.get('kind')}/{(document.get('metadata') or {}).get('name')}"


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    """Those of one kind."""
    return [one for one in documents if one.get("kind") == kind]


def ray_pods(service: Document) -> dict[str, Document]:
    """Group → pod spec of a RayService; the head's is `head`. Empty where the shape is broken."""
    cluster = service.get("spec", {}).get("rayClusterConfig", {})
    groups = {"head": cluster.get("headGroupSpec", {})}
    groups |= {str(one.get("groupName")): one for one in cluster.get("workerGroupSpecs", [])}
    return {name: one.get("template", {}).get("spec", {}) for name, one in groups.items()}


def pods(document: Document) -> dict[str, Document]:
    """Where → pod spec, for every pod that a document makes."""
    where = name_of(document)
    if document.get("kind") == "RayService":
        return {f"{where} group {group}": pod for group, pod in ray_pods(document).items()}
    if document.get("kind") == "Pod":
        return {where: document.get("spec", {})}
    spec = document.get("spec", {})
    if document.get("kind") == "CronJob":
        spec = spec.get("jobTemplate", {}).get("spec", {})
    is_workload = document.get("kind") in {*WORKLOADS, "CronJob"}
    return {where: spec.get("template", {}).get("spec", {})} if is_workload else {}


def environment(pod: Document) -> dict[str, Any]:
    """Of the Ray container, which is the first."""
    return {one["name"]: one.get("value") for one in pod["containers"][0].get("env", [])}


def containers(pod: Document) -> list[Document]:
    """Those that run, and those that run before."""
    return [*pod.get("initContainers", []), *pod.get("containers", [])]
