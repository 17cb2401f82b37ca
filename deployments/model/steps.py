"""How long each step of a model's start takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_collected: ContextVar[Steps | None] = ContextVar("steps", default=None)


class Steps:
    """Step → its own seconds: a step within another counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner_s = [0.0]

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Takes in all steps of this thread meanwhile."""
        token = _collected.set(self)
        try:
            yield
        finally:
            _collected.reset(token)

    def _add(self, name: str, elapsed_s: float) -> None:
        own_s = elapsed_s - self._inner_s.pop()
        self._inner_s[-1] += elapsed_s
        self.seconds[name] = self.seconds.get(name, 0.0) + own_s


@contextmanager
def step(name: str) -> Iterator[None]:
    """Times what is done within, for whoever collects; nothing where nobody does."""
    steps = _collected.get()
    if steps is None:
        yield
        return
    steps._inner_s.append(0.0)
    started = time.monotonic()
    try:
        yield
    finally:
        steps._add(name, time.monotonic() - started)
