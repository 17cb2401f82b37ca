"""A child process that answers one line of JSON with one line of JSON.

What is measured runs in processes of its own: engines leave threads and memory behind, and Ray
what a second start stumbles over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

from .process import our_environment, started


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
def child(module: str, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Runs `module` and ends it with all that it started, whatever happens. env: added to ours."""
    command = [sys.executable, "-m", module]
    with (
        tempfile.TemporaryDirectory() as run,
        Path(run, "log").open("wb") as log,
        started(
            command,
            Path(run),
            env={**our_environment(), **(env or {})},
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
        ) as process,
    ):
        yield Child(process, Path(log.name))


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
