"""Measures candidates in a process of their own.

What they leave behind (threads, memory, another library's patches) ends with it, and one that
crashes, by an instruction that this CPU has not or for want of memory, takes no replica along.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TextIO

from deployments.engines.catalog import Candidate, make
from deployments.engines.measurement import PROCESS, Measured, Measurement
from deployments.settings import EngineSettings, ModelSettings

# An engine without a row by then hangs: far beyond what loading a large model takes.
HANGS_S = 120.0
_MODULE = __name__


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be measured. candidates: the reference first."""

    model: ModelSettings
    engine: EngineSettings
    num_threads: int
    candidates: tuple[Candidate, ...]


OnRow = Callable[[Measured], None]


def measure(task: Task, on_row: OnRow = lambda row: None) -> list[Measured]:
    """A row for each candidate, in their order; a crash of the process is the row of the candidate
    that it was at. `on_row` is called with each row as soon as it is known.

    Raises:
        OSError: no process can be started here.
    """
    rows: list[Measured] = []
    while len(rows) < len(task.candidates):
        first = task.candidates[:1] if rows else ()  # the others need its answers again
        rest = task.candidates[len(rows) :]
        new, end = _run(replace(task, candidates=(*first, *rest)), len(task.candidates), on_row)
        rows += new[len(first) :]
        if len(rows) < len(task.candidates):
            rows.append(Measured(task.candidates[len(rows)], verdict=f"failed: {end}"))
            on_row(rows[-1])
            if len(rows) == 1:
                return rows  # there is no reference
    return rows


def _run(task: Task, n: int, on_row: OnRow) -> tuple[list[Measured], str]:
    """The rows that one process came to, and how it ended. n: how many engines share the time."""
    request = {
        "model": task.model.model_dump(),
        "engine": task.engine.model_dump(),
        "num_threads": task.num_threads,
        "n": n,
        "candidates": [[candidate.name, candidate.dtype] for candidate in task.candidates],
    }
    # Ray adds to sys.path what an application's working_dir brings.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    rows: list[Measured] = []
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", _MODULE],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as child:
        assert child.stdin is not None  # noqa: S101 - as asked for above
        assert child.stdout is not None  # noqa: S101
        watch = _Watch(child)
        try:
            with suppress(BrokenPipeError):  # it ended before it read; its exit code says how
                json.dump(request, child.stdin)
                child.stdin.close()
            for line in child.stdout:
                watch.restart()
                rows.append(Measured.from_json(json.loads(line)))
                on_row(rows[-1])
            child.wait()
        except BaseException:
            child.kill()
            raise
        finally:
            watch.stop()
    return rows, _how_it_ended(child.returncode)


class _Watch:
    """Kills a process that says nothing for `HANGS_S`."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self._timer = self._start()

    def restart(self) -> None:
        self._timer.cancel()
        self._timer = self._start()

    def stop(self) -> None:
        self._timer.cancel()

    def _start(self) -> threading.Timer:
        timer = threading.Timer(HANGS_S, self._child.kill)
        timer.daemon = True
        timer.start()
        return timer


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"{PROCESS} ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory, or hung?)" if name == "SIGKILL" else ""
    return f"{PROCESS} was killed by {name}{hint}"


def _main(request: dict[str, Any], out: TextIO) -> None:
    from transformers.utils.logging import disable_progress_bar

    from deployments.model.probe import probe_batch
    from deployments.model.source import model_info

    disable_progress_bar()
    model = ModelSettings.model_validate(request["model"])
    settings = EngineSettings.model_validate(request["engine"])
    num_threads = request["num_threads"]
    measurement = Measurement(
        probe_batch(model),
        model_info(model).problem_type,
        settings,
        lambda candidate: make(candidate, model, settings, num_threads),
        request["n"],
    )
    for name, dtype in request["candidates"]:
        row = measurement.measure(Candidate(name, dtype))
        out.write(json.dumps(row.to_json()) + "\n")
        out.flush()


if __name__ == "__main__":
    # What libraries print must not get between our lines.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _main(json.load(sys.stdin), answers)
    answers.close()
    # Some runtimes crash in their destructors; all is said.
    os._exit(0)
