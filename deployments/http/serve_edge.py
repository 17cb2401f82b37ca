"""Around Ray Serve's own part of a request, before it reads a header and after it says an error.

Serve loads this in each replica and proxy where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names
`deployments.http.serve_edge:middlewares`; the launcher and our YAML do.
"""

from __future__ import annotations

import math
from http import HTTPStatus

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.responses import error_answer
from deployments.http.routes import STREAM
from deployments.pipeline.errors import (
    BadRequest,
    DeadlineExceeded,
    NotFound,
    NotReady,
    Overloaded,
    ServiceError,
)

TIMEOUT_S = "rayclassify.timeout_s"
"""Key of the ASGI scope that holds the seconds a caller wants to wait, if it said so."""

_TIMEOUT = b"x-request-timeout-seconds"
# Serve lets a caller lift the server's time limit with the one, and keep the work of a request
# going that it has left with the other. Neither is a caller's to decide.
_FOR_SERVE = frozenset({_TIMEOUT, b"x-request-disconnect-disabled"})

_GONE = 499

# Serve ends what takes longer than `request_timeout_s`, and to see a caller go it reads all of a
# body at once, into memory. A stream has no end, and sees for itself.
_WITHOUT_END = ((_TIMEOUT, b"0"), (b"x-request-disconnect-disabled", b"?1"))


def middlewares() -> list[Middleware]:
    """What Serve puts around its HTTP server."""
    return [Middleware(ServeEdge)]


class ServeEdge:
    """Keeps callers from Serve's switches, and gives Serve's plain-text errors our own shape."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name in _FOR_SERVE or not value.isascii():
                _take_out(scope)
                break
        if scope["path"].endswith(STREAM):
            scope["headers"] = [*scope["headers"], *_WITHOUT_END]
        said: Message | None = None

        async def send_json(message: Message) -> None:
            nonlocal said
            if message["type"] == "http.response.start":
                # To a caller that has gone Serve says 499: nobody was refused, and nobody reads it.
                if message["status"] >= 400 and message["status"] != _GONE and _is_plain(message):
                    said = message
                    return
            elif said is not None:
                if not message.get("more_body", False):
                    answer = error_answer(_as_error(said["status"]), scope)
                    answer.raw_headers += [h for h in said["headers"] if h[0] == b"x-request-id"]
                    await answer(scope, receive, send)
                return
            await send(message)

        await self._app(scope, receive, send_json)


def _take_out(scope: Scope) -> None:
    """What callers may not say to Serve, and what it would stumble over: it decodes some headers as
    UTF-8, and answers 500 where that fails."""
    kept = []
    for name, value in scope["headers"]:
        if name == _TIMEOUT and (timeout_s := _seconds(value)) is not None:
            scope[TIMEOUT_S] = timeout_s
        elif name not in _FOR_SERVE and _is_utf8(value):
            kept.append((name, value))
    scope["headers"] = kept


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _seconds(value: bytes) -> float | None:
    """A caller's time limit; what is no time above 0 is none."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if seconds > 0 and math.isfinite(seconds) else None


def _is_plain(message: Message) -> bool:
    return any(
        name == b"content-type" and value.startswith(b"text/plain")
        for name, value in message["headers"]
    )


def _as_error(status: int) -> ServiceError:
    if status == HTTPStatus.NOT_FOUND:
        return NotFound("There is nothing at this path. Check the route prefix.")
    if status == HTTPStatus.REQUEST_TIMEOUT:
        return DeadlineExceeded(
            "The request took longer than the server allows. Send less at once."
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Overloaded("Too many requests wait here. Retry later, or add Tokenizer replicas.")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return NotReady("The service is starting or stopping. Retry in a few seconds.", 2.0)
    return BadRequest("The request can't be understood.") if status < 500 else ServiceError()
