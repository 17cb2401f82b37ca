"""A server process: started with a mark, asked until it answers, stopped with all it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from ..client import Endpoint
from .log_tail import reason
from .peer import PeerUnavailable

# Every process that the server starts inherits it, also those that leave its process group.
MARK = "RAYCLASSIFY_PEER_RUN"
STOP_TIMEOUT_S = 20.0
WORKERS_TIMEOUT_S = 5.0
QUESTION = "物流很快，东西也不错，下次还会再来"


@contextmanager
def server(
    command: Sequence[str], env: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The running process of `command`; at the end none of what it started is left."""
    mark = uuid.uuid4().hex
    with log.open("wb") as out:
        try:
            process = subprocess.Popen(
                command,
                cwd=log.parent,
                env=env | {MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # a Ctrl-C in the terminal is ours to handle
            )
        except OSError as error:
            program = Path(command[0]).name
            raise PeerUnavailable(f"{program} can't be started: {error.strerror}") from error
    # Killed politely, Python would leave without passing `finally`: make that an exit like others.
    asked_to_end = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield process
    finally:
        stop(process, mark)
        signal.signal(signal.SIGTERM, asked_to_end)


def stop(process: subprocess.Popen[bytes], mark: str) -> None:
    """Asks the server to end, then ends what is left of it."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    # A server that ends may leave workers that have not noticed yet.
    left = marked(mark)
    for worker in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.terminate()
    psutil.wait_procs(left, timeout=WORKERS_TIMEOUT_S)
    for worker in marked(mark):
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    psutil.wait_procs(marked(mark), timeout=WORKERS_TIMEOUT_S)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(WORKERS_TIMEOUT_S)


def marked(mark: str) -> list[psutil.Process]:
    """The processes of one run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


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
