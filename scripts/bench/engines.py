"""Engines in a process of their own: which there are, and how they are asked."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .child import Child, child
from .workload import Workload

MAX_BATCH_TOKENS = 4_096


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine of ours by its settings, or `transformers` alone by the size of its batches."""

    name: str
    dtype: str
    packing: bool = True
    batch_size: int | None = None  # of plain transformers

    @property
    def title(self) -> str:
        if self.batch_size == 1:
            return f"transformers {self.dtype}, one text at a time"
        if self.batch_size:
            return f"transformers {self.dtype}, {self.batch_size} texts padded"
        return f"{self.name} {self.dtype}{'' if self.packing else ', padded'}"

    @property
    def missing(self) -> str | None:
        """What would have to be installed; None where nothing is missing."""
        if self.name == "openvino" and not importlib.util.find_spec(self.name):
            return f"{self.name} is not installed: pip install 'rayclassify[{self.name}]'"
        return None


REFERENCES = (
    EngineSpec("transformers", "float32", batch_size=32),
    EngineSpec("transformers", "float32", batch_size=1),
)
ENGINES = (
    *(EngineSpec("torch", dtype, packing) for dtype in ("float32", "bfloat16", "int8")
      for packing in (False, True)),
    *(EngineSpec("openvino", dtype) for dtype in ("float32", "bfloat16", "int8")),
)  # fmt: skip


class EngineChild:
    """An engine that is loaded and waits to be asked."""

    def __init__(self, process: Child) -> None:
        self._process = process
        self.info: dict[str, Any] = {}

    def load(self, spec: EngineSpec, model: Path, num_threads: int, workload: Workload) -> None:
        """Loads the engine and gives it the texts to measure with."""
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            np.savez(file, ids=workload.encoded.input_ids, lengths=workload.lengths)
            file.flush()
            self.info = self._process.ask(
                do="load",
                name=spec.name,
                dtype=spec.dtype,
                packing=spec.packing,
                batch_size=spec.batch_size,
                model=str(model),
                num_threads=num_threads,
                texts=file.name,
            )

    def rate(self, duration_s: float, max_tokens: int = MAX_BATCH_TOKENS) -> dict[str, float]:
        """Texts and tokens a second over whole batches, for at least `duration_s`.

        `texts_per_s` is that of texts of the workload's mean length, however far it came.
        """
        return self._process.ask(do="rate", duration_s=duration_s, max_tokens=max_tokens)

    def single_ms(self, max_s: float) -> list[float]:
        """Milliseconds of each text alone, in order, as far as it comes in `max_s` seconds."""
        times: list[float] = self._process.ask(do="single", max_s=max_s)["ms"]
        return times

    def peak(self, shape: str, precision: str, num_threads: int) -> dict[str, Any]:
        """See flops.gemm_peak."""
        return self._process.ask(
            do="peak", shape=shape, precision=precision, num_threads=num_threads
        )


@contextmanager
def engine_child() -> Iterator[EngineChild]:
    with child("scripts.bench.worker") as process:
        yield EngineChild(process)
