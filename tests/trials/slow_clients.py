"""Clients that never finish what they began to send."""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

BODY_TIMEOUT_S = 3.0
SILENCE_S = 5.0
"""HAProxy's client timeout during the trial."""
HEAD_TIMEOUT_S = 4
"""HAProxy's time for a whole head during the trial."""
_SLACK_S = 5.0
_HEAD = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_BODY = _HEAD + b'Content-Length: 1000\r\n\r\n{"text": "'
# What each kind sends first, and whether it goes on, a byte a round.
KINDS = {
    "silent in the head": (_HEAD + b"X-A", False),
    "trickling head": (_HEAD + b"X-A: ", True),
    "silent in the body": (_BODY, False),
    "trickling body": (_BODY, True),
    "trickling chunks": (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", True),
}


@dataclass(frozen=True, slots=True)
class Slow:
    """What became of them. kept: all that must end did, and bodies with a 408 in JSON."""

    clients: int
    kept: bool
    result: str
    figures: dict[str, Any]


def slow_clients(port: int, count: int) -> Slow:
    """`count` of them at once, for as long as the longest timeout and some seconds."""
    opened: dict[socket.socket, str] = {}
    kinds = list(KINDS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.sendall(KINDS[kind][0])
        opened[sock] = kind
    ended: dict[str, list[tuple[float, bytes]]] = {kind: [] for kind in kinds}
    started = time.monotonic()
    while opened and time.monotonic() < started + max(BODY_TIMEOUT_S, SILENCE_S) + _SLACK_S:
        for sock in select.select(list(opened), [], [], 0.5)[0]:
            data = _rest(sock)
            ended[opened.pop(sock)].append((time.monotonic() - started, data))
            sock.close()
        for sock, kind in opened.items():
            if KINDS[kind][1]:
                with suppress(OSError):  # the next select says so
                    sock.sendall(b"1\r\na\r\n" if kind == "trickling chunks" else b"a")
    left = {kind: sum(other == kind for other in opened.values()) for kind in kinds}
    for sock in opened:
        sock.close()
    figures = {
        kind: {
            "ended": len(rows),
            "still_open": left[kind],
            "first_s": round(min((at for at, _ in rows), default=0.0), 1),
            "last_s": round(max((at for at, _ in rows), default=0.0), 1),
            "json_408": sum(
                b" 408 " in data[:20] and b"deadline_exceeded" in data for _, data in rows
            ),
        }
        for kind, rows in ended.items()
    }
    bodies = [figure for kind, figure in figures.items() if "head" not in kind]
    kept = not any(figure["still_open"] for figure in figures.values()) and all(
        figure["json_408"] == figure["ended"] for figure in bodies
    )
    result = "; ".join(
        f"{kind}: {f['ended']} ended within {f['last_s']} s ({f['json_408']} × 408 in JSON), "
        f"{f['still_open']} open"
        for kind, f in figures.items()
    )
    return Slow(count, kept, result, figures)


def _rest(sock: socket.socket) -> bytes:
    """All that the server still says: head and body of an answer may come apart."""
    parts: list[bytes] = []
    sock.settimeout(1.0)
    with suppress(OSError):
        while part := sock.recv(65_536):
            parts.append(part)
            if part.endswith(b"}"):
                break
    return b"".join(parts)
