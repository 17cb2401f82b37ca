"""Sends cases and shapes, and judges what comes back."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from deployments.bench.client import Answer, BrokenAnswer, post

from .corpus import Case
from .framing import HIDDEN_ID, Shape
from .raw_http import Connection

CONNECTIONS = 8
NO_ANSWER = "closed"
"""Counted in the place of a status: the connection was closed without an answer."""
WAITED = "waited"
"""The other side waits for the rest, and would do so until a timeout. Or it answered HEAD: this
client waits for the body that its headers tell of."""

# What an answer must never hold: where our code lies, or what it was doing.
_LEAK = re.compile(rb'Traceback|File "|site-packages|\.py\b|/home/|/tmp/|/usr/|0x[0-9a-f]{8}')
_BY_OUR_CODE = ("types", "encodings", "sizes", "generated")
_SHAPE_TIMEOUT_S = 1.0


@dataclass
class Tally:
    """What was answered, by group. faults: what must not have been, in words without a body."""

    statuses: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[str] = field(default_factory=list)
    slowest_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, group: str, status: str, fault: str | None, took_s: float = 0.0) -> None:
        with self._lock:
            self.statuses[group][status] += 1
            self.slowest_s[group] = max(self.slowest_s[group], took_s)
            if fault:
                self.faults.append(f"{group}: {fault}")


def throw(port: int, cases: Iterator[Case]) -> Tally:
    """Sends all cases over a few connections that are kept as long as the service keeps them."""
    tally, lock, numbered = Tally(), threading.Lock(), enumerate(cases)

    def one_thread() -> None:
        connection: Connection | None = None
        while True:
            with lock:
                number, case = next(numbered, (0, None))
            if case is None:
                break
            request_id = "" if b"X-Request-ID" in case.extra else f"case-{number}"
            request = post(case.body, case.content_type, case.extra, request_id)
            started = time.monotonic()
            try:
                connection, answer = _ask(port, connection, request)
                status = str(answer.status) if answer else NO_ANSWER
                fault = _fault(case, answer, request_id)
            except (BrokenAnswer, OSError) as exc:
                connection, status, fault = None, "none", f"case {number}: {exc}"
            if fault:
                fault = f"{fault}, {case.body[:40]!r}, {case.content_type!r}, {case.extra[:40]!r}"
            tally.add(case.group, status, fault, time.monotonic() - started)
        if connection:
            connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(one_thread) for _ in range(CONNECTIONS)]:
            done.result()
    return tally


def _ask(
    port: int, kept: Connection | None, request: bytes
) -> tuple[Connection | None, Answer | None]:
    """The answer, and the connection if it may be used again. One that was closed meanwhile is
    replaced once, as every client does."""
    for connection in (kept, None):
        fresh = connection is None
        connection = connection or Connection(port)
        sent = connection.send(request)
        try:
            answer = connection.receive()
        except ConnectionError:
            answer = None
        if answer is None:
            connection.close()
            if fresh:
                return None, None
            continue
        if not sent or answer.headers.get("connection", "").lower() == "close":
            connection.close()
            return None, answer
        return connection, answer
    return None, None


def _fault(case: Case, answer: Answer | None, request_id: str) -> str | None:
    if answer is None:
        # HAProxy closes on what it can't read while bytes are still coming.
        return None if case.group in ("headers", "sizes") else "no answer"
    if answer.status >= 500:
        return f"status {answer.status}"
    if case.statuses and answer.status not in case.statuses:
        return f"status {answer.status} where {case.statuses} is right"
    if _LEAK.search(answer.body):
        return "a place in our code in an answer"
    if case.group in _BY_OUR_CODE:
        if not answer.is_json:
            return f"status {answer.status} without JSON"
        json.loads(answer.body.decode())
        if request_id and answer.headers.get("x-request-id") != request_id:
            return "the answer of another request"
    return None


def throw_shapes(port: int, shapes: Iterable[Shape], times: int) -> Tally:
    """Every shape on a connection of its own, `times` over, and pipelines beside them."""
    tally, todo = Tally(), [shape for shape in shapes for _ in range(times)]

    def one(shape: Shape) -> None:
        wanted = 1 if shape.statuses is None else len(shape.statuses)
        try:
            with Connection(port) as connection:
                found = connection.exchange(shape.data, wanted, _SHAPE_TIMEOUT_S)
        except BrokenAnswer as exc:
            tally.add(shape.name, "none", str(exc))
            return
        statuses = [answer.status for answer in found.answers]
        fault = None
        if any(status >= 500 for status in statuses):
            fault = f"statuses {statuses} for {shape.data[:90]!r}"
        elif shape.statuses is not None and tuple(statuses) != shape.statuses:
            fault = f"statuses {statuses} where {list(shape.statuses)} are right"
        elif any(_LEAK.search(answer.body) for answer in found.answers):
            fault = "a place in our code in an answer"
        elif smuggled(found.answers):
            fault = f"two servers saw different ends in {shape.data[:90]!r}"
        words = [str(status) for status in statuses] or [NO_ANSWER if found.closed else WAITED]
        tally.add(shape.name, "+".join(words), fault)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(one, todo))
        list(pool.map(lambda number: _pipeline(port, number, tally), range(4 * times)))
    return tally


def smuggled(answers: list[Answer]) -> bool:
    """Whether the request behind a shape was answered in another place than the second, or
    something else was taken for it."""
    ids = [answer.headers.get("x-request-id") for answer in answers]
    places = [place for place, one in enumerate(ids) if one == HIDDEN_ID]
    return places not in ([], [1]) or any(
        answer.status == 200 and place not in places
        for place, answer in enumerate(answers)
        if place
    )


def _pipeline(port: int, number: int, tally: Tally) -> None:
    """Ten requests at once on one connection: ten answers in order."""
    ids = [f"pipeline-{number}-{k}" for k in range(10)]
    requests = b"".join(post(b'{"text": "a"}', request_id=one) for one in ids)
    with Connection(port) as connection:
        found = connection.exchange(requests, len(ids))
    told = [answer.headers.get("x-request-id") for answer in found.answers]
    right = told == ids and all(answer.status == 200 for answer in found.answers)
    tally.add("pipeline", "200" if right else "none", None if right else "not ten in order")
