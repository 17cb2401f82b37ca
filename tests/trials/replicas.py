"""Processes and logs of the service that this process started."""

from __future__ import annotations

from pathlib import Path

import psutil


def replicas() -> dict[str, float]:
    """Name and pid of every replica → its memory in MB (RSS)."""
    found = {}
    for process in _processes():
        found[f"{_deployment(process)} {process.pid}"] = round(process.memory_info().rss / 1e6, 1)
    return found


def tracebacks() -> int:
    """Tracebacks in the logs of Serve and of its replicas."""
    # A Ray that the same process started in another way has none.
    folders = {process.environ().get("RAY_TMPDIR") for process in _processes()} - {None}
    return sum(
        path.read_text(errors="replace").count("Traceback (most recent call last)")
        for folder in folders
        for pattern in ("session_2*/logs/serve/**/*.log", "session_2*/logs/worker-*")
        for path in Path(str(folder)).glob(pattern)
    )


def _processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [process for process in children if _deployment(process)]


def _deployment(process: psutil.Process) -> str:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    # Ray names the process of an actor so: ray::ServeReplica:application:deployment.
    _, found, rest = title.partition("ServeReplica:classify:")
    return rest.split(".")[0].split(":")[0].split(" ")[0] if found else ""
