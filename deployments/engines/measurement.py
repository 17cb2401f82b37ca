"""Precisions measured one after the other: whether they agree, and how fast they are.

Speed is what a service needs: texts a second in batches of one text, a few, many and a full one,
with lengths drawn anew for each, so that what a new shape costs counts where there is no end of
them. The score is the geometric mean over the sizes.
"""

from __future__ import annotations

import gc
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from statistics import geometric_mean

import numpy as np

from deployments.engines.base import Engine, EngineUnavailable
from deployments.engines.parity import compare
from deployments.model.source import ModelNotFound
from deployments.pipeline.types import Encoded, Float32
from deployments.settings import EngineSettings
from deployments.user_config import ClassifierUserConfig

logger = logging.getLogger(__name__)

REFERENCE = "float32"
"""What every other precision must agree with, and what runs where none does."""

EXACTNESS = ("float32", "float16", "bfloat16", "int8")
"""Precisions by how little they round, the most exact first."""

SIZES = (1, 4, 16)
"""Texts in a batch; the fourth size is a full batch."""
# Packed rows have few sizes. The first of a size compiles for as long as a batch of so few texts
# takes, and a service has soon met all of them: such a batch is timed when it comes again.
_FEW = 4
FULL_TOKENS = int(ClassifierUserConfig().max_batch_tokens)
# Of all precisions together, as an owner waits for it at the first start; there are three at most.
TIMING_S = 8.0
_SLICE_S = TIMING_S / 3
# The reference answers the probe's texts until then, and the others those that it answered.
ANSWERS_S = 3.0
CHUNK_TEXTS = 12
# Tokens of one packed row: what a layer's activations may take of the caches, which differ.
ROW_TOKENS = (512, 4_096)
# A precision must be this much faster to be taken before a more exact one.
NEAR_TIE = 0.05
_SEED = 20261128


@dataclass(frozen=True, slots=True)
class Measured:
    """One precision's row. What could not be found out is None.

    rates: texts a second by batch: "1", "4", "16", "full". row_tokens: the faster of `ROW_TOKENS`.
    agrees: whether it may be chosen. verdict: why it may not (`refused: …`, `failed: …`,
    `skipped: …`); else, once a choice is made, `chosen` or why it was not.
    """

    dtype: str
    rates: dict[str, float] = field(default_factory=dict)
    max_drift: float | None = None
    label_agreement: float | None = None
    row_tokens: int | None = None
    agrees: bool = False
    verdict: str = ""

    @property
    def chosen(self) -> bool:
        return self.verdict == "chosen"

    @property
    def speed(self) -> float:
        """Texts a second, the geometric mean over the sizes; 0 where it is not known."""
        return geometric_mean(self.rates.values()) if self.rates else 0.0


class Measurement:
    """Takes precisions one at a time; the reference must be the first.

    At most one engine is in memory. An engine that raises is a row, never an exception.
    """

    def __init__(
        self,
        probe: Encoded,
        problem_type: str,
        settings: EngineSettings,
        make: Callable[[str], Engine],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._texts = probe.split()
        self._problem_type = problem_type
        self._settings = settings
        self._make = make
        self._clock = clock
        self._reference: Float32 | None = None

    def measure(self, dtype: str) -> Measured:
        """The precision's row."""
        if dtype != REFERENCE and self._reference is None:
            return Measured(dtype, verdict=f"skipped: {REFERENCE} gave nothing to compare with")
        try:
            return self._measure(dtype)
        except (EngineUnavailable, ModelNotFound) as exc:  # our own words
            return Measured(dtype, verdict=f"failed: {exc}")
        except Exception as exc:
            logger.debug("%s failed", dtype, exc_info=True)
            return Measured(dtype, verdict=f"failed: {type(exc).__name__}")
        finally:
            gc.collect()  # before the next one is loaded

    def _measure(self, dtype: str) -> Measured:
        engine = self._make(dtype)
        engine.load()
        answers = self._answers(engine)
        if self._reference is None and np.isfinite(answers).all():
            self._reference = answers
        reference = answers if self._reference is None else self._reference
        agreement = compare(reference, answers, self._problem_type, self._settings)
        agrees = agreement.refusal is None
        rates, row_tokens = self._rates(engine) if agrees else ({}, None)
        return Measured(
            dtype,
            rates,
            agreement.max_drift if np.isfinite(agreement.max_drift) else None,
            agreement.label_agreement,
            row_tokens,
            agrees,
            agreement.refusal or "",
        )

    def _answers(self, engine: Engine) -> Float32:
        """Logits of the first texts; the reference says of how many."""
        parts: list[Float32] = []
        ends_s = self._clock() + ANSWERS_S
        texts = self._texts if self._reference is None else self._texts[: len(self._reference)]
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = Encoded.concat(texts[start : start + CHUNK_TEXTS])
            parts.append(engine.predict(chunk).values)
            if self._reference is None and self._clock() > ends_s:
                break
        return np.concatenate(parts)

    def _rates(self, engine: Engine) -> tuple[dict[str, float], int | None]:
        """Texts a second by size, and the better `row_tokens`."""
        draw = random.Random(_SEED)  # noqa: S311
        seconds: dict[str, float] = {}
        tokens: dict[str, int] = {}
        ends_s = self._clock() + _SLICE_S
        mean = sum(text.total_tokens for text in self._texts) / len(self._texts)
        full = max(SIZES[-1], round(FULL_TOKENS / mean))
        kinds = (None,) if engine.row_tokens is None else ROW_TOKENS
        sizes: dict[str, tuple[int, int | None]] = {str(n): (n, None) for n in SIZES}
        sizes |= {f"full {kind}": (full, kind) for kind in kinds}
        # A full batch, or as much of one as leaves time for the others.
        most = full
        for size, (n_texts, row_tokens) in cycle(sizes.items()):
            if row_tokens is not None:
                engine.row_tokens = row_tokens
            batch = Encoded.concat(draw.choices(self._texts, k=min(n_texts, most)))
            if n_texts <= _FEW and engine.row_tokens is not None:
                engine.predict(batch)
            started = self._clock()
            engine.predict(batch)
            took_s = self._clock() - started
            seconds[size] = seconds.get(size, 0.0) + took_s
            tokens[size] = tokens.get(size, 0) + batch.total_tokens
            most = max(SIZES[-1], round(_SLICE_S / 4 * len(batch) / max(took_s, 1e-9)))
            if self._clock() > ends_s and len(seconds) == len(sizes):
                break
        # Of the mean length: a size is not slower because long texts were drawn for it.
        rates = {size: tokens[size] / mean / max(seconds[size], 1e-9) for size in seconds}
        best = max(kinds, key=lambda kind: rates[f"full {kind}"])
        return {**{str(n): rates[str(n)] for n in SIZES}, "full": rates[f"full {best}"]}, best


def choose(rows: Sequence[Measured]) -> list[Measured]:
    """The rows with their verdicts: the chosen one first, those that agree by speed, the others.

    Of those that are nearly as fast as the fastest the most exact is taken. Where none agrees, as
    the reference itself failed, none is.
    """
    able = [row for row in rows if row.agrees]
    if not able:
        return list(rows)
    fastest = max(row.speed for row in able)
    chosen = min(
        (row for row in able if row.speed >= (1 - NEAR_TIE) * fastest),
        key=lambda row: EXACTNESS.index(row.dtype),
    )
    judged = [_judged(row, chosen) for row in rows]
    return sorted(judged, key=lambda row: (not row.chosen, not row.agrees, -row.speed))


def _judged(row: Measured, chosen: Measured) -> Measured:
    if row is chosen:
        verdict = "chosen"
    elif not row.agrees:
        verdict = row.verdict
    elif row.speed > chosen.speed:
        verdict = f"less exact, only {row.speed / chosen.speed:.2f}× as fast"
    else:
        verdict = f"slower: {row.speed / chosen.speed:.2f}×"
    return replace(row, verdict=verdict)
