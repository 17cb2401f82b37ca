"""One text in, an explanation with offsets into the caller's own text out."""

from __future__ import annotations

import importlib.util
import math
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

import numpy as np

from deployments import installing
from deployments.engines.loading import load_model
from deployments.explain.attribution import Attributed, Chosen, Gradients, occlusion
from deployments.explain.spans import Replaced, Span, whole_spans
from deployments.pipeline.errors import InvalidInput, NotImplementedHere, PredictionFailed
from deployments.pipeline.explaining import (
    DEFAULT_PASSES,
    MAX_PASSES,
    MIN_PASSES,
    Method,
    check_target,
)
from deployments.pipeline.parts import ModelParts
from deployments.pipeline.types import Int32, TextInput
from deployments.privacy.redact import redactor_of
from deployments.settings import Settings

# What a pass with gradients costs, in forward passes: 3 by the count of products, and a margin.
_WITH_GRADIENT = 4
# Integrated gradients takes two of them for its ends; occlusion with two masks all or nothing.
_MIN_AUTO_PASSES = 3
# The share of the time that passes are planned for: others may slow the machine down meanwhile.
_PLANNED = 0.7


@dataclass(frozen=True, slots=True)
class _Read:
    """What the model reads of one input. special: places of the tokenizer's own marks. spans: of
    the text and of the second half.
    """

    ids: Int32
    types: Int32
    special: list[int]
    spans: tuple[list[Span], list[Span]]
    truncated: bool


class Explainer:
    """Explains answers of one model. It holds weights of its own, in float32 and with gradients.

    Threads may share one; they take turns. parts: the model that answers, so that both are one.

    Raises:
        ModelNotFound: the weights can't be read.
    """

    def __init__(self, settings: Settings, parts: ModelParts) -> None:
        from tokenizers import Tokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of the weights: a service has nobody to show it to
        self._info = parts.info
        self._encoder = parts.encoder()
        self._redactor = redactor_of(settings.redaction)
        self._tokenizer = Tokenizer.from_str(parts.tokenizer)
        self._tokenizer.encode_special_tokens = parts.split_special_tokens
        direction = (self._tokenizer.truncation or {}).get("direction", "right")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(parts.info.max_length, direction=direction)
        model = load_model(settings.model)
        self._fill = _fill(self._tokenizer, model.config)
        self._gradients = Gradients(model, parts.info.problem_type)
        self._turn = threading.Lock()

    def explain(
        self,
        item: TextInput,
        target: str,
        method: str = "auto",
        passes: int = DEFAULT_PASSES,
        *,
        seconds: float = math.inf,
        window: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """What each part of the text added to the log-odds of the label `target`.

        passes: forward passes at most, from MIN_PASSES to MAX_PASSES; as many are made as fit into
        `seconds`. window: only this part is read, in characters after redaction.

        Returns:
            JSON-ready; docs/explain.md says what each field means.

        Raises:
            InvalidInput: an unknown label or method, passes out of bounds, or a bad text.
            DeadlineExceeded: `seconds` are over, and not even the fewest passes are made.
            NotImplementedHere: the method needs captum, which is not installed.
            PredictionFailed: the attributions are no finite numbers.
        """
        check_target(target, self._info.labels)
        if not MIN_PASSES <= passes <= MAX_PASSES:
            raise InvalidInput(
                f"passes is {passes}; give a number from {MIN_PASSES} to {MAX_PASSES}."
            )
        _chosen(method, passes)  # a wrong method is told before anything is read
        read = self._read(item, window)
        index = self._info.labels.index(target)
        baseline = np.full_like(read.ids, self._fill.id)
        baseline[read.special] = read.ids[read.special]
        with self._turn:
            began = time.monotonic()
            self._gradients.until = began + seconds
            found = self._attributed(method, read, index, baseline, passes, seconds)
            took_s = time.monotonic() - began
        if not np.isfinite(found.values).all():
            raise PredictionFailed("the explanation has numbers that are not finite. Ask another "
                                   "method.")  # fmt: skip
        halves = zip((item.text, item.text_pair or ""), read.spans, ("text", "text_pair"),
                     strict=True)  # fmt: skip
        tokens: list[dict[str, Any]] = [
            {
                "text": text[span.start : span.end],
                "start": span.start,
                "end": span.end,
                "attribution": round(float(found.values[list(span.tokens)].sum()), 6),
                **({"part": part} if item.text_pair is not None else {}),
            }
            for text, spans, part in halves
            for span in spans
        ]
        total = float(found.values.sum())
        shown = sum(float(token["attribution"]) for token in tokens)
        return {
            "label": target,
            "of": "value" if self._info.problem_type == "regression" else "log_odds",
            "method": found.method,
            "baseline": self._fill.name if found.method != "gradient_x_input" else None,
            "passes": found.passes,
            "seconds": round(took_s, 3),
            "sum": round(total, 6),
            "convergence_delta": None if found.goal is None else round(total - found.goal, 6),
            "elsewhere": round(total - shown, 6),
            "truncated": read.truncated,
            "tokens": tokens,
        }

    def _attributed(
        self,
        asked: str,
        read: _Read,
        target: int,
        baseline: Int32,
        passes: int,
        seconds: float,
    ) -> Attributed:
        spent = 0
        method = _chosen(asked, passes)
        if seconds < math.inf and method != "gradient_x_input":
            spent = 1
            with_gradient = method == "integrated_gradients"
            fits = self._passes_in(seconds, read, _WITH_GRADIENT if with_gradient else 1)
            passes = max(MIN_PASSES, min(passes - spent, fits))
            method = _chosen(asked, passes)
        found = self._by(method, read, target, baseline, passes)
        return replace(found, passes=found.passes + spent)

    def _passes_in(self, seconds: float, read: _Read, cost: float) -> int:
        """How many passes over this text there is time for, by the time of one. cost: of a pass,
        in forward passes."""
        began = time.monotonic()
        self._gradients.predict([read.ids], read.types)
        pass_s = time.monotonic() - began
        return int((_PLANNED * seconds - pass_s) / max(pass_s * cost, 1e-6))

    def _by(
        self, method: Chosen, read: _Read, target: int, baseline: Int32, passes: int
    ) -> Attributed:
        if method == "integrated_gradients":
            steps = max(1, passes - 2)  # two passes see the ends
            return self._gradients.integrated_gradients(
                read.ids, read.types, target, baseline, steps
            )
        if method == "gradient_x_input":
            return self._gradients.gradient_x_input(read.ids, read.types, target)
        units = [span.tokens for spans in read.spans for span in spans]
        predict = partial(self._gradients.predict, types=read.types)
        problem = self._info.problem_type
        return occlusion(predict, read.ids, units, target, problem, self._fill.id, passes)

    def _read(self, item: TextInput, window: tuple[int, int] | None) -> _Read:
        halves = [item.text] if item.text_pair is None else [item.text, item.text_pair]
        redacted, replaced = [], []
        for half in halves:
            found = [] if self._redactor is None else self._redactor.find(half)
            replaced.append([Replaced(start, end, len(by)) for start, end, by in found])
            redacted.append(half if self._redactor is None else self._redactor.redact(half)[0])
        begin, end = window or (0, len(redacted[0]))
        redacted[0] = redacted[0][begin:end]
        pair = redacted[1] if len(redacted) > 1 else None
        asked = TextInput(redacted[0], pair, item.options)
        encoded = self._encoder.encode([asked])
        for error in encoded.errors.values():
            raise error
        if item.options.truncation_side is not None:
            raise InvalidInput("truncation_side can't be explained. Leave it out.")
        encoding = self._tokenizer.encode(redacted[0], pair)
        ids = np.asarray(encoding.ids, np.int32)
        if not np.array_equal(ids, encoded.batch.input_ids):
            raise PredictionFailed(
                "the text's tokens have no certain places in it, so it can't be explained."
            )
        special = [i for i, mark in enumerate(encoding.special_tokens_mask) if mark]
        spans: list[list[Span]] = [[], []]
        for number, half in enumerate(halves):
            before = begin if number == 0 else 0
            offsets = [
                (first + before, last + before) if sequence == number else (0, 0)
                for (first, last), sequence in zip(
                    encoding.offsets, encoding.sequence_ids, strict=True
                )
            ]
            spans[number] = whole_spans(half, offsets, replaced[number])
        types = np.asarray(encoding.type_ids, np.int32)
        both = (spans[0], spans[1])
        return _Read(ids, types, special, both, encoded.truncated[0])


@dataclass(frozen=True, slots=True)
class _Fill:
    """The token that stands for nothing. name: as the answer states it."""

    id: int
    name: str


def _fill(tokenizer: Any, config: Any) -> _Fill:
    """The mask token, which the encoder saw in training; without one padding, then unknown."""
    for kind, tokens in (
        ("mask", ("[MASK]", "<mask>")),
        ("padding", ("[PAD]", "<pad>")),
        ("unknown", ("[UNK]", "<unk>")),
    ):
        for token in tokens:
            if (number := tokenizer.token_to_id(token)) is not None:
                return _Fill(number, f"{kind} token {token}; the tokenizer's own marks are kept")
    number = getattr(config, "pad_token_id", None) or 0
    return _Fill(number, f"token {number}; the tokenizer's own marks are kept")


def _chosen(method: str, passes: int) -> Chosen:
    has_captum = importlib.util.find_spec("captum") is not None
    if method == "auto":
        # In this order they find what a label hangs on, with few passes too: docs/explain.md.
        if passes < _MIN_AUTO_PASSES:
            return "gradient_x_input"
        return "integrated_gradients" if has_captum else "occlusion"
    if method not in get_args(Chosen):
        raise InvalidInput(f"method must be one of {', '.join(get_args(Method))}.")
    if method == "integrated_gradients" and not has_captum:
        raise NotImplementedHere(
            f"integrated_gradients needs captum. Install it: {installing('explain')}; or ask "
            "gradient_x_input or occlusion."
        )
    chosen: Chosen = method  # type: ignore[assignment]
    return chosen
