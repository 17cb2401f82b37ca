"""Logits → labels and scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployments.pipeline.types import Answer, Float32, Logits, ModelInfo, Options

MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
DIGITS = 8  # decimals of a score: all that float32 has


class LabelDecoder:
    """Turns logits into answers as the model's `problem_type` asks.

    single_label: softmax, one label wins. multi_label: sigmoid per label, and `labels` lists those
    at or above the threshold. regression: the model's own numbers. The same choice as transformers'
    TextClassificationPipeline.

    Calibration divides logits by `temperature` before softmax or sigmoid (Guo et al. 2017, "On
    Calibration of Modern Neural Networks"); raw scores are left as the model gave them.

    Rounding is of what is shown, raw scores too: ranks and thresholds see all digits.
    """

    def __init__(
        self,
        model: ModelInfo,
        *,
        threshold: float = 0.5,
        top_k: int | None = None,
        round_scores: int | None = None,
    ) -> None:
        self.threshold = threshold
        self.top_k = top_k
        self.round_scores = round_scores
        self._model = model

    def decode(self, logits: Logits, options: Sequence[Options]) -> list[Answer]:
        """One answer per text; those of rows in `logits.errors` mean nothing."""
        scores = self._scores(logits.values)
        # Stable, so that equal scores keep the model's own order.
        ranked = np.argsort(-scores, axis=1, kind="stable").tolist()
        digits = DIGITS if self.round_scores is None else self.round_scores
        probabilities, raw = _readable(scores, digits), _readable(logits.values, digits)
        return [
            self._answer(raw[i] if one.raw_scores else probabilities[i], scores[i], ranked[i], one)
            for i, one in enumerate(options)
        ]

    def _answer(
        self, shown: list[float], scores: Float32, ranked: list[int], options: Options
    ) -> Answer:
        labels = self._model.labels
        best = ranked[0]
        answer: Answer = {
            "label": labels[best],
            "score": shown[best],
            "scores": {labels[i]: shown[i] for i in ranked[: options.top_k or self.top_k]},
        }
        if self._model.problem_type == MULTI_LABEL:
            threshold = self.threshold if options.threshold is None else options.threshold
            answer["labels"] = [labels[i] for i in ranked if scores[i] >= threshold]
        return answer

    def _scores(self, values: Float32) -> Float32:
        values = values.astype(np.float32, copy=False)
        if self._model.problem_type == REGRESSION:
            return values
        scaled = values / np.float32(self._model.temperature)
        if self._model.problem_type == MULTI_LABEL:
            # tanh form: no overflow for large negative logits.
            half = np.float32(0.5)
            sigmoid: Float32 = half * (1 + np.tanh(half * scaled))
            return sigmoid
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        exp = np.exp(scaled)
        softmax: Float32 = exp / exp.sum(axis=1, keepdims=True)
        return softmax


def _readable(values: Float32, digits: int) -> list[list[float]]:
    # As float64, or 0.66363585 becomes 0.6636358499526978 in JSON.
    rows: list[list[float]] = values.astype(np.float64).round(digits).tolist()
    return rows
