"""Which TCP ports are taken, by whom, and which are claimed by a start that is under way."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from deployments.config.ray_inside import (
    FIRST_GRPC_PORT,
    FIRST_INGRESS_PORT,
    LAST_GRPC_PORT,
    LAST_INGRESS_PORT,
)

# Above Ray's workers (10002 to 19999), below what Linux gives to outgoing connections: one of
# those can take a port that was found free, in the seconds until its server listens there.
_BLOCKS = range(20_000, 32_000, 200)
_claimed: list[socket.socket] = []
_offered: deque[int] = deque()
_doors: dict[Path, FileLock] = {}


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
        for there in psutil.net_connections("tcp"):
            here = there.status == psutil.CONN_LISTEN and getattr(there.laddr, "port", 0) == port
            if here and there.pid:
                return psutil.Process(there.pid)
    except psutil.Error:  # it ended, or this is macOS, which shows only root the list
        pass
    return None


def first_free(preferred: int, taken: Iterable[int] = ()) -> int:
    """The preferred port, or one of `next_port`."""
    port = preferred
    while port in taken or not is_free(port):
        port = next_port()
    return port


def claimed(preferred: int) -> int:
    """The preferred port, to be this process's for as long as it lives, or one of `next_port`."""
    if is_free(preferred) and claim_door(preferred):
        return preferred
    return next_port()


def next_port() -> int:
    """A port that nobody listens on and no other process claims; another one at each call.

    Raises:
        OSError: as `claim_block`.
    """
    while True:
        if not _offered:
            first, last = claim_block()
            _offered.extend(range(first, last + 1))
        port = _offered.popleft()
        if is_free(port):
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
    mark = Path(tempfile.gettempdir(), name)
    if mark in _doors:
        return True
    lock = FileLock(mark, mode=0o600)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    except OSError:
        return True
    _doors[mark] = lock
    return True


def ingress_environment() -> dict[str, str]:
    """Ports of its own for the replicas that a Serve puts behind HAProxy: HTTP's, then gRPC's.

    Serve's default is the same for every cluster: on one machine, the HAProxy of one could take
    another's new replica for its own that had just died there.

    Raises:
        OSError: as `claim_block`.
    """
    first, last = claim_block()
    middle = (first + last) // 2
    return {
        FIRST_INGRESS_PORT: str(first),
        LAST_INGRESS_PORT: str(middle),
        FIRST_GRPC_PORT: str(middle + 1),
        LAST_GRPC_PORT: str(last),
    }
