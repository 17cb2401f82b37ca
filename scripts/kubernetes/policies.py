"""What no pod of ours may do, and no object of ours may open.

The first half is Kubernetes' Pod Security Standard "restricted"
(kubernetes.io/docs/concepts/security/pod-security-standards), which the namespace enforces; the
operator's own pods come from these. The rest is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from scripts.kubernetes.overlays import Document, containers, name_of, of_kind, pods

RAY_PODS = {"ray.io/is-ray-node": "yes"}
# Whoever reaches one of these can run code: GCS, Ray client, dashboard.
INNER_PORTS = {6379, 10001, 8265}
VOLUMES = {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected", "downwardAPI"}
SECRET_NAME = re.compile(r"(PASSWORD|TOKEN|SECRET|API_KEY|CREDENTIAL)")


def breaches(documents: list[Document]) -> list[str]:
    """Everything that breaks a policy."""
    found: list[str] = []
    for document in documents:
        for where, pod in pods(document).items():
            found += [f"{where}: {one}" for one in pod_policy(pod, where.endswith("group head"))]
            for container in containers(pod):
                say = f"{where} container {container.get('name')}"
                found += [f"{say}: {one}" for one in container_policy(container, pod)]
        found += [f"{name_of(document)}: {one}" for one in object_policy(document)]
    return found + list(network(documents))


def pod_policy(pod: Document, is_head: bool) -> Iterator[str]:
    """One pod. is_head: KubeRay gives it the account of Ray's autoscaler."""
    security = pod.get("securityContext") or {}
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} shows it the machine; take it away"
    if security.get("runAsNonRoot") is not True or security.get("runAsUser", 0) == 0:
        yield "may run as root: set runAsNonRoot: true and a runAsUser"
    if (security.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "has no seccompProfile of type RuntimeDefault"
    for volume in pod.get("volumes", []):
        kinds = set(volume) - {"name"}
        if kinds - VOLUMES:
            yield f"volume {volume['name']} is a {', '.join(sorted(kinds))}: no such is allowed"
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            yield f"volume {volume['name']} has no sizeLimit: it could fill the machine's disk"
    if is_head:
        if pod.get("serviceAccountName"):
            yield "has a serviceAccountName: KubeRay must make the one of Ray's autoscaler"
    elif not pod.get("serviceAccountName") or pod.get("automountServiceAccountToken") is not False:
        yield "could ask the API server: a serviceAccountName, automountServiceAccountToken: false"
    if not pod.get("priorityClassName"):
        yield "has no priorityClassName"
    if pod.get("enableServiceLinks") is not False:
        yield "has enableServiceLinks: a Service named `ray` would set RAY_PORT"


def container_policy(container: Document, pod: Document) -> Iterator[str]:
    """One container of a pod."""
    yield from image_policy(str(container.get("image", "")))
    security = container.get("securityContext") or {}
    if security.get("privileged"):
        yield "is privileged"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "may escalate: set allowPrivilegeEscalation: false"
    capabilities = security.get("capabilities") or {}
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "keeps capabilities: drop [ALL], and add none"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root: set readOnlyRootFilesystem: true"
    if security.get("runAsNonRoot") is False or security.get("runAsUser") == 0:
        yield "runs as root, whatever its pod says"
    if (security.get("seccompProfile") or {"type": "RuntimeDefault"})["type"] != "RuntimeDefault":
        yield "has another seccompProfile than its pod"
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if "cpu" not in requests:
        yield "asks for no CPU"
    if "memory" not in limits:
        yield "has no limit of memory"
    elif requests.get("memory") != limits["memory"]:
        yield "has another limit of memory than it asks for: under pressure it is killed first"
    for name, value in limits.items():
        if "/" in name and requests.get(name, value) != value:
            yield f"asks for {requests[name]} {name} and is limited to {value}: they must be equal"
    for port in container.get("ports", []):
        if "hostPort" in port:
            yield f"takes port {port['hostPort']} of the machine"
    for one in container.get("env", []):
        if SECRET_NAME.search(one.get("name", "").upper()) and one.get("value"):
            yield f"has {one['name']} in the open: use valueFrom.secretKeyRef"


def image_policy(image: str) -> Iterator[str]:
    """A tag that stays, or a digest."""
    if "@sha256:" in image:
        return
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag or tag in {"latest", "main", "master", "nightly", "dev"}:
        yield f"image {image!r} is another one tomorrow: give a version or a digest"


def object_policy(document: Document) -> Iterator[str]:
    """Objects other than pods."""
    kind, spec = document.get("kind"), document.get("spec") or {}
    if kind in {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}:
        yield "gives rights on the API server, which nothing of ours needs"
    if kind == "ServiceAccount" and document.get("automountServiceAccountToken") is not False:
        yield "hands out its token: set automountServiceAccountToken: false"
    if kind == "Secret":
        yield "stands in a file: make it with kubectl, or by your secrets' operator"
    if kind == "Service" and spec.get("type", "ClusterIP") != "ClusterIP":
        yield f"is a {spec['type']}, open to outside without TLS: use components/ingress or gateway"
    if kind == "Ingress":
        hosts = {one for tls in spec.get("tls", []) for one in tls.get("hosts", [])}
        for rule in spec.get("rules", []):
            if rule.get("host") not in hosts:
                yield f"host {rule.get('host')} has no TLS"
    if kind == "Gateway":
        for listener in spec.get("listeners", []):
            if listener.get("protocol") != "HTTPS" or not listener.get("tls"):
                yield f"listener {listener.get('name')} has no TLS"
    if kind == "PodDisruptionBudget" and (
        not isinstance(spec.get("minAvailable"), int) or "maxUnavailable" in spec
    ):
        yield "needs minAvailable as a number: of a custom resource Kubernetes can count no more"
    if kind == "Namespace":
        enforced = (document["metadata"].get("labels") or {}).get(
            "pod-security.kubernetes.io/enforce"
        )
        if enforced != "restricted":
            yield f"enforces the Pod Security Standard {enforced!r}: restricted is what we keep"


def network(documents: list[Document]) -> Iterator[str]:
    """Ray's pods have a policy, and it opens no inner port to everybody."""
    if not of_kind(documents, "RayService"):
        return
    found: list[dict[str, Any]] = [
        one.get("spec") or {}
        for one in of_kind(documents, "NetworkPolicy")
        if (one.get("spec") or {}).get("podSelector", {}).get("matchLabels") == RAY_PODS
    ]
    if not found:
        yield "NetworkPolicy: none is for Ray's pods: who reaches the GCS can run code"
    for spec in found:
        if "Ingress" not in spec.get("policyTypes", []):
            yield "NetworkPolicy: its policyTypes lack Ingress"
        for rule in spec.get("ingress", []):
            ports = {port.get("port") for port in rule.get("ports", [])}
            if not rule.get("from") and (not ports or ports & INNER_PORTS):
                yield f"NetworkPolicy: opens {sorted(ports) or 'every port'} to everybody"
