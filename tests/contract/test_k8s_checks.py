"""k8s/ as kustomize renders it: nothing is wrong, and injected mistakes are found.

kubectl renders, and asks no cluster. Where there is neither kubectl nor kustomize these tests say
how to get one, and are skipped.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from scripts import check_k8s
from scripts.kubernetes import kuberay, policies, schemas, service
from scripts.kubernetes.check import problems
from scripts.kubernetes.overlays import (
    K8S,
    Document,
    KustomizeError,
    NoKustomize,
    name_of,
    rendered,
)

OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in K8S.glob("components/*/kustomization.yaml"))
MODEL = "/models/current"
Mutation = Callable[[list[Document]], None]


def build(folder: Path) -> list[Document]:
    """What kustomize makes of a folder; the model's directory as --model-dir would set it."""
    try:
        made = rendered(folder)
    except NoKustomize as error:
        pytest.skip(str(error))
    if any(volume["name"] == "model" for volume in pod(made, "head")["volumes"]):
        edit_served(made, lambda served: served["applications"][0]["args"].update(MODEL_ARGS))
    return made


MODEL_ARGS = {"model": {"id": MODEL}}


def with_components(folder: Path, overlay: str, components: list[str]) -> list[Document]:
    """An overlay of a user's own, on one of ours."""
    folder.mkdir(exist_ok=True)

    def there(kind: str, name: str) -> str:
        return os.path.relpath((K8S / kind / name).resolve(), folder.resolve())

    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [there("overlays", overlay)],
        "components": [there("components", one) for one in components],
        "images": [{"name": "rayclassify", "newName": "registry.example.com/rayclassify"}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return build(folder)


def wrong(made: list[Document]) -> list[str]:
    """What the check says; skipped where KubeRay's schema is not here."""
    found, unchecked = problems(made)
    if unchecked:
        pytest.skip(unchecked[0])
    return found


# What is there


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_wrong_with_an_overlay(overlay: str) -> None:
    assert wrong(build(K8S / "overlays" / overlay)) == []


EVERYTHING = [
    ["ingress", "gateway", "gcs-fault-tolerance", "redis", "ray-token", "gpu-mig", "gpu-gke"],
    ["incremental-upgrade", "gpu-eks", "model-volume-gpu"],
    ["model-image-gpu"],
]


@pytest.mark.parametrize("components", EVERYTHING, ids=", ".join)
def test_components_go_together_on_gpus(components: list[str], tmp_path: Path) -> None:
    assert wrong(with_components(tmp_path / "mine", "gpu", components)) == []


@pytest.mark.parametrize("overlay", ["cpu", "local"])
@pytest.mark.parametrize(
    "components",
    [["ingress", "gcs-fault-tolerance", "redis", "ray-token", "model-image"], ["model-volume"]],
    ids=", ".join,
)
def test_components_go_together_without_gpus(
    overlay: str, components: list[str], tmp_path: Path
) -> None:
    assert wrong(with_components(tmp_path / "mine", overlay, components)) == []


def test_every_component_is_tried_above_or_part_of_one_that_is() -> None:
    assert {one for some in EVERYTHING for one in some} | {"model-image", "model-volume"} == set(
        COMPONENTS
    )


def test_a_component_for_gpus_says_so_on_a_cluster_without(tmp_path: Path) -> None:
    with pytest.raises(KustomizeError, match="workerGroupSpecs/1"):
        with_components(tmp_path / "mine", "cpu", ["gpu-mig"])


def test_an_ingress_and_an_incremental_upgrade_do_not_go_together(tmp_path: Path) -> None:
    made = with_components(tmp_path / "mine", "gpu", ["ingress", "incremental-upgrade"])
    (found,) = wrong(made)
    assert "rayclassify-serve-svc, which nobody makes" in found


def test_the_command_says_what_is_wrong_and_with_what_exit_code(tmp_path: Path) -> None:
    good = CliRunner().invoke(check_k8s.app, [str(K8S / "overlays/local")])
    if "not checked" in good.output or "install kubectl" in good.output:
        pytest.skip(good.output)
    assert good.exit_code == 0, good.output
    file = tmp_path / "bad.yaml"
    file.write_text((K8S / "base/serviceaccount.yaml").read_text().replace(": false", ": 1"))
    bad = CliRunner().invoke(check_k8s.app, [str(file)])
    assert bad.exit_code == 1


def test_yamllint_finds_nothing_and_finds_a_key_given_twice(tmp_path: Path) -> None:
    lint = [sys.executable, "-m", "yamllint", "--strict", "-c", str(K8S / ".yamllint")]
    configs = [str(path) for path in K8S.parent.glob("serve_config*.yaml")]
    done = subprocess.run([*lint, str(K8S), *configs], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    file = tmp_path / "twice.yaml"
    file.write_text("metadata:\n  name: one\n  name: two\n")
    done = subprocess.run([*lint, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'duplication of key "name"' in done.stdout


def test_without_kustomize_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoKustomize, match="install kubectl"):
        rendered(K8S / "overlays" / "gpu")


# Injected mistakes: each is made in what kustomize rendered, and the checker must find it.


@cache
def everything() -> list[Document]:
    """An overlay with all that goes together; mistakes are made in copies."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"k8s-{os.getpid()}"  # noqa: S108
    names = ["ingress", "gateway", "gcs-fault-tolerance", "redis", "ray-token", "model-image-gpu"]
    try:
        return with_components(folder, "gpu", names)
    finally:
        (folder / "kustomization.yaml").unlink()
        folder.rmdir()


def the(made: list[Document], name: str) -> Document:
    (found,) = [one for one in made if name_of(one) == name]
    return found


def ray(made: list[Document]) -> Document:
    (found,) = [one for one in made if one["kind"] == "RayService"]
    return found


def cluster(made: list[Document]) -> Any:
    return ray(made)["spec"]["rayClusterConfig"]


def group(made: list[Document], name: str) -> Any:
    (found,) = [one for one in cluster(made)["workerGroupSpecs"] if one["groupName"] == name]
    return found


def pod(made: list[Document], name: str = "cpu") -> Any:
    one = cluster(made)["headGroupSpec"] if name == "head" else group(made, name)
    return one["template"]["spec"]


def container(made: list[Document], name: str = "cpu") -> Any:
    return pod(made, name)["containers"][0]


def each(made: list[Document], *groups: str, **fields: str) -> None:
    for name in groups:
        container(made, name).update(fields)


def edit_served(made: list[Document], change: Callable[[Any], object]) -> None:
    config = yaml.safe_load(ray(made)["spec"]["serveConfigV2"])
    change(config)
    ray(made)["spec"]["serveConfigV2"] = yaml.safe_dump(config, sort_keys=False)


def at(path: str, value: Any, name: str = "RayService/rayclassify") -> Mutation:
    """Sets a field by its path; numbers are places in lists, and `del` takes it away."""

    def mutate(made: list[Document]) -> None:
        inside: Any = the(made, name)
        parts = [part.replace("~", "/") for part in path.split("/")]
        *parents, last = [int(part) if part.isdigit() else part for part in parts]
        for key in parents:
            inside = inside[key]
        if value == "del":
            del inside[last]
        else:
            inside[last] = value

    return mutate


def served(change: Callable[[Any], object]) -> Mutation:
    return lambda made: edit_served(made, change)


def deployment(place: int) -> Callable[[Any], Any]:
    return lambda config: config["applications"][0]["deployments"][place]


def environ(name: str, value: str, group_name: str = "cpu") -> Mutation:
    def mutate(made: list[Document]) -> None:
        env = container(made, group_name)["env"]
        env[:] = [one for one in env if one["name"] != name]
        env += [{"name": name, "value": value}] if value else []

    return mutate


RC = "spec/rayClusterConfig"
HEAD = f"{RC}/headGroupSpec"
CPU, GPU = f"{RC}/workerGroupSpecs/0", f"{RC}/workerGroupSpecs/1"
POD = f"{CPU}/template/spec"
ONE = f"{POD}/containers/0"
INGRESS, ROUTE, GATEWAY = "Ingress/rayclassify", "HTTPRoute/rayclassify", "Gateway/rayclassify"
POLICY, BUDGET = "NetworkPolicy/rayclassify", "PodDisruptionBudget/rayclassify-cpu"
TMP = "/tmp"  # noqa: S108
REDIS, MONITOR = "StatefulSet/rayclassify-redis", "PodMonitor/rayclassify"

FIELDS: dict[str, tuple[Mutation, str]] = {
    "core: unknown field": (at("spec/podSelectr", {}, POLICY), "'podSelectr' was unexpected"),
    "core: wrong type": (at("value", "high", "PriorityClass/rayclassify"), "not of type 'integer'"),
    "core: unknown kind": (at("kind", "ServiceAcount", "ServiceAccount/rayclassify-worker"), "no "),
    "core: version that is gone": (at("apiVersion", "policy/v1beta1", BUDGET), "has no Pod"),
    "core: field in a pod": (
        at("spec/template/spec/containers/0/imagePulPolicy", "Never", REDIS),
        "imagePulPolicy",
    ),
    "KubeRay: unknown field": (at(f"{RC}/gcsFaultTolerance", {}), ".gcsFaultTolerance: unknown"),
    "KubeRay: unknown field of a pod": (at(f"{POD}/priorityClass", "x"), ".priorityClass: unknown"),
    "KubeRay: wrong type": (at(f"{CPU}/idleTimeoutSeconds", "60"), "not of type 'integer'"),
    "KubeRay: no such value": (at(f"{RC}/authOptions/mode", "tokens"), "'tokens' is not one of"),
    "Gateway API: unknown field": (at("spec/hostname", "x", ROUTE), "spec.hostname"),
    "Gateway API: wrong port": (at("spec/listeners/0/port", 70000, GATEWAY), "65535"),
    "Prometheus: unknown field": (
        at("spec/podMetricsEndpoint", [], MONITOR),
        "spec.podMetricsEndpoint",
    ),
    "Prometheus: no duration": (
        at("spec/podMetricsEndpoints/0/interval", "15", MONITOR),
        "interval",
    ),
}


@pytest.mark.parametrize(("mutate", "said"), FIELDS.values(), ids=FIELDS)
def test_a_wrong_field_is_found(mutate: Mutation, said: str) -> None:
    made = copy.deepcopy(everything())
    mutate(made)
    found: list[str] = []
    for one, before in zip(made, everything(), strict=True):
        if one != before:
            try:
                found += schemas.complaints(one)
            except schemas.NoSchema as error:
                if "set KUBERAY_CRDS" in str(error):
                    pytest.skip(str(error))
                found.append(str(error))
    assert any(said in one for one in found), found


UP = "spec/upgradeStrategy"
STEPS = {
    "type": "NewClusterWithIncrementalUpgrade",
    "clusterUpgradeOptions": {
        "gatewayClassName": "istio",
        "stepSizePercent": 10,
        "intervalSeconds": 60,
        "maxSurgePercent": 20,
    },
}


def steps(**options: Any) -> Mutation:
    changed = copy.deepcopy(STEPS)
    changed["clusterUpgradeOptions"] |= options  # type: ignore[operator]
    return at(UP, changed)


KUBERAY: dict[str, tuple[Mutation, str]] = {
    "name too long": (at("metadata/name", "x" * 48), "has 48 characters"),
    "name with a digit first": (at("metadata/name", "1st"), "a letter first"),
    "timeout of nothing": (
        at("metadata/annotations", {"ray.io/initializing-timeout": "0s"}),
        "initializing-timeout",
    ),
    "timeout of words": (
        at("metadata/annotations", {"ray.io/initializing-timeout": "soon"}),
        "initializing-timeout",
    ),
    "no such upgrade": (at(f"{UP}/type", "Rolling"), "upgradeStrategy.type"),
    "steps without options": (at(UP, {"type": STEPS["type"]}), "needs clusterUpgradeOptions"),
    "step above surge": (steps(stepSizePercent=30), "above maxSurgePercent"),
    "surge above all": (steps(maxSurgePercent=101), "between 0 and 100"),
    "no interval": (steps(intervalSeconds=0), "greater than 0"),
    "no class": (steps(gatewayClassName=""), "gatewayClassName"),
    "steps without the autoscaler": (
        lambda made: (steps()(made), cluster(made).update(enableInTreeAutoscaling=False))[0],
        "needs enableInTreeAutoscaling",
    ),
    "negative delay": (at("spec/rayClusterDeletionDelaySeconds", -1), "negative"),
    "name of the head's Service": (
        at(f"{HEAD}/headService", {"metadata": {"name": "x"}}),
        "headService",
    ),
    "no container": (at(f"{POD}/containers", []), "has no container"),
    "resources twice": (at(f"{CPU}/resources", {"CPU": "4"}), "only one"),
    "labels in ray start": (at(f"{CPU}/rayStartParams/labels", "a=b"), "own `labels`"),
    "no label": (at(f"{CPU}/labels", {"pool": "-cpu-"}), "no Kubernetes label"),
    "fewest above most": (at(f"{CPU}/minReplicas", 9), "above maxReplicas"),
    "negative replicas": (at(f"{CPU}/minReplicas", -1), "negative replicas"),
    "suspended": (at(f"{CPU}/suspend", True), "cannot be suspended"),
    "one name twice": (at(f"{GPU}/groupName", "cpu"), "the same name"),
    "Redis twice": (environ("RAY_REDIS_ADDRESS", "redis:6379", "head"), "nowhere else"),
    "Redis without options": (
        lambda made: (
            environ("RAY_REDIS_ADDRESS", "redis:6379", "head")(made),
            cluster(made).pop("gcsFaultToleranceOptions"),
        )[0],
        "needs gcsFaultToleranceOptions",
    ),
    "Redis password in ray start": (
        at(f"{HEAD}/rayStartParams/redis-password", "x"),
        "redisPassword",
    ),
    "Redis user in ray start": (at(f"{HEAD}/rayStartParams/redis-username", "x"), "redisUsername"),
    "old annotation": (at("metadata/annotations", {"ray.io/ft-enabled": "true"}), "both there"),
    "another backend": (at(f"{RC}/gcsFaultToleranceOptions/backend", "rocksdb"), "feature gate"),
    "idle time of v1": (at(f"{RC}/autoscalerOptions/version", "v1"), "needs v2"),
    "negative idle time": (at(f"{CPU}/idleTimeoutSeconds", -1), "negative idleTimeoutSeconds"),
    "v2 twice": (environ(kuberay.AUTOSCALER_V2, "1", "head"), "only the former"),
    "restarted in place": (at(f"{POD}/restartPolicy", "Always"), "restartPolicy"),
    "priority before Ray had it": (
        lambda made: (
            group(made, "gpu").update(priority=1),
            cluster(made).update(rayVersion="2.55.0"),
        )[0],
        "needs Ray 2.56",
    ),
    "token before Ray had it": (at(f"{RC}/rayVersion", "2.51.0"), "needs Ray 2.52"),
    "Kubernetes' tokens": (
        at(f"{RC}/authOptions/enableK8sTokenAuth", True),
        "not for a RayService",
    ),
    "a feature that is not checked": (at(f"{RC}/networkPolicy", {}), "not checked here"),
}


@pytest.mark.parametrize(("mutate", "said"), KUBERAY.values(), ids=KUBERAY)
def test_what_kuberay_refuses_is_found(mutate: Mutation, said: str) -> None:
    made = copy.deepcopy(everything())
    assert kuberay.refusals(ray(made)) == []
    mutate(made)
    # Without a container the other rules have none to look into.
    has_containers = bool(cluster(made)["workerGroupSpecs"][0]["template"]["spec"]["containers"])
    found = kuberay.refusals(ray(made)) if has_containers else [*kuberay.groups(cluster(made))]
    assert any(said in complaint for complaint in found), found


MEETING: dict[str, tuple[Mutation, str]] = {
    "misspelt key of Serve": (
        served(lambda c: deployment(0)(c).update(max_ongoing_request=1)),
        "max_ongoing_request",
    ),
    "misspelt key of ours": (
        served(lambda c: c["applications"][0]["args"].update(limit={})),
        "limit",
    ),
    "value that Serve refuses": (
        served(lambda c: c["http_options"].update(port="eight")),
        "http_options.port",
    ),
    "no YAML": (at("spec/serveConfigV2", "applications: ["), "no YAML"),
    "no application": (at("spec/serveConfigV2", "applications: []"), "no application of ours"),
    "another deployment": (served(lambda c: deployment(2)(c).update(name="Post")), "Post"),
    "flags in the config": (
        served(lambda c: c.update(controller_options={"runtime_env": {}})),
        "controller_options",
    ),
    "rayVersion of another Ray": (at(f"{RC}/rayVersion", "2.59.0"), "constraints.txt has"),
    "two images": (at(f"{ONE}/image", "registry.example.com/other:0.1.0"), "different images"),
    "image of another version": (
        lambda made: each(made, "head", "cpu", "gpu", image="r/rayclassify:9"),
        "not of this version",
    ),
    "replicas on the head": (at(f"{HEAD}/rayStartParams/num-cpus", "2"), 'must be "0"'),
    "requests to the head": (at("spec/excludeHeadPodFromServeSvc", False), "excludeHeadPod"),
    "a flag is missing": (
        environ("RAY_SERVE_ENABLE_HA_PROXY", "", "gpu"),
        "lacks RAY_SERVE_ENABLE",
    ),
    "flags differ": (environ("RAY_SERVE_HAPROXY_RETRIES", "5"), "differ between the groups"),
    "another port": (at(f"{ONE}/ports/0/containerPort", 8001), "Serve listens on 8000"),
    "no port of metrics": (at(f"{ONE}/ports/1/name", "prom"), "no port named metrics"),
    "Ray counts more CPUs": (at(f"{CPU}/rayStartParams/num-cpus", "8"), "counts 8 CPUs"),
    "Ray counts more GPUs": (at(f"{GPU}/rayStartParams/num-gpus", "2"), "the pod gets 1"),
    "a replica too large": (
        served(lambda c: deployment(1)(c)["ray_actor_options"].update(num_cpus=9.0)),
        "Classifier finds no group",
    ),
    "a selector without a group": (
        served(
            lambda c: deployment(0)(c)["ray_actor_options"].update(label_selector={"pool": "x"})
        ),
        "Tokenizer finds no group",
    ),
    "CPU work on GPU pods": (
        served(lambda c: deployment(2)(c)["ray_actor_options"].pop("label_selector")),
        "Postprocessor could take CPUs of GPU pods",
    ),
    "killed while it drains": (at(f"{POD}/terminationGracePeriodSeconds", 30), "before its drain"),
    "drains too short": (environ(service.DRAIN, "30"), "a replica needs more"),
    "no preStop": (at(f"{ONE}/lifecycle", {}), "no preStop"),
    "old cluster gone too soon": (at("spec/rayClusterDeletionDelaySeconds", 5), "is below 60 s"),
    "ingress to nowhere": (
        at("spec/rules/0/http/paths/0/backend/service/name", "rayclassify-head-svc", INGRESS),
        "which nobody makes",
    ),
    "ingress to another port": (
        at("spec/rules/0/http/paths/0/backend/service/port/number", 8265, INGRESS),
        "which nobody makes",
    ),
    "route to nowhere": (at("spec/rules/0/backendRefs/0/name", "x", ROUTE), "which nobody makes"),
    "ingress in an upgrade by steps": (at(UP, STEPS), "which nobody makes"),
    "mount without a volume": (at(f"{ONE}/volumeMounts/1/name", "temp"), "temp is mounted"),
    "no place for /tmp": (at(f"{ONE}/volumeMounts/1/mountPath", "/temp"), "Ray writes to /tmp"),
    "two volumes of one name": (at(f"{POD}/volumes/1/name", "cache"), "two volumes have one name"),
    "two in one place": (at(f"{ONE}/volumeMounts/3/mountPath", TMP), "two volumes in one place"),
    "two containers of one name": (
        at(f"{POD}/initContainers/0/name", "ray-worker"),
        "two containers have one name",
    ),
    "model nowhere": (
        served(lambda c: c["applications"][0]["args"]["model"].update(id="/models/other")),
        "does not mount",
    ),
    "model that can be written": (
        at(f"{ONE}/volumeMounts/4/readOnly", False),
        "mount it readOnly",
    ),
    "keys nowhere": (
        served(lambda c: c["applications"][0]["args"]["access"].update(keys_file="/etc/x/k.yaml")),
        "keys_file",
    ),
    "account that is not there": (at(f"{POD}/serviceAccountName", "x"), "ServiceAccount/x"),
    "class that is not there": (at(f"{POD}/priorityClassName", "x"), "PriorityClass/x"),
    "claim that is not there": (
        lambda made: pod(made)["volumes"].append(
            {"name": "x", "persistentVolumeClaim": {"claimName": "x"}}
        ),
        "PersistentVolumeClaim/x",
    ),
    "spread over others": (
        at(f"{POD}/topologySpreadConstraints/0/labelSelector/matchLabels/ray.io~group", "gpu"),
        "spreads by the pods",
    ),
    "budget of no group": (
        at("spec/selector/matchLabels", {"ray.io/group": "x"}, BUDGET),
        "no group x",
    ),
    "budget that blocks": (at("spec/minAvailable", 2, BUDGET), "no machine could be drained"),
    "parts of a core": (at(f"{ONE}/resources/requests/cpu", "3500m"), "asks for another number"),
    "nothing asked for": (at(f"{ONE}/resources", "del"), "asks for another number"),
    "spread over all pods": (
        at(f"{POD}/topologySpreadConstraints/0/labelSelector", "del"),
        "spreads by the pods of group None",
    ),
    "an ingress to a bucket": (
        at("spec/rules/0/http/paths/0/backend", {"resource": {"kind": "B", "name": "b"}}, INGRESS),
        "leads to None",
    ),
    "two namespaces": (at("metadata/namespace", "other", INGRESS), "different namespaces"),
    "one object twice": (lambda made: made.append(copy.deepcopy(the(made, INGRESS))), "twice"),
}


@pytest.mark.parametrize(("mutate", "said"), MEETING.values(), ids=MEETING)
def test_what_does_not_meet_is_found(mutate: Mutation, said: str) -> None:
    made = copy.deepcopy(everything())
    mutate(made)
    found = service.mismatches(made)
    assert any(said in one for one in found), found


def test_what_kubernetes_lets_one_leave_out_is_no_mistake() -> None:
    made = copy.deepcopy(everything())
    at(f"{ONE}/resources/requests/cpu", "4000m")(made)
    at("spec/rules", [{"host": "classify.example.com"}], INGRESS)(made)
    assert service.mismatches(made) == []


def test_a_file_that_is_no_yaml_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("kind: [\n")
    answer = CliRunner().invoke(check_k8s.app, [str(tmp_path / "broken.yaml")])
    assert answer.exit_code == 1
    assert "broken.yaml: while parsing" in " ".join(answer.output.split())
    assert not isinstance(answer.exception, yaml.YAMLError)


def test_everything_meets_before_a_mistake_is_made() -> None:
    assert service.mismatches(everything()) == []
    assert policies.breaches(everything()) == []


SAFE = f"{ONE}/securityContext"
JOB = {"template": {"spec": {"containers": [{"name": "x", "image": "busybox:1.37"}]}}}
POLICIES: dict[str, tuple[Mutation, str]] = {
    "latest": (
        at(f"{ONE}/image", "registry.example.com/rayclassify:latest"),
        "another one tomorrow",
    ),
    "no tag": (at(f"{ONE}/image", "registry.example.com:5000/rayclassify"), "another one tomorrow"),
    "no tag of an init container": (
        at(f"{POD}/initContainers/0/image", "busybox"),
        "another one tomorrow",
    ),
    "no limit of memory": (at(f"{ONE}/resources/limits", {}), "no limit of memory"),
    "memory overbooked": (at(f"{ONE}/resources/requests/memory", "1Gi"), "another limit of memory"),
    "no CPU asked for": (at(f"{ONE}/resources/requests/cpu", "del"), "asks for no CPU"),
    "GPUs overbooked": (
        lambda made: container(made, "gpu")["resources"]["requests"].update({"nvidia.com/gpu": 2}),
        "must be equal",
    ),
    "privileged": (at(f"{SAFE}/privileged", True), "is privileged"),
    "escalation": (at(f"{SAFE}/allowPrivilegeEscalation", "del"), "may escalate"),
    "capabilities": (at(f"{SAFE}/capabilities", {"drop": ["ALL"], "add": ["SYS_PTRACE"]}), "keeps"),
    "root can be written": (at(f"{SAFE}/readOnlyRootFilesystem", False), "may write to its root"),
    "root": (at(f"{POD}/securityContext/runAsNonRoot", False), "may run as root"),
    "user 0": (at(f"{POD}/securityContext/runAsUser", 0), "may run as root"),
    "user 0 of a container": (at(f"{SAFE}/runAsUser", 0), "runs as root"),
    "no seccomp": (at(f"{POD}/securityContext/seccompProfile", "del"), "seccompProfile"),
    "no seccomp of a container": (
        at(f"{SAFE}/seccompProfile", {"type": "Unconfined"}),
        "another seccompProfile",
    ),
    "the machine's files": (
        lambda made: pod(made)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        "is a hostPath",
    ),
    "the machine's network": (at(f"{POD}/hostNetwork", True), "hostNetwork"),
    "the machine's processes": (at(f"{POD}/hostPID", True), "hostPID"),
    "the machine's port": (at(f"{ONE}/ports/0/hostPort", 80), "port 80 of the machine"),
    "disk without an end": (at(f"{POD}/volumes/1/emptyDir", {}), "no sizeLimit"),
    "rights of an account": (at(f"{POD}/automountServiceAccountToken", True), "ask the API server"),
    "the default account": (at(f"{POD}/serviceAccountName", "del"), "ask the API server"),
    "an account of the head": (
        at(f"{HEAD}/template/spec/serviceAccountName", "x"),
        "KubeRay must make",
    ),
    "no priority": (at(f"{POD}/priorityClassName", "del"), "no priorityClassName"),
    "Services as variables": (at(f"{POD}/enableServiceLinks", "del"), "RAY_PORT"),
    "a password in the open": (
        at(
            "spec/template/spec/containers/0/env/0", {"name": "REDIS_PASSWORD", "value": "x"}, REDIS
        ),
        "in the open",
    ),
    "a token handed out": (
        at("automountServiceAccountToken", True, "ServiceAccount/rayclassify-worker"),
        "hands out its token",
    ),
    "a role": (
        lambda made: made.append({"kind": "ClusterRoleBinding", "metadata": {"name": "x"}}),
        "gives rights",
    ),
    "a secret in a file": (
        lambda made: made.append({"kind": "Secret", "metadata": {"name": "x"}}),
        "stands in a file",
    ),
    "a load balancer": (at("spec/type", "LoadBalancer", "Service/redis"), "without TLS"),
    "ingress without TLS": (at("spec/tls", [], INGRESS), "has no TLS"),
    "gateway without TLS": (at("spec/listeners/0/protocol", "HTTP", GATEWAY), "has no TLS"),
    "budget in percent": (at("spec/minAvailable", "50%", BUDGET), "as a number"),
    "pods that may be root": (at("metadata/labels", {}, "Namespace/rayclassify"), "restricted"),
    "no network policy": (
        lambda made: made.remove(the(made, POLICY)),
        "none is for Ray's pods",
    ),
    "the dashboard open to all": (at("spec/ingress/2/from", "del", POLICY), "8265"),
    "a job as root": (
        lambda made: made.append({"kind": "Job", "metadata": {"name": "x"}, "spec": JOB}),
        "Job/x: may run as root",
    ),
    "a cron job as root": (
        lambda made: made.append(
            {"kind": "CronJob", "metadata": {"name": "x"}, "spec": {"jobTemplate": {"spec": JOB}}}
        ),
        "CronJob/x: may run as root",
    ),
    "everything open to all": (
        lambda made: the(made, POLICY)["spec"]["ingress"].append({}),
        "every",
    ),
}


@pytest.mark.parametrize(("mutate", "said"), POLICIES.values(), ids=POLICIES)
def test_a_broken_policy_is_found(mutate: Mutation, said: str) -> None:
    made = copy.deepcopy(everything())
    mutate(made)
    found = policies.breaches(made)
    assert any(said in one for one in found), found
