"""Which requests got an error, and a sample of those that got none: a line each, never a text."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from deployments.pipeline.errors import NotReady, Overloaded, ServiceError, loggable_id

logger = logging.getLogger(__name__)

N_TEXTS = "rayclassify.n_texts"
"""Key of the ASGI scope that holds how many texts a request has, once that is known."""

# An overload refuses thousands of requests a second, and a line costs as much as a refusal.
WINDOW_S = 10.0
LINES = 10


@dataclass(slots=True)
class _Window:
    """What came of one code since `began`."""

    began: float
    logged: int = 0
    left_out: int = 0


class RequestLog:
    """Of each error's code at most LINES lines in WINDOW_S, then how many more there were.

    one_in: of so many answered requests one has a line; None: none has. Lines have `request_id`,
    `code`, `status`, `texts`, `bytes` and `ms` as fields, which stand by themselves in JSON.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.one_in: int | None = None
        self._answered = 0
        self._windows: dict[str, _Window] = {}
        self._now = now

    def refused(self, error: ServiceError, request_id: str, scope: Scope | None = None) -> None:
        """The request got this error and nothing else. scope: of HTTP, or as gRPC has it."""
        scope = scope or {}
        if isinstance(error, NotReady) and scope.get("method") in ("GET", "HEAD"):
            return  # no refusal: whether it is ready was the question
        failed = error.status >= 500 and not isinstance(error, NotReady)
        n_texts, n_bytes = scope.get(N_TEXTS), _n_bytes(scope)
        said = f"{'failed' if failed else 'refused'}: {error.code} ({error.status})"
        said += _sizes(n_texts, n_bytes)
        level = logging.WARNING if failed else logging.INFO
        self._say(level, said, error, request_id, {"texts": n_texts, "bytes": n_bytes})

    def partly(self, errors: Sequence[ServiceError], n_texts: int, request_id: str) -> None:
        """So many texts of a request that was answered got errors."""
        if not errors:
            return
        codes = Counter(error.code for error in errors)
        told = ", ".join(f"{code} {n}" for code, n in codes.most_common())
        said = f"{len(errors)} of {n_texts} texts failed: {told}"
        about = {"texts": n_texts, "failed_texts": len(errors)}
        self._say(logging.INFO, said, errors[0], request_id, about)

    def answered(self, status: int, seconds: float, request_id: str, scope: Scope) -> None:
        """A request got its answer; called where `one_in` is set."""
        self._answered += 1
        if self.one_in is None or self._answered % self.one_in:
            return
        n_texts, n_bytes = scope.get(N_TEXTS), _n_bytes(scope)
        about = {
            "status": status,
            "texts": n_texts,
            "bytes": n_bytes,
            "ms": round(seconds * 1e3, 1),
        }
        logger.info(
            "answered: %s%s, %.1f ms", status, _sizes(n_texts, n_bytes), seconds * 1e3,
            extra={"request_id": loggable_id(request_id), **about},
        )  # fmt: skip

    def _say(
        self, level: int, said: str, error: ServiceError, request_id: str, about: dict[str, Any]
    ) -> None:
        code, now = error.code, self._now()
        window = self._windows.get(code)
        if window is None or now - window.began >= WINDOW_S:
            self._close(code, error)
            window = self._windows[code] = _Window(now)
        if window.logged >= LINES:
            window.left_out += 1
            if window.left_out == 1:
                self._close_later(window.began + WINDOW_S - now, code, error)
            return
        window.logged += 1
        about = {"code": code, "status": error.status, **about}
        logger.log(level, said, extra={"request_id": loggable_id(request_id), **about})

    def _close(self, code: str, error: ServiceError) -> None:
        window = self._windows.pop(code, None)
        if window is not None and window.left_out:
            serious = error.status >= 500 or isinstance(error, Overloaded)
            logger.log(
                logging.WARNING if serious else logging.INFO,
                "%s (%s): %d more requests in %g s that are not logged one by one",
                code, error.status, window.left_out, WINDOW_S,
                extra={"code": code, "status": error.status, "not_logged": window.left_out},
            )  # fmt: skip

    def _close_later(self, seconds: float, code: str, error: ServiceError) -> None:
        """So that the number is told although no more errors come."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # then the next error of this code tells it
        plain = type(error)  # without its message, and without what its frames hold
        # In a context of its own: a request's would live on, and end with its request.
        loop.call_later(
            max(0.0, seconds), self._close, code, plain(""), context=contextvars.Context()
        )


def _n_bytes(scope: Scope) -> int | None:
    """As the head of the request says."""
    for name, value in scope.get("headers", ()):
        if name == b"content-length" and value.isdigit() and len(value) < 19:
            return int(value)
    return None


def _sizes(n_texts: int | None, n_bytes: int | None) -> str:
    texts = "" if n_texts is None else f", {n_texts} text{'' if n_texts == 1 else 's'}"
    return texts + ("" if n_bytes is None else f", {n_bytes} bytes")


REQUESTS = RequestLog()
"""Of this process, as loggers are: every edge writes into it."""
