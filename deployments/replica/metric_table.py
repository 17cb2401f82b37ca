"""Every metric of ours: its name, its kind, its labels, and what it is for.

docs/metrics.md is rendered from it, and nothing else makes a metric. Each label has few values, and
none that callers can invent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "rayclassify_"
"""In front of each name; Ray puts `ray_` before that."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""From a text that needs no waiting to a request at its limit."""

TEXTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
TOKENS = tuple(float(1 << k) for k in range(3, 17))
DIFFERENCES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

MAX_LABELS = 20
"""The first so many of the model's config have series of their own; a model may have thousands."""

OTHER_LABELS = "_other"
"""All the rest of them together."""

Where = Literal[
    "Tokenizer", "Classifier", "Postprocessor", "Explainer", "Tokenizer, Postprocessor", "all"
]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. help: a sentence, as Prometheus shows it. where: whose replicas have it.

    labels: beside Serve's own. bounds: of a histogram's buckets, ascending. look: what it tells,
    and when to worry.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    where: Where
    help: str
    look: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names that a query asks for."""
        ends = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(f"ray_{PREFIX}{self.name}{end}" for end in ends)


LABELS: dict[str, str] = {
    "dialect": "`classify`, `explain`, `tei`, `tei_tokens`, `vllm`, `infinity`, `kserve`, `oip`, "
    "`sagemaker`, `vertex`, `openai`, `mcp`; `stream`, `grpc`, and `handle` from inside Ray",
    "outcome": "`ok`; `client_error`; `refused`, which is 429 and 503; `timeout`; `server_error`; "
    "`cancelled`, where the client went away",
    "stage": "`http` and `grpc`, a whole request; `parse`, `tokenize`, `queue`, `model`, "
    "`postprocess`, `explain`",
    "reason": "the error's code: [http.md](http.md#errors)",
    "label": f"the first {MAX_LABELS} of `id2label` in the model's config.json; all the others "
    f"together are `{OTHER_LABELS}`",
    "cause": "`lost`, where a replica died with the call; `stuck`, where it took too long",
    "model": "as `args.model.id` has it",
    "version": "of the model's files and settings, as answers of the audit log name it",
    "problem_type": "`single_label_classification`, `multi_label_classification` or `regression`",
    "engine": "`torch` or `none`",
    "device": "`cpu`, `cuda:0` and the like",
    "dtype": "`float32`, `bfloat16`, `float16`, `int8`",
    "batching": "`packed`, `padded`, `one length`, `one by one`",
    "selected_by": "`config`, `measurement` or `cache`",
    "baseline": "of the content of drift.json, as a hash",
    "feature": "`labels`, `scores`, `tokens`, `unknown_tokens` or `tokens_per_character`",
    "bin": "a label, or the upper end of a range",
    "answered_by": "`first`, `second`; `degraded`, where the first answered though it was unsure",
    "result": "`compared`, `dropped`, `failed`",
    "shadow_label": "as `label`, of the model on trial",
    "threads": "of the model, a number",
}
"""Label → its values."""

METRICS: tuple[Metric, ...] = (
    Metric(
        "requests_total",
        "counter",
        "Tokenizer",
        "Requests to classify, by how they were asked and what became of them.",
        "Traffic, and the share that fails. A request that was let in and one that a key, a rate "
        "or a full queue kept out count alike.",
        ("dialect", "outcome"),
    ),
    Metric(
        "texts_total",
        "counter",
        "all",
        "Texts that went through a stage.",
        "`parse` is what callers sent, `postprocess` what was answered; the difference is refused "
        "or under way.",
        ("stage",),
    ),
    Metric(
        "stage_seconds",
        "histogram",
        "all",
        "Seconds that a stage took, once for all texts that went through it together.",
        "Where the time goes. `queue` grows where the model is too slow, `model` where batches are "
        "large, `http` beyond the sum of the others where the ingress is busy.",
        ("stage",),
        SECONDS,
    ),
    Metric(
        "pending_texts",
        "gauge",
        "Tokenizer",
        "Texts taken in and not answered yet.",
        "Near `args.limits.max_pending_texts` callers get 429.",
    ),
    Metric(
        "ahead_seconds",
        "gauge",
        "Tokenizer",
        "Seconds that all that an ingress has taken in would take one Classifier.",
        "Callers get 429 where it says more than `args.limits.max_queue_s` for each Classifier.",
    ),
    Metric(
        "refused_total",
        "counter",
        "Tokenizer",
        "Texts of lists, or whole requests, that got an error.",
        "Who is refused, and why.",
        ("reason",),
    ),
    Metric(
        "truncated_texts_total",
        "counter",
        "Tokenizer",
        "Texts of which the model read only a part.",
        "A large share of all texts asks for a model that reads more, or for shorter texts.",
    ),
    Metric(
        "tokenizer_checks_total",
        "counter",
        "Tokenizer",
        "Texts that were encoded a second time, by the reference tokenizer.",
        "One of 2,000. None where the faster tokenizer is not used.",
    ),
    Metric(
        "tokenizer_differences_total",
        "counter",
        "Tokenizer",
        "Times that the faster tokenizer gave other ids than the reference.",
        "Ever above 0 is a fault: the faster one is used no more. Report it.",
    ),
    Metric(
        "retries_total",
        "counter",
        "Tokenizer",
        "Calls to a replica that were made once more.",
        "`lost` follows each death of a replica. `stuck` says that one lives and answers nobody.",
        ("cause",),
    ),
    Metric(
        "quarantined_texts_total",
        "counter",
        "Tokenizer",
        "Texts that kill the model's process or hang it, and are refused for a while.",
        "Any: find out who sends it, by the log.",
    ),
    Metric(
        "cascade_texts_total",
        "counter",
        "Tokenizer",
        "Texts that a cascade answered, by the model that did.",
        "The share of `second` is what the larger model costs. `degraded` says that it can't "
        "keep up: add replicas, or lower `cascade_threshold`.",
        ("answered_by",),
    ),
    Metric(
        "shadow_texts_total",
        "counter",
        "Tokenizer",
        "Texts chosen for the model on trial, by what became of them.",
        "Many `dropped`: it is too slow for this share of the texts.",
        ("result",),
    ),
    Metric(
        "shadow_labels_total",
        "counter",
        "Tokenizer",
        "Texts that both models answered, by the label of each.",
        "Where the two are equal, they agree; `rayclassify compare` shows the rest.",
        ("label", "shadow_label"),
    ),
    Metric(
        "shadow_score_difference",
        "histogram",
        "Tokenizer",
        "How far the two models' scores of the label that was served are apart.",
        "A wide one without other labels: thresholds and calibration don't carry over.",
        (),
        DIFFERENCES,
    ),
    Metric(
        "queue_tokens",
        "gauge",
        "Classifier",
        "Tokens that wait for the model.",
        "At `max_queue_tokens` the Classifier refuses.",
    ),
    Metric(
        "queue_oldest_seconds",
        "gauge",
        "Classifier",
        "How long the oldest text of the queue has waited.",
        "Beyond `args.limits.max_queue_s` the model has become slower than the gate believes.",
    ),
    Metric(
        "wait_seconds",
        "gauge",
        "Classifier",
        "Seconds that what waits will take the model.",
        "What autoscaling follows, beside `busy_ratio`.",
    ),
    Metric(
        "tokens_total",
        "counter",
        "Classifier",
        "Tokens that the model read.",
        "The model's work.",
    ),
    Metric(
        "padding_tokens_total",
        "counter",
        "Classifier",
        "Tokens that the model computed and that are no text's.",
        "Its share of all tokens is waste. Small where `batching` of `engine_info` is "
        "`packed`; where it is `padded`, the more the lengths are mixed, the more.",
    ),
    Metric(
        "batch_texts",
        "histogram",
        "Classifier",
        "Texts in one forward pass.",
        "Always 1 under load means that batching does not work.",
        bounds=TEXTS,
    ),
    Metric(
        "batch_tokens",
        "histogram",
        "Classifier",
        "Tokens in one forward pass, without padding.",
        "Under load it should be near `max_batch_tokens`.",
        bounds=TOKENS,
    ),
    Metric(
        "capacity_tokens_per_second",
        "gauge",
        "Classifier",
        "Tokens that the model would read in a second, in full batches.",
        "`rate(ray_rayclassify_tokens_total[5m])` over it is the load. A fall without a deploy: "
        "the machine is shared or throttled.",
    ),
    Metric(
        "engine_info",
        "gauge",
        "Classifier",
        "How a replica runs the model. Always 1.",
        "Replicas that differ run on different machines, or one found its choice unfit.",
        ("engine", "device", "dtype", "batching", "selected_by", "threads"),
    ),
    Metric(
        "model_info",
        "gauge",
        "Classifier",
        "Which model a replica has. Always 1.",
        "Two versions at once: an update is under way, or stuck.",
        ("model", "version", "problem_type"),
    ),
    Metric(
        "labels_total",
        "counter",
        "Postprocessor",
        "Texts by the label with the highest score.",
        "What the model says, over time. A share that moves without a new model: the texts have "
        "changed.",
        ("label",),
    ),
    Metric(
        "score",
        "histogram",
        "Postprocessor",
        "Score of the label with the highest score; not of a regression.",
        "A mean that falls: the texts have become unlike those that the model was trained on.",
        ("label",),
        SCORES,
    ),
    Metric(
        "drift_window_texts",
        "gauge",
        "Tokenizer, Postprocessor",
        "Texts of the last hour by bin of a feature, where the model has a drift.json.",
        "Sums over replicas are the service's. Beside `drift_baseline_texts`: has what is asked "
        "changed? [drift.md](drift.md)",
        ("baseline", "feature", "bin"),
    ),
    Metric(
        "drift_baseline_texts",
        "gauge",
        "Tokenizer, Postprocessor",
        "Texts of the baseline by bin of a feature; each replica says the same.",
        "What `drift_window_texts` is held against.",
        ("baseline", "feature", "bin"),
    ),
    Metric(
        "drift_critical",
        "gauge",
        "Tokenizer, Postprocessor",
        "Quantile of chi-squared that belongs to the baseline's rate of false alarms.",
        "Times (1 / texts of the window + 1 / texts of the baseline) it is the threshold.",
        ("baseline", "feature"),
    ),
    Metric(
        "busy_ratio",
        "gauge",
        "all",
        "Share of the time in which the replica worked, 0 to 1.",
        "What autoscaling follows. Near 1 with `max_replicas` running: no more can be had.",
    ),
)
"""In the order of a request."""

BY_NAME = {metric.name: metric for metric in METRICS}
