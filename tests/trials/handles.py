"""A caller by handle, beside the callers by HTTP."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from types import TracebackType
from typing import Self

from deployments.launch import processes
from scripts.bench.child import Child, ChildFailed, child

from .mixed import RIGHT
from .places import Run

EVERY_S = 0.5
_SHED = ("Overloaded", "DeadlineExceeded")


@contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """These variables, inside the `with` block."""
    before = {name: os.environ.get(name) for name in (*changes, processes.RUN_VARIABLE)}
    os.environ |= changes
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def calling(run: Run) -> Iterator[Child]:
    """A process inside this run's Ray; see caller.py."""
    ray = {
        "RAY_ADDRESS": run.ray_address(),
        "RAY_AUTH_MODE": "token",
        "RAY_TMPDIR": str(run.dir),
    }
    with environment(ray), child("tests.trials.caller") as caller:
        yield caller


class HandleLoad:
    """Calls `classify` twice a second from entry to exit. outcomes: as of MixedLoad."""

    def __init__(self, caller: Child, known: dict[str, str]) -> None:
        self.outcomes: Counter[str] = Counter()
        self._caller, self._known = caller, known
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for text in cycle(self._known):
            if self._stop.wait(EVERY_S):
                return
            question = {"method": "classify", "args": [text], "kwargs": {}}
            try:
                found = self._caller.ask(**question)
            except (ChildFailed, OSError, ValueError) as exc:
                self.outcomes[f"lost {type(exc).__name__}"] += 1
                continue
            self.outcomes[self._judged(found, text)] += 1

    def _judged(self, found: dict[str, object], text: str) -> str:
        raised = str(found.get("raised", ""))
        if raised:
            return "shed" if any(name in raised for name in _SHED) else f"raised {raised}"
        answer = found["answer"]
        right = isinstance(answer, dict) and answer["label"] == self._known[text]
        return RIGHT if right else "wrong"
