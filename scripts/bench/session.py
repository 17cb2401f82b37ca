"""What every mode of the benchmark needs: the options, the models and the texts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .models import SHAPES, Shape, model_dir
from .service import CONFIG, Config, read_config
from .store import Run
from .workload import Workload, make_workload


@dataclass(frozen=True, slots=True)
class Plan:
    """How thorough: seconds of a run, connections, threads of each engine and peer.

    rows: of the table that `bulk` labels.
    """

    duration_s: float
    connections: tuple[int, ...]
    threads: int
    engine: str = "auto"
    dtype: str = "auto"
    shapes: tuple[str, ...] = tuple(SHAPES)
    changes: tuple[str, ...] = ()
    config: Path = CONFIG
    only_peers: tuple[str, ...] = ()
    rows: int = 20_000

    @property
    def serve_config(self) -> Config:
        return read_config(self.config)

    def as_json(self) -> dict[str, Any]:
        return {
            "duration_s": self.duration_s,
            "connections": list(self.connections),
            "threads": self.threads,
            "engine": self.engine,
            "dtype": self.dtype,
            "changes": list(self.changes),
        }


@dataclass
class Session(Run):
    """One run of the benchmark."""

    plan: Plan
    _workloads: dict[str, Workload] = field(default_factory=dict)

    def model(self, shape: Shape) -> Path:
        return model_dir(shape)

    def workload(self, shape: Shape) -> Workload:
        """The same texts for every shape: their tokenizer is the same."""
        if shape.name not in self._workloads:
            self._workloads[shape.name] = make_workload(str(self.model(shape)))
        return self._workloads[shape.name]

    def service_changes(
        self, model: Path | None, engine: str = "", dtype: str = "", more: Sequence[str] = ()
    ) -> list[str]:
        """Settings of a service of ours; `model` None: the one without a model."""
        changes = [f"engine.num_threads={self.plan.threads}", *more, *self.plan.changes]
        if model is None:
            return [*changes, "engine.name=none"]
        engine, dtype = engine or self.plan.engine, dtype or self.plan.dtype
        return [f"model.id={model}", f"engine.name={engine}", f"engine.dtype={dtype}", *changes]

    def mode(self, name: str, steps: int) -> AbstractContextManager[dict[str, Any]]:
        """The mode's part of the file, to be filled. Complete if nothing interrupts."""
        return self.part(name, steps, self.plan.as_json())
