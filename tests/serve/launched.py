"""A `rayclassify serve` in a process of its own, for tests that use it as a person does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deployments.launch import processes
from scripts.bench.machine import ROOT
from scripts.bench.process import started
from scripts.bench.service import run_dir_of

START_S = 240
STOP_S = 90
TRIES = "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT"
"""How often Serve starts a first replica that fails, before it takes the deployment for failed: 3
where nothing is said."""


@dataclass
class Run:
    """A running `rayclassify serve`, with what it has printed so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def wait_for(self, start: str) -> str:
        """The first line that begins so; fails with everything printed if there is none."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(start):
                return line.rstrip()
        pytest.fail(f"no line begins with {start!r}:\n" + "\n".join(self.lines))

    @property
    def dir(self) -> Path:
        return run_dir_of("\n".join(self.lines))

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(STOP_S)
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return code


@contextmanager
def serve(
    config: Path,
    within_s: float = START_S + STOP_S,
    command: Sequence[str] = (sys.executable, "-m", "deployments.cli"),
    **env: str,
) -> Iterator[Run]:
    """Starts it; in the end nothing of it is left, whatever the test has found.

    command: `rayclassify` of another environment than this one.
    """
    kept = {"RAYCLASSIFY_STATE_DIR": str(config.parent / "state")}
    env = {**os.environ, **kept, "RAY_ADDRESS": "", "PYTHONPATH": str(ROOT), **env}
    with started(
        [*command, "serve", config.name],
        config.parent,
        env=env,
        cwd=config.parent,
        ends_alone_s=0.0,
        ask_to_end=signal.SIGKILL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        watchdog = threading.Timer(within_s, process.kill)
        watchdog.start()
        run = Run(process)
        try:
            yield run
        finally:
            watchdog.cancel()
            process.kill()
            if any(line.startswith("Log:") for line in run.lines):
                processes.end(processes.of_run(run.dir))
                shutil.rmtree(run.dir, ignore_errors=True)
