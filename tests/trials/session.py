"""What every mode needs: the progress bar, and where its findings go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.bench.store import Store


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise and what became of it.

    how: what was done to break it; cases: how often, or on how many; result: the figures.
    """

    promise: str
    how: str
    cases: int
    result: str
    kept: bool


@dataclass
class Part:
    """One mode's part of the file. `figures`: what its findings were read from, JSON-ready."""

    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass
class Session:
    """One run. quick: seconds where it would be minutes, hundreds where it would be thousands.

    minutes: how long the soak lasts.
    """

    store: Store
    console: Console
    quick: bool = False
    minutes: float = 60.0
    _progress: Progress | None = None
    _task: Any = None

    @contextmanager
    def mode(self, name: str, steps: int) -> Iterator[Part]:
        """The mode's part of the file, to be filled. Complete if nothing interrupts."""
        kept = self.store.begin(name, {"quick": self.quick})
        part = Part()
        # The same dict, so that `save` keeps what there is.
        kept |= {"findings": [], "figures": part.figures}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as self._progress:
            self._task = self._progress.add_task(name, total=steps)
            try:
                yield part
                self._progress.update(self._task, description=name, completed=steps)
                kept["complete"] = True
            finally:
                kept["findings"] = [asdict(finding) for finding in part.findings]
                kept["figures"] = part.figures
                self.store.save()

    def save(self) -> None:
        """Writes the figures that there are."""
        self.store.save()

    def step(self, what: str) -> None:
        """Says what is tried next."""
        if self._progress is not None:
            self._progress.update(self._task, description=what, advance=1)
            if not self.console.is_terminal:
                self.console.print(what, highlight=False)

    @contextmanager
    def trying(self, part: Part, promise: str, how: str) -> Iterator[None]:
        """One attack. What goes wrong with it is a promise not kept, and the next one is tried."""
        self.step(how)
        try:
            yield
        except Exception as exc:
            said = f"not tried to the end: {type(exc).__name__}: {exc}"[:300]
            part.findings.append(Finding(promise, how, 0, said, kept=False))
