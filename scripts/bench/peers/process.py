"""A server process: started, asked until it answers, stopped; and why it failed, from its log."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from deployments.bench.client import Endpoint

from ..process import started
from .peer import PeerUnavailable

TAIL_BYTES = 50_000
MAX_CHARS = 300
# The end of a traceback; then, any line that speaks of an error ("ERROR: …"; not "errors: 0").
RAISED = re.compile(r"^[\w.]*(Error|Exception)(:|$)")
FAILURE = re.compile(r"\b\w*(Error|Exception|ERROR|error):\s*\S")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
FOLDERS = re.compile(r"(/[\w.+@-]+)+/(?=[\w.])")
STOP_TIMEOUT_S = 20.0
QUESTION = "物流很快，东西也不错，下次还会再来"


def reason(log: Path) -> str:
    """The first error named at the end of the log, since others follow from it; else the last line.

    Without the folders of this machine. "" of an empty log.
    """
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        text = ANSI.sub("", file.read().decode("utf-8", "replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if RAISED.search(line)]
    failures = [line for line in lines if FAILURE.search(line)]
    chosen = raised[0] if raised else failures[0] if failures else lines[-1] if lines else ""
    return FOLDERS.sub("…/", chosen)[:MAX_CHARS]


@contextmanager
def server(
    command: Sequence[str], env: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The running process of `command`; at the end none of what it started is left."""
    # Killed politely, Python would leave without passing `finally`: make that an exit like others.
    asked_to_end = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with (
            log.open("wb") as out,
            started(
                command,
                log.parent,
                env=env,
                cwd=log.parent,
                ends_alone_s=0.0,
                ask_to_end=signal.SIGTERM,
                patience_s=STOP_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            ) as process,
        ):
            yield process
    finally:
        signal.signal(signal.SIGTERM, asked_to_end)


def wait_ready(
    process: subprocess.Popen[bytes], endpoint: Endpoint, log: Path, timeout_s: float
) -> None:
    """Returns when the endpoint has named a label for a real text; else PeerUnavailable."""
    deadline = time.monotonic() + timeout_s
    last = "no connection"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise PeerUnavailable(f"it ended with status {process.returncode}: {reason(log)}")
        try:
            answer = requests.post(
                endpoint.url + endpoint.path,
                data=endpoint.body(QUESTION),
                headers=endpoint.headers,
                timeout=30,
            )
            if answer.ok:
                endpoint.label_of(answer.content)
                return
            last = f"status {answer.status_code}"
        except requests.RequestException as error:
            last = type(error).__name__
        except (ValueError, LookupError, TypeError) as error:
            raise PeerUnavailable(f"its answer names no label: {error!r}") from error
        time.sleep(0.2)
    raise PeerUnavailable(f"not ready after {timeout_s:.0f} s ({last}): {reason(log)}")


def environment_variables(bin_dir: Path, num_threads: int) -> dict[str, str]:
    """What every peer gets: the same threads, no hub, no reports home, its own environment."""
    drop = ("PYTHON", "VIRTUAL_ENV", "RAY_", "OMP_", "MKL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    return kept | {
        "PATH": f"{bin_dir}{os.pathsep}{os.environ.get('PATH', '')}",
        "OMP_NUM_THREADS": str(num_threads),
        "MKL_NUM_THREADS": str(num_threads),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    }
