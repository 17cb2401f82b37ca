"""The two Serve YAMLs: the same keys, every key explained, every default said once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from deployments.app import build
from deployments.config.capacity import DEFAULTS, whole
from deployments.config.check import BUILDER, check_config, load_config
from deployments.settings import Settings
from deployments.user_config import USER_CONFIGS, ClassifierUserConfig

ROOT = Path(__file__).parents[2]
CPU_FILE = ROOT / "serve_config.yaml"
GPU_FILE = ROOT / "serve_config.gpu.yaml"
CPU = load_config(CPU_FILE)
GPU = load_config(GPU_FILE)

GPU_ONLY = {
    "applications.classify.deployments.Classifier.ray_actor_options.num_gpus",
    "applications.classify.deployments.Classifier.user_config.max_queue_tokens",
    *(f"applications.classify.deployments.{name}.max_surge_percent" for name in USER_CONFIGS),
}
"""Keys that stand in the GPU file alone."""

OTHER_ON_GPU = {
    "controller_options.runtime_env.env_vars.RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S",
    "logging_config.encoding",
    *(
        f"applications.classify.deployments.{deployment}.{key}"
        for deployment in USER_CONFIGS
        for key in (
            "autoscaling_config.min_replicas",
            "autoscaling_config.max_replicas",
            "ray_actor_options.num_cpus",
        )
    ),
    "applications.classify.deployments.Classifier.user_config.max_batch_tokens",
} - {"applications.classify.deployments.Classifier.autoscaling_config.min_replicas"}
"""Values that differ between the files, each for a reason given in the GPU file. No args."""


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Path → value of all leaves; items of a list go by their `name`."""
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        value = {item["name"]: item for item in value}
    if not isinstance(value, dict) or not value:
        return {path: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= leaves(item, f"{path}.{key}" if path else str(key))
    return found


@pytest.mark.parametrize("config", [CPU, GPU], ids=["cpu", "gpu"])
def test_both_files_pass_the_check(config: dict[str, Any]) -> None:
    assert [str(p) for p in check_config(config)] == []


def test_both_files_have_the_same_keys() -> None:
    assert leaves(GPU).keys() - leaves(CPU).keys() == GPU_ONLY
    assert leaves(CPU).keys() - leaves(GPU).keys() == set()


def test_values_differ_only_where_the_list_says_so() -> None:
    cpu, gpu = leaves(CPU), leaves(GPU)
    assert {path for path in cpu if cpu[path] != gpu[path]} == OTHER_ON_GPU


def test_the_leaves_see_every_difference() -> None:
    assert leaves({"a": [{"name": "x", "b": 1}]}) == {"a.x.name": "x", "a.x.b": 1}
    assert leaves({"a": {"b": None, "c": {}}}) == {"a.b": None, "a.c": {}}


def explained(text: str) -> Iterator[tuple[str, bool]]:
    """Each key of a YAML text, and whether its line or the one above carries a comment."""
    lines = text.splitlines()
    last_of_line: dict[int, int] = {}
    keys: list[tuple[str, int]] = []

    def walk(node: yaml.Node) -> None:
        if isinstance(node, yaml.ScalarNode):
            line = node.end_mark.line
            last_of_line[line] = max(last_of_line.get(line, 0), node.end_mark.column)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                keys.append((key.value, key.start_mark.line))
                walk(key)
                walk(value)

    document = yaml.compose(text)
    assert document is not None
    walk(document)
    for key, line in keys:
        behind = lines[line][last_of_line[line] :]
        above = lines[line - 1].strip() if line else ""
        yield key, " # " in behind or above.startswith("# ")


def unexplained(text: str) -> list[str]:
    """Keys whose first occurrence has no comment."""
    first: dict[str, bool] = {}
    for key, has_comment in explained(text):
        first.setdefault(key, has_comment)
    return [key for key, has_comment in first.items() if not has_comment]


def test_every_key_is_explained_where_it_stands_first() -> None:
    assert unexplained(CPU_FILE.read_text()) == []


def test_the_search_for_comments_finds_a_missing_one() -> None:
    text = 'a: 1  # why\n# above\nb: {c: 2, d: "x # y"}\ne: "no # comment"\nf: 1 # g\na: 2\n'
    assert unexplained(text) == ["e"]


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    return leaves(model().model_dump())


def test_values_shown_are_the_packages_defaults() -> None:
    """A file that shows another value would hide a change of the default."""
    (app,) = [a for a in CPU["applications"] if a["import_path"] == BUILDER]
    assert leaves(app["args"]).items() <= defaults(Settings).items()
    for deployment in app["deployments"]:
        shown = leaves(deployment.get("user_config", {})) if "user_config" in deployment else {}
        assert shown.items() <= defaults(USER_CONFIGS[deployment["name"]]).items()


def test_model_engine_and_replicas_stand_on_the_first_screen() -> None:
    (node,) = [
        value
        for key, value in yaml.compose(CPU_FILE.read_text()).value
        if key.value == "applications"
    ]
    assert node.start_mark.line < 10
    first_screen = "\n".join(CPU_FILE.read_text().splitlines()[:40])
    for key in ("id: models/demo", "name: auto", "min_replicas", "max_replicas", "num_cpus"):
        assert key in first_screen
    assert list(CPU)[-1] == list(GPU)[-1] == "controller_options"


def test_every_setting_says_what_it_is_for() -> None:
    models: list[type[BaseModel]] = [Settings, *USER_CONFIGS.values()]
    for model in models:
        assert model.__doc__
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                models.append(field.annotation)
            elif name != "log_level":  # the four levels say it themselves
                assert field.description, f"{model.__name__}.{name} has no description"


@pytest.mark.parametrize("config", [CPU, GPU], ids=["cpu", "gpu"])
def test_no_deployment_leaves_its_limits_to_ray(config: dict[str, Any]) -> None:
    """Ray's defaults (5 requests at a time, endless queues, updates that stop first) hurt us."""
    for deployment in map(whole, config["applications"][0]["deployments"]):
        assert deployment["max_ongoing_requests"] >= 512
        assert deployment["max_queued_requests"] > 0
        assert deployment["max_surge_percent"] > 0
        assert deployment["health_check_timeout_s"] > deployment["health_check_period_s"]


def test_serve_is_told_them_where_the_config_is_silent() -> None:
    from ray.serve._private.build_app import build_app

    demo = {"model": {"id": "models/demo"}}
    all_on = {"cascade": demo, "shadow": demo, "explain": {"enabled": True}}
    built = build_app(build(CPU["applications"][0]["args"] | all_on), name="classify")
    found = {one.name: one for one in built.deployments}
    assert found.keys() == DEFAULTS.keys()
    for name, options in DEFAULTS.items():
        told = found[name]._deployment_config.model_dump()
        told["ray_actor_options"] = found[name]._replica_config.ray_actor_options
        for option, value in options.items():
            if isinstance(value, dict):
                assert value.items() <= told[option].items(), (name, option)
            else:
                assert told[option] == value, (name, option)


def test_gpu_batches_fit_the_queue_many_times() -> None:
    for config in (CPU, GPU):
        (classifier,) = [
            d for d in config["applications"][0]["deployments"] if d["name"] == "Classifier"
        ]
        live = ClassifierUserConfig.model_validate(classifier["user_config"])
        assert live.max_queue_tokens >= 8 * live.max_batch_tokens


@pytest.mark.parametrize("config", [CPU, GPU], ids=["cpu", "gpu"])
def test_haproxy_sends_no_line_of_a_request_to_a_log(config: dict[str, Any]) -> None:
    """Its lines of requests, query and all, are of level info; Serve asks for these."""
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

    target = config["controller_options"]["runtime_env"]["env_vars"]["RAY_SERVE_HAPROXY_LOG_TARGET"]
    written = [line for line in HAPROXY_CONFIG_TEMPLATE.splitlines() if "config.log_target" in line]
    (line,) = (line.replace("{{ config.log_target }}", target) for line in written)
    assert line.split("#")[0].split() == ["log", "127.0.0.1:514", "local0", "notice"]
