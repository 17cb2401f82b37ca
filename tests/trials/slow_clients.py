"""Clients that never finish what they began to send."""

from __future__ import annotations

import select
import time
from dataclasses import dataclass
from typing import Any

from deployments.bench.client import Answer, BrokenAnswer

from .raw_http import Connection

BODY_TIMEOUT_S = 3.0
SILENCE_S = 5.0
"""HAProxy's client timeout during the trial."""
HEAD_TIMEOUT_S = 4
"""HAProxy's time for a whole head during the trial."""
_SLACK_S = 5.0
_HEAD = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_BODY = _HEAD + b'Content-Length: 1000\r\n\r\n{"text": "'
# What each kind sends first, and what every half second.
KINDS = {
    "silent in the head": (_HEAD + b"X-A", b""),
    "trickling head": (_HEAD + b"X-A: ", b"a"),
    "silent in the body": (_BODY, b""),
    "trickling body": (_BODY, b"a"),
    "trickling chunks": (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
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
    opened: dict[Connection, str] = {}
    kinds = list(KINDS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        connection = Connection(port)
        connection.send(KINDS[kind][0])
        opened[connection] = kind
    ended: dict[str, list[tuple[float, bool]]] = {kind: [] for kind in kinds}
    started = time.monotonic()
    while opened and time.monotonic() < started + max(BODY_TIMEOUT_S, SILENCE_S) + _SLACK_S:
        for connection in select.select(list(opened), [], [], 0.5)[0]:
            answer = _last_words(connection)
            is_408 = answer is not None and answer.said == "408 deadline_exceeded"
            ended[opened.pop(connection)].append((time.monotonic() - started, is_408))
            connection.close()
        for connection, kind in opened.items():
            connection.send(KINDS[kind][1])  # where it is closed, the next select says so
    left = {kind: sum(other == kind for other in opened.values()) for kind in kinds}
    for connection in opened:
        connection.close()
    figures = {
        kind: {
            "ended": len(rows),
            "still_open": left[kind],
            "first_s": round(min((at for at, _ in rows), default=0.0), 1),
            "last_s": round(max((at for at, _ in rows), default=0.0), 1),
            "json_408": sum(is_408 for _, is_408 in rows),
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


def _last_words(connection: Connection) -> Answer | None:
    """What the server still says: head and body of an answer may come apart."""
    try:
        return connection.receive(1.0)
    except (OSError, BrokenAnswer):
        return None
