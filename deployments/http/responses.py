"""Answers in JSON: bodies, and the one way from an exception to a status."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from deployments.http.request_log import REQUESTS
from deployments.pipeline.errors import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    NotReady,
    Overloaded,
    ServiceError,
    kind_and_place,
    loggable_id,
)

NOSNIFF = (b"x-content-type-options", b"nosniff")
NO_STORE = (b"cache-control", b"no-store")

ANSWER_HEADERS: tuple[tuple[bytes, bytes], ...] = (NOSNIFF, NO_STORE)
"""Of all that is said about a text or by the service: no guessing of types, no copy in a cache.

Constants, added where answers are made: a wrapper around `send` would cost every request more.
"""


logger = logging.getLogger(__name__)

encode_json = msgspec.json.Encoder().encode

_MAX_REQUEST_ID_CHARS = 128


class JSONAnswer(Response):
    """A value as `application/json`, in UTF-8."""

    media_type = "application/json"

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        super().init_headers(headers)
        self.raw_headers += ANSWER_HEADERS

    def render(self, content: Any) -> bytes:
        return encode_json(content)


def request_id_of(scope: Scope) -> str:
    """The caller's `x-request-id`, or a new one where that is missing, too long or not printable.

    Serve adds the header to requests without one and repeats it in the answer by itself, so no
    answer of ours sets it.
    """
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            if 0 < len(text) <= _MAX_REQUEST_ID_CHARS and text.isascii() and text.isprintable():
                return text
    return uuid4().hex


RenderError = Callable[[ServiceError, str], tuple[int, bytes]]


def rendered(error: ServiceError, request_id: str) -> tuple[int, bytes]:
    """Status and body of an error as our own answers have it."""
    return error.status, encode_json({"error": error.body(request_id)})


def error_answer(exc: Exception, scope: Scope, render: RenderError = rendered) -> JSONAnswer:
    """The answer to any exception. What is not a ServiceError is logged, and told to nobody.

    render: status and body of an error with this request id.
    """
    request_id = request_id_of(scope)
    headers: dict[str, str] = {}
    if isinstance(exc, HTTPException):
        headers.update(exc.headers or {})
        error = _of_starlette(exc, scope, headers)
    else:
        error = told(exc, request_id)
        if (seconds := retry_after(error)) is not None:
            headers["Retry-After"] = seconds
    REQUESTS.refused(error, request_id, scope)
    status, body = render(error, request_id)
    return JSONAnswer(msgspec.Raw(body), status, headers)


def told(exc: Exception, request_id: str) -> ServiceError:
    """What callers hear of any exception. What is no ServiceError is logged, and told to nobody."""
    if isinstance(exc, ServiceError):
        return exc
    logger.error("request %s: unexpected %s", loggable_id(request_id), kind_and_place(exc))
    return ServiceError()


def retry_after(error: ServiceError) -> str | None:
    """Whole seconds, at least 1; None of an error that does not pass by itself."""
    if isinstance(error, Overloaded | NotReady):
        return str(max(1, math.ceil(error.retry_after_s)))
    return None


def _of_starlette(exc: HTTPException, scope: Scope, headers: dict[str, str]) -> ServiceError:
    if exc.status_code == 404:
        return NotFound("There is nothing at this path. GET /docs shows what there is.")
    if exc.status_code == 405:
        # Starlette's static files leave the header out.
        allowed = headers.setdefault("Allow", "GET, HEAD")
        return MethodNotAllowed(f"This path does not take {scope['method']}. Use {allowed}.")
    if 400 <= exc.status_code < 500:
        return BadRequest("The request can't be understood.")
    return ServiceError()
