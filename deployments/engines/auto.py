"""The fastest precision here that agrees with the model, measured once for a kind of machine."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from deployments.engines import isolation
from deployments.engines.base import Engine
from deployments.engines.kept import Kept, Store, circumstances
from deployments.engines.measurement import REFERENCE, SIZES, Measured, choose
from deployments.model.quantized import quantized
from deployments.model.steps import step
from deployments.pipeline.types import Encoded, EngineInfo, Logits
from deployments.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

Measure = Callable[[ModelSettings, EngineSettings, int, Sequence[str]], list[Measured]]


class AutoEngine:
    """Measures at the first start, keeps the choice, and runs as the chosen engine.

    store: where the application keeps it, beside this node's disk. measure: see `isolation`.

    A model that `rayclassify quantize` wrote runs in int8, in float32 where that is faster: its
    owner's limit of labels holds, and not the limit of logits.

    Where none agrees, or nothing can be measured, it is torch in float32.

    Raises (from `load`):
        ValueError: torch does not see the device that was named.
        ModelNotFound, EngineUnavailable, ModelBroken: as `TorchEngine`.
    """

    def __init__(
        self,
        model: ModelSettings,
        engine: EngineSettings,
        num_threads: int,
        store: Store | None = None,
        measure: Measure = isolation.measure,
    ) -> None:
        self._model, self._settings, self._threads = model, engine, num_threads
        self._store = store
        self._measure = measure
        self._kept = Kept("choices", store)
        self._engine: Engine | None = None
        self._selected_by = "cache"

    @property
    def row_tokens(self) -> int | None:
        """See `Engine`."""
        return None if self._engine is None else self._engine.row_tokens

    @row_tokens.setter
    def row_tokens(self, tokens: int | None) -> None:
        self._loaded().row_tokens = tokens

    @property
    def padding_tokens(self) -> int:
        """See `Engine`."""
        return 0 if self._engine is None else self._engine.padding_tokens

    def load(self) -> None:
        rows = self.cached() or self.measured()
        self._engine = self._best_that_loads(rows)
        dtype, how = self._engine.info().dtype, self._selected_by
        logger.info("engine: torch %s, by %s:\n%s", dtype, how, table(rows))

    def predict(self, batch: Encoded) -> Logits:
        return self._loaded().predict(batch)

    def info(self) -> EngineInfo:
        return replace(self._loaded().info(), selected_by=self._selected_by)

    def cached(self) -> list[Measured]:
        """The rows of an earlier measurement that still hold, the chosen one first."""
        for found in self._kept.read(self._circumstances()):
            try:
                return [Measured(**row) for row in found["rows"]]
            except (KeyError, TypeError) as exc:
                self._kept.damaged(exc)
        return []

    def measured(self, anew: bool = False) -> list[Measured]:
        """Measures, once no other process does, and keeps the rows for the starts to come.

        The chosen one is first; empty where nothing can be measured. anew: even where another
        replica has just measured.
        """
        settings, quantised = self._judged_by()
        dtypes = candidates(settings)
        if quantised:
            dtypes = [dtype for dtype in dtypes if dtype in (REFERENCE, "int8")]
        with self._kept.one_at_a_time():
            if not anew and (rows := self.cached()):
                return rows
            logger.info("measuring %s, as no earlier start did", ", ".join(dtypes))
            self._selected_by = "measurement"
            try:
                with step("choice"):
                    rows = choose(self._measure(self._model, settings, self._threads, dtypes))
            except OSError as exc:
                logger.warning("engines can't be measured here (%s)", type(exc).__name__)
                return []
            failed = [row for row in rows if row.verdict.startswith("failed")]
            for row in failed:  # a full disk, or memory that was short: it may have been chance
                logger.warning("%s %s (the next start measures again)", row.dtype, row.verdict)
            if not failed and rows[0].chosen:
                # The key anew: a model from the hub has its files here only now.
                self._kept.write(self._circumstances(), {"rows": [asdict(row) for row in rows]})
            return rows

    def _circumstances(self) -> dict[str, object] | None:
        settings, quantised = self._judged_by()
        found = circumstances(self._model, settings, self._threads)
        return {**found, "quantized": True} if found and quantised else found

    def _judged_by(self) -> tuple[EngineSettings, bool]:
        """The limits of agreement, and whether they are those of a quantised model.

        Its owner held it to labelled texts. Where 8 bits are broken on this machine, labels of the
        probe show it; a logit may be off by more than in a model that nobody checked.

        Raises:
            ModelRefused: quantization.json is damaged.
        """
        told = quantized(self._model)
        if told is None or self._settings.dtype != "auto":
            return self._settings, False
        limits = {"min_label_agreement": told.min_agreement, "max_logit_drift": math.inf}
        return self._settings.model_copy(update=limits), True

    def _best_that_loads(self, rows: Sequence[Measured]) -> Engine:
        for row in rows:
            if row.agrees:
                try:
                    return self._load(row.dtype, row.row_tokens)
                except Exception as exc:
                    kind = type(exc).__name__
                    logger.warning("%s was measured but does not load (%s)", row.dtype, kind)
        return self._load(REFERENCE)

    def _load(self, dtype: str, row_tokens: int | None = None) -> Engine:
        with step("imports"):
            from deployments.engines.torch_engine import TorchEngine
        named = self._settings.model_copy(update={"name": "torch", "dtype": dtype})
        engine = TorchEngine(self._model, named, self._threads, self._store)
        engine.row_tokens = row_tokens
        engine.load()
        return engine

    def _loaded(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("the engine is not loaded")
        return self._engine


def candidates(settings: EngineSettings) -> list[str]:
    """The precisions to choose from on this machine, the reference first; the one that is named.

    Raises:
        ValueError: torch does not see the device that was named.
    """
    # torch takes seconds to import.
    from deployments.engines.hardware import cpu_has_bfloat16, pick_device

    device = pick_device(settings.device).type
    if settings.dtype != "auto":
        return [settings.dtype]
    if device == "cpu":
        # A CPU without bfloat16 emulates it, slower than float32.
        return [REFERENCE, "int8", *(["bfloat16"] if cpu_has_bfloat16() else [])]
    return [REFERENCE, *(["bfloat16"] if device == "cuda" else []), "float16"]


def table(rows: Sequence[Measured]) -> str:
    """The rows as aligned text. By size of a batch: texts a second."""
    sizes = (*map(str, SIZES), "full")
    lines = [("engine", *sizes, "score", "rows of", "max drift", "same labels", "verdict")]
    for row in rows:
        figures = (
            *((row.rates.get(size), ".3g") for size in sizes),
            (row.speed or None, ".3g"),
            (row.row_tokens, ","),
            (row.max_drift, ".2g"),
            (row.label_agreement, ".1%"),
        )
        shown = ("-" if figure is None else format(figure, form) for figure, form in figures)
        lines.append((f"torch {row.dtype}", *shown, row.verdict))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"  {name:<{widths[0]}}  "
        + "".join(f"{cell:>{width}}  " for cell, width in zip(cells, widths[1:-1], strict=True))
        + verdict
        for name, *cells, verdict in lines
    )
