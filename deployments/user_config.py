"""Everything `serve_config.yaml` may say under `user_config:`, validated once; applied live."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from deployments.settings import PositiveInt, Strict

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class TokenizerUserConfig(Strict):
    """Live settings of the Tokenizer, `user_config:` in the YAML."""

    log_level: LogLevel = Field(
        default="INFO",
        description="Keeps our logs from this level up. Set it to DEBUG to look for a fault.",
    )
    access_log_one_in: PositiveInt | None = Field(
        default=None,
        description="Logs one of so many answered requests, with its id, status, sizes and time; "
        "null logs none, as metrics count them all. Set it to 1 to look for a fault, to 1000 "
        "under load. Refused and failed requests are logged anyway.",
    )
    cascade_threshold: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Sets the score below which a text goes on to the larger model of a cascade; "
        "null takes `args.cascade.threshold`. Lower it while the larger model has too much to do.",
    )


class ClassifierUserConfig(Strict):
    """Live settings of the Classifier, `user_config:` in the YAML."""

    log_level: LogLevel = Field(
        default="INFO",
        description="Keeps our logs from this level up. Set it to DEBUG to look for a fault.",
    )
    max_batch_tokens: PositiveInt = Field(
        default=4_096,
        description="Limits a pass's tokens; a longer text runs alone. Raise it for throughput, "
        "lower it for latency.",
    )
    target_p99_ms: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Aims at a 99th percentile of latency, in ms from queue to logits; null "
        "makes batches as large as allowed. Set it where late answers hurt: batches are cut "
        "where that keeps more texts in time.",
    )
    max_queue_tokens: PositiveInt = Field(
        default=262_144,
        description="Limits the tokens that wait in one replica; more get 429 with Retry-After. "
        "Raise it where one request holds more tokens.",
    )
    max_pass_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0,
        description="Limits a forward pass, in seconds. A pass beyond it hangs: its replica ends "
        "and is replaced. Once passes have been timed, the limit falls to 20 times the expected "
        "time, but never below 10 s. Raise it above your longest sane pass.",
    )


class PostprocessorUserConfig(Strict):
    """Live settings of the Postprocessor, `user_config:` in the YAML."""

    log_level: LogLevel = Field(
        default="INFO",
        description="Keeps our logs from this level up. Set it to DEBUG to look for a fault.",
    )
    threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5,
        description="Sets the score, 0 to 1, from which a label counts in a multi-label model. "
        "Raise it for fewer, surer labels.",
    )
    abstain_below: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="Sets the score of the best label below which an answer of a single-label "
        "model has `abstained: true`; null takes the model's calibration.json. Raise it for fewer "
        "wrong answers and more abstentions; 0 turns it off.",
    )
    label_set_from: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="Sets the score from which a label is in `label_set` of a single-label model's "
        "answer; null takes the model's calibration.json. Lower it for larger sets, which hold the "
        "right label more often; 0 turns it off.",
    )
    top_k: PositiveInt | None = Field(
        default=None,
        description="Limits the labels in `scores`; null shows all. Set it to 1 for the best only.",
    )
    round_scores: Annotated[int, Field(ge=0, le=8)] = Field(
        default=8,
        description="Rounds every score to so many decimals, raw scores too; 8 are all that "
        "float32 has. Set it to 2 to make the model harder to copy by asking.",
    )


USER_CONFIGS: dict[str, type[Strict]] = {
    "Tokenizer": TokenizerUserConfig,
    "Classifier": ClassifierUserConfig,
    "Postprocessor": PostprocessorUserConfig,
}
"""Deployment name → the model its `user_config` must fit."""
