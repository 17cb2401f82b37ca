"""The RayService of k8s/overlays/gpu against KubeRay's own schema, as the API server would read it.

The API server rejects wrong types and silently drops fields that it does not know, so a misspelt
field changes nothing and says nothing: both are looked for here.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from scripts.kubernetes.schemas import NoSchema, crd, custom_resource, json_schema, unknown_fields

ROOT = Path(__file__).parents[2]
RAY_SERVICE = yaml.safe_load((ROOT / "k8s/overlays/gpu/rayservice.yaml").read_text())


def complaints(service: dict[str, Any]) -> list[str]:
    """Everything that the API server would refuse or drop."""
    try:
        return custom_resource(service, crd("RayService"))
    except NoSchema as error:
        pytest.skip(str(error))


def broken(path: str, value: Any) -> dict[str, Any]:
    service = copy.deepcopy(RAY_SERVICE)
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    inside = service["spec"]
    for key in parents:
        inside = inside[key]
    inside[last] = value
    return service


def test_kuberay_takes_every_field() -> None:
    assert complaints(RAY_SERVICE) == []
    assert (RAY_SERVICE["apiVersion"], RAY_SERVICE["kind"]) == ("ray.io/v1", "RayService")
    assert RAY_SERVICE["metadata"].keys() <= {"name", "namespace", "labels", "annotations"}


WORKER = "rayClusterConfig.workerGroupSpecs.0"
POD = f"{WORKER}.template.spec"
CONTAINER = f"{POD}.containers.0"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        # dropped without a word
        ("serveConfigV3", "", ".spec.serveConfigV3"),
        ("rayClusterConfig.enableInTreeAutoscalling", True, ".enableInTreeAutoscalling"),
        ("rayClusterConfig.autoscalerOptions.idleTimeoutSecond", 1, ".idleTimeoutSecond"),
        (f"{WORKER}.maxReplica", 1, ".workerGroupSpecs[0].maxReplica"),
        (f"{POD}.toleration", [], ".template.spec.toleration"),
        (f"{CONTAINER}.volumeMount", [], ".containers[0].volumeMount"),
        (f"{CONTAINER}.env", [{"name": "A", "valeu": "1"}], ".env[0].valeu"),
        (f"{CONTAINER}.resources.limit", {}, ".resources.limit"),
        (f"{CONTAINER}.lifecycle", {"prestop": {}}, ".lifecycle.prestop"),
        # refused
        (f"{WORKER}.maxReplicas", "four", "'four' is not of type 'integer'"),
        (f"{WORKER}.rayStartParams", {"num-cpus": 4}, "4 is not of type 'string'"),
        (f"{CONTAINER}.env", [{"name": "A", "value": 1}], "1 is not of type 'string'"),
        (f"{CONTAINER}.resources.limits", {"memory": "8 GB"}, "'8 GB' does not match"),
        (f"{CONTAINER}.resources.limits", {"memory": 1.5}, "1.5 is not"),
        (f"{CONTAINER}.ports", [{"name": "x"}], "'containerPort' is a required property"),
        ("rayClusterConfig.autoscalerOptions.version", "v3", "'v3' is not one of"),
        ("rayClusterConfig.authOptions.mode", "tokens", "'tokens' is not one of"),
        (f"{CONTAINER}.ports", [{"containerPort": 1, "protocol": "TCP"}] * 2, "[1] repeated"),
    ],
)
def test_the_test_finds_what_is_broken(path: str, value: Any, complaint: str) -> None:
    found = complaints(broken(path, value))
    assert any(complaint in c for c in found), found


def test_int_or_string_and_nullable_and_free_fields_are_understood() -> None:
    node = {
        "properties": {
            "port": {"x-kubernetes-int-or-string": True, "type": "string"},
            "when": {"type": "string", "nullable": True},
            "free": {"x-kubernetes-preserve-unknown-fields": True, "type": "object"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "type": "object",
    }
    good = {"port": 80, "when": None, "free": {"any": {"thing": 1}}, "labels": {"any": "x"}}
    jsonschema.validate(good, json_schema(node))
    assert list(unknown_fields(good, node)) == []
    assert list(unknown_fields({"prt": 80}, node)) == [".prt"]
    for bad in ({"port": 1.5}, {"when": 1}, {"labels": {"any": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, json_schema(node))
