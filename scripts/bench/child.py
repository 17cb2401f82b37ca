"""A child process that answers one line of JSON with one line of JSON.

What is measured runs in processes of its own: engines leave threads and memory behind, and Ray
what a second start stumbles over.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from deployments.launch import processes

from .machine import ROOT

PATIENCE_S = 30.0


class ChildFailed(Exception):
    """The child ended or raised; the message is its last line."""


class Child:
    """`python -m <module>`, asked line by line. Its own output goes to `log`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    def ask(self, **question: Any) -> dict[str, Any]:
        """The child's answer.

        Raises:
            ChildFailed
        """
        assert self.process.stdin is not None  # noqa: S101
        assert self.process.stdout is not None  # noqa: S101
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise ChildFailed(self._last_line()) from None
        line = self.process.stdout.readline()
        if not line:
            raise ChildFailed(self._last_line())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildFailed(answer["error"])
        return answer

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it ended without a word"


@contextmanager
def child(module: str) -> Iterator[Child]:
    """Runs `module` and ends it with all that it started, whatever happens."""
    with tempfile.TemporaryDirectory() as run, Path(run, "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(Path(run)),
            start_new_session=True,  # Ctrl-C reaches us, and we end it in order
        )
        try:
            yield Child(process, Path(log.name))
        finally:
            stop(process, Path(run))


def environment(run: Path) -> dict[str, str]:
    """This checkout's packages before installed ones; and a name to find every process by."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        processes.RUN_VARIABLE: str(run),
        processes.OWNER_VARIABLE: processes.owner_name(),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def stop(
    process: subprocess.Popen[bytes],
    run: Path,
    patience_s: float = PATIENCE_S,
    after_interrupt_s: float = PATIENCE_S,
) -> None:
    """Closes its input and waits, then interrupts it, then ends all that carries the run's name."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    _wait(process, patience_s)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        _wait(process, after_interrupt_s)
    left = processes.of_run(run)
    if process.poll() is None:
        left.append(psutil.Process(process.pid))
    processes.end(left)
    process.poll()


def _wait(process: subprocess.Popen[bytes], patience_s: float) -> None:
    # A second Ctrl-C: no more patience with this one.
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.wait(patience_s)


def answer_lines(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side: answers every line of its input until that is closed.

    What libraries print goes to standard error, as standard output speaks JSON.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answered = answer(json.loads(line))
        except Exception as exc:
            first = (str(exc).strip().splitlines() or [""])[0]
            answered = {"error": f"{type(exc).__name__}: {first}"[:300]}
        out.write(json.dumps(answered) + "\n")
        out.flush()
