"""The dashboard as a list: sections, panels, queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["reqps", "s", "short", "percentunit", "cps", "none"]
"""As Grafana names them. cps: so many a second."""

_WANTED = "ray_serve_autoscaling_target_replicas"
_OF = '{application=~"$application"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. queries: PromQL → its legend, with `{{label}}` for a label's value.

    says: what to look for in it. stacked: the series add up to a whole.
    """

    title: str
    unit: Unit
    queries: dict[str, str]
    says: str
    stacked: bool = False


def rate(metric: str, by: str, where: str = "") -> str:
    """`metric`: without `ray_rayclassify_`. where: more conditions on labels."""
    more = f", {where}" if where else ""
    of = f"ray_rayclassify_{metric}{_OF}{more}}}[$__rate_interval]"
    return f"sum by ({by}) (rate({of}))" if by else f"sum(rate({of}))"


def gauge(metric: str, by: str, how: str = "sum") -> str:
    of = f"ray_rayclassify_{metric}{_OF}}}"
    return f"{how} by ({by}) ({of})"


def quantile(q: float, metric: str, by: str = "", where: str = "") -> str:
    inner = rate(f"{metric}_bucket", f"le, {by}" if by else "le", where)
    return f"histogram_quantile({q}, {inner})"


def mean(metric: str, by: str, where: str = "") -> str:
    return f"{rate(f'{metric}_sum', by, where)} / {rate(f'{metric}_count', by, where)}"


HTTP = 'stage="http"'

DASHBOARD: dict[str, tuple[Panel, ...]] = {
    "Traffic": (
        Panel(
            "Requests by outcome",
            "reqps",
            {rate("requests_total", "outcome"): "{{outcome}}"},
            "All but `ok` deserves a look; `refused` is 429 and 503.",
            stacked=True,
        ),
        Panel(
            "Requests by dialect",
            "reqps",
            {rate("requests_total", "dialect"): "{{dialect}}"},
            "Who still asks in which words.",
            stacked=True,
        ),
        Panel(
            "Texts",
            "cps",
            {
                rate("texts_total", "", 'stage="parse"'): "asked",
                rate("texts_total", "", 'stage="postprocess"'): "answered",
            },
            "The gap is refused, or waits.",
        ),
    ),
    "Latency": (
        Panel(
            "A whole request",
            "s",
            {quantile(q, "stage_seconds", where=HTTP): f"p{q * 100:g}" for q in (0.5, 0.95, 0.99)},
            "From the request's head to its answer, over HTTP.",
        ),
        Panel(
            "Slowest percent by stage",
            "s",
            {quantile(0.99, "stage_seconds", "stage"): "{{stage}}"},
            "`queue` grows where the model is too slow for the load.",
        ),
        Panel(
            "Mean by stage",
            "s",
            {mean("stage_seconds", "stage"): "{{stage}}"},
            "Where the time goes. Exact, also below a millisecond.",
        ),
    ),
    "Batching": (
        Panel(
            "Texts and tokens in a pass",
            "short",
            {
                mean("batch_texts", "application"): "texts, {{application}}",
                mean("batch_tokens", "application"): "tokens, {{application}}",
            },
            "One text a pass under load means that batching does not work.",
        ),
        Panel(
            "Load of the model",
            "percentunit",
            {
                f"{rate('tokens_total', 'replica')} / "
                f"{gauge('capacity_tokens_per_second', 'replica')}": "{{replica}}"
            },
            "Tokens read, of those that full batches would read.",
        ),
        Panel(
            "Padding",
            "percentunit",
            {
                f"{rate('padding_tokens_total', 'application')} / "
                f"({rate('padding_tokens_total', 'application')} + "
                f"{rate('tokens_total', 'application')})": "{{application}}"
            },
            "The share of computed tokens that are no text's.",
        ),
    ),
    "Queue": (
        Panel(
            "Tokens that wait",
            "short",
            {gauge("queue_tokens", "replica"): "{{replica}}"},
            "At `max_queue_tokens` the Classifier refuses.",
        ),
        Panel(
            "Oldest of them",
            "s",
            {gauge("queue_oldest_seconds", "replica", "max"): "{{replica}}"},
            "Flat at zero where the model keeps up.",
        ),
        Panel(
            "Taken in, not answered",
            "s",
            {gauge("ahead_seconds", "replica"): "{{replica}}"},
            "How long one Classifier would take; beyond `max_queue_s` for each, callers get 429.",
        ),
    ),
    "Replicas": (
        Panel(
            "Replicas",
            "short",
            {
                gauge("busy_ratio", "deployment", "count"): "{{deployment}}",
                f"max by (deployment) ({_WANTED}{_OF}}})": "{{deployment}}, wanted",
            },
            "Fewer than wanted for long: they die, or find no room.",
        ),
        Panel(
            "Busy",
            "percentunit",
            {gauge("busy_ratio", "deployment, replica", "max"): "{{deployment}} {{replica}}"},
            "What autoscaling follows.",
        ),
        Panel(
            "Calls made again",
            "cps",
            {rate("retries_total", "cause"): "{{cause}}"},
            "`lost` follows the death of a replica.",
        ),
    ),
    "Refusals": (
        Panel(
            "Errors by reason",
            "cps",
            {rate("refused_total", "reason"): "{{reason}}"},
            "Whole requests, and texts of lists.",
            stacked=True,
        ),
        Panel(
            "Cut texts",
            "percentunit",
            {
                f"{rate('truncated_texts_total', 'application')} / "
                + rate("texts_total", "application", 'stage="postprocess"'): "{{application}}"
            },
            "The share of texts of which the model read only a part.",
        ),
        Panel(
            "Texts in quarantine",
            "cps",
            {rate("quarantined_texts_total", "application"): "{{application}}"},
            "Each killed or hung the model's process.",
        ),
    ),
    "Model": (
        Panel(
            "Labels",
            "percentunit",
            {f"{rate('labels_total', 'label')} / scalar({rate('labels_total', '')})": "{{label}}"},
            "A share that moves without a new model: the texts have changed.",
            stacked=True,
        ),
        Panel(
            "Mean score by label",
            "percentunit",
            {mean("score", "label"): "{{label}}"},
            "A fall: texts unlike those that the model was trained on.",
        ),
        Panel(
            "Replicas by engine and model",
            "short",
            {
                gauge("engine_info", "engine, dtype, device, batching", "count"): "{{engine}} "
                "{{dtype}} on {{device}}, {{batching}}",
                gauge("model_info", "model, version", "count"): "{{model}} {{version}}",
            },
            "Two versions at once: an update is under way, or stuck.",
        ),
    ),
    "Drift": (
        Panel(
            "Drift",
            "short",
            {
                f"application_feature:rayclassify_drift:psi{_OF}}}": "{{feature}}",
                f"application_feature:rayclassify_drift:threshold{_OF}}}": "{{feature}}, threshold",
            },
            "Above its threshold: texts or answers are no longer as in the model's baseline.",
        ),
        Panel(
            "Texts that tell",
            "short",
            {gauge("drift_window_texts", "feature"): "{{feature}}"},
            "Of the last hour. Fewer than 500 tell nothing.",
        ),
    ),
    "Cascade": (
        Panel(
            "Texts by who answered",
            "cps",
            {rate("cascade_texts_total", "answered_by"): "{{answered_by}}"},
            "`second` costs the larger model's time; `degraded`: it can't keep up.",
            stacked=True,
        ),
    ),
    "Model on trial": (
        Panel(
            "Labels of both",
            "cps",
            {rate("shadow_labels_total", "label, shadow_label"): "{{label}} → {{shadow_label}}"},
            "Two different labels: what its promotion would change. `rayclassify compare` sums up.",
            stacked=True,
        ),
        Panel(
            "Agreement, and difference of scores",
            "percentunit",
            {
                f"application:rayclassify_shadow_agreement:ratio1h{_OF}}}": "agreement",
                mean("shadow_score_difference", "application"): "difference of scores",
            },
            "A wide difference without other labels: thresholds and calibration don't carry over.",
        ),
        Panel(
            "Texts asked of it",
            "cps",
            {rate("shadow_texts_total", "result"): "{{result}}"},
            "`dropped`: it is too slow for this share of the traffic.",
            stacked=True,
        ),
    ),
}
"""Section → its panels."""


def asked(query: str, application: str = ".*", window: str = "1m") -> str:
    """The query as Grafana sends it."""
    return query.replace("$application", application).replace("$__rate_interval", window)
