"""Open loop: requests at the times of a Poisson process, whether the last ones are answered or not.

Runs in a process of its own (`python -m scripts.bench.openloop`), with one connection for each
request under way. A closed loop waits with the next question where the service is slow, and so
asks less just when it matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

import httptools

from .child import answer_lines, child
from .endpoint import Endpoint
from .latency import Sent, latencies, poisson_times_s
from .load import framed

WARM_SHARE = 0.1
DRAIN_S = 30.0
MAX_CONNECTIONS = 512  # `select` watches 1,024 files at most


def open_loop(
    endpoint: Endpoint, texts: Sequence[str], rate_per_s: float, duration_s: float, seed: int
) -> dict[str, Any]:
    """Latencies at this rate, and the share of a core that the client took (`client_cpu`)."""
    parts = urlsplit(endpoint.url)
    with child("scripts.bench.openloop") as process:
        return process.ask(
            host=parts.hostname,
            port=parts.port,
            requests=[
                framed(endpoint, text).split(b"\n", 1)[1].decode("latin-1") for text in texts
            ],
            rate_per_s=rate_per_s,
            duration_s=duration_s,
            seed=seed,
        )


class Connection(asyncio.Protocol):
    """Sends one request at a time and notes when its answer is complete."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._request: tuple[float, float] | None = None  # intended, sent
        self._retry_after = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def ask(self, request: bytes, intended_s: float) -> None:
        assert self._transport is not None  # noqa: S101
        self._request = (intended_s, self._client.now_s())
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._retry_after |= name.lower() == b"retry-after"

    def on_message_complete(self) -> None:
        status, keep = self._parser.get_status_code(), self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)
        self._end(status)
        if keep:
            self._client.free(self)
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(0)
        self._client.lost(self)

    def _end(self, status: int) -> None:
        if self._request is not None:
            intended_s, sent_s = self._request
            self._request = None
            answered_s = self._client.now_s() if status else None
            self._client.ended(Sent(intended_s, sent_s, answered_s, status, self._retry_after))
            self._retry_after = False


class Client:
    """Asks at fixed times over as many connections as it takes."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes]) -> None:
        self._host, self._port = host, port
        self._requests: Iterator[bytes] = cycle(requests)
        self._started_s = 0.0
        self._opening: set[asyncio.Task[None]] = set()
        self.idle: deque[Connection] = deque()
        self.sent: list[Sent] = []
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._connections = 0
        self._under_way = 0
        self._all_answered = asyncio.Event()

    def now_s(self) -> float:
        """Seconds since the first request could have been sent."""
        return time.perf_counter() - self._started_s

    async def run(self, times_s: Sequence[float], drain_s: float = DRAIN_S) -> list[Sent]:
        """Sends one request at each of `times_s`, then waits for the last answers."""
        self._started_s = time.perf_counter()
        for intended_s in times_s:
            if (wait_s := intended_s - self.now_s()) > 0:
                await asyncio.sleep(wait_s)
            self._ask(next(self._requests), intended_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._all_answered.wait()
        return self.sent + [Sent(times_s[-1], times_s[-1], None)] * (len(times_s) - len(self.sent))

    def ended(self, one: Sent) -> None:
        """Notes what became of a request."""
        self.sent.append(one)
        self._under_way -= 1
        if not self._under_way:
            self._all_answered.set()

    def free(self, connection: Connection) -> None:
        """Gives a connection its next request, or keeps it for later."""
        if self._waiting:
            connection.ask(*self._waiting.popleft())
        else:
            self.idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self._connections -= 1
        if connection in self.idle:
            self.idle.remove(connection)
        if self._waiting:
            self._open(*self._waiting.popleft())

    def _ask(self, request: bytes, intended_s: float) -> None:
        self._under_way += 1
        self._all_answered.clear()
        if self.idle:
            # The one used last: its buffers are warm, and the others may grow old.
            self.idle.pop().ask(request, intended_s)
        elif self._connections < MAX_CONNECTIONS:
            self._open(request, intended_s)
        else:
            self._waiting.append((request, intended_s))

    def _open(self, request: bytes, intended_s: float) -> None:
        self._connections += 1
        task = asyncio.get_running_loop().create_task(self._connect(request, intended_s))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, request: bytes, intended_s: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self), self._host, self._port
            )
        except OSError:
            self.ended(Sent(intended_s, self.now_s(), None))
            self._connections -= 1
            return
        connection.ask(request, intended_s)


def measure(question: dict[str, Any]) -> dict[str, Any]:
    rate_per_s, duration_s = question["rate_per_s"], question["duration_s"]
    times_s = poisson_times_s(rate_per_s, duration_s, question["seed"])
    requests = [request.encode("latin-1") for request in question["requests"]]
    client = Client(question["host"], question["port"], requests)
    cpu_before, started = time.process_time(), time.perf_counter()
    # `select` waits in microseconds; epoll, asyncio's own choice, in whole milliseconds.
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        sent = runner.run(client.run(times_s.tolist()))
    cpu = (time.process_time() - cpu_before) / (time.perf_counter() - started)
    found = latencies(sent, warm_s=WARM_SHARE * duration_s)
    return {"rate_per_s": round(rate_per_s, 1), **asdict(found), "client_cpu": round(cpu, 3)}


if __name__ == "__main__":
    answer_lines(measure)
