"""The chosen setup, written into a copy of the user's own YAML, comments and all."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from deployments.settings import PARTS
from deployments.tuning.choice import Setup
from deployments.user_config import ClassifierUserConfig


def tuned(text: str, app_name: str, setup: Setup, target_p99_ms: float | None, n_cpus: int) -> str:
    """The config `text` with the setup in the place of what it said about engine and replicas.

    app_name: which of its applications. n_cpus: of the machine, which Ray shares out; a replica's
    num_cpus is what it runs threads on, less where the other deployments would find no room.
    """
    yaml, config, app = _loaded(text, app_name)
    engine = _mapping(_mapping(app, "args"), "engine")
    engine["name"] = "torch"
    engine["dtype"] = setup.dtype
    engine["num_threads"] = setup.num_threads
    classifier = next(d for d in app["deployments"] if d["name"] == "Classifier")
    _set_replicas(classifier, setup.replicas)
    others = sum(map(_most_cpus, (d for d in app["deployments"] if d is not classifier)))
    room = (n_cpus - others) / setup.replicas
    num_cpus = setup.num_threads if room >= setup.num_threads else max(0.1, int(room * 10) / 10)
    _mapping(classifier, "ray_actor_options")["num_cpus"] = num_cpus
    classifier["max_surge_percent"] = 0  # no room for new replicas beside the old ones
    live = _mapping(classifier, "user_config")
    live["max_batch_tokens"] = setup.max_batch_tokens
    queue = live.get("max_queue_tokens", ClassifierUserConfig().max_queue_tokens)
    if queue < 4 * setup.max_batch_tokens:
        live["max_queue_tokens"] = 4 * setup.max_batch_tokens
    if target_p99_ms is not None:
        live["target_p99_ms"] = target_p99_ms
    return _written(yaml, config)


def with_cascade(text: str, app_name: str, small: str, large: str, threshold: float) -> str:
    """The config `text` with `large` as its model, and `small` to answer first. The deployment of
    the small one is as its Classifier."""
    yaml, config, app = _loaded(text, app_name)
    args = _mapping(app, "args")
    model = _mapping(args, "model")
    if model.get("id") != large:
        model["id"] = large
        for pinned in ("revision", "fingerprint"):
            model.pop(pinned, None)
    args["cascade"] = {"model": {"id": small}, "threshold": threshold}
    deployments = app["deployments"]
    for i in reversed(range(len(deployments))):  # in place: comments hang on the list
        if deployments[i]["name"] == PARTS["cascade"]:
            del deployments[i]
    place = next(i for i, one in enumerate(deployments) if one["name"] == "Classifier")
    first = _plain(deployments[place]) | {"name": PARTS["cascade"]}
    policy = (first.get("autoscaling_config") or {}).get("policy") or {}
    # What waits at the ingress waits for the other Classifier.
    (policy.get("policy_kwargs") or {}).pop("fed_by", None)
    deployments.insert(place + 1, first)
    return _written(yaml, config)


def _loaded(text: str, app_name: str) -> tuple[YAML, Any, Any]:
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 10_000  # no line is broken that was none
    yaml.indent(mapping=2, sequence=4, offset=2)
    config = yaml.load(text)
    app = next(app for app in config["applications"] if app.get("name", "default") == app_name)
    return yaml, config, app


def _written(yaml: YAML, config: Any) -> str:
    out = io.StringIO()
    yaml.dump(config, out)
    return out.getvalue()


def _plain(node: Any) -> Any:
    """Without the comments."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    return [_plain(one) for one in node] if isinstance(node, list) else node


class _Representer(RoundTripRepresenter):
    """Writes null as the word, not as nothing."""


_Representer.add_representer(
    type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
)


def _set_replicas(classifier: Any, replicas: int) -> None:
    autoscaling = classifier.get("autoscaling_config")
    if autoscaling is None:
        classifier["num_replicas"] = replicas
        return
    autoscaling.pop("initial_replicas", None)
    for key in ("min_replicas", "max_replicas"):
        autoscaling[key] = replicas


def _most_cpus(deployment: Any) -> float:
    """What Ray reserves for a deployment when it has all its replicas."""
    options = deployment.get("ray_actor_options") or {}
    autoscaling = deployment.get("autoscaling_config") or {}
    replicas = autoscaling.get("max_replicas") or deployment.get("num_replicas") or 1
    return float(options.get("num_cpus", 1.0)) * int(replicas)


def _mapping(parent: Any, key: str) -> Any:
    if parent.get(key) is None:
        parent[key] = {}
    return parent[key]
