"""Candidates measured one after the other: whether they agree, and how fast they are."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from typing import Any

import numpy as np

from deployments.engines.base import Engine, EngineUnavailable
from deployments.engines.catalog import EXACTNESS, REFERENCE, Candidate
from deployments.engines.parity import Agreement, compare
from deployments.model.source import ModelNotFound
from deployments.pipeline.types import Encoded, Float32
from deployments.settings import EngineSettings

logger = logging.getLogger(__name__)

# Small enough that a slow machine can stop between two, large enough to be batches.
CHUNK_TEXTS = 12
# How long the reference may compute its answers on the probe, of which one chunk is always asked,
# and how long each engine computes the rounds in which its speed is the best of each chunk.
ANSWERS_S = 3.0
ROUNDS_S = 1.0
MAX_ROUNDS = 20
# No further candidate is begun after so much computing, or so much time on a machine that is busy
# with other things.
BUDGET_S = 60.0
PATIENCE_S = 120.0
# So many times as long as it computes may an engine take for its answers and its rounds.
MAX_STRETCH = 5
# An engine must be this much faster to be taken before a more exact one.
NEAR_TIE = 0.1

# Of a calm machine's time every engine here computes 0.82 or more; beside one other busy process
# none more than 0.82, and most 0.65 or less (docs/log.md).
CALM_SHARE = 0.75

BUSY = "skipped: the machine is too busy"
"""Verdict of a candidate that might have been measured at a calmer time."""
PROCESS = "its process"
"""How the reason of a failure begins where the process ended in which it was measured."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One candidate's row. What could not be found out is None.

    agrees: whether it may be chosen. verdict: why it may not (`refused: …`, `failed: …`,
    `skipped: …`); else, once a choice is made, `chosen` or why it was not. cpu_share: CPU seconds
    per thread and second while its speed was measured; None on other devices.
    """

    candidate: Candidate
    texts_per_s: float | None = None
    max_drift: float | None = None
    label_agreement: float | None = None
    batching: str | None = None
    start_s: float | None = None
    cpu_share: float | None = None
    agrees: bool = False
    verdict: str = ""

    @property
    def chosen(self) -> bool:
        return self.verdict.startswith("chosen")

    @property
    def speed(self) -> float:
        """texts_per_s, 0 where it is not known."""
        return self.texts_per_s or 0.0

    @property
    def disturbed(self) -> bool:
        """Whether others had the CPU meanwhile, so that its speed says little."""
        return self.cpu_share is not None and self.cpu_share < CALM_SHARE

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(row: dict[str, Any]) -> Measured:
        return Measured(**{**row, "candidate": Candidate(**row["candidate"])})


class Measurement:
    """Takes candidates one at a time; the reference must be the first.

    At most one engine is in memory. An engine that raises is a row, never an exception.
    """

    def __init__(
        self,
        probe: Encoded,
        problem_type: str,
        settings: EngineSettings,
        make: Callable[[Candidate], Engine],
        clock: Callable[[], float] = time.perf_counter,
        computing: Callable[[], float] | None = None,
    ) -> None:
        """computing: seconds computed so far, which stand still where others have the CPU."""
        self._chunks = _chunks(probe)
        self._problem_type = problem_type
        self._settings = settings
        self._make = make
        self._clock = clock
        self._computing = computing or clock
        self._reference: Float32 | None = None
        self._begun_s = clock()
        self._budget_ends_s = self._computing() + BUDGET_S

    def measure(self, candidate: Candidate) -> Measured:
        """The candidate's row."""
        if candidate != REFERENCE and self._reference is None:
            return Measured(candidate, verdict=f"skipped: {REFERENCE} gave nothing to compare with")
        if self._computing() > self._budget_ends_s:
            return Measured(
                candidate, verdict=f"skipped: the {BUDGET_S:.0f} s for measuring were over"
            )
        if self._clock() - self._begun_s > PATIENCE_S:
            return Measured(candidate, verdict=BUSY)
        try:
            return self._measure(candidate)
        except (EngineUnavailable, ModelNotFound) as exc:  # our own words
            return Measured(candidate, verdict=f"failed: {exc}")
        except Exception as exc:
            logger.debug("%s failed", candidate, exc_info=True)
            return Measured(candidate, verdict=f"failed: {type(exc).__name__}")
        finally:
            gc.collect()  # before the next one is loaded

    def _measure(self, candidate: Candidate) -> Measured:
        started = self._clock()
        engine = self._make(candidate)
        engine.load()
        start_s = self._clock() - started
        values, seconds = self._answers(engine)
        agreement = self._compare(values)
        cpu_share = self._rounds(engine, seconds)
        info = engine.info()
        return Measured(
            candidate,
            texts_per_s=len(values) / sum(seconds),
            max_drift=agreement.max_drift if np.isfinite(agreement.max_drift) else None,
            label_agreement=agreement.label_agreement,
            batching=info.batching,
            start_s=start_s,
            cpu_share=cpu_share if info.device == "cpu" else None,
            agrees=agreement.refusal is None,
            verdict=agreement.refusal or "",
        )

    def _answers(self, engine: Engine) -> tuple[Float32, list[float]]:
        """Logits of the first chunks and the seconds that each took."""
        parts: list[Float32] = []
        seconds: list[float] = []
        over = self._limit(ANSWERS_S)
        for chunk in self._chunks:
            started = self._clock()
            parts.append(engine.predict(chunk).values)
            seconds.append(self._clock() - started)
            if self._reference is None and over():
                # The others are compared on as many texts as the reference had time for.
                self._chunks = self._chunks[: len(parts)]
                break
        return np.concatenate(parts), seconds

    def _rounds(self, engine: Engine, seconds: list[float]) -> float:
        """Lowers each chunk's seconds to its best: what disturbs a measurement only adds to it.

        Returns the share of the time that went by in which it computed.
        """
        over, computed, begun = self._limit(ROUNDS_S), self._computing(), self._clock()
        for i, chunk in islice(cycle(enumerate(self._chunks)), MAX_ROUNDS * len(self._chunks)):
            if over():
                break
            started = self._clock()
            engine.predict(chunk)
            seconds[i] = min(seconds[i], self._clock() - started)
        return (self._computing() - computed) / max(self._clock() - begun, 1e-9)

    def _limit(self, seconds: float) -> Callable[[], bool]:
        """Whether so much has been computed from now on, or far more time is gone."""
        computed, ended = self._computing() + seconds, self._clock() + MAX_STRETCH * seconds
        return lambda: self._computing() > computed or self._clock() > ended

    def _compare(self, values: Float32) -> Agreement:
        if self._reference is None:
            if np.isfinite(values).all():
                self._reference = values
            return compare(values, values, self._problem_type, self._settings)
        return compare(self._reference, values, self._problem_type, self._settings)


def choose(rows: Sequence[Measured], allowed: Collection[Candidate]) -> list[Measured]:
    """The rows with their verdicts: the chosen one first, those that agree by speed, the others.

    Of those that are nearly as fast as the fastest the most exact is taken, and of those the
    fastest. Where none that is allowed agrees it is the reference; where that failed too, none.
    """
    able = [row for row in rows if row.agrees and row.candidate in allowed]
    fallback = [row for row in rows if row.agrees and row.candidate == REFERENCE]
    if not able and not fallback:
        return list(rows)
    fastest = max((row.speed for row in able), default=0.0)
    chosen = min(
        (row for row in able or fallback if row.speed >= (1 - NEAR_TIE) * fastest),
        key=lambda row: (EXACTNESS.index(row.candidate.dtype), -row.speed),
    )
    judged = [_judged(row, chosen, row.candidate in allowed) for row in rows]
    return sorted(judged, key=lambda row: (not row.chosen, not row.agrees, -row.speed))


def _judged(row: Measured, chosen: Measured, allowed: bool) -> Measured:
    if row is chosen:
        verdict = "chosen" if allowed else "chosen: none that args.engine asks for agrees"
    elif not row.agrees:
        verdict = row.verdict
    elif not allowed:
        verdict = "for comparison only: not what args.engine asks for"
    elif row.speed > chosen.speed:
        verdict = f"less exact, only {row.speed / chosen.speed:.2f}× as fast"
    else:
        verdict = f"slower: {row.speed / chosen.speed:.2f}×"
    return replace(row, verdict=verdict)


def _chunks(probe: Encoded) -> list[Encoded]:
    texts = probe.split()
    return [
        Encoded.concat(texts[start : start + CHUNK_TEXTS])
        for start in range(0, len(texts), CHUNK_TEXTS)
    ]
