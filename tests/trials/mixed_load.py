"""Mixed traffic, open loop: requests come when they come, and all answers are checked."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter, deque

import httptools
import numpy as np

from .mixed import HUNG_UP, RIGHT, Answer, Ask, Waves, asks, judged

CLIENT_TIMEOUT_S = 60.0  # above the service's own: it must answer before
IDLE_S = 20.0  # a connection that was idle for longer may be about to be closed
MAX_CONNECTIONS = 512


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
        assert self._room is not None
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


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.is_open, self.idle_since_s = False, 0.0
        self._transport: asyncio.Transport | None = None
        self._answer = Answer()
        self._waiting: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        assert self._transport is not None
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
