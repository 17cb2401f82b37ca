"""The pages of docs/ say what the code does: settings, fields, errors, layers, messages."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import socket
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from deployments.bench.dialects import DIALECTS
from deployments.cli.exit_codes import EXIT_CODES
from deployments.config.capacity import DEFAULTS
from deployments.http.dialects import DIALECTS as OTHERS
from deployments.http.dialects import dialects
from deployments.http.fields import components
from deployments.http.schemas import Prediction
from deployments.launch.ingress import choose_ingress
from deployments.launch.plan import read_plan
from deployments.launch.preflight import check_port
from deployments.pipeline import errors
from deployments.pipeline.observer import Outcome, Retry, Stage
from deployments.replica.metric_table import BY_NAME, LABELS, METRICS, Metric
from deployments.settings import DialectSettings, Settings
from deployments.user_config import USER_CONFIGS, PostprocessorUserConfig
from rayclassify_client import __version__
from scripts.render_docs import (
    METRICS_PAGE,
    QUESTIONS,
    SERVE_KEYS,
    SERVE_METRICS,
    kind,
    metrics_page,
)
from scripts.render_docs import PAGE as CONFIGURATION
from scripts.render_docs import page as configuration_page

ROOT = Path(__file__).resolve().parents[2]

HTTP, ARCHITECTURE, OPERATIONS, LOG, CLI = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("http", "architecture", "operations", "log", "cli")
)
CONFIG = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
# When to change a setting is an instruction, so the description has one.
SAYS_WHEN = re.compile(r"\b(Change|Leave|Lower|Raise|Set) ")


def section(page: str, title: str) -> str:
    """What stands under a heading."""
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(text: str) -> list[list[str]]:
    """The rows of the first table, without its head."""
    (found,) = re.findall(r"^\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)[:1]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found.splitlines()]


def settings() -> list[tuple[str, Any]]:
    models = [
        *((f"args.{name}", field.annotation) for name, field in Settings.model_fields.items()),
        *(("user_config", model) for model in USER_CONFIGS.values()),
    ]
    return [
        (f"{path}.{name}", field)
        for path, model in models
        for name, field in model.model_fields.items()
    ]


def test_the_page_of_settings_is_rendered_from_them() -> None:
    stale = "run `python scripts/render_docs.py`"
    assert CONFIGURATION.read_text(encoding="utf-8") == configuration_page(), stale


def test_the_page_of_metrics_is_rendered_from_their_table() -> None:
    stale = "run `python scripts/render_docs.py`"
    assert METRICS_PAGE.read_text(encoding="utf-8") == metrics_page(), stale


@pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])
def test_a_metric_is_named_as_prometheus_wants_it(metric: Metric) -> None:
    """https://prometheus.io/docs/practices/naming"""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(ms|s|us|kb|mb|percent)$", metric.name), "base units, written out"
    assert metric.help.endswith(".")
    assert set(metric.labels) <= set(LABELS)
    assert list(metric.bounds) == sorted(metric.bounds)
    assert bool(metric.bounds) == (metric.kind == "histogram")


def test_the_values_of_labels_are_those_that_there_are() -> None:
    def told(label: str) -> set[str]:
        return set(re.findall(r"`([a-z_]+)`", LABELS[label]))

    settings = Settings()
    spoken = dialects(settings.limits, DialectSettings(spoken=[*OTHERS]))
    assert told("dialect") == {*(one.name for one in spoken), "stream", "grpc", "handle"}
    assert told("stage") == set(get_args(Stage))
    assert told("outcome") == set(get_args(Outcome))
    assert told("cause") == set(get_args(Retry))
    assert len(BY_NAME) == len(METRICS)


def test_the_queries_of_the_page_ask_for_what_there_is() -> None:
    there = {name for metric in METRICS for name in metric.series}
    for query in (query for queries in QUESTIONS.values() for query in queries):
        asked = set(re.findall(r"\bray_\w+", query))
        assert asked
        assert asked <= there, query


def test_what_the_page_says_of_serves_metrics_serve_has() -> None:
    from ray.serve import _private

    (folder,) = _private.__path__
    source = "".join(path.read_text(encoding="utf-8") for path in Path(folder).glob("*.py"))
    for name in SERVE_METRICS:
        assert f'"{name.removeprefix("ray_").removesuffix("_total")}"' in source, name


def test_every_setting_has_its_heading_default_and_description() -> None:
    page = CONFIGURATION.read_text(encoding="utf-8")
    for key, field in settings():
        default = (
            yaml.safe_dump(field.default, default_flow_style=True, width=1_000)
            .removesuffix("...\n")
            .strip()
        )
        start = rf"### `{re.escape(key)}`\n\nDefault `{re.escape(default)}`; .*\.\n\n"
        assert re.search(start + re.escape(field.description), page), key
    assert len(re.findall(r"^### ", page, re.MULTILINE)) == len(settings())


@pytest.mark.parametrize(("key", "field"), settings(), ids=[key for key, _ in settings()])
def test_every_setting_says_when_to_change_it(key: str, field: Any) -> None:
    assert SAYS_WHEN.search(field.description), f"{key}: {field.description}"


@pytest.mark.parametrize("key", SERVE_KEYS)
def test_every_key_of_serve_stands_in_the_yaml_or_has_a_default_here(key: str) -> None:
    if key.rpartition(".")[2] in DEFAULTS["Tokenizer"]:
        return
    found = [CONFIG]
    for part in key.replace("[]", ".[]").split("."):
        if part == "[]":
            found = [item for one in found for item in one]
        else:
            found = [one[part] for one in found if one.get(part) is not None]
    assert found, key


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "boolean"}, "`true` or `false`"),
        ({"type": "integer", "exclusiveMinimum": 0}, "a whole number above 0"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "a number from 0 to 1"),
        ({"enum": ["a", "b"], "type": "string"}, "one of `a`, `b`"),
        ({"type": "array", "items": {"type": "string"}}, "a list of texts"),
        ({"type": "array", "items": {"enum": ["a"]}}, "a list of `a`"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "a text, or `null`"),
        ({"type": "string", "minLength": 1}, "a text of 1 character or more"),
        ({"type": "string", "pattern": "^[A-Z]{2}$"}, "a text of the form `^[A-Z]{2}$`"),
    ],
)
def test_a_type_is_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert kind(schema) == words


def test_every_field_of_a_request_is_in_the_table_with_its_default() -> None:
    schema = components()["ClassifyRequest"]
    live = PostprocessorUserConfig()
    defaults = {
        name: "required" if name in schema["required"] else f"`{json.dumps(field['default'])}`"
        for name, field in schema["properties"].items()
    }
    # The service's own, where a request is silent.
    assert (defaults["text_pair"], defaults["top_k"], live.top_k) == ("`null`", "`null`", None)
    defaults |= {"text_pair": "none", "top_k": "all", "threshold": str(live.threshold)}
    rows = table(section(HTTP, "Request"))
    assert [(field, default) for field, default, _ in rows] == [
        (f"`{name}`", default) for name, default in defaults.items()
    ]


def test_every_field_of_an_answer_is_in_the_table() -> None:
    named = [row[0].strip("`") for row in table(section(HTTP, "Answer"))]
    assert named == list(Prediction.__struct_fields__)


def test_the_table_of_errors_is_the_errors_own_and_haproxys() -> None:
    told = {(int(row[0]), row[1].strip("`")) for row in table(section(HTTP, "Errors"))}
    ours = {
        (cls.status, cls.code)
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.ServiceError)
    }
    lines = CONFIG["controller_options"]["runtime_env"]["env_vars"][
        "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"
    ]
    haproxys = {
        (int(status), json.loads(body)["error"]["code"])
        for status, body in re.findall(r"http-error status (\d+) .* string '(.*?)'", lines)
    }
    assert len(haproxys) == 3
    assert told == ours | haproxys
    assert len(table(section(HTTP, "Errors"))) == len(told)


def test_retry_after_is_told_where_it_is_sent() -> None:
    tells = {row[1] for row in table(section(HTTP, "Errors")) if "Retry-After" in row[3]}
    sent = {
        f"`{cls.code}`"
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.Overloaded | errors.NotReady)
    }
    assert tells == sent


def test_every_argument_of_classify_dataset_is_in_the_table() -> None:
    from deployments.bulk.dataset import OPTIONS, classify_dataset

    page = (ROOT / "docs" / "ray.md").read_text(encoding="utf-8")
    named = {
        name for row in table(section(page, "Ray Data")) for name in re.findall(r"`(\w+)`", row[0])
    }
    assert named == {*inspect.signature(classify_dataset).parameters, *OPTIONS} - {"ds", "options"}


def test_the_gpu_config_asks_for_what_the_page_says() -> None:
    config = yaml.safe_load((ROOT / "serve_config.gpu.yaml").read_text(encoding="utf-8"))
    plan = read_plan(config)
    assert f"asks for {plan.num_cpus:g} CPUs and {plan.num_gpus:g} GPU." in OPERATIONS


def test_every_extra_and_the_wheel_named_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = re.findall(r"pip install .*?\[([\w,]+)\]", section(OPERATIONS, "Installing"))
    extras = {extra for one in installed for extra in one.split(",")}
    assert {"jwt", "redaction"} <= extras
    assert extras <= set(project["optional-dependencies"])
    assert f"dist/rayclassify-{__version__}-py3-none-any.whl" in OPERATIONS


def test_messages_to_look_up_are_those_that_appear() -> None:
    you_see = " ".join(row[0] for row in table(section(OPERATIONS, "Troubleshooting")))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (finding,) = check_port("127.0.0.1", port)
    assert finding.message.startswith(f"port {port} is taken")
    assert str(choose_ingress(wanted=False)).startswith("HAProxy ingress: off")
    for message in ("port 8000 is taken", "HAProxy ingress: off", errors.NotReady.code):
        assert f"`{message}`" in you_see


def test_what_ray_says_is_what_ray_says() -> None:
    from ray._private.authentication import authentication_constants
    from ray.serve._private import default_impl, haproxy_templates

    you_see = " ".join(row[0] for row in table(section(OPERATIONS, "Troubleshooting")))
    for module, message in (
        (authentication_constants, "no authentication token was found"),
        (default_impl, "No event loop running"),
        (haproxy_templates, "not found"),
    ):
        assert message in you_see
        assert message in Path(module.__file__).read_text(encoding="utf-8")


def test_the_layers_are_those_that_lint_holds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    (told,) = re.findall(r"```text\n(.*?)```", section(ARCHITECTURE, "Layers"), re.DOTALL)
    assert told.splitlines() == [layer.replace("deployments.", "") for layer in layers]
    # The other contracts, by the modules that they name.
    forbidden = [contract for contract in contracts if contract["type"] == "forbidden"]
    lines = re.findall(r"^- (.*import.*)", section(ARCHITECTURE, "Layers"), re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", line)) for line in lines] == [
        {module.removeprefix("deployments.") for module in contract["source_modules"]}
        for contract in forbidden
    ]


def test_the_folders_are_those_that_are_there() -> None:
    named = {
        name
        for row in table(section(ARCHITECTURE, "Folders"))
        for name in re.findall(r"`([\w./]+)`", row[0])
    }
    package = ROOT / "deployments"
    there = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    there |= {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert named == there


def test_import_paths_that_stay_are_there() -> None:
    paths = [row[0].strip("`") for row in table(section(ARCHITECTURE, "Import paths that stay"))]
    assert "deployments.app:build" in paths
    for path in paths:
        module, _, name = path.partition(":")
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, name = path.rpartition(".")
            found = importlib.import_module(module)
        assert not name or hasattr(found, name), path


ENTRIES = LOG.split("\n## ")[1:]


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.splitlines()[0][:60] for entry in ENTRIES])
def test_an_entry_of_the_log_is_date_question_table_decision_and_test(entry: str) -> None:
    title = entry.splitlines()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d: .*\?", title)
    assert table(entry)
    assert entry.index("**Decision.** ") > entry.index("\n|")
    assert re.search(r"\*\*Test\.\*\* .*\]\(", entry), title


def test_the_newest_entry_stands_first() -> None:
    dates = [entry[:10] for entry in ENTRIES]
    assert dates == sorted(dates, reverse=True)


def test_the_table_of_exit_codes_is_the_code() -> None:
    told = {row[0].strip("`"): row[1:] for row in table(section(CLI, "Exit codes"))}
    assert told == {
        command: [codes.get(code, "–") for code in range(4)]
        for command, codes in EXIT_CODES.items()
    }


def test_the_page_of_commands_names_every_dialect_of_bench() -> None:
    assert set(re.findall(r"`(\w+)`", section(CLI, "bench").split("whose JSON")[0])) >= {*DIALECTS}


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.json")), ids=lambda path: path.name)
def test_figures_name_no_directory_of_the_machine_that_measured_them(path: Path) -> None:
    assert re.findall(r'"/[^"]*/[^"]*"', path.read_text(encoding="utf-8")) == []
