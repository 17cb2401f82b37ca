"""What every mode needs: the options, the progress bar, and where figures go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .models import SHAPES, Shape, model_dir
from .service import CONFIG
from .store import Store
from .workload import Workload, make_workload


@dataclass(frozen=True, slots=True)
class Plan:
    """How thorough: seconds of a run, connections, threads of each engine and peer."""

    duration_s: float
    connections: tuple[int, ...]
    threads: int
    engine: str = "auto"
    dtype: str = "auto"
    shapes: tuple[str, ...] = tuple(SHAPES)
    changes: tuple[str, ...] = ()
    config: Path = CONFIG
    only_peers: tuple[str, ...] = ()

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
class Session:
    """One run of the benchmark."""

    plan: Plan
    store: Store
    console: Console
    _workloads: dict[str, Workload] = field(default_factory=dict)
    _progress: Progress | None = None
    _task: Any = None

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

    @contextmanager
    def mode(self, name: str, steps: int) -> Iterator[dict[str, Any]]:
        """The mode's part of the file, to be filled. Complete if nothing interrupts."""
        part = self.store.begin(name, self.plan.as_json())
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as self._progress:
            self._task = self._progress.add_task(name, total=steps)
            yield part
            self._progress.update(self._task, description=name, completed=steps)
            part["complete"] = True
            self.store.save()

    def step(self, what: str) -> None:
        """Says what is measured next, and keeps what was measured before."""
        self.store.save()
        if self._progress is not None:
            self._progress.update(self._task, description=what, advance=1)
            if not self.console.is_terminal:
                self.console.print(what, highlight=False)
