"""Traces by OpenTelemetry: one for a request, through all three deployments, sent by OTLP.

Spans hold names, numbers and ids, and no text: no exception's message, no path that is not in our
table, no tracestate, which callers write. opentelemetry is imported where a trace is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.responses import request_id_of
from deployments.pipeline.errors import ServiceError, loggable_id
from deployments.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_HEADER = b"traceparent"
_MAX_CALLS = 10_000


class Tracer:
    """Of one replica. Spans are sent by a thread of their own; what can't be sent is dropped."""

    def __init__(self, settings: TracingSettings, deployment: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        about = {"service.name": "rayclassify", "rayclassify.deployment": deployment}
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(settings.share), resource=Resource.create(about)
        )
        exporter = OTLPSpanExporter(endpoint=settings.endpoint)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("rayclassify")
        self._propagator = TraceContextTextMapPropagator()
        self._calls: dict[int, Span] = {}

    @contextmanager
    def span(
        self, name: str, parent: str | None = None, about: Mapping[str, Any] | None = None
    ) -> Iterator[Span]:
        """What happens within. parent: a traceparent; None: the span around, or a new trace.

        about: attributes: numbers, codes and ids.
        """
        context = None
        if parent is not None:
            context = self._propagator.extract({"traceparent": parent})
        with self._tracer.start_as_current_span(
            name, context, attributes=about, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except ServiceError as exc:
                self.failed(span, exc.code)
                raise
            except Exception:
                self.failed(span, "internal_error")
                raise

    def current(self) -> Span:
        """The span that the caller is in."""
        from opentelemetry.trace import get_current_span

        return get_current_span()

    @contextmanager
    def batch(self, requests: Sequence[Any]) -> Iterator[None]:
        """A micro-batch of requests' texts. requests: what `current` gave each.

        Its span goes on with the first request's trace; all others have a link to it.
        """
        from opentelemetry.trace import set_span_in_context

        spans = {id(span): span for span in requests if span is not None and span.is_recording()}
        first = next(iter(spans.values()), None)
        if first is None:
            yield
            return
        about = {"rayclassify.texts": len(requests), "rayclassify.requests": len(spans)}
        with self._tracer.start_as_current_span(
            "micro-batch", set_span_in_context(first), attributes=about,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            for request in spans.values():
                request.add_link(span.get_span_context())
            yield

    @contextmanager
    def call(self, call_id: int, parent: str | None, n_texts: int, tokens: int) -> Iterator[None]:
        """A Classifier's call, to be found by `passed`."""
        about = {"rayclassify.texts": n_texts, "rayclassify.tokens": tokens}
        with self.span("classifier", parent or None, about) as span:
            if len(self._calls) < _MAX_CALLS:
                self._calls[call_id] = span
            try:
                yield
            finally:
                self._calls.pop(call_id, None)

    def passed(self, call_ids: Collection[int], seconds: float, n_texts: int, tokens: int) -> None:
        """A forward pass over these calls ended just now: a span of the first, linked from all."""
        from opentelemetry.trace import set_span_in_context

        spans = [self._calls[call_id] for call_id in call_ids if call_id in self._calls]
        spans = [span for span in spans if span.is_recording()]
        if not spans:
            return
        ended_ns = time.time_ns()
        span = self._tracer.start_span(
            "forward pass", set_span_in_context(spans[0]),
            attributes={"rayclassify.texts": n_texts, "rayclassify.tokens": tokens},
            start_time=ended_ns - int(seconds * 1e9),
        )  # fmt: skip
        for call in spans:
            call.add_link(span.get_span_context())
        span.end(ended_ns)

    def traceparent(self, span: Span | None = None) -> str:
        """Of the span, else of the one around: what goes to who is asked next."""
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        context = set_span_in_context(span) if span is not None else None
        self._propagator.inject(carrier, context)
        return carrier.get("traceparent", "")

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()

    @staticmethod
    def failed(span: Span, code: str) -> None:
        """Marks it. code: an error's, or a status."""
        from opentelemetry.trace import Status, StatusCode

        span.set_status(Status(StatusCode.ERROR, code))


def tracer_of(settings: TracingSettings, deployment: str) -> Tracer | None:
    """None where traces are off."""
    return None if settings.endpoint is None else Tracer(settings, deployment)


class TracedApp:
    """A span around each POST. paths: those that name a span; others are only a POST."""

    def __init__(self, app: ASGIApp, tracer: Tracer, paths: Collection[str]) -> None:
        self._app = app
        self._tracer = tracer
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":  # probes say nothing
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        name = f"POST {path}" if path in self._paths else "POST"
        about = {
            "http.request.method": "POST",
            "rayclassify.request_id": loggable_id(request_id_of(scope)),
        }
        with self._tracer.span(name, _parent_of(scope), about) as span:
            told = self._tracer.traceparent(span).encode()

            async def send_traced(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        self._tracer.failed(span, str(message["status"]))
                    message = {**message, "headers": [*message["headers"], (_HEADER, told)]}
                await send(message)

            await self._app(scope, receive, send_traced)


def _parent_of(scope: Scope) -> str | None:
    """As the caller says, where it is a traceparent; the propagator refuses what is none."""
    for name, value in scope["headers"]:
        if name == _HEADER:
            return str(value.decode("latin-1"))
    return None
