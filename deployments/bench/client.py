"""The one client for load over HTTP: asks when requests are due, and judges every answer.

An open loop asks at times fixed beforehand, whether the last requests are answered or not: one
that waits for a slow service asks less just when it matters. A closed loop is the same with
requests that are due at once and as many connections as there are callers.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Self
from urllib.parse import urlsplit

import httptools

RIGHT, HUNG_UP = "right", "hung up"
CLIENT_TIMEOUT_S = 60.0  # above the service's own: it must answer before
MAX_CONNECTIONS = 512  # `select` watches 1,024 files at most
_GIVEN_UP_S = 1.0
IDLE_S = 20.0  # a connection that was idle for longer may be about to be closed


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route that classifies one text a request, by POST.

    url: scheme, host and port, no slash at the end; path: begins with a slash;
    body: text → the body of the request, as it goes over the wire;
    label_of: the body of a 200 answer → the label that it names.
    """

    url: str
    path: str
    body: Callable[[str], bytes]
    label_of: Callable[[bytes], str]
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})

    def request(self, text: str) -> bytes:
        """The whole request that asks `text`."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return post(
            self.body(text), None, lines.encode(), path=self.path, host=urlsplit(self.url).netloc
        )


def post(
    body: bytes,
    content_type: bytes | None = b"application/json",
    extra: bytes = b"",
    request_id: str = "",
    path: str = "/classify",
    host: str = "localhost",
) -> bytes:
    """A whole POST. extra: more header lines, each with its line end."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n".encode()
    if content_type is not None:
        head += b"Content-Type: " + content_type + b"\r\n"
    if request_id:
        head += b"X-Request-ID: " + request_id.encode() + b"\r\n"
    return head + extra + b"\r\n" + body


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. Names of `headers` are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes
    keeps: bool = True

    @property
    def is_json(self) -> bool:
        return self.headers.get("content-type", "").startswith("application/json")

    def json(self) -> Any:
        """The body, or None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def said(self) -> str:
        """`200`, or an error's status and code: `429 overloaded`, `404 not of ours`."""
        if self.status == 200:
            return "200"
        body = self.json()
        error = body.get("error") if isinstance(body, dict) else None
        code = error.get("code") if isinstance(error, dict) else None
        return f"{self.status} {code or 'not of ours'}"


class BrokenAnswer(Exception):
    """What came back is not HTTP."""


class AnswerParser:
    """Bytes of a connection → `answers`, in order."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.is_within = self._has_head = False  # an answer that has begun and not ended
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Reads on.

        Raises:
            BrokenAnswer
        """
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            raise BrokenAnswer(f"not HTTP: {exc}") from None

    def end(self) -> None:
        """The connection has ended, and with it an answer that tells no length of its own."""
        if self.is_within and self._has_head:
            told = {"content-length", "transfer-encoding"} & self._headers.keys()
            if not told:
                self.on_message_complete()

    def on_message_begin(self) -> None:
        self.is_within, self._has_head = True, False
        self._headers, self._body = {}, bytearray()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self.is_within = False
        if (status := self._parser.get_status_code()) >= 200:
            keeps = bool(self._parser.should_keep_alive())
            self.answers.append(Answer(status, self._headers, bytes(self._body), keeps))


@dataclass(frozen=True, slots=True)
class Question:
    """One request. judge: what became of it by its answer, in words; `right` where all is well.

    hang_up_s: when the client goes, if it does not wait.
    """

    request: bytes
    judge: Callable[[Answer], str] = lambda answer: RIGHT if answer.status == 200 else answer.said
    kind: str = ""
    hang_up_s: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of one request. Times in seconds since the load began; answered_s None: never.

    took_s: from sending to the answer, or to the end of waiting for it;
    outcome: what its judge said, `hung up`, or `lost` and the error.
    """

    due_s: float
    sent_s: float
    answered_s: float | None
    status: int = 0
    outcome: str = ""
    kind: str = ""
    retry_after: bool = False
    took_s: float = 0.0


class Load:
    """Asks from entry to exit, in a thread of its own, over as many connections as it takes.

    url: http or https. due_s: when each request is due; at once, where nothing is said. note: is
    told what became of each; else `asked` has it. On exit every request has been answered, or
    waited for as long as its client would.
    """

    def __init__(
        self,
        url: str,
        questions: Iterable[Question],
        due_s: Iterable[float] = repeat(0.0),
        *,
        connections: int = MAX_CONNECTIONS,
        timeout_s: float = CLIENT_TIMEOUT_S,
        note: Callable[[Asked], None] | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.asked: list[Asked] = []
        self.n_sent = 0
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._address = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._questions, self._due_s = iter(questions), iter(due_s)
        self._connections, self._timeout_s = connections, timeout_s
        self._note = note or self.asked.append
        self._idle: list[_Connection] = []
        self._started_s = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run_apart, daemon=True)
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        self._stop.set()
        # Whoever presses Ctrl-C waits for no answer.
        self._thread.join(_GIVEN_UP_S if kind is KeyboardInterrupt else None)
        if kind is None and self._failure is not None:
            raise self._failure

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(one.outcome for one in self.asked)

    def now_s(self) -> float:
        """Seconds since the first request could have been sent."""
        return time.perf_counter() - self._started_s

    def run(self) -> list[Asked]:
        """Asks until there is no more to ask."""
        # `select` waits in microseconds; epoll, asyncio's own choice, in whole milliseconds.
        with asyncio.Runner(
            loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
        ) as runner:
            runner.run(self._run())
        return self.asked

    def _run_apart(self) -> None:
        try:
            self.run()
        except Exception as exc:
            self._failure = exc  # raised on exit

    async def _run(self) -> None:
        self._started_s = time.perf_counter()
        room, tasks = asyncio.Semaphore(self._connections), set[asyncio.Task[None]]()

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            room.release()

        for due_s in self._due_s:
            await asyncio.sleep(max(due_s - self.now_s(), 0))
            await room.acquire()
            # Only now, as what is asked may depend on the moment: a key that has changed.
            if self._stop.is_set() or (question := next(self._questions, None)) is None:
                break
            self.n_sent += 1
            task = asyncio.create_task(self._ask(question, due_s))
            tasks.add(task)
            task.add_done_callback(ended)
        if tasks:
            await asyncio.wait(tasks)
        for connection in self._idle:
            connection.close()

    async def _ask(self, question: Question, due_s: float) -> None:
        sent_s, answered_s, answer, outcome = self.now_s(), None, None, HUNG_UP
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._answer(question)
        except (TimeoutError, OSError) as exc:
            outcome = f"lost {type(exc).__name__}"
        if answer is not None:
            answered_s = self.now_s()
            try:
                outcome = question.judge(answer)
            except (ValueError, LookupError, TypeError):
                outcome = f"{answer.status} not of ours"
        status, headers = (answer.status, answer.headers) if answer else (0, {})
        self._note(
            Asked(
                due_s,
                sent_s,
                answered_s,
                status,
                outcome,
                question.kind,
                "retry-after" in headers,
                self.now_s() - sent_s,
            )
        )

    async def _answer(self, question: Question) -> Answer | None:
        """None where the client went before it came."""
        connection = await self._connection()
        try:
            answered = connection.ask(question.request)
            if question.hang_up_s is not None:
                await asyncio.wait([answered], timeout=question.hang_up_s)
                if not answered.done():
                    answered.cancel()
                    return None
                return answered.result()
            answer = await answered
            if answer.keeps:
                self._idle.append(connection)
            return answer
        finally:
            if connection not in self._idle[-1:]:
                connection.close()

    async def _connection(self) -> _Connection:
        # The one used last: its buffers are warm, and the others may grow old.
        while self._idle:
            found = self._idle.pop()
            if found.is_open and time.monotonic() - found.idle_since_s < IDLE_S:
                return found
            found.close()
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(_Connection, *self._address, ssl=self._tls)
        return made


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.is_open, self.idle_since_s = False, 0.0
        self._transport: asyncio.Transport | None = None
        self._parser = AnswerParser()
        self._waiting: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport, self.is_open = transport, True

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        if self._transport is None or not self.is_open:
            raise ConnectionError("closed before it was asked")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except BrokenAnswer:
            self.close()
        if self._parser.answers:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._parser.end()
        self._end()

    def _end(self) -> None:
        """Hands the answer over, or that none has come."""
        answers, self._parser = self._parser.answers, AnswerParser()
        waiting, self._waiting = self._waiting, None
        self.idle_since_s = time.monotonic()
        if waiting is None or waiting.done():
            return
        if answers:
            waiting.set_result(answers[0])
        else:
            waiting.set_exception(ConnectionError("closed, or no HTTP"))
