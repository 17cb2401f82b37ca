"""Which TCP ports are taken, and by whom."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil

# Above Ray's workers (10002 to 19999), below what Linux gives to outgoing connections.
_BLOCKS = range(20_000, 32_000, 200)
_claimed: list[socket.socket] = []
_doors: dict[str, int] = {}


def is_free(port: int, host: str = "") -> bool:
    """Whether a server could listen there now."""
    return why_not(port, host) is None


def why_not(port: int, host: str = "") -> OSError | None:
    """What keeps a server from listening there, if anything does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an earlier server in TIME_WAIT do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as exc:
            return exc
    return None


def holder(port: int) -> psutil.Process | None:
    """The process that listens on a port, where this user may see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS shows only root the whole list
        return None
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or connection.pid is None:
            continue
        if connection.laddr and connection.laddr.port == port:
            try:
                return psutil.Process(connection.pid)
            except psutil.NoSuchProcess:
                return None
    return None


def first_free(preferred: int, taken: Iterable[int] = ()) -> int:
    """The preferred port, or any other that nobody listens on."""
    if preferred not in taken and is_free(preferred):
        return preferred
    while True:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def claim_block() -> tuple[int, int]:
    """First and last of 199 ports that no other process claims while this one lives.

    The port before them is held as the sign of it, and nobody can connect to it. Who takes one of
    them must still see whether somebody else listens there.

    Raises:
        OSError: all blocks are claimed.
    """
    # At random: a block that was just given up is not the next one's.
    for start in random.sample(_BLOCKS, len(_BLOCKS)):
        sign = socket.socket()
        try:
            sign.bind(("127.0.0.1", start))
        except OSError:
            sign.close()
            continue
        _claimed.append(sign)
        return start + 1, start + _BLOCKS.step - 1
    raise OSError(f"all {len(_BLOCKS)} blocks of ports from {_BLOCKS.start} on are claimed")


def claim_door(port: int, host: str = "") -> bool:
    """Whether the port is this process's to serve on, for as long as it lives; False: another's.

    HAProxy listens there only when the replicas are up, many seconds after the port was found free.
    Where no mark can be made there is none: it only helps.
    """
    name = f"rayclassify-{os.getuid()}-{host or 'any'}-{port}.lock".replace("/", "-")
    mark = str(Path(tempfile.gettempdir(), name))
    if mark in _doors:
        return True
    try:
        handle = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    _doors[mark] = handle
    return True


def ingress_environment() -> dict[str, str]:
    """Ports of its own for the replicas that a Serve puts behind HAProxy.

    Serve's default is the same for every cluster: on one machine, the HAProxy of one could take
    another's new replica for its own that had just died there.

    Raises:
        OSError: as `claim_block`.
    """
    first, last = claim_block()
    return {
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last),
    }
