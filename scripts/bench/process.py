"""The one way to start a process that is measured or tried, and to end it with all it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from deployments.launch import processes

from .machine import ROOT

PATIENCE_S = 30.0
T = TypeVar("T")


@contextmanager
def started(
    command: Sequence[str],
    run: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    ends_alone_s: float = PATIENCE_S,
    ask_to_end: signal.Signals = signal.SIGINT,
    patience_s: float = PATIENCE_S,
    **pipes: Any,
) -> Iterator[subprocess.Popen[Any]]:
    """The running process of `command`; at the end none of what it started is left.

    run: its directory, a name that every process inherits, also those that leave its session.
    It is waited for when its input is closed, asked to end by a signal, and killed.

    Raises:
        OSError: there is no such program.
    """
    name = {processes.RUN_VARIABLE: str(run), processes.OWNER_VARIABLE: processes.owner_name()}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**(our_environment() if env is None else env), **name},
        start_new_session=True,  # Ctrl-C reaches us, and we end it in order
        **pipes,
    )
    try:
        yield process
    finally:
        for pipe in filter(None, (process.stdin, process.stdout)):
            with contextlib.suppress(OSError):
                pipe.close()
        if not _ends(process, ends_alone_s):
            process.send_signal(ask_to_end)
            _ends(process, patience_s)
        processes.end(processes.of_run(run, session=process.pid))
        process.poll()


def our_environment(root: Path = ROOT) -> dict[str, str]:
    """That checkout's packages before installed ones, and no hub."""
    ours = {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **ours}


def _ends(process: subprocess.Popen[Any], patience_s: float) -> bool:
    # A second Ctrl-C: no more patience with this one.
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.wait(patience_s)
    return process.poll() is not None


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = 180.0) -> T:
    """The first true value of `condition`.

    Raises:
        TimeoutError: there was none.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.2)
    return value
