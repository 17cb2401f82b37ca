"""The fastest engine here that agrees with the model, found by measurement at the first start."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from deployments.engines import catalog, isolation
from deployments.engines.base import Engine
from deployments.engines.catalog import REFERENCE, Candidate
from deployments.engines.choices import Choices
from deployments.engines.kept import Store, circumstances
from deployments.engines.measurement import SIZES, Measured, choose
from deployments.model.steps import step
from deployments.pipeline.types import Encoded, EngineInfo, Logits
from deployments.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

Measure = Callable[[isolation.Task], list[Measured]]
Make = Callable[[Candidate, ModelSettings, EngineSettings, int, int | None, Store | None], Engine]


class AutoEngine:
    """Measures what fits the settings, keeps the choice, and runs as the chosen engine.

    store: where the application keeps it, beside this node's disk.

    One candidate is taken unmeasured. Where none agrees, or nothing can be measured, it is torch in
    float32.

    Raises (from `load`):
        EngineUnavailable: nothing that is installed fits the settings.
        ModelNotFound, ValueError: as the engines.
    """

    def __init__(
        self,
        model: ModelSettings,
        engine: EngineSettings,
        num_threads: int,
        *,
        store: Store | None = None,
        measure: Measure = isolation.measure,
        make: Make = catalog.make,
    ) -> None:
        self._model = model
        self._settings = engine
        self._num_threads = num_threads
        self._store = store
        self._measure = measure
        self._make = make
        self._engine: Engine | None = None
        self._selected_by = "config"
        self._taken = REFERENCE

    @property
    def row_tokens(self) -> int | None:
        """See `Engine`."""
        return None if self._engine is None else self._engine.row_tokens

    @row_tokens.setter
    def row_tokens(self, tokens: int | None) -> None:
        if self._engine is not None:
            self._engine.row_tokens = tokens

    @property
    def padding_tokens(self) -> int:
        """See `Engine`."""
        return 0 if self._engine is None else self._engine.padding_tokens

    def load(self) -> None:
        candidates = catalog.candidates(self._settings)
        if len(candidates) == 1:
            self._engine = self._load(candidates[0])
            return
        choices = Choices(self._store)
        if self._take_cached(choices.read(self._key())):
            return
        with choices.one_at_a_time():
            # Another replica may have measured while this one waited.
            if self._take_cached(choices.read(self._key())):
                return
            logger.info("measuring %d engines, as no earlier start did", len(candidates))
            with step("choice"):
                rows = self.measure(candidates)
            # The key anew: a model from the hub has its files here only now.
            choices.store(self._key(), rows)
        self._selected_by = "measurement"
        self._engine = self._best_that_loads(rows)
        logger.info("engine: %s, by measurement here:\n%s", self._taken, table(rows))
        if rows and self._taken not in candidates:
            logger.warning(
                "nothing that args.engine allows agrees with the model: it runs as %s. The table "
                "above says why; max_logit_drift and min_label_agreement set what is near enough.",
                self._taken,
            )

    def predict(self, batch: Encoded) -> Logits:
        if self._engine is None:
            raise RuntimeError("the engine is not loaded")
        return self._engine.predict(batch)

    def info(self) -> EngineInfo:
        if self._engine is None:
            raise RuntimeError("the engine is not loaded")
        return replace(self._engine.info(), selected_by=self._selected_by)

    def measure(self, candidates: Sequence[Candidate]) -> list[Measured]:
        """Rows of all candidates, judged; empty where nothing can be measured.

        The reference is measured too, and can be chosen if it is one of them or none else agrees.
        """
        others = tuple(candidate for candidate in candidates if candidate != REFERENCE)
        task = isolation.Task(self._model, self._settings, self._num_threads, (REFERENCE, *others))
        try:
            return choose(self._measure(task), candidates)
        except OSError as exc:
            logger.warning("engines can't be measured here (%s)", type(exc).__name__)
            return []

    def cached(self) -> list[Measured] | None:
        """The rows of an earlier measurement that still hold."""
        return Choices(self._store).read(self._key())

    def measure_anew(self, candidates: Sequence[Candidate]) -> list[Measured]:
        """As `measure`, once no other process measures, and kept for the starts to come."""
        choices = Choices(self._store)
        with choices.one_at_a_time():
            rows = self.measure(candidates)
            choices.store(self._key(), rows)
        return rows

    def _key(self) -> dict[str, Any] | None:
        return circumstances(self._model, self._settings, self._num_threads)

    def _take_cached(self, rows: list[Measured] | None) -> bool:
        if not rows or not rows[0].chosen:
            return False
        chosen = rows[0].candidate
        try:
            self._engine = self._load(chosen, rows[0].row_tokens)
        except Exception as exc:
            logger.warning(
                "%s, chosen earlier, loads no more (%s): measuring again",
                chosen,
                type(exc).__name__,
            )
            return False
        self._selected_by = "cache"
        logger.info("engine: %s, by an earlier measurement here:\n%s", chosen, table(rows))
        return True

    def _best_that_loads(self, rows: Sequence[Measured]) -> Engine:
        for row in rows:
            # Of those that agree one may be there for comparison only: it is the last resort.
            if not row.agrees or (row.candidate == REFERENCE and not row.chosen):
                continue
            try:
                return self._load(row.candidate, row.row_tokens)
            except Exception as exc:
                logger.warning(
                    "%s was measured but does not load (%s)", row.candidate, type(exc).__name__
                )
        return self._load(REFERENCE)

    def _load(self, candidate: Candidate, row_tokens: int | None = None) -> Engine:
        engine = self._make(
            candidate, self._model, self._settings, self._num_threads, row_tokens, self._store
        )
        engine.load()
        self._taken = candidate
        return engine


def table(rows: Sequence[Measured]) -> str:
    """The rows as aligned text. By size of a batch: texts a second."""
    sizes = (*map(str, SIZES), "full")
    lines: list[tuple[str, ...]] = [
        ("engine", *sizes, "score", "rows of", "max drift", "same labels", "verdict")
    ]
    for row in rows:
        rates = [f"{row.rates[size]:.3g}" if size in row.rates else "-" for size in sizes]
        lines.append(
            (
                str(row.candidate),
                *rates,
                f"{row.speed:.3g}" if row.rates else "-",
                "-" if row.row_tokens is None else f"{row.row_tokens:,}",
                "-" if row.max_drift is None else f"{row.max_drift:.2g}",
                "-" if row.label_agreement is None else f"{row.label_agreement:.1%}",
                row.verdict,
            )
        )
    last = len(lines[0]) - 1
    widths = [max(len(line[column]) for line in lines) for column in range(last)]
    return "\n".join(
        f"  {line[0]:<{widths[0]}}  "
        + "".join(f"{line[k]:>{widths[k]}}  " for k in range(1, last))
        + line[last]
        for line in lines
    )
