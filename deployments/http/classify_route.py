"""POST to a dialect's paths: the hot path, plain ASGI; and how any question is answered."""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Sequence

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from deployments.http.access_gate import ALLOWANCE, require
from deployments.http.body import HeldBytes, read_question
from deployments.http.dialects.base import SPEAKER, Dialect, Question, Rendered
from deployments.http.inputs import CLIENT
from deployments.http.request_log import N_TEXTS, REQUESTS
from deployments.http.responses import ANSWER_HEADERS, error_answer, request_id_of
from deployments.http.serve_edge import TIMEOUT_S
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import DeadlineExceeded, NotReady, Overloaded, ServiceError
from deployments.pipeline.observer import SILENT, Observer, code_of, outcome_of
from deployments.pipeline.types import Answer, TextInput, TimedAnswer
from deployments.privacy.audit import AuditLog
from deployments.settings import LimitSettings

# These say nothing about a text: where all texts meet them, so does the request.
_OF_THE_SERVICE = (Overloaded, NotReady, DeadlineExceeded)


class Times:
    """How long one request took, in seconds; of several texts the mean, as they went side by side.

    queue_s: neither tokenizing nor the model's pass: waiting, and the ways between the stages.
    """

    __slots__ = ("model_s", "queue_s", "tokenize_s")

    def __init__(self) -> None:
        self.tokenize_s = self.queue_s = self.model_s = 0.0

    def take(self, answers: Sequence[Answer | ServiceError], took_s: float) -> None:
        """took_s: until all of them were there."""
        timed = [answer for answer in answers if isinstance(answer, TimedAnswer)]
        if timed:
            self.tokenize_s = sum(answer.tokenize_s for answer in timed) / len(timed)
            self.model_s = sum(answer.model_s for answer in timed) / len(timed)
        self.queue_s = max(0.0, took_s - self.tokenize_s - self.model_s)

    def headers(self, total_s: float) -> tuple[tuple[bytes, bytes], ...]:
        """Whole milliseconds. (text-embeddings-inference 1.9.3, router/src/lib.rs.)"""
        total_ms = b"%.0f" % (total_s * 1e3)
        return (
            (b"x-compute-time", total_ms),
            (b"x-total-time", total_ms),
            (b"x-tokenization-time", b"%.0f" % (self.tokenize_s * 1e3)),
            (b"x-queue-time", b"%.0f" % (self.queue_s * 1e3)),
            (b"x-inference-time", b"%.0f" % (self.model_s * 1e3)),
        )


class Answering:
    """From a question to its answers: charged, classified and recorded, whatever carried it here.

    audit: where decisions are recorded. observer: told of each text that got an error.
    """

    def __init__(
        self,
        service: ClassifyService,
        audit: AuditLog | None = None,
        observer: Observer = SILENT,
    ) -> None:
        self._service = service
        self._audit = audit
        self._observer = observer

    async def answers(
        self, question: Question, scope: Scope, times: Times | None = None
    ) -> list[Answer | ServiceError]:
        """One for each input; of a single question it is no error. times: told how long it took.

        Raises:
            ServiceError: the whole request has no answer.
        """
        inputs = question.inputs
        scope[N_TEXTS] = len(inputs)
        timeout_s = question.timeout_s or scope.get(TIMEOUT_S)
        if question.ask is not None:
            self._charge(scope, max(1, len(inputs)))
            return [*await question.ask(self._service)]
        if question.single:
            if isinstance(inputs[0], ServiceError):
                raise inputs[0]
            answers = await self._classified(question, scope, timeout_s, times)
            if isinstance(answers[0], ServiceError):
                raise answers[0]
            return answers
        self._charge(scope, len(inputs))
        answers = await self._classified(question, scope, timeout_s, times)
        _raise_if_refused(inputs, answers)
        errors = [answer for answer in answers if isinstance(answer, ServiceError)]
        if errors:
            REQUESTS.partly(errors, len(answers), request_id_of(scope))
            for error in errors:
                self._observer.refused(error.code, 1)
        return answers

    def _charge(self, scope: Scope, n_texts: int) -> None:
        if (allowance := scope.get(ALLOWANCE)) is not None:
            allowance.charge(n_texts - 1)  # the gate took one

    async def _classified(
        self,
        question: Question,
        scope: Scope,
        timeout_s: float | None,
        times: Times | None,
    ) -> list[Answer | ServiceError]:
        inputs, how = question.inputs, question.explain
        if how is not None:
            require(scope, "explain")
        started = time.perf_counter()
        if how is None:
            answers = await self._service.classify_inputs(inputs, timeout_s)
        else:
            answers = await self._service.explain_inputs(inputs, how, timeout_s)
        if times is not None:
            times.take(answers, time.perf_counter() - started)
        if self._audit is not None:
            client = scope.get(CLIENT)
            self._audit.record(inputs, answers, request_id_of(scope), client)
        return answers


class ClassifyRoute:
    """Answers a POST in one dialect, whatever the path is: routing happened before.

    A cancelled request cancels its own `classify_inputs` and goes no further; there is nobody left
    to answer.
    """

    def __init__(
        self,
        dialect: Dialect,
        service: ClassifyService,
        limits: LimitSettings,
        held: HeldBytes,
        audit: AuditLog | None = None,
        observer: Observer = SILENT,
    ) -> None:
        self._dialect = dialect
        self._answering = Answering(service, audit, observer)
        self._limits = limits
        self._held = held
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        times = Times()
        try:
            content = await self._content(scope, receive, times)
        except ClientDisconnect:
            self._observer.request(self._speaker(scope).name, "cancelled")
            return
        except CancelledError as exc:
            self._observer.request(self._speaker(scope).name, "cancelled")
            exc.__traceback__ = None  # Serve keeps it in a cycle; its frames hold the text
            raise
        except Exception as exc:
            speaker = self._speaker(scope)
            answer = error_answer(exc, scope, speaker.render_error)
            # Its frames hold the text, and one of them the error: only the collector would end it.
            exc.__traceback__ = None
            self._observer.refused(code_of(exc), 1)
            self._observer.request(speaker.name, outcome_of(exc))
            await answer(scope, receive, send)
            return
        media_type, more, status = b"application/json", ANSWER_HEADERS, 200
        if isinstance(content, Rendered):
            media_type, more = content.media_type, (*content.headers, *ANSWER_HEADERS)
            status, content = content.status, content.content
        # Starlette's Response would do the same at several times the cost.
        headers = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(content)),
            *more,
            *times.headers(time.perf_counter() - started),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        took_s = time.perf_counter() - started
        self._observer.stage("http", took_s, 1)
        self._observer.request(self._speaker(scope).name, "ok")
        if REQUESTS.one_in is not None:
            REQUESTS.answered(status, took_s, request_id_of(scope), scope)

    async def _content(self, scope: Scope, receive: Receive, times: Times) -> bytes | Rendered:
        """The body of the 200; every other status is an exception."""
        question = await read_question(
            scope, receive, self._dialect, self._limits, self._held, self._observer
        )
        answers = await self._answering.answers(question, scope, times)
        return self._speaker(scope).render(question, answers, scope)

    def _speaker(self, scope: Scope) -> Dialect:
        dialect: Dialect = scope.get(SPEAKER, self._dialect)
        return dialect


def _raise_if_refused(
    inputs: list[TextInput | ServiceError], answers: list[Answer | ServiceError]
) -> None:
    """Raises the first answer if the service took none of the good texts, so that clients and load
    balancers see the status and Retry-After."""
    asked = [
        answer
        for given, answer in zip(inputs, answers, strict=True)
        if isinstance(given, TextInput)
    ]
    refusals = [answer for answer in asked if isinstance(answer, _OF_THE_SERVICE)]
    if refusals and len(refusals) == len(asked):
        raise refusals[0]
