"""Measures precisions in a process of their own.

What they leave behind (threads, memory, another library's patches) ends with it, and one that
crashes, by an instruction that this CPU has not or for want of memory, takes no replica along.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TextIO

from deployments.engines.measurement import REFERENCE, Measured, Measurement
from deployments.settings import EngineSettings, ModelSettings

# A process that takes longer hangs: far beyond what loading a large model takes.
HANGS_S = 300.0
_MODULE = __name__
Task = tuple[ModelSettings, EngineSettings, int, Sequence[str]]  # the arguments of `measure`


def measure(
    model: ModelSettings, engine: EngineSettings, num_threads: int, dtypes: Sequence[str]
) -> list[Measured]:
    """A row for each precision; a crash of the process is the row of the one that it was at.

    Raises:
        OSError: no process can be started here.
    """
    rows: dict[str, Measured] = {}
    left = list(dtypes)
    while left:
        # After a crash the others need the reference's answers again.
        asked = [REFERENCE, *(dtype for dtype in left if dtype != REFERENCE)]
        new, end = _run((model, engine, num_threads, asked))
        rows |= {row.dtype: row for row in new}
        left = [dtype for dtype in asked if dtype not in rows]
        if left:
            crashed = left.pop(0)
            rows[crashed] = Measured(crashed, verdict=f"failed: {end}")
            if crashed == REFERENCE:
                break  # there is nothing to compare the others with
    return list(rows.values())


def _run(task: Task) -> tuple[list[Measured], str]:
    """The rows that one process came to, and how it ended."""
    # Ray adds to sys.path what an application's working_dir brings.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", _MODULE],
            input=pickle.dumps(task),
            stdout=subprocess.PIPE,
            env=env,
            timeout=HANGS_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        said, end = exc.stdout or b"", f"its process was killed after {HANGS_S:.0f} s (hung?)"
    else:
        said, end = done.stdout, _how_it_ended(done.returncode)
    return [Measured(**json.loads(line)) for line in said.splitlines()], end


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


def _main(task: Task, out: TextIO) -> None:
    from transformers.utils.logging import disable_progress_bar

    from deployments.engines.torch_engine import TorchEngine
    from deployments.model.probe import probe_batch
    from deployments.model.source import model_info

    disable_progress_bar()
    model, settings, num_threads, dtypes = task
    measurement = Measurement(
        probe_batch(model),
        model_info(model).problem_type,
        settings,
        lambda dtype: TorchEngine(
            model, settings.model_copy(update={"name": "torch", "dtype": dtype}), num_threads
        ),
    )
    for dtype in dtypes:
        print(json.dumps(asdict(measurement.measure(dtype))), file=out, flush=True)


if __name__ == "__main__":
    # What libraries print must not get between our lines.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _main(pickle.load(sys.stdin.buffer), answers)  # noqa: S301 - from the process that started this
    answers.close()
    # Some runtimes crash in their destructors; all is said.
    os._exit(0)
