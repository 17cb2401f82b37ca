"""What KubeRay's operator refuses although its schema takes it, read in v1.7.0.

Each function names the one that it follows in ray-operator/controllers/ray/utils/validation.go.
The operator says so only in an event of the RayService, after `kubectl apply` went well.
Rules of features that k8s/ does not use (mTLS, history server, RocksDB) end at "is not checked".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.version import InvalidVersion, Version

from scripts.kubernetes.overlays import Document, environment, name_of

# constant.go: MaxRayServiceNameLength, which leaves room for a cluster's suffix.
MAX_NAME = 47
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"
UPGRADES = {"NewCluster", "NewClusterWithIncrementalUpgrade", "None"}
TIMEOUT = "ray.io/initializing-timeout"
NOT_CHECKED = {"tlsOptions", "historyServerOptions", "networkPolicy"}


def refusals(service: Document) -> list[str]:
    """All rules over one RayService, whose schema is right."""
    spec = service["spec"]
    cluster = spec["rayClusterConfig"]
    rules = (
        metadata(service["metadata"]),
        upgrade(spec),
        groups(cluster),
        fault_tolerance(cluster, service["metadata"].get("annotations") or {}),
        autoscaler(cluster),
        authentication(cluster),
        not_checked(cluster),
    )
    return [f"{name_of(service)}: {one}" for rule in rules for one in rule]


def metadata(meta: Document) -> Iterator[str]:
    """ValidateRayServiceMetadata, validateInitializingTimeout."""
    name = str(meta.get("name"))
    if len(name) > MAX_NAME or not DNS_1035.fullmatch(name):
        yield f"name has {len(name)} characters: up to {MAX_NAME} of a-z, 0-9 and -, a letter first"
    timeout = (meta.get("annotations") or {}).get(TIMEOUT)
    # The duration of Go, or seconds.
    if timeout and not re.fullmatch(r"(?=.*[1-9])(\d+|(\d+(\.\d+)?(h|m|s|ms))+)", timeout):
        yield f"annotation {TIMEOUT} is {timeout!r}: a positive duration such as 30m, or seconds"


def upgrade(spec: Document) -> Iterator[str]:
    """ValidateRayServiceSpec, ValidateClusterUpgradeOptions."""
    strategy = spec.get("upgradeStrategy") or {}
    kind = strategy.get("type")
    if kind is not None and kind not in UPGRADES:
        yield f"upgradeStrategy.type is {kind!r}: one of {', '.join(sorted(UPGRADES))}"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "rayClusterDeletionDelaySeconds is negative"
    head = spec["rayClusterConfig"]["headGroupSpec"]
    if ((head.get("headService") or {}).get("metadata") or {}).get("name"):
        yield "headGroupSpec.headService.metadata.name must not be set in a RayService"
    if kind != "NewClusterWithIncrementalUpgrade":
        return
    if not spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        yield "NewClusterWithIncrementalUpgrade needs enableInTreeAutoscaling"
    options = strategy.get("clusterUpgradeOptions")
    if not options:
        yield "NewClusterWithIncrementalUpgrade needs clusterUpgradeOptions"
        return
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent", -1)
    if not 0 <= surge <= 100:
        yield f"maxSurgePercent is {surge}: between 0 and 100"
    if not 0 <= step <= 100:
        yield f"stepSizePercent is {step}: between 0 and 100"
    if step > surge:
        yield f"stepSizePercent {step} is above maxSurgePercent {surge}"
    if options.get("intervalSeconds", 0) <= 0:
        yield "intervalSeconds must be greater than 0"
    if not options.get("gatewayClassName"):
        yield "gatewayClassName is missing"


def groups(cluster: Document) -> Iterator[str]:
    """ValidateRayClusterSpec, validateRayGroupResources, validateRayGroupLabels."""
    scaled = bool(cluster.get("enableInTreeAutoscaling"))
    head = {**cluster["headGroupSpec"], "groupName": "head"}
    workers = cluster.get("workerGroupSpecs", [])
    for group in (head, *workers):
        name, params = group.get("groupName"), group.get("rayStartParams") or {}
        if not group["template"]["spec"].get("containers"):
            yield f"group {name} has no container"
        counted = {"num-cpus", "num-gpus", "memory", "resources"} & params.keys()
        if counted and group.get("resources"):
            yield f"group {name} has resources and rayStartParams {sorted(counted)}: only one"
        if "labels" in params:
            yield f"group {name} has rayStartParams.labels: use the group's own `labels`"
        for key, value in (group.get("labels") or {}).items():
            *prefix, key_name = key.split("/")
            right = LABEL_NAME.fullmatch(key_name) and len(prefix) <= 1
            if not right or (value and not LABEL_NAME.fullmatch(value)):
                yield f"group {name} has the label {key}: {value}, which is no Kubernetes label"
    for group in workers:
        name = group.get("groupName")
        least, most = group.get("minReplicas"), group.get("maxReplicas")
        if not scaled and (least is None or most is None):
            yield f"group {name} needs minReplicas and maxReplicas without the autoscaler"
        if (least or 0) < 0 or (most or 0) < 0:
            yield f"group {name} has negative replicas"
        if least is not None and most is not None and least > most:
            yield f"group {name} has minReplicas {least} above maxReplicas {most}"
        if scaled and group.get("suspend"):
            yield f"group {name} cannot be suspended with the autoscaler"
    names = [group.get("groupName") for group in workers]
    if len(set(names)) < len(names):
        yield f"groups have the same name: {names}"


def fault_tolerance(cluster: Document, annotations: dict[str, str]) -> Iterator[str]:
    """ValidateRayClusterSpec's part on Redis, validateGcsFaultToleranceBackend."""
    head = cluster["headGroupSpec"]
    options, env = cluster.get("gcsFaultToleranceOptions"), environment(head["template"]["spec"])
    params = head.get("rayStartParams") or {}
    if params.get("redis-username") or "REDIS_USERNAME" in env:
        yield "the Redis user stands in gcsFaultToleranceOptions.redisUsername, nowhere else"
    if options is None:
        if "RAY_REDIS_ADDRESS" in env and annotations.get("ray.io/ft-enabled") != "true":
            yield "RAY_REDIS_ADDRESS needs gcsFaultToleranceOptions"
        return
    if annotations.get("ray.io/ft-enabled"):
        yield "annotation ray.io/ft-enabled and gcsFaultToleranceOptions are both there"
    if params.get("redis-password") or "REDIS_PASSWORD" in env:
        yield "the Redis password stands in gcsFaultToleranceOptions.redisPassword, nowhere else"
    if "RAY_REDIS_ADDRESS" in env:
        yield "RAY_REDIS_ADDRESS stands in gcsFaultToleranceOptions.redisAddress, nowhere else"
    if annotations.get("ray.io/external-storage-namespace"):
        yield "the storage namespace stands in gcsFaultToleranceOptions, nowhere else"
    if options.get("backend", "redis") != "redis":
        yield f"backend {options['backend']!r} needs a feature gate, and is not checked here"
    elif options.get("storage"):
        yield "gcsFaultToleranceOptions.storage is for rocksdb only"


def autoscaler(cluster: Document) -> Iterator[str]:
    """ValidateRayClusterSpec, validateWorkerGroupIdleTimeout, validateWorkerGroupPriority."""
    options = cluster.get("autoscalerOptions") or {}
    head = cluster["headGroupSpec"]
    env = environment(head["template"]["spec"])
    asked = env.get(AUTOSCALER_V2) in ("1", "true")
    v2 = options.get("version") == "v2"
    if not cluster.get("enableInTreeAutoscaling"):
        if asked:
            yield f"{AUTOSCALER_V2} needs enableInTreeAutoscaling"
    elif options.get("version") and AUTOSCALER_V2 in env:
        yield f"autoscalerOptions.version and {AUTOSCALER_V2} are both set: only the former"
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds is negative"
    if any(e["name"] == "KUBERAY_GEN_AUTOSCALER_START_CMD" for e in options.get("env", [])):
        yield "autoscalerOptions.env has KUBERAY_GEN_AUTOSCALER_START_CMD, which is KubeRay's"
    for name, group in (
        ("head", head),
        *((one["groupName"], one) for one in cluster.get("workerGroupSpecs", [])),
    ):
        policy = group["template"]["spec"].get("restartPolicy")
        if v2 and cluster.get("enableInTreeAutoscaling") and policy not in (None, "", "Never"):
            yield f"group {name} has restartPolicy {policy}: Never with v2 of the autoscaler"
        if group.get("idleTimeoutSeconds", 0) < 0:
            yield f"group {name} has a negative idleTimeoutSeconds"
        if "idleTimeoutSeconds" in group and not (v2 or asked):
            yield f"group {name} has idleTimeoutSeconds, which needs v2 of the autoscaler"
        if group.get("priority") and not (v2 or asked):
            yield f"group {name} has a priority, which needs v2 of the autoscaler"
        if group.get("priority") and _version(cluster) < Version("2.56.0"):
            yield f"group {name} has a priority, which needs Ray 2.56"


def authentication(cluster: Document) -> Iterator[str]:
    """ValidateRayClusterSpec's part on tokens; ValidateRayServiceSpec on those of Kubernetes."""
    options = cluster.get("authOptions") or {}
    if options.get("enableK8sTokenAuth"):
        yield "authOptions.enableK8sTokenAuth is not for a RayService"
    if options.get("mode") == "token" and _version(cluster) < Version("2.52.0"):
        yield f"authOptions.mode token needs Ray 2.52; rayVersion is {cluster.get('rayVersion')!r}"


def not_checked(cluster: Document) -> Iterator[str]:
    """Features whose rules are not written here: better no file than an unchecked one."""
    for field in sorted(NOT_CHECKED & cluster.keys()):
        yield f"{field} needs a feature gate of KubeRay, and is not checked here"


def _version(cluster: Document) -> Version:
    try:
        return Version(cluster.get("rayVersion", ""))
    except InvalidVersion:
        return Version("0")
