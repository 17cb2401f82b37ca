"""serveConfigV2, versions, and names that must meet: what no schema sees.

A volume that is mounted must be there, a Service that an Ingress names must be one that KubeRay
makes, a replica must find a pod that is large enough: each of these fails only on the cluster, and
some without a word.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.kuberay.utils import parse_quantity

from deployments.config.capacity import whole
from deployments.config.check import check_config
from rayclassify_client import __version__
from scripts.kubernetes.overlays import (
    Document,
    containers,
    environment,
    name_of,
    of_kind,
    pods,
    ray_pods,
)
from scripts.kubernetes.rayservice import DRAIN, ray_version

DEPLOYMENTS = ["Tokenizer", "Classifier", "Postprocessor"]
FLAGS = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED")
GPU_RESOURCE = re.compile(r"nvidia\.com/(gpu|mig-.+)")


def mismatches(documents: list[Document]) -> list[str]:
    """Everything that does not meet."""
    found = [*volumes(documents), *names(documents)]
    for service in of_kind(documents, "RayService"):
        say = name_of(service)
        try:
            served = yaml.safe_load(service["spec"]["serveConfigV2"])
        except yaml.YAMLError as error:
            found.append(f"{say} serveConfigV2: no YAML: {' '.join(str(error).split())}")
            continue
        if wrong := list(serve_config(served, service)):  # the other rules read its fields
            found += [f"{say}: {one}" for one in wrong]
            continue
        rules = (
            versions(service),
            head(service),
            groups(service, served),
            timeouts(service, served),
            entries(service, served, documents),
        )
        found += [f"{say}: {one}" for rule in rules for one in rule]
    return found


def serve_config(served: Any, service: Document) -> Iterator[str]:
    """Through our strict check, which asks Ray's ServeDeploySchema too."""
    checked = copy.deepcopy(served)
    try:
        model = checked["applications"][0]["args"]["model"]
        directory = str(model["id"])
        names = [one["name"] for one in checked["applications"][0]["deployments"]]
    except (KeyError, TypeError, IndexError):
        yield "serveConfigV2 has no application of ours with args.model.id and deployments"
        return
    if directory.startswith("/"):  # of the pods, not of this machine
        model["id"] = "models/demo"
        for group, pod in ray_pods(service).items():
            mounts = pod["containers"][0].get("volumeMounts", [])
            found = [m for m in mounts if Path(directory).is_relative_to(m["mountPath"])]
            # Of nested mounts the deepest counts.
            deepest: dict[str, Any] = max(found, key=lambda m: len(m["mountPath"]), default={})
            if not deepest:
                yield f"args.model.id is {directory}, which group {group} does not mount"
            elif not deepest.get("readOnly"):
                yield f"group {group} could write to {directory}: mount it readOnly"
    yield from (f"serveConfigV2 {problem}" for problem in check_config(checked))
    if names != DEPLOYMENTS:
        yield f"serveConfigV2 has the deployments {names}: {DEPLOYMENTS} are what app.py makes"
    if "controller_options" in served:
        yield "serveConfigV2 has controller_options: its variables belong to every pod"
    keys = (served["applications"][0]["args"].get("access") or {}).get("keys_file")
    if keys:
        pod = ray_pods(service).get("cpu", {})
        mounts = pod.get("containers", [{}])[0].get("volumeMounts", [])
        if not any(Path(keys).is_relative_to(m["mountPath"]) for m in mounts):
            yield f"args.access.keys_file is {keys}, which group cpu does not mount"


def versions(service: Document) -> Iterator[str]:
    """rayVersion is that of the lock file, and all pods run one image of this version."""
    ray = ray_version()
    said = service["spec"]["rayClusterConfig"].get("rayVersion")
    if said != ray:
        yield f"rayVersion is {said}, and constraints.txt has {ray}"
    images = {pod["containers"][0]["image"] for pod in ray_pods(service).values()}
    if len(images) > 1:
        yield f"pods run different images: {', '.join(sorted(images))}"
    for image in images:
        tag = image.partition("@")[0].rpartition(":")[2]
        if not image.count("@") and tag != __version__:
            yield f"image {image} is not of this version, {__version__}"


def head(service: Document) -> Iterator[str]:
    """It runs no replica and takes no requests."""
    params = service["spec"]["rayClusterConfig"]["headGroupSpec"].get("rayStartParams", {})
    if params.get("num-cpus") != "0" or params.get("num-gpus", "0") != "0":
        yield 'head: num-cpus must be "0", or replicas come to where the controller is'
    if service["spec"].get("excludeHeadPodFromServeSvc") is not True:
        yield "head: excludeHeadPodFromServeSvc must be true"


def groups(service: Document, served: Any) -> Iterator[str]:
    """Ray counts what Kubernetes gives, flags are everywhere, every replica finds a pod."""
    cluster = service["spec"]["rayClusterConfig"]
    port = (served.get("http_options") or {}).get("port", 8000)
    flags = {}
    for name, pod in ray_pods(service).items():
        env = environment(pod)
        flags[name] = {k: v for k, v in env.items() if k.startswith("RAY_SERVE_")}
        for flag in FLAGS:
            if env.get(flag) != "1":
                yield f"group {name} lacks {flag}: set both flags, or neither works"
        ports = {one["name"]: one["containerPort"] for one in pod["containers"][0].get("ports", [])}
        if ports.get("serve") != port:
            yield f"group {name}: port `serve` is {ports.get('serve')}, Serve listens on {port}"
        if "metrics" not in ports:
            yield f"group {name} has no port named metrics"
    if len({tuple(sorted(one.items())) for one in flags.values()}) > 1:
        yield "RAY_SERVE_ variables differ between the groups"
    sizes: dict[str, tuple[float, float, dict[str, str]]] = {}
    for group in cluster.get("workerGroupSpecs", []):
        name, params = group["groupName"], group.get("rayStartParams") or {}
        resources = group["template"]["spec"]["containers"][0].get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        cpus, gpus = float(params.get("num-cpus", 0)), float(params.get("num-gpus", 0))
        given = sum(int(v) for k, v in limits.items() if GPU_RESOURCE.fullmatch(k))
        if cpus != float(parse_quantity(requests.get("cpu", 0))):
            yield f"group {name}: Ray counts {cpus:g} CPUs, the pod asks for another number"
        if gpus != given:
            yield f"group {name}: Ray counts {gpus:g} GPUs, the pod gets {given}"
        sizes[name] = (cpus, gpus, group.get("labels") or {})
    for deployment in served["applications"][0]["deployments"]:
        options = deployment.get("ray_actor_options") or {}
        wants = (options.get("num_cpus", 1), options.get("num_gpus", 0))
        selector = options.get("label_selector") or {}
        places = [
            name
            for name, (cpus, gpus, labels) in sizes.items()
            if wants[0] <= cpus and wants[1] <= gpus and selector.items() <= labels.items()
        ]
        if not places:
            yield f"{deployment['name']} finds no group: {wants} CPUs and GPUs, {selector}"
        if not wants[1] and any(sizes[name][1] for name in places):
            yield f"{deployment['name']} could take CPUs of GPU pods: give it a label_selector"


def timeouts(service: Document, served: Any) -> Iterator[str]:
    """A pod ends after the requests that it took; so does a cluster."""
    deployments = [whole(one) for one in served["applications"][0]["deployments"]]
    shutdown_s = max(one["graceful_shutdown_timeout_s"] for one in deployments)
    if service["spec"].get("rayClusterDeletionDelaySeconds", 60) < shutdown_s:
        yield f"rayClusterDeletionDelaySeconds is below {shutdown_s:g} s, a replica's own shutdown"
    for name, pod in ray_pods(service).items():
        if name == "head":
            continue
        drain_s = float(environment(pod).get(DRAIN) or 0)
        hook = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {})
        command = hook.get("command", [])
        if command[:1] != ["sleep"]:
            yield f"group {name} has no preStop that lets it leave the Service first"
            continue
        grace_s = pod.get("terminationGracePeriodSeconds", 30)
        if grace_s <= float(command[1]) + drain_s:
            yield f"group {name} is killed after {grace_s} s, before its drain ends ({drain_s:g} s)"
        if drain_s <= shutdown_s:
            yield f"group {name} drains for {drain_s:g} s; a replica needs more than {shutdown_s:g}"


def entries(service: Document, served: Any, documents: list[Document]) -> Iterator[str]:
    """Ingress and HTTPRoute lead to a Service that KubeRay makes; see BuildServeService."""
    kind = (service["spec"].get("upgradeStrategy") or {}).get("type")
    port = (served.get("http_options") or {}).get("port", 8000)
    there = {(f"{service['metadata']['name']}-serve-svc", port)}
    if kind == "NewClusterWithIncrementalUpgrade":
        there = set()  # each RayCluster has its own, and KubeRay's HTTPRoute weights them
    there |= {
        (one["metadata"]["name"], p["port"])
        for one in of_kind(documents, "Service")
        for p in one["spec"].get("ports", [])
    }
    for ingress in of_kind(documents, "Ingress"):
        for rule in ingress["spec"].get("rules", []):
            for path in rule.get("http", {}).get("paths", []):
                to = path["backend"].get("service", {})
                name, number = to.get("name"), to.get("port", {}).get("number")
                if (name, number) not in there:
                    yield f"{name_of(ingress)} leads to {name}, which nobody makes ({kind})"
    for route in of_kind(documents, "HTTPRoute"):
        for rule in route["spec"].get("rules", []):
            for to in rule.get("backendRefs", []):
                if (to["name"], to.get("port")) not in there:
                    yield f"{name_of(route)} leads to {to['name']}, which nobody makes ({kind})"


def volumes(documents: list[Document]) -> Iterator[str]:
    """Each mount names a volume, and no two are in one place."""
    for document in documents:
        claims = (
            {
                one["metadata"]["name"]
                for one in document.get("spec", {}).get("volumeClaimTemplates", [])
            }
            if document.get("kind") == "StatefulSet"
            else set()
        )
        for where, pod in pods(document).items():
            named = [one.get("name") for one in pod.get("volumes", [])]
            if len(set(named)) < len(named):
                yield f"{where}: two volumes have one name: {named}"
            called = [one.get("name") for one in containers(pod)]
            if len(set(called)) < len(called):
                yield f"{where}: two containers have one name: {called}"
            for container in containers(pod):
                mounts = container.get("volumeMounts", [])
                for mount in mounts:
                    if mount["name"] not in {*named, *claims}:
                        yield f"{where}: {mount['name']} is mounted, and no volume"
                paths = [mount["mountPath"] for mount in mounts]
                if len(set(paths)) < len(paths):
                    yield f"{where}: two volumes in one place: {paths}"
                unseen = {"/tmp", "/dev/shm"} - set(paths)  # noqa: S108
                if document.get("kind") == "RayService" and container in pod["containers"]:
                    for path in sorted(unseen):
                        yield f"{where}: Ray writes to {path}, which is read-only"


def names(documents: list[Document]) -> Iterator[str]:
    """Accounts, classes, claims and groups that are named exist; one namespace; nothing twice."""
    ids = [(name_of(one), one["metadata"].get("namespace")) for one in documents]
    yield from (f"{name}: is there twice" for name, _ in {one for one in ids if ids.count(one) > 1})
    spaces = {space for _, space in ids if space}
    if len(spaces) > 1:
        yield f"objects are in different namespaces: {', '.join(sorted(spaces))}"
    made = {name_of(one) for one in documents}
    selected = set()
    for document in documents:
        for where, pod in pods(document).items():
            wanted = [
                f"ServiceAccount/{pod['serviceAccountName']}"
                if "serviceAccountName" in pod
                else "",
                f"PriorityClass/{pod['priorityClassName']}" if "priorityClassName" in pod else "",
                *(
                    f"PersistentVolumeClaim/{one['persistentVolumeClaim']['claimName']}"
                    for one in pod.get("volumes", [])
                    if "persistentVolumeClaim" in one
                ),
            ]
            for one in filter(None, wanted):
                if one not in made:
                    yield f"{where}: {one} does not exist"
            selected.add(where.rpartition(" group ")[2])
            for spread in pod.get("topologySpreadConstraints", []):
                labels = spread.get("labelSelector", {}).get("matchLabels", {})
                group = labels.get("ray.io/group")
                if not where.endswith(f" group {group}"):
                    yield f"{where}: spreads by the pods of group {group}"
    for budget in of_kind(documents, "PodDisruptionBudget"):
        group = budget["spec"].get("selector", {}).get("matchLabels", {}).get("ray.io/group")
        least = [
            one.get("minReplicas", 0)
            for service in of_kind(documents, "RayService")
            for one in service["spec"]["rayClusterConfig"].get("workerGroupSpecs", [])
            if one["groupName"] == group
        ]
        if not least:
            yield f"{name_of(budget)}: there is no group {group}"
        elif budget["spec"]["minAvailable"] >= least[0]:
            yield f"{name_of(budget)}: all {least[0]} pods must stay: no machine could be drained"
