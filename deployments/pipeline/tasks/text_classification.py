"""Logits → labels and scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from deployments.pipeline.drift import baseline_of
from deployments.pipeline.observer import SILENT, Observer
from deployments.pipeline.tokenize import TextEncoder, TypeIds
from deployments.pipeline.types import Activation, Answer, Float32, Logits, ModelInfo, Options
from deployments.user_config import PostprocessorUserConfig

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"


class TextClassification:
    """A sequence, or a pair of them, gets labels: any …ForSequenceClassification. See `Task`."""

    name = "text-classification"

    def encoder(self, tokenizer: Tokenizer, info: ModelInfo, type_ids: TypeIds) -> TextEncoder:
        return TextEncoder(tokenizer, info.max_length, type_ids)

    def decoder(
        self,
        info: ModelInfo,
        defaults: PostprocessorUserConfig | None = None,
        observer: Observer = SILENT,
    ) -> LabelDecoder:
        return LabelDecoder(info, defaults, observer)


class LabelDecoder:
    """Turns logits into answers as the model's `problem_type` asks.

    single_label: softmax, one label wins. multi_label: sigmoid per label, and `labels` lists those
    at or above the threshold. regression: the model's own numbers. The same choice as transformers'
    TextClassificationPipeline.

    Calibration divides logits by `temperature` before softmax or sigmoid (Guo et al. 2017, "On
    Calibration of Modern Neural Networks"), or sends a multi-label model's through a line of their
    own (Platt); raw scores are left as the model gave them. A single-label model may abstain, and
    may name the set of labels that holds the right one as often as was stated. Both look at
    calibrated scores, whatever is shown.

    Rounding is of what is shown, raw scores too: ranks and thresholds see all digits.
    """

    def __init__(
        self,
        model: ModelInfo,
        defaults: PostprocessorUserConfig | None = None,
        observer: Observer = SILENT,
    ) -> None:
        self._model = model
        self._defaults = defaults or PostprocessorUserConfig()
        self._observer = observer
        self._baseline = baseline_of(model.drift, model.labels)
        live, own = self._defaults, model.calibration
        self._abstain_below, self._label_set_from = (
            own.abstain_below if live.abstain_below is None else live.abstain_below,
            own.label_set_from if live.label_set_from is None else live.label_set_from,
        )

    def decode(self, logits: Logits, options: Sequence[Options]) -> list[Answer]:
        """One answer per text; those of rows in `logits.errors` mean nothing."""
        scores = self._scores(logits.values)
        # Stable, so that equal scores keep the model's own order.
        order = np.argsort(-scores, axis=1, kind="stable")
        ranked = order.tolist()
        digits = self._defaults.round_scores
        probabilities, raw = _readable(scores, digits), _readable(logits.values, digits)
        # None of the two changes the order.
        activated: dict[Activation | None, list[list[float]]] = {
            activation: _readable(self._activated(logits.values, activation), digits)
            for activation in {one.activation for one in options}
            if activation is not None
        }
        answers = [
            self._answer(
                (raw if one.raw_scores else activated.get(one.activation, probabilities))[i],
                scores[i],
                ranked[i],
                one,
            )
            for i, one in enumerate(options)
        ]
        best, top = order[:, 0], scores.max(axis=1)
        failed = [] if logits.errors is None else list(logits.errors)
        labelled = watched = failed
        if any(one.stage for one in options):
            # Each text counts once. Of drift the first model sees all texts, the second few.
            stages = [(i, one.stage) for i, one in enumerate(options)]
            silent = [i for i, stage in stages if stage == "shadow" or answers[i].get("unsure")]
            labelled = failed + silent
            watched = failed + [i for i, stage in stages if stage in ("second", "shadow")]
        is_share = self._model.problem_type != REGRESSION
        scored = np.delete(top, labelled) if is_share else None
        self._observer.labelled(self._model.labels, np.delete(best, labelled), scored)
        if self._baseline is not None:
            seen = {"labels": np.delete(best, watched), "scores": np.delete(top, watched)}
            self._observer.features(self._baseline, seen)
        return answers

    def _answer(
        self, shown: list[float], scores: Float32, ranked: list[int], options: Options
    ) -> Answer:
        labels = self._model.labels
        best, shown_ids = ranked[0], ranked[: options.top_k or self._defaults.top_k]
        answer: Answer = {
            "label": labels[best],
            "score": shown[best],
            "scores": {labels[i]: shown[i] for i in shown_ids},
        }
        if options.label_ids:
            answer["label_ids"] = shown_ids
        if self._model.problem_type == MULTI_LABEL:
            asked = options.threshold
            threshold = self._defaults.threshold if asked is None else asked
            answer["labels"] = [labels[i] for i in ranked if scores[i] >= threshold]
        elif self._model.problem_type == SINGLE_LABEL:
            if self._abstain_below:
                answer["abstained"] = bool(scores[best] < self._abstain_below)
            if options.unsure_below is not None:
                answer["unsure"] = bool(scores[best] < options.unsure_below)
            if self._label_set_from:
                answer["label_set"] = [
                    labels[i] for i in ranked if scores[i] >= self._label_set_from
                ]
        return answer

    def _scores(self, values: Float32) -> Float32:
        problem = self._model.problem_type
        if problem == REGRESSION:
            return values.astype(np.float32, copy=False)
        return self._activated(values, "sigmoid" if problem == MULTI_LABEL else "softmax")

    def _activated(self, values: Float32, activation: Activation) -> Float32:
        scaled = values.astype(np.float32, copy=False) / np.float32(self._model.temperature)
        if self._model.calibration.platt is not None:
            slopes, offsets = np.asarray(self._model.calibration.platt, np.float32).T
            scaled = scaled * slopes + offsets
        if activation == "sigmoid":
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
