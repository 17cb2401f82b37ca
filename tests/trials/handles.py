"""A caller by handle, beside the callers by HTTP: a process inside Ray, asked line by line."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from deployments.launch import processes
from scripts.bench.child import Child, ChildFailed, answer_lines, child

from .places import Run

TIMEOUT_S = 60.0
# One each, kept: while an update is built, Serve says of an application that it does not exist.
_handles: dict[str, Any] = {}


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
    """A process inside this run's Ray; it answers as `answer` does."""
    ray = {
        "RAY_ADDRESS": run.ray_address(),
        "RAY_AUTH_MODE": "token",
        "RAY_TMPDIR": str(run.dir),
    }
    with environment(ray), child("tests.trials.handles") as caller:
        yield caller


class HandleLoad:
    """Calls `classify` with one text after the other from entry to exit.

    judge: a text and what came of it, as `answer` has it → the outcome that is counted.
    """

    def __init__(
        self,
        caller: Child,
        texts: Iterable[str],
        judge: Callable[[str, dict[str, Any]], str],
        every_s: float = 0.5,
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self._caller, self._texts, self._judge, self._every_s = caller, texts, judge, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for text in self._texts:
            if self._stop.wait(self._every_s):
                return
            try:
                found = self._caller.ask(method="classify", args=[text], kwargs={})
            except (ChildFailed, OSError, ValueError) as exc:
                self.outcomes[f"lost {type(exc).__name__}"] += 1
                continue
            self.outcomes[self._judge(text, found)] += 1


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """method, args, kwargs → `{"answer": ...}` or `{"raised": type of the error}`."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        ray.init(log_to_driver=True)  # RAY_ADDRESS says where
    method = question["method"]
    if method not in _handles:
        _handles[method] = serve.get_app_handle("classify").options(method_name=method)
    try:
        called = _handles[method].remote(*question["args"], **question["kwargs"])
        return {"answer": called.result(timeout_s=TIMEOUT_S)}
    except Exception as exc:
        return {"raised": type(exc).__name__}


if __name__ == "__main__":
    answer_lines(answer)
