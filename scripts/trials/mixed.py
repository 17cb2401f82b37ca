"""Mixed traffic in waves, open loop: what callers send on an ordinary day, all answers checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import httptools
import numpy as np

RIGHT = "right"
HUNG_UP = "hung up"
CLIENT_TIMEOUT_S = 60.0  # above the service's own: it must answer before
IDLE_S = 20.0  # a connection that was idle for longer may be about to be closed
MAX_CONNECTIONS = 512
PATIENCE_S = (0.001, 0.05)  # of clients that hang up
BATCH = (2, 16)
# Share of the requests by kind.
MIX = {
    "one text": 0.70,
    "one text, bulk": 0.10,
    "a batch": 0.06,
    "one text, its own time": 0.06,
    "bad input": 0.05,
    "hung up on": 0.03,
}
_BAD = (
    (b'{"text": 5}', 422),
    (b'{"txet": "x"}', 422),
    (b'{"text": "x", "top_k": -1}', 422),
    (b'{"text": ', 400),
    (b"\xff\xfe", 400),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. labels: what is right, in order; status: of the right answer.

    head: header lines beyond the usual; hang_up_s: when the client goes, if it does.
    """

    kind: str
    body: bytes
    labels: tuple[str, ...] = ()
    status: int = 200
    head: str = ""
    hang_up_s: float | None = None


def asks(known: dict[str, str], seed: int = 1) -> Iterator[Ask]:
    """Requests without end, in the shares of MIX. known: text → its label."""
    rng, texts = random.Random(seed), list(known)
    kinds, shares = list(MIX), list(MIX.values())
    while True:
        (kind,) = rng.choices(kinds, shares)
        if kind == "bad input":
            body, status = rng.choice(_BAD)
            yield Ask(kind, body, status=status)
            continue
        if kind == "a batch":
            chosen = rng.sample(texts, rng.randint(*BATCH))
            labels = tuple(known[text] for text in chosen)
            yield Ask(kind, _json({"text": chosen}), labels)
            continue
        text = rng.choice(texts)
        body, labels = _json({"text": text}), (known[text],)
        if kind == "one text, bulk":
            yield Ask(kind, body, labels, head="X-Priority: bulk\r\n")
        elif kind == "one text, its own time":
            timeout_ms = rng.choice((30, 500, 5_000))
            yield Ask(kind, _json({"text": text, "timeout_ms": timeout_ms}), labels)
        elif kind == "hung up on":
            yield Ask(kind, body, labels, hang_up_s=rng.uniform(*PATIENCE_S))
        else:
            yield Ask(kind, body, labels)


def _json(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Waves:
    """Load between `low` and `high` of the capacity and back in `period_s`; it begins low."""

    capacity_per_s: float
    period_s: float
    low: float = 0.3
    high: float = 1.1

    def share(self, at_s: float) -> float:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return middle - half * math.cos(2 * math.pi * at_s / self.period_s)

    def rate_per_s(self, at_s: float) -> float:
        return self.capacity_per_s * self.share(at_s)


@dataclass(slots=True)
class Answer:
    """One answer; head: the names of its headers in lower case."""

    status: int = 0
    head: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    keeps: bool = False


class MixedLoad:
    """Asks from entry to exit, in a thread of its own. outcomes: of (kind, what became of it).

    On exit every request has been answered, or waited for as long as its client would.
    """

    def __init__(self, host: str, port: int, known: dict[str, str], waves: Waves) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.asked = 0
        self.examples: list[str] = []
        self._host, self._port = host, port
        self._asks, self._waves = asks(known), waves
        self._took_s: deque[float] = deque(maxlen=200_000)
        self._idle: list[_Connection] = []
        self._room: asyncio.Semaphore | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> MixedLoad:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def latencies_ms(self) -> dict[str, float]:
        """Of what was answered right since the last call, from the intended time on."""
        took = [self._took_s.popleft() for _ in range(len(self._took_s))]
        if not took:
            return {}
        p50, p99 = np.percentile(took, (50, 99)) * 1e3
        return {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}

    async def _run(self) -> None:
        rng, self._room = random.Random(2), asyncio.Semaphore(MAX_CONNECTIONS)
        tasks: set[asyncio.Task[None]] = set()
        started_s, due_s = time.monotonic(), 0.0
        while not self._stop.is_set():
            due_s += rng.expovariate(self._waves.rate_per_s(due_s))
            await asyncio.sleep(max(started_s + due_s - time.monotonic(), 0))
            task = asyncio.create_task(self._one(next(self._asks), started_s + due_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        for connection in self._idle:
            connection.close()

    async def _one(self, ask: Ask, intended_s: float) -> None:
        self.asked += 1
        request_id = f"soak-{self.asked}"
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT_S):
                outcome = await self._outcome(ask, request_id)
        except TimeoutError:
            outcome = "lost TimeoutError"
        except OSError as exc:
            outcome = f"lost {type(exc).__name__}"
        self.outcomes[ask.kind, outcome] += 1
        if outcome == RIGHT:
            self._took_s.append(time.monotonic() - intended_s)

    async def _outcome(self, ask: Ask, request_id: str) -> str:
        assert self._room is not None  # noqa: S101
        async with self._room:
            connection = await self._connection()
            try:
                answered = connection.ask(self._request(ask, request_id))
                if ask.hang_up_s is not None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(ask.hang_up_s):
                            return self._judged(ask, await answered, request_id)
                    return HUNG_UP
                answer = await answered
                if answer.keeps:
                    connection.idle_since_s = time.monotonic()
                    self._idle.append(connection)
                return self._judged(ask, answer, request_id)
            finally:
                if connection not in self._idle[-1:]:
                    connection.close()

    async def _connection(self) -> _Connection:
        # The one used last first: the others may grow old.
        while self._idle:
            found = self._idle.pop()
            if found.is_open and time.monotonic() - found.idle_since_s < IDLE_S:
                return found
            found.close()
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(_Connection, self._host, self._port)
        return made

    def _request(self, ask: Ask, request_id: str) -> bytes:
        head = (
            f"POST /classify HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nX-Request-ID: {request_id}\r\n{ask.head}"
            f"Content-Length: {len(ask.body)}\r\n\r\n"
        )
        return head.encode() + ask.body

    def _judged(self, ask: Ask, answer: Answer, request_id: str) -> str:
        outcome = judged(ask, answer, request_id)
        if outcome not in (RIGHT, "429", "408") and len(self.examples) < 20:
            self.examples.append(f"{ask.kind}: {outcome}: {answer.body[:200]!r}")
        return outcome


def judged(ask: Ask, answer: Answer, request_id: str) -> str:
    """What became of a request: `right`, `wrong`, `408`, `429`, or what should not be."""
    if answer.status == 429:
        return "429" if b"retry-after" in answer.head else "429 without Retry-After"
    if answer.status == 408:
        return "408"
    try:
        body = json.loads(answer.body)
        if answer.status != ask.status:
            return f"{answer.status} {body['error']['code']}"
        if answer.head.get(b"x-request-id") != request_id.encode():
            return "the answer of another request"
        if answer.status != 200:
            return RIGHT if body["error"]["code"] else "no code"
        items: Sequence[dict[str, object]] = body if isinstance(body, list) else [body]
        return RIGHT if tuple(item["label"] for item in items) == ask.labels else "wrong"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status} not of ours"


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.is_open, self.idle_since_s = False, 0.0
        self._transport: asyncio.Transport | None = None
        self._answer = Answer()
        self._waiting: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport, self.is_open = transport, True

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        assert self._transport is not None  # noqa: S101
        self._answer = Answer()
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end(ConnectionError("no HTTP"))
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.head[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        self._answer.body += part

    def on_message_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        self._answer.keeps = self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._end(ConnectionError("closed"))

    def _end(self, error: ConnectionError | None) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.done():
            return
        if error is None:
            waiting.set_result(self._answer)
        else:
            waiting.set_exception(error)
