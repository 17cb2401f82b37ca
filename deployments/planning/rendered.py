"""A plan as a Serve config, comments and all, and as counts of worker pods."""

from __future__ import annotations

import io
import math
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from deployments.planning.plan import Plan

BASE = """\
applications:
  - name: classify
    route_prefix: /
    import_path: deployments.app:build
    args:
      model:
        id: models/demo             # yours
    deployments:
      - name: Tokenizer
        ray_actor_options:
          num_cpus: 1.0
      - name: Classifier
        ray_actor_options:
          num_cpus: 1.0
          num_gpus: 1.0
      - name: Postprocessor
        ray_actor_options:
          num_cpus: 0.5
http_options:
  host: 0.0.0.0
  port: 8000
  request_timeout_s: 60
proxy_location: EveryNode
"""
"""What a plan is written into where no config is given; lay it over serve_config.gpu.yaml, which
has HAProxy and the throughput flags."""

_SCALING: dict[str, Any] = {
    "metrics_interval_s": 1.0,
    "look_back_period_s": 10.0,
    "upscale_delay_s": 10.0,
    "downscale_delay_s": 300.0,
}
_POLICY = "deployments.scaling.policy:FollowWork"
_QUEUED_PASSES = 32  # as serve_config.gpu.yaml has it
_SURGE_PERCENT = 25


class NotOurs(ValueError):
    """The config has no application with the three deployments."""


def replicas(plan: Plan, quiet: Plan) -> dict[str, tuple[int, int]]:
    """Deployment → fewest and most. quiet: the plan of the hours when least comes."""
    low, high = quiet.replicas, plan.replicas
    pairs = {
        "Tokenizer": (low.ingress, high.ingress),
        "Classifier": (low.classifiers, high.classifiers),
        "Postprocessor": (low.postprocessors, high.postprocessors),
    }
    return {name: (min(math.ceil(a), math.ceil(b)), math.ceil(b)) for name, (a, b) in pairs.items()}


def workers(plan: Plan, quiet: Plan) -> dict[str, dict[str, int]]:
    """Group → `replicas`, `minReplicas`, `maxReplicas` of KubeRay's workerGroupSpecs.

    Updates start new replicas beside old ones, so the most is more than the replicas alone need.
    """
    surge = 1 + _SURGE_PERCENT / 100
    cpu = quiet.cpu_nodes, plan.cpu_nodes, math.ceil(plan.cpu_nodes * surge)
    gpu = quiet.gpu_nodes, plan.gpu_nodes, _surged_gpu_nodes(plan)
    groups = {"cpu": cpu, "gpu": gpu}
    if not plan.hardware.gpus_per_node:
        groups = {"cpu": (cpu[0] + gpu[0], cpu[1] + gpu[1], cpu[2] + gpu[2])}
    return {
        name: {"replicas": now, "minReplicas": min(least, now), "maxReplicas": most}
        for name, (least, now, most) in groups.items()
    }


def _surged_gpu_nodes(plan: Plan) -> int:
    classifiers = math.ceil(plan.replicas.classifiers * (1 + _SURGE_PERCENT / 100))
    return math.ceil(classifiers / max(plan.hardware.gpus_per_node, 1))


def serve_config(plan: Plan, quiet: Plan, base: str = BASE, model_id: str | None = None) -> str:
    """`base` with the plan's replicas, resources and batch size in the place of its own.

    model_id: takes the place of the application's model.

    Raises:
        NotOurs: base has not all three deployments in one application.
    """
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 10_000  # no line is broken that was none
    yaml.indent(mapping=2, sequence=4, offset=2)
    config = yaml.load(base)
    app, found = _application(config)
    if model_id is not None:
        _mapping(_mapping(app, "args"), "model")["id"] = model_id
    for name, (least, most) in replicas(plan, quiet).items():
        deployment = found[name]
        deployment.pop("num_replicas", None)
        scaling = _mapping(deployment, "autoscaling_config")
        scaling.pop("initial_replicas", None)
        scaling.pop("target_ongoing_requests", None)
        scaling["min_replicas"], scaling["max_replicas"] = least, most
        policy = _mapping(scaling, "policy")
        policy["policy_function"] = _POLICY
        kwargs = _mapping(policy, "policy_kwargs")
        # Where they come and go; else the policy has nothing to say.
        busy = plan.target_busy[name] if least < most else plan.wish.target_busy
        kwargs["target_busy"] = busy
        kwargs.setdefault("max_wait_s", plan.wish.max_wait_s)
        if name == "Classifier":
            kwargs["fed_by"] = "Tokenizer"
        for key, value in _SCALING.items():
            scaling.setdefault(key, value)
        deployment.setdefault("max_surge_percent", _SURGE_PERCENT)
    options = _mapping(found["Classifier"], "ray_actor_options")
    if plan.hardware.gpus_per_node:
        options["num_gpus"] = 1.0
    else:
        options.pop("num_gpus", None)
        options["num_cpus"] = float(plan.hardware.cpus_per_node - 1)
    live = _mapping(found["Classifier"], "user_config")
    live["max_batch_tokens"] = plan.device.max_batch_tokens
    live["max_queue_tokens"] = max(
        _QUEUED_PASSES * plan.device.max_batch_tokens, live.get("max_queue_tokens", 0)
    )
    live["target_p99_ms"] = round(plan.wish.p99_s * 1e3, 3)
    out = io.StringIO()
    yaml.dump(config, out)
    return out.getvalue()


class _Representer(RoundTripRepresenter):
    """Writes null as the word, not as nothing."""


_Representer.add_representer(
    type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
)


def _application(config: Any) -> tuple[Any, dict[str, Any]]:
    """It, and its deployments by name."""
    for app in (config or {}).get("applications") or []:
        found = {one.get("name"): one for one in app.get("deployments") or []}
        if {"Tokenizer", "Classifier", "Postprocessor"} <= found.keys():
            return app, found
    raise NotOurs("no application has the deployments Tokenizer, Classifier and Postprocessor")


def _mapping(parent: Any, key: str) -> Any:
    if parent.get(key) is None:
        parent[key] = {}
    return parent[key]
