"""The RayServices of k8s/overlays: what the script renders, and what their pods must have."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from deployments.config.capacity import whole
from deployments.config.check import check_config, load_config
from deployments.config.keys import SERVICER
from deployments.settings import Settings
from scripts import render_k8s
from scripts.kubernetes import rayservice
from scripts.kubernetes.targets import GPU, TARGETS, Target

ROOT = Path(__file__).parents[2]

FILE = ROOT / "k8s/overlays/gpu/rayservice.yaml"
CONFIG = load_config(ROOT / "serve_config.gpu.yaml")
SERVICE = yaml.safe_load(FILE.read_text())
SPEC = SERVICE["spec"]
CLUSTER = SPEC["rayClusterConfig"]
HEAD = CLUSTER["headGroupSpec"]
GROUPS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
PODS = [HEAD["template"]["spec"], *(g["template"]["spec"] for g in GROUPS.values())]
SERVED = yaml.safe_load(SPEC["serveConfigV2"])


def quantity(text: str | int) -> float:
    """A Kubernetes quantity as a number: `500m` is 0.5, `1Ki` is 1,024."""
    from ray.autoscaler._private.kuberay.utils import parse_quantity

    return float(parse_quantity(text))


def ray_container(pod: dict[str, Any]) -> dict[str, Any]:
    return dict(pod["containers"][0])  # KubeRay takes the first one


# What was rendered


def test_the_files_on_disk_are_what_the_script_renders() -> None:
    assert CliRunner().invoke(render_k8s.app, ["--check"]).exit_code == 0


def test_each_target_needs_the_pods_that_its_file_has() -> None:
    counted = {}
    for name, target in TARGETS.items():
        cluster = yaml.safe_load(target.output.read_text())["spec"]["rayClusterConfig"]
        counted[name] = {
            one["groupName"]: (one["minReplicas"], one["maxReplicas"], one["idleTimeoutSeconds"])
            for one in cluster["workerGroupSpecs"]
        }
    assert counted == {
        "gpu": {"cpu": (2, 4, 120), "gpu": (1, 5, 600)},
        "cpu": {"cpu": (2, 5, 300)},
        "local": {"cpu": (1, 3, 60)},
    }


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_each_target_serves_what_its_config_says(target: Target) -> None:
    served = yaml.safe_load(yaml.safe_load(target.output.read_text())["spec"]["serveConfigV2"])
    assert [str(p) for p in check_config(served)] == []
    for ours, theirs in zip(
        served["applications"][0]["deployments"],
        target.config()["applications"][0]["deployments"],
        strict=True,
    ):
        options = ours.pop("ray_actor_options")
        selector = options.pop("label_selector", None)
        assert options == theirs.pop("ray_actor_options")
        assert (selector is None) == bool(options.get("num_gpus"))
        assert ours == theirs


def test_without_gpus_the_classifier_takes_cores_and_batches_as_on_one_machine() -> None:
    there = {d["name"]: d for d in TARGETS["cpu"].config()["applications"][0]["deployments"]}
    assert there["Classifier"]["ray_actor_options"] == {"num_cpus": 4.0}
    laptop = load_config(ROOT / "serve_config.yaml")["applications"][0]["deployments"]
    assert there["Classifier"]["user_config"] == laptop[1]["user_config"]
    gpu = {d["name"]: d for d in CONFIG["applications"][0]["deployments"]}
    assert {n: d for n, d in there.items() if n != "Classifier"} == {
        n: d for n, d in gpu.items() if n != "Classifier"
    }


def test_a_model_of_the_pods_is_named_and_checked_nowhere_here() -> None:
    text = rayservice.render(CONFIG, "image", "name", model_dir="/models/current")
    served = yaml.safe_load(yaml.safe_load(text)["spec"]["serveConfigV2"])
    assert served["applications"][0]["args"]["model"] == {"id": "/models/current"}


@pytest.mark.parametrize("options", [["--target", "tpu"], ["--config", "x.yaml"]])
def test_options_that_do_not_fit_are_refused(options: list[str]) -> None:
    assert CliRunner().invoke(render_k8s.app, options).exit_code == 2


def test_a_stale_file_fails_the_check_with_a_diff(tmp_path: Path) -> None:
    stale = tmp_path / "rayservice.yaml"
    stale.write_text(FILE.read_text().replace("maxReplicas: 5", "maxReplicas: 6"))
    result = CliRunner().invoke(
        render_k8s.app, ["--check", "--target", "gpu", "--output", str(stale)]
    )
    assert result.exit_code == 1
    assert "-        maxReplicas: 6" in result.output
    assert "+        maxReplicas: 5" in result.output


def test_serve_config_is_the_gpu_config_but_for_three_differences() -> None:
    served = copy.deepcopy(SERVED)
    for deployment in served["applications"][0]["deployments"]:
        deployment["ray_actor_options"].pop("label_selector", None)
    expected = copy.deepcopy(CONFIG)
    del expected["controller_options"]
    router_loop = served["applications"][0].pop("runtime_env")
    assert router_loop == {"env_vars": {"RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0"}}
    assert served == expected


def test_a_secret_with_keys_reaches_the_pods_that_ask_for_them() -> None:
    text = rayservice.render(CONFIG, "image", "name", keys_secret="our-keys")
    spec = yaml.safe_load(text)["spec"]
    served = yaml.safe_load(spec["serveConfigV2"])
    path = Path(served["applications"][0]["args"]["access"]["keys_file"])
    assert [str(p) for p in check_config(served)] == []
    cluster = spec["rayClusterConfig"]
    pods = {g["groupName"]: g["template"]["spec"] for g in cluster["workerGroupSpecs"]}
    pods["head"] = cluster["headGroupSpec"]["template"]["spec"]
    for group, pod in pods.items():
        mounts = {m["name"]: m for m in ray_container(pod)["volumeMounts"]}
        volumes = {v["name"]: v for v in pod["volumes"]}
        assert set(mounts) == set(volumes)
        assert ("keys" in volumes) == (group == "cpu")
    (mount,) = [m for m in ray_container(pods["cpu"])["volumeMounts"] if m["name"] == "keys"]
    assert (mount["mountPath"], mount["readOnly"]) == (str(path.parent), True)
    assert "subPath" not in mount
    assert {"name": "keys", "secret": {"secretName": "our-keys"}} in pods["cpu"]["volumes"]


def test_only_the_door_is_open_to_others() -> None:
    """k8s/base/networkpolicy.yaml names the ports that the pods have, and leaves out the rest."""
    policy = yaml.safe_load((ROOT / "k8s/base/networkpolicy.yaml").read_text())
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    ports = {
        port["name"]: port["containerPort"]
        for pod in PODS
        for port in ray_container(pod).get("ports", [])
    }
    among_us, *others = policy["spec"]["ingress"]
    assert "ports" not in among_us
    assert among_us["from"] == [{"podSelector": policy["spec"]["podSelector"]}]
    opened = {rule["ports"][0]["port"]: rule.get("from") for rule in others}
    assert all(len(rule["ports"]) == 1 for rule in others)
    assert set(opened) == {ports["serve"], ports["metrics"], ports["dashboard"]}
    assert opened[ports["serve"]] is None
    assert opened[ports["dashboard"]]
    assert opened[ports["metrics"]]


def test_the_ingress_leads_to_the_service_that_kuberay_makes() -> None:
    ingress = yaml.safe_load((ROOT / "k8s/components/ingress/ingress.yaml").read_text())
    (rule,) = ingress["spec"]["rules"]
    (tls,) = ingress["spec"]["tls"]
    assert tls["hosts"] == [rule["host"]]
    (path,) = rule["http"]["paths"]
    name = SERVICE["metadata"]["name"]
    port = {"number": CONFIG["http_options"]["port"]}
    assert path["backend"] == {"service": {"name": f"{name}-serve-svc", "port": port}}


def test_serve_config_has_no_problem() -> None:
    assert [str(p) for p in check_config(SERVED)] == []


def test_the_options_reach_the_file() -> None:
    text = rayservice.render(CONFIG, "registry/other:1", "other-name", "a-namespace")
    service = yaml.safe_load(text)
    assert service["metadata"]["name"] == "other-name"
    assert service["metadata"]["namespace"] == "a-namespace"
    assert text.count("image: registry/other:1\n") == 3


@pytest.mark.parametrize("name", ["x" * 48, "Upper", "1st", "under_score", "end-", ""])
def test_names_that_kubernetes_refuses_are_refused(name: str) -> None:
    with pytest.raises(rayservice.RenderError, match="up to 47"):
        rayservice.render(CONFIG, "image", name)


def test_names_of_47_characters_pass() -> None:
    assert "x" * 47 in rayservice.render(CONFIG, "image", "x" * 47)
    assert len(SERVICE["metadata"]["name"]) <= 47


def test_a_config_with_problems_is_not_rendered() -> None:
    config = copy.deepcopy(CONFIG)
    config["http_options"]["prt"] = 1
    with pytest.raises(rayservice.RenderError, match="did you mean port"):
        rayservice.render(config, "image", "name")


def test_a_replica_larger_than_its_pod_is_refused() -> None:
    config = copy.deepcopy(CONFIG)
    config["applications"][0]["deployments"][1]["ray_actor_options"]["num_cpus"] = 8
    with pytest.raises(rayservice.RenderError, match="takes 8 CPUs and 1 GPUs; a gpu pod has 4"):
        rayservice.render(config, "image", "name")


def test_half_a_gpu_each_needs_half_the_pods() -> None:
    deployments = copy.deepcopy(CONFIG["applications"][0]["deployments"])
    (group,) = [one for one in GPU.groups if one.name == "gpu"]
    assert rayservice.workers(deployments, group) == (1, 5)
    deployments[1]["ray_actor_options"]["num_gpus"] = 0.5
    assert rayservice.workers(deployments, group) == (1, 3)


# Pods are alike


def test_the_head_runs_no_replica_and_takes_no_requests() -> None:
    assert HEAD["rayStartParams"]["num-cpus"] == "0"
    assert HEAD["rayStartParams"]["dashboard-host"] == "0.0.0.0"  # noqa: S104
    assert SPEC["excludeHeadPodFromServeSvc"] is True


def test_every_pod_has_serves_flags_and_the_same_image() -> None:
    flags = CONFIG["controller_options"]["runtime_env"]["env_vars"]
    assert flags["RAY_SERVE_ENABLE_HA_PROXY"] == flags["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    for pod in PODS:
        container = ray_container(pod)
        # Without the last, handles in Ray jobs on these pods work in event loops only.
        assert {e["name"]: e["value"] for e in container["env"]} == {
            **flags,
            "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
            **rayservice.LOGS_TO_STDOUT,
            **rayservice.WRITES_ELSEWHERE,
            # Of workers; what runs on the head can go nowhere else.
            **({} if pod is PODS[0] else {rayservice.DRAIN: "180"}),
        }
        assert container["image"] == ray_container(PODS[0])["image"]


def test_memory_is_certain_and_the_object_store_fits() -> None:
    for group in (HEAD, *GROUPS.values()):
        pod = group["template"]["spec"]
        container = ray_container(pod)
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        (volume,) = [
            m["name"]
            for m in container["volumeMounts"]
            if m["mountPath"] == "/dev/shm"  # noqa: S108
        ]
        (shared,) = [v["emptyDir"] for v in pod["volumes"] if v["name"] == volume]
        assert shared["medium"] == "Memory"
        store = quantity(group["rayStartParams"]["object-store-memory"])
        assert store < quantity(shared["sizeLimit"])
        assert quantity(shared["sizeLimit"]) <= quantity(resources["limits"]["memory"]) / 4


def test_the_ports_are_named() -> None:
    port = SERVED["http_options"]["port"]
    workers = {"serve": port, "metrics": 8080}
    head = workers | {"gcs": 6379, "dashboard": 8265, "client": 10001}
    for pod, expected in zip(PODS, (head, workers, workers), strict=True):
        ports = {p["name"]: p["containerPort"] for p in ray_container(pod)["ports"]}
        assert ports == expected


def test_grpc_has_a_service_where_it_is_on() -> None:
    config = copy.deepcopy(CONFIG)
    config["grpc_options"] = {"port": 8001, "grpc_servicer_functions": [SERVICER]}
    ray_service, service = yaml.safe_load_all(rayservice.render(config, "image", "ours", "there"))
    assert yaml.safe_load(ray_service["spec"]["serveConfigV2"])["grpc_options"]["port"] == 8001
    assert (service["kind"], service["metadata"]["name"]) == ("Service", "ours-grpc-svc")
    assert service["metadata"]["namespace"] == "there"
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [8001]
    assert len(list(yaml.safe_load_all(rayservice.render(CONFIG, "image", "ours")))) == 1


def test_only_the_gpu_group_tolerates_gpu_machines() -> None:
    (toleration,) = GROUPS["gpu"]["template"]["spec"]["tolerations"]
    assert toleration == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert "tolerations" not in GROUPS["cpu"]["template"]["spec"]  # nor anything in its place


def test_pods_end_after_the_requests_that_they_took() -> None:
    """At SIGTERM Ray drains the node: Serve starts replicas elsewhere in the place of those there,
    and stops them when their graceful_shutdown_timeout_s is all that is left."""
    application = SERVED["applications"][0]
    limits = Settings.model_validate(application["args"]).limits
    request_s = limits.body_timeout_s + limits.request_timeout_s
    shutdown_s = max(whole(d)["graceful_shutdown_timeout_s"] for d in application["deployments"])
    assert shutdown_s >= request_s
    for group in GROUPS.values():
        pod = group["template"]["spec"]
        env = {one["name"]: one["value"] for one in ray_container(pod)["env"]}
        drain_s = float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert drain_s >= shutdown_s + 60  # a replica starts in less, on a pod that is there
        _, leave = ray_container(pod)["lifecycle"]["preStop"]["exec"]["command"]
        assert pod["terminationGracePeriodSeconds"] > float(leave) + drain_s
    assert SPEC["rayClusterDeletionDelaySeconds"] > request_s


def test_pods_run_without_privileges() -> None:
    for pod in PODS:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert ray_container(pod)["securityContext"]["allowPrivilegeEscalation"] is False
    assert CLUSTER["authOptions"] == {"mode": "token"}


def test_the_probes_are_left_to_kuberay_and_dead_fields_are_gone() -> None:
    text = re.sub(r"#.*", "", FILE.read_text())
    assert "Probe" not in text
    assert "UnhealthySecondThreshold" not in text


def test_a_drain_leaves_a_pod_of_each_group_and_is_never_blocked() -> None:
    """Kubernetes can count the pods of a RayCluster only against a number that is to stay."""
    budgets = [*yaml.safe_load_all((ROOT / "k8s/base/poddisruptionbudget.yaml").read_text())]
    least = {b["spec"]["selector"]["matchLabels"]["ray.io/group"]: b["spec"] for b in budgets}
    assert least.keys() == {name for name, group in GROUPS.items() if group["minReplicas"] > 1}
    for name, spec in least.items():
        assert spec.keys() == {"minAvailable", "selector"}
        assert 1 <= spec["minAvailable"] < GROUPS[name]["minReplicas"]


def test_the_readme_names_files_and_options_that_exist() -> None:
    text = (ROOT / "k8s" / "README.md").read_text()
    for path in re.findall(r"(?:k8s|scripts)/[\w./-]+\.(?:py|yaml)", text):
        assert (ROOT / path).exists(), path
    usage = CliRunner().invoke(render_k8s.app, ["--help"]).output
    for option in re.findall(r"render_k8s\.py (--\w+)", text):
        assert option in usage
    assert f"rayclassify:{rayservice.version()}" in text


def test_a_config_that_is_silent_is_rendered_as_serve_reads_it() -> None:
    """It passes the check: two Classifiers that stay two, one Tokenizer of a CPU, port 8000."""
    config = {
        "applications": [{
            "name": "classify", "route_prefix": "/", "import_path": "deployments.app:build",
            "args": {"model": {"id": "models/demo"}},
            "deployments": [
                {"name": "Tokenizer"},
                {"name": "Classifier", "num_replicas": 2, "ray_actor_options": {"num_gpus": 1.0}},
                {"name": "Postprocessor"},
            ],
        }],
    }  # fmt: skip
    made = yaml.safe_load(rayservice.render(config, "rayclassify:1", "rayclassify"))
    groups = made["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    counts = {one["groupName"]: (one["minReplicas"], one["maxReplicas"]) for one in groups}
    # Updates start as many new ones beside: max_surge_percent is 100.
    assert counts == {"cpu": (1, 1), "gpu": (2, 4)}
    served = yaml.safe_load(made["spec"]["serveConfigV2"])["applications"][0]["deployments"]
    assert served[0]["ray_actor_options"]["label_selector"] == {"pool": "cpu"}
