"""What every run of modes needs: its file, one part a mode, and the progress bar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from . import machine


class Store:
    """The file, read once and written after every measurement, so that an end keeps what is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modes: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.modes = json.loads(path.read_text(encoding="utf-8"))["modes"]

    def begin(self, mode: str, settings: dict[str, Any]) -> dict[str, Any]:
        """An empty part in the place of the mode's last one."""
        part = {"machine": machine.stamp(), "settings": settings, "complete": False}
        self.modes[mode] = part
        return part

    def is_done(self, mode: str) -> bool:
        """Whether this mode was measured to its end, with this commit, on a machine like this."""
        part = self.modes.get(mode, {})
        now, then = machine.stamp(), part.get("machine", {})
        same = all(now[key] == then.get(key) for key in ("cpu", "cores", "versions", "commit"))
        return bool(part.get("complete")) and same

    def save(self) -> None:
        text = json.dumps({"modes": self.modes}, ensure_ascii=False, indent=1)
        scratch = self.path.with_suffix(".tmp")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text + "\n", encoding="utf-8")
        scratch.replace(self.path)


@dataclass
class Run:
    """One run of one mode after the other."""

    store: Store
    console: Console
    _progress: Progress | None = field(default=None, init=False)
    _task: TaskID = field(default=TaskID(0), init=False)

    @contextmanager
    def part(self, name: str, steps: int, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The mode's part of the file, to be filled. Complete if nothing interrupts."""
        part = self.store.begin(name, settings)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as self._progress:
            self._task = self._progress.add_task(name, total=steps)
            try:
                yield part
                self._progress.update(self._task, description=name, completed=steps)
                part["complete"] = True
            finally:
                self.store.save()

    def step(self, what: str) -> None:
        """Says what is done next, and keeps what was found before."""
        self.store.save()
        if self._progress is not None:
            self._progress.update(self._task, description=what, advance=1)
            if not self.console.is_terminal:
                self.console.print(what, highlight=False)
