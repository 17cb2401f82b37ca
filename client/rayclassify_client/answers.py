"""What a service says about a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One classified text.

    label: the best one. score: its probability, or what the model gave where `raw_scores` was asked
    for. scores: label → score, best first. tokens: that the model read. truncated: whether the text
    was cut to fit. labels: of multi-label models, all that count. abstained, label_set: of
    calibrated models. redacted: pieces of personal data that were cut. raw: all of the JSON.
    """

    label: str
    score: float
    scores: Mapping[str, float]
    tokens: int
    truncated: bool
    labels: tuple[str, ...] | None = None
    redacted: int | None = None
    abstained: bool | None = None
    label_set: tuple[str, ...] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Answer:
        """Raises KeyError, TypeError: it is no answer of this service."""
        labels, label_set = value.get("labels"), value.get("label_set")
        return Answer(
            label=str(value["label"]),
            score=float(value["score"]),
            scores=dict(value["scores"]),
            tokens=int(value["tokens"]),
            truncated=bool(value["truncated"]),
            labels=None if labels is None else tuple(labels),
            redacted=value.get("redacted"),
            abstained=value.get("abstained"),
            label_set=None if label_set is None else tuple(label_set),
            raw=value,
        )
