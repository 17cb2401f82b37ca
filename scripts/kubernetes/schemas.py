"""Fields, as the API server would read them: unknown ones refused, wrong types too.

Kubernetes' own kinds come with the package kubernetes-validate, KubeRay's with its CRDs. Of the few
kinds of Gateway API and of Prometheus' operator, only the fields that k8s/ has stand here.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jsonschema
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from referencing import Registry, Resource

from scripts.kubernetes.overlays import Document, name_of
from scripts.kubernetes.targets import ROOT

CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay"))
OLDEST, NEWEST = "1.30", "1.37"
"""Kubernetes' versions against which the manifests are checked."""
Schema = dict[str, Any]


class NoSchema(LookupError):
    """There is no schema for a kind here; the message says how to get it."""


def complaints(document: Document) -> list[str]:
    """What the API server would refuse or drop.

    Raises: NoSchema.
    """
    api, kind = str(document.get("apiVersion")), str(document.get("kind"))
    if api.startswith("ray.io/"):
        found = custom_resource(document, crd(kind))
    elif model := SHAPES.get((api, kind)):
        found = shape(document, model)
    else:
        found = [one for version in (OLDEST, NEWEST) for one in core(document, version)]
    return [f"{name_of(document)}: {one}" for one in dict.fromkeys(found)]


# Kubernetes' own


@cache
def _definitions(version: str) -> tuple[Path, Any]:
    """The folder of a version's strict schemas, and a registry with what they refer to."""
    folder = Path(str(importlib.resources.files("kubernetes_validate")))
    folder = folder / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    text = (folder / "_definitions.json").read_text(encoding="utf-8")
    resource: Any = Resource.from_contents(json.loads(text))
    return folder, Registry().with_resource("_definitions.json", resource)


@cache
def _core_validator(api: str, kind: str, version: str) -> Any:
    folder, registry = _definitions(version)
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)  # networking.k8s.io/v1: networking-v1
    file = folder / f"{kind.lower()}-{group}.json"
    if not file.exists():
        raise NoSchema(f"Kubernetes {version} has no {kind} of {api}.")
    schema = json.loads(file.read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema, registry=registry)


def core(document: Document, version: str) -> list[str]:
    """A document of Kubernetes' own kinds, against one of its versions."""
    validator = _core_validator(str(document["apiVersion"]), str(document["kind"]), version)
    return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)]


# KubeRay's


@cache
def crd(kind: str) -> Schema:
    """The schema of a kind of ray.io/v1.

    Raises: NoSchema.
    """
    file = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not file.exists():
        raise NoSchema(
            f"no {file.name} in {CRDS}: `helm pull kuberay-operator --untar` from KubeRay's chart "
            "repository, then set KUBERAY_CRDS to kuberay-operator/crds"
        )
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loaded = yaml.load(file.read_text(encoding="utf-8"), loader)  # noqa: S506
    (version,) = [v for v in loaded["spec"]["versions"] if v["name"] == "v1"]
    return dict(version["schema"]["openAPIV3Schema"])


def json_schema(node: Schema) -> Schema:
    """Kubernetes' dialect of OpenAPI as JSON Schema."""
    made = {k: v for k, v in node.items() if not k.startswith("x-kubernetes-") and k != "nullable"}
    if "properties" in made:
        made["properties"] = {k: json_schema(v) for k, v in made["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = json_schema(made[key])
    if node.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return {"anyOf": [made, {"type": "null"}]} if node.get("nullable") else made


def unknown_fields(value: Any, node: Schema, path: str = "") -> Iterator[str]:
    """Paths of fields that the API server would drop, and of items that repeat a list's key."""
    if isinstance(value, list):
        keys = node.get("x-kubernetes-list-map-keys", [])
        seen = [tuple(item.get(k) for k in keys) for item in value] if keys else []
        yield from (f"{path}[{i}] repeated" for i, key in enumerate(seen) if key in seen[:i])
        for index, item in enumerate(value):
            yield from unknown_fields(item, node.get("items", {}), f"{path}[{index}]")
    elif isinstance(value, dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        known, other = node.get("properties", {}), node.get("additionalProperties")
        for key, item in value.items():
            inner = known.get(key, other)
            if isinstance(inner, dict):
                yield from unknown_fields(item, inner, f"{path}.{key}")
            elif inner is not True:
                yield f"{path}.{key}"


@cache
def _crd_validator(kind: str) -> Any:
    return jsonschema.Draft202012Validator(json_schema(crd(kind)))


def custom_resource(document: Document, schema: Schema) -> list[str]:
    """A custom resource against its CRD's schema."""
    spec = {k: v for k, v in document.items() if k not in ("apiVersion", "kind", "metadata")}
    errors = _crd_validator(str(document["kind"])).iter_errors(document)
    wrong = [f"{e.json_path}: {e.message}" for e in errors]
    unknown = [f"{path}: unknown field, or repeated" for path in unknown_fields(spec, schema)]
    return wrong + unknown


# Gateway API v1, Prometheus' operator v1, Karpenter v1: the fields that k8s/ has, as their CRDs do.


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Metadata(_Strict):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Object(_Strict):
    apiVersion: str
    kind: str
    metadata: _Metadata


Port = Field(ge=1, le=65535)
Duration = Field(pattern=r"^([0-9]{1,5}(h|m|s|ms)){1,4}$")


class _Certificate(_Strict):
    name: str


class _Tls(_Strict):
    mode: Literal["Terminate"]
    certificateRefs: list[_Certificate] = Field(min_length=1)


class _Namespaces(_Strict):
    from_: Literal["All", "Same", "Selector"] = Field(alias="from")


class _AllowedRoutes(_Strict):
    namespaces: _Namespaces


class _Listener(_Strict):
    name: str
    protocol: Literal["HTTP", "HTTPS"]
    port: int = Port
    hostname: str
    tls: _Tls | None = None
    allowedRoutes: _AllowedRoutes


class _GatewaySpec(_Strict):
    gatewayClassName: str
    listeners: list[_Listener] = Field(min_length=1)


class _Gateway(_Object):
    spec: _GatewaySpec


class _Parent(_Strict):
    name: str
    sectionName: str | None = None


class _Path(_Strict):
    type: Literal["Exact", "PathPrefix", "RegularExpression"]
    value: str


class _Match(_Strict):
    path: _Path


class _Timeouts(_Strict):
    request: str = Duration


class _Backend(_Strict):
    name: str
    port: int = Port


class _Rule(_Strict):
    matches: list[_Match]
    timeouts: _Timeouts
    backendRefs: list[_Backend]


class _RouteSpec(_Strict):
    parentRefs: list[_Parent]
    hostnames: list[str]
    rules: list[_Rule]


class _Route(_Object):
    spec: _RouteSpec


class _Selector(_Strict):
    matchLabels: dict[str, str]


class _Relabeling(_Strict):
    sourceLabels: list[str]
    targetLabel: str


class _Endpoint(_Strict):
    port: str
    interval: str = Duration
    relabelings: list[_Relabeling] = []


class _PodMonitorSpec(_Strict):
    selector: _Selector
    podMetricsEndpoints: list[_Endpoint]


class _PodMonitor(_Object):
    spec: _PodMonitorSpec


class _PrometheusRuleOne(_Strict):
    record: str | None = None
    alert: str | None = None
    expr: str
    for_: str | None = Field(None, alias="for")
    keep_firing_for: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _RuleGroup(_Strict):
    name: str
    interval: str | None = None
    rules: list[_PrometheusRuleOne]


class _RuleSpec(_Strict):
    groups: list[_RuleGroup]


class _PrometheusRule(_Object):
    spec: _RuleSpec


class _NodeClass(_Strict):
    group: str
    kind: str
    name: str


class _Requirement(_Strict):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str]


class _Taint(_Strict):
    key: str
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class _NodeSpec(_Strict):
    nodeClassRef: _NodeClass
    requirements: list[_Requirement]
    taints: list[_Taint]


class _NodeTemplate(_Strict):
    spec: _NodeSpec


class _Disruption(_Strict):
    consolidationPolicy: Literal["WhenEmpty", "WhenEmptyOrUnderutilized"]
    consolidateAfter: str = Duration


class _NodePoolSpec(_Strict):
    template: _NodeTemplate
    limits: dict[str, int]
    disruption: _Disruption


class _NodePool(_Object):
    spec: _NodePoolSpec


SHAPES: dict[tuple[str, str], type[BaseModel]] = {
    ("gateway.networking.k8s.io/v1", "Gateway"): _Gateway,
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): _Route,
    ("karpenter.sh/v1", "NodePool"): _NodePool,
    ("monitoring.coreos.com/v1", "PodMonitor"): _PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): _PrometheusRule,
}


def shape(document: Document, model: type[BaseModel]) -> list[str]:
    """A document against the few fields that are known here."""
    try:
        model.model_validate(document)
    except ValidationError as error:
        return [
            f"$.{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
            for one in error.errors()
        ]
    return []
