"""Integrated gradients, gradient × input and occlusion, over the token ids of one text.

All explain the log-odds of one label, or the value of a regression: softmax saturates, and log-odds
don't. Of softmax, logit k minus the log of the summed exponentials of the others; of sigmoid, logit
k itself. Calibration changes neither sign nor order of it for a temperature, and is left out.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from deployments.pipeline.errors import DeadlineExceeded
from deployments.pipeline.types import Float32, Float64, Int32

Chosen = Literal["integrated_gradients", "gradient_x_input", "occlusion"]
Predict = Callable[[list[Int32]], Float32]
"""Token ids of texts as long as each other → logits, float32 [texts, labels]."""

# Of one forward pass, over as many variants of the text: bounds memory, and the time between two
# looks at the clock.
_MAX_ROWS, _ROW_TOKENS = 8, 1024


@dataclass(frozen=True, slots=True)
class Attributed:
    """values: float64 [tokens]. passes: forward passes of the one text, with a backward pass each
    where the method takes gradients. goal: what the values should sum to; None where the method
    promises no sum.
    """

    values: Float64
    method: Chosen
    passes: int
    goal: float | None


def log_odds(logits: torch.Tensor, target: int, problem_type: str) -> torch.Tensor:
    """[n, labels] → [n]: what is explained."""
    if problem_type != "single_label_classification" or logits.shape[1] == 1:
        return logits[:, target]
    others = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1)
    return logits[:, target] - torch.logsumexp(others, dim=1)


class Gradients:
    """Methods that take gradients, of a torch model in float32 on the CPU.

    One text at a time and one caller at a time: a hook holds the embeddings of the text under way.
    until: of `time.monotonic()`; no forward pass begins after it.
    """

    until = math.inf

    def __init__(self, model: Any, problem_type: str) -> None:
        self._model = model
        self._problem_type = problem_type
        self._takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
        self._embedding = model.get_input_embeddings()

    def gradient_x_input(self, ids: Int32, types: Int32 | None, target: int) -> Attributed:
        """Gradient at the text, times its embeddings; one pass (Shrikumar et al. 2016)."""
        kept: list[torch.Tensor] = []

        def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            kept.append(output.detach().requires_grad_(True))
            return kept[0]

        hook = self._embedding.register_forward_hook(keep)
        try:
            with torch.enable_grad():
                self._value(_row(ids), target, types).sum().backward()  # type: ignore[no-untyped-call]
        finally:
            hook.remove()
        gradient = kept[0].grad
        if gradient is None:
            raise RuntimeError("the model's output does not depend on its embeddings")
        values = (gradient * kept[0].detach()).sum(-1)[0]
        return Attributed(values.double().numpy(), "gradient_x_input", 1, None)

    def integrated_gradients(
        self, ids: Int32, types: Int32 | None, target: int, baseline: Int32, steps: int
    ) -> Attributed:
        """Mean gradient on the straight way from the baseline's embeddings to the text's, times
        their difference (Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks").

        Values sum to f(text) - f(baseline), but for the error of the sum over steps.

        Raises:
            ImportError: captum is not installed.
        """
        from captum.attr import LayerIntegratedGradients

        found = LayerIntegratedGradients(self._value, self._embedding)
        values = found.attribute(
            _row(ids),
            _row(baseline),
            additional_forward_args=(target, types),
            n_steps=steps,
            internal_batch_size=min(steps, _rows(len(ids))),
        )
        with torch.no_grad():
            ends = self._value(torch.cat([_row(ids), _row(baseline)]), target, types)
        total = values.sum(-1)[0].detach().double().numpy()
        return Attributed(total, "integrated_gradients", steps + 2, float(ends[0] - ends[1]))

    def predict(self, rows: list[Int32], types: Int32 | None) -> Float32:
        """Logits of texts as long as each other."""
        with torch.no_grad():
            ids = torch.from_numpy(np.stack(rows).astype(np.int64))
            logits: Float32 = self._logits(ids, types).float().numpy()
        return logits

    def _value(self, ids: torch.Tensor, target: int, types: Int32 | None) -> torch.Tensor:
        return log_odds(self._logits(ids, types), target, self._problem_type)

    def _logits(self, ids: torch.Tensor, types: Int32 | None) -> torch.Tensor:
        if time.monotonic() > self.until:
            raise DeadlineExceeded(
                "The explanation takes longer than it may. Shorten the text, or allow more time: "
                "timeout_ms, and args.explain.max_s of the service."
            )
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if types is not None and self._takes_types:
            inputs["token_type_ids"] = _row(types).expand_as(ids)
        logits: torch.Tensor = self._model(**inputs).logits
        return logits


def occlusion(
    predict: Predict,
    ids: Int32,
    units: Sequence[Sequence[int]],
    target: int,
    problem_type: str,
    fill: int,
    passes: int,
) -> Attributed:
    """f(text) minus f(text with a window masked), shared evenly among the window's tokens (Zeiler
    and Fergus 2014). Windows are of as many units as keep to `passes`.

    units: places in `ids`, of what is masked together, in order. passes: at least 2.
    """
    per_window = max(1, -(-len(units) // max(1, passes - 1)))
    windows = [
        [place for unit in units[i : i + per_window] for place in unit]
        for i in range(0, len(units), per_window)
    ]
    rows = [ids]
    for window in windows:
        masked = ids.copy()
        masked[window] = fill
        rows.append(masked)
    step = _rows(len(ids))
    logits = np.concatenate([predict(rows[i : i + step]) for i in range(0, len(rows), step)])
    found = log_odds(torch.from_numpy(logits), target, problem_type).double().numpy()
    values = np.zeros(len(ids))
    for window, value in zip(windows, found[1:], strict=True):
        values[window] = (found[0] - value) / len(window)
    return Attributed(values, "occlusion", len(rows), None)


def _rows(n_tokens: int) -> int:
    return max(1, min(_MAX_ROWS, _ROW_TOKENS // n_tokens))


def _row(ids: Int32) -> torch.Tensor:
    return torch.from_numpy(ids.astype(np.int64))[None]
