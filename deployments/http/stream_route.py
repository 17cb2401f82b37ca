"""POST /classify/stream: a line of JSON in, a line of JSON out, for as long as the sender has some.

Both ways flow at once, so memory stays flat however much is sent. While the answers of
`WINDOW_TEXTS` are due, or nobody reads them, nothing more is read: the sender's socket fills, and
it waits.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import CancelledError, Task
from collections.abc import Sequence

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from deployments.http.access_gate import ALLOWANCE
from deployments.http.body import HeldBytes
from deployments.http.dialects.base import at_place
from deployments.http.inputs import CLIENT, caller_of
from deployments.http.lines import Line, asked, lines_of
from deployments.http.media_types import NDJSON
from deployments.http.request_log import REQUESTS
from deployments.http.responses import (
    ANSWER_HEADERS,
    encode_json,
    error_answer,
    request_id_of,
    told,
)
from deployments.http.routes import STREAM_NAME
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import (
    NotReady,
    Overloaded,
    ServiceError,
    UnsupportedMediaType,
)
from deployments.pipeline.observer import SILENT, Observer, code_of, outcome_of
from deployments.pipeline.types import Answer, TextInput, flow_of
from deployments.privacy.audit import AuditLog
from deployments.settings import LimitSettings

WINDOW_TEXTS = 512
"""So many texts of one stream may be taken in and not answered; `WINDOW_BYTES` as well."""
WINDOW_BYTES = 1_000_000

GROUP_TEXTS = 64
"""So many go to the service at once, where so many have arrived."""

PATIENCE_S = 600.0
"""So long a line is tried again where the service is full, as the table command tries."""


class StreamRoute:
    """Answers in the order of the lines, each as soon as it and those before it are done."""

    def __init__(
        self,
        service: ClassifyService,
        limits: LimitSettings,
        held: HeldBytes,
        audit: AuditLog | None = None,
        observer: Observer = SILENT,
    ) -> None:
        self.service = service
        self.limits = limits
        self.held = held
        self.audit = audit
        self.observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            encodings = [v for name, v in scope["headers"] if name == b"content-encoding"]
            if any(value.lower() != b"identity" for value in encodings):
                raise UnsupportedMediaType("Compressed bodies are not accepted. Send plain lines.")
            stream = _Stream(self, scope)
            await self.service.readiness()
        except ServiceError as exc:
            self.observer.refused(code_of(exc), 1)
            self.observer.request(STREAM_NAME, outcome_of(exc))
            await error_answer(exc, scope)(scope, receive, send)
            return
        headers = [(b"content-type", NDJSON.encode()), *ANSWER_HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await stream.run(receive, send)
        except (ClientDisconnect, TimeoutError):
            self.observer.request(STREAM_NAME, "cancelled")
            return  # nobody is there, or nobody reads: the server ends the connection
        except CancelledError as exc:
            self.observer.request(STREAM_NAME, "cancelled")
            exc.__traceback__ = None  # Serve keeps it in a cycle; its frames hold texts
            raise
        await send({"type": "http.response.body", "body": b""})
        self.observer.request(STREAM_NAME, "ok")


class _Stream:
    """One request: a reader that starts the work, and a writer that waits for it in order."""

    def __init__(self, route: StreamRoute, scope: Scope) -> None:
        self._route = route
        self._scope = scope
        # One flow for all of it: it takes one share of the model, whatever it has under way.
        self._flow = flow_of("bulk", caller_of(scope, route.limits).client, 1)
        self._request_id = request_id_of(scope)
        self._paid = 1  # the gate took one text
        self._working: asyncio.Queue[tuple[Task[bytes], int, int] | None] = asyncio.Queue()
        self._texts = self._bytes = 0
        self._room = asyncio.Event()

    async def run(self, receive: Receive, send: Send) -> None:
        """Raises ClientDisconnect, or TimeoutError where nobody reads the answers."""
        reading = asyncio.create_task(self._read(receive))
        work: Task[bytes] | None = None
        try:
            while (item := await self._working.get()) is not None:
                work, n_texts, n_bytes = item
                await self._send(await _done(work, reading), send)
                self._texts -= n_texts
                self._bytes -= n_bytes
                self._room.set()
            if (last := await reading) is not None:
                await self._send(self._line(None, last), send)
        finally:
            reading.cancel()
            while work is not None:
                work.cancel()
                item = None if self._working.empty() else self._working.get_nowait()
                work = item[0] if item else None

    async def _send(self, lines: bytes, send: Send) -> None:
        async with asyncio.timeout(self._route.limits.body_timeout_s):
            await send({"type": "http.response.body", "body": lines, "more_body": True})

    async def _read(self, receive: Receive) -> ServiceError | None:
        """Why it ended before the sender's end."""
        try:
            async for lines in lines_of(receive, self._route.limits, self._route.held):
                for start in range(0, len(lines), GROUP_TEXTS):
                    group = lines[start : start + GROUP_TEXTS]
                    n_bytes = sum(len(line.content or b"") for line in group)
                    while self._texts >= WINDOW_TEXTS or self._bytes >= WINDOW_BYTES:
                        self._room.clear()
                        await self._room.wait()
                    self._texts += len(group)
                    self._bytes += n_bytes
                    work = asyncio.create_task(self._answered(group))
                    self._working.put_nowait((work, len(group), n_bytes))
        except ServiceError as exc:
            exc.__traceback__ = None
            return exc
        finally:
            self._working.put_nowait(None)
        return None

    async def _answered(self, lines: list[Line]) -> bytes:
        asking = [asked(line, self._route.limits, self._flow) for line in lines]
        inputs = [item for _, item in asking]
        results = await self._results(inputs)
        if self._route.audit is not None:
            self._route.audit.record(inputs, results, self._request_id, self._scope.get(CLIENT))
        errors = [result for result in results if isinstance(result, ServiceError)]
        REQUESTS.partly(errors, len(results), self._request_id)
        told = []
        for line, (key, _), result in zip(lines, asking, results, strict=True):
            if isinstance(result, ServiceError):
                self._route.observer.refused(result.code, 1)
                result = at_place(result, f"line {line.number}")
            told.append(self._line(key, result))
        return b"".join(told)

    def _line(self, key: str | int | None, result: Answer | ServiceError) -> bytes:
        about: dict[str, object] = {} if key is None else {"id": key}
        if isinstance(result, ServiceError):
            return encode_json({**about, "error": result.body(self._request_id)}) + b"\n"
        return encode_json({**about, **result}) + b"\n"

    async def _results(
        self, inputs: list[TextInput | ServiceError]
    ) -> Sequence[Answer | ServiceError]:
        """One per input, in order. Where the service is full they wait, and so does the sender."""
        gives_up, paid = time.monotonic() + PATIENCE_S, False
        while True:
            try:
                if not paid:
                    self._pay(len(inputs))
                paid = True
                return await self._route.service.classify_inputs(inputs)
            except (Overloaded, NotReady) as exc:
                exc.__traceback__ = None
                full, wait_s = exc, exc.retry_after_s
            except Exception as exc:
                error = told(exc, self._request_id)
                exc.__traceback__ = None
                return [error] * len(inputs)
            if time.monotonic() + wait_s > gives_up:
                return [full] * len(inputs)
            await asyncio.sleep(wait_s)

    def _pay(self, n_texts: int) -> None:
        """Raises Overloaded: the caller has no texts left for now, or for today."""
        if (allowance := self._scope.get(ALLOWANCE)) is not None:
            if not self._paid:
                allowance.take()
            self._paid = 0
            allowance.charge(n_texts - 1)


async def _done(work: Task[bytes], reading: Task[ServiceError | None]) -> bytes:
    """What the work gives. Raises ClientDisconnect as soon as the sender is gone."""
    while not work.done():
        waited = {work} if reading.done() else {work, reading}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
    return work.result()
