"""Render docs/configuration.md from deployments/settings.py, and docs/metrics.md from
deployments/replica/metric_table.py.

What a page says of a setting or a metric stands there. What it says of Ray Serve's own stands here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import BaseModel

from deployments.config.capacity import DEFAULTS
from deployments.replica.metric_table import LABELS, METRICS
from deployments.settings import Settings
from deployments.user_config import USER_CONFIGS
from scripts.rendered import write_or_check

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "configuration.md"
METRICS_PAGE = DOCS / "metrics.md"

_HEAD = """\
# Configuration

`python scripts/render_docs.py` writes this page from
[settings.py](../deployments/settings.py). A test fails where the two differ.

One YAML file says everything: [serve_config.yaml](../serve_config.yaml) for one machine,
[serve_config.gpu.yaml](../serve_config.gpu.yaml) for GPUs and clusters. They show what people
change most. Every other setting goes under the same headings, and holds its default until then.

- **`args:`** holds behaviour. A change starts new replicas.
- **`user_config:`** of a deployment holds what can change live. A change restarts nothing.
- **All other keys** are Ray Serve's own: replicas, CPUs, GPUs, queues, ports.

```bash
rayclassify check serve_config.yaml     # names each misspelt key and each wrong value
rayclassify deploy serve_config.yaml    # sends the file to the service that runs
rayclassify status                      # says what serves
```

Try it live: set `top_k: 1` under the Postprocessor's `user_config:` and deploy.
[operations.md](operations.md) says what a deploy does, and how to get back.

## Your own model

Any model of transformers' `AutoModelForSequenceClassification` with a fast tokenizer will do, from
the hub or a directory. Its config says by `problem_type` whether it is single-label, multi-label or
a regression. Its labels come from `id2label`. [models.md](models.md) lists every class that was
tried.

Paste this over the `model:` block of serve_config.yaml, with your own values:

```yaml
      model:
        id: distilbert/distilbert-base-uncased-finetuned-sst-2-english
        revision: 714eb0fa89d2f80546fda750413ed43d93601a13
```

The service honours what the model's directory says, as transformers' pipeline does. Where it can't,
it refuses to start, and names the file, the key and the cure. `rayclassify check --prove` prints a
certificate without Ray: labels, limits, engine, the distance from transformers' own logits, and
what was left aside. In Python `deployments.local.LocalClassifier(args)` gives the same answers.

## Ray Serve's own keys

These matter most. `[]` stands for each item of a list.

| key | what it does, and when to change it |
|---|---|
{serve_keys}

{settings}
"""

# Dotted key → what it does and when to change it. A test finds each key in serve_config.yaml.
SERVE_KEYS = {
    "http_options.port": "The port of every proxy. Change it where something else listens there.",
    "http_options.host": "The address to listen on. 127.0.0.1 shuts others out, but needs "
    "`RAY_SERVE_ENABLE_HA_PROXY` off.",
    "http_options.request_timeout_s": "Serve's own cut-off, in seconds. Keep it above "
    "`args.limits.request_timeout_s`.",
    "grpc_options.port": "The port for gRPC of every proxy. Set it to 8001 for clients of Triton.",
    "grpc_options.grpc_servicer_functions": "Opens that port where it is not empty. Set it to "
    "`[deployments.grpc.servicer:add_to_server]` for the [Open Inference "
    "Protocol](dialects.md#open-inference-protocol-version-2-over-grpc).",
    "proxy_location": "`EveryNode` runs a proxy beside every replica. `HeadOnly` gives the cluster "
    "one door.",
    "controller_options.runtime_env.env_vars": "HAProxy and the throughput flags. On a cluster, "
    "set them on each machine before `ray start`. Without this block Serve's Python proxy serves.",
    "logging_config.encoding": "`JSON` suits a log collector.",
    "logging_config.enable_access_log": "One line a request costs 7 % of the ingress. Turn it on "
    "only to look for a fault.",
    "applications[].name": "The name that `serve.get_app_handle` takes.",
    "applications[].route_prefix": "The path in front of `/classify`. Change it where several "
    "applications share the port.",
    "applications[].import_path": "`deployments.app:build` makes the application. Leave it.",
    "applications[].deployments[].max_ongoing_requests": "Requests in one replica. Keep the "
    "Tokenizer's above `args.limits.max_pending_texts`, so that our own 429 comes first.",
    "applications[].deployments[].max_queued_requests": "A second guard, for a caller that floods "
    "one replica.",
    "applications[].deployments[].backpressure_config": "What that guard answers. Serve's default "
    "is 503.",
    "applications[].deployments[].autoscaling_config.min_replicas": "Set it to 2 or more where one "
    "machine may fail.",
    "applications[].deployments[].autoscaling_config.max_replicas": "Raise it for more throughput. "
    "Each Classifier replica holds a copy of the model.",
    "applications[].deployments[].autoscaling_config.policy": "How many replicas are wanted: "
    "[autoscaling.md](autoscaling.md). Without it Serve's own holds, by `target_ongoing_requests`.",
    "applications[].deployments[].autoscaling_config.upscale_delay_s": "There must be too much "
    "work for so many seconds.",
    "applications[].deployments[].autoscaling_config.downscale_delay_s": "There must be too little "
    "work for so many seconds. Keep it at or above `look_back_period_s`.",
    "applications[].deployments[].graceful_shutdown_timeout_s": "Seconds that a stopping replica "
    "may take. Keep it above `body_timeout_s` and `request_timeout_s` together.",
    "applications[].deployments[].health_check_timeout_s": "Serve replaces a replica that fails "
    "three checks in a row. Raise it on a very busy machine.",
    "applications[].deployments[].max_surge_percent": "An update starts new replicas first. Set it "
    "to 0 where there is no room for both.",
    "applications[].deployments[].ray_actor_options": "What Ray reserves for a replica: "
    "`num_cpus`, `num_gpus`. The Classifier takes its threads from `num_cpus`.",
}

# A test finds each name in Ray's source.
SERVE_METRICS = {
    "ray_serve_application_status": "By `application`: 6 where it runs, 5 while it is deployed, 1 "
    "after a deploy that failed, 2 where it is unhealthy.",
    "ray_serve_deployment_replica_healthy": "By `replica`: 1 or 0. Its count is the number of "
    "replicas.",
    "ray_serve_autoscaling_target_replicas": "By `deployment`: what Serve aims at.",
    "ray_serve_replica_startup_latency_ms": "By `deployment`: what a start takes.",
    "ray_serve_deployment_error_counter_total": "By `deployment`: calls that raised, those refused "
    "by a full queue among them.",
}
"""Name → what it tells. Of Serve's some hundred, those that ours don't replace."""

QUESTIONS = {
    "How many requests a second?": ("sum(rate(ray_rayclassify_requests_total[1m]))",),
    "How many fail, and how?": (
        'sum by (outcome) (rate(ray_rayclassify_requests_total{outcome!="ok"}[1m]))',
    ),
    "How slow is the slowest percent?": (
        "histogram_quantile(0.99, sum by (le) "
        '(rate(ray_rayclassify_stage_seconds_bucket{stage="http"}[1m])))',
    ),
    "Where does the time go?": (
        "sum by (stage) (rate(ray_rayclassify_stage_seconds_sum[1m])) / "
        "sum by (stage) (rate(ray_rayclassify_stage_seconds_count[1m]))",
    ),
    "Who is refused, and why?": ("sum by (reason) (rate(ray_rayclassify_refused_total[1m]))",),
    "What waits?": (
        "sum(ray_rayclassify_queue_tokens)",
        "max(ray_rayclassify_queue_oldest_seconds)",
        "sum(ray_rayclassify_pending_texts)",
    ),
    "Which replica is slow?": (
        'sum by (replica) (rate(ray_rayclassify_stage_seconds_sum{stage="model"}[1m])) / '
        "sum by (replica) (rate(ray_rayclassify_tokens_total[1m]))",
    ),
    "How full is the model?": (
        "sum(rate(ray_rayclassify_tokens_total[5m])) / "
        "sum(ray_rayclassify_capacity_tokens_per_second)",
    ),
    "How much is padding?": (
        "sum(rate(ray_rayclassify_padding_tokens_total[5m])) / "
        "(sum(rate(ray_rayclassify_padding_tokens_total[5m])) + "
        "sum(rate(ray_rayclassify_tokens_total[5m])))",
    ),
    "Which labels does it give?": ("sum by (label) (rate(ray_rayclassify_labels_total[1h]))",),
    "How sure is it?": (
        "sum by (label) (rate(ray_rayclassify_score_sum[1h])) / "
        "sum by (label) (rate(ray_rayclassify_score_count[1h]))",
    ),
}
"""What people ask, and the queries that answer it."""

_METRICS_HEAD = """\
# Metrics

`python scripts/render_docs.py` writes this page from
[metric_table.py](../deployments/replica/metric_table.py). A test fails where the two differ.
[monitoring.md](monitoring.md) has a dashboard and alerts made of them.

Each node of the cluster has one Prometheus endpoint, Ray's, at the port that
[operations.md](operations.md#metrics) names. It hands out Ray's own metrics, Ray Serve's and ours.
The port of the service itself hands out none: through a balancer they would be some node's.

- Each series has `application`, `deployment` and `replica` beside the labels below.
- Each label has few values, and callers can invent none: no path, header, method or text.
- Numbers are up to 15 s old: replicas hand them to Ray every 5 s, and Ray to the
  endpoint every 10 s.
- **A histogram's series have the type gauge**: Ray's own histograms put each value into the
  middle of its bucket, and cost more than a request may. `histogram_quantile` and `rate` don't
  mind. Sums and counts are exact.

## Ours

| metric | type | of | labels | what it tells, and when to worry |
|---|---|---|---|---|
{metrics}

A histogram has three series: `…_bucket` with `le`, `…_sum`, `…_count`.

## Labels

| label | values |
|---|---|
{labels}

## Ray Serve's that are worth a look

| metric | what it tells |
|---|---|
{served}

Serve's own request metrics have labels that say little here: all dialects share one `route`, and a
call of the Classifier is a micro-batch of many callers' texts.

## Questions

| question | query |
|---|---|
{questions}
"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 with a diff if stale.")
    ] = False,
) -> None:
    """Render docs/configuration.md and docs/metrics.md from what the code says of itself."""
    write_or_check(page(), PAGE, "scripts/render_docs.py", check=check)
    write_or_check(metrics_page(), METRICS_PAGE, "scripts/render_docs.py", check=check)


def page() -> str:
    """The whole page."""
    serve_keys = [f"| `{key}` | {said}{_default_of(key)} |" for key, said in SERVE_KEYS.items()]
    settings: list[str] = []
    for name, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)  # noqa: S101 - each section is a model
        assert issubclass(field.annotation, BaseModel)  # noqa: S101
        settings += _section(f"## `args.{name}`", f"args.{name}", field.annotation)
    for deployment, model in USER_CONFIGS.items():
        settings += _section(f"## `user_config` of the {deployment}", "user_config", model)
    return _HEAD.format(serve_keys="\n".join(serve_keys), settings="\n\n".join(settings))


def metrics_page() -> str:
    """All of docs/metrics.md."""
    rows = [
        f"| `ray_rayclassify_{metric.name}` | {metric.kind} | {metric.where} | "
        f"{', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} {metric.look} |"
        for metric in METRICS
    ]
    labels = [f"| `{label}` | {values} |" for label, values in LABELS.items()]
    served = [f"| `{name}` | {said} |" for name, said in SERVE_METRICS.items()]
    asked = [
        f"| {question} | {', '.join(f'`{query}`' for query in queries)} |"
        for question, queries in QUESTIONS.items()
    ]
    return _METRICS_HEAD.format(
        metrics="\n".join(rows),
        labels="\n".join(labels),
        served="\n".join(served),
        questions="\n".join(asked),
    )


def _default_of(key: str) -> str:
    """What holds where a config is silent."""
    values = {name: options.get(key.rpartition(".")[2]) for name, options in DEFAULTS.items()}
    told = {name: value for name, value in values.items() if value is not None}
    if not told:
        return ""
    if len(told) == len(values) and len(set(map(str, told.values()))) == 1:
        return f" Default: `{next(iter(told.values()))}`."
    return " Default: " + ", ".join(f"{name} `{value}`" for name, value in told.items()) + "."


def _section(heading: str, path: str, model: type[BaseModel]) -> list[str]:
    return [heading, " ".join((model.__doc__ or "").split()), *_settings(path, model)]


def _settings(path: str, model: type[BaseModel]) -> Iterator[str]:
    """A heading for each setting, and what stands below it."""
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        default = (
            yaml.safe_dump(field.default, default_flow_style=True, width=1_000)
            .removesuffix("...\n")
            .strip()
        )
        yield f"### `{path}.{name}`"
        yield f"Default `{default}`; {kind(properties[name])}."
        yield field.description or ""


def kind(schema: dict[str, Any]) -> str:
    """A JSON schema in words: `a whole number above 0, or null`."""
    if "anyOf" in schema:
        return ", or ".join(kind(one) for one in schema["anyOf"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2].removesuffix("Settings").lower()
        return f"keys as under `args.{name}`"
    if "enum" in schema:
        return f"one of {', '.join(f'`{value}`' for value in schema['enum'])}"
    if schema["type"] == "object":
        return "a map from texts to texts"
    if schema["type"] == "array":
        items = schema["items"]
        return f"a list of {kind(items).removeprefix('one of ') if 'enum' in items else 'texts'}"
    if "minLength" in schema:
        return f"a text of {schema['minLength']} character or more"
    return _KINDS[schema["type"]] + "".join(
        f"{word} {schema[key]:,}" if key != "pattern" else f"{word} `{schema[key]}`"
        for key, word in _BOUNDS.items()
        if key in schema
    )


_KINDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "`true` or `false`",
    "null": "`null`",
}
_BOUNDS = {
    "exclusiveMinimum": " above",
    "minimum": " from",
    "maximum": " to",
    "pattern": " of the form",
}

if __name__ == "__main__":
    app()
