"""One RPC as the scope of an HTTP request: gRPC's metadata are HTTP/2's headers.

So keys, `x-priority`, `x-timeout-ms`, `x-request-id` and the client's header are read by what reads
them over HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from grpc import StatusCode
from starlette.types import Scope

from deployments.http.serve_edge import TIMEOUT_S

DEADLINE = "grpc-timeout"
"""Metadata with the milliseconds that a caller waits. gRPC keeps this header of its own to itself,
and refuses it from callers, so `servicer` puts it back."""

_MILLISECONDS = re.compile(r"(\d{1,12})m")
_SERVE_ID = "request_id"


class Context(Protocol):
    """What we use of Serve's RayServegRPCContext."""

    def invocation_metadata(self) -> Sequence[tuple[str, Any]]: ...
    def trailing_metadata(self) -> Sequence[tuple[str, Any]]: ...
    def set_code(self, code: StatusCode) -> None: ...
    def set_details(self, details: str) -> None: ...
    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None: ...


def scope_of(context: Context) -> Scope:
    """The scope of the call: its headers, and under TIMEOUT_S the seconds that its caller waits."""
    scope: dict[str, Any] = {"type": "http", "headers": (headers := [])}
    for name, value in context.invocation_metadata():
        if name == DEADLINE:
            if said := _MILLISECONDS.fullmatch(value):
                scope[TIMEOUT_S] = int(said[1]) / 1e3
        else:
            headers.append((name.encode(), _bytes(value)))
    # The id that Serve logs and answers with, where the caller chose none.
    headers += [
        (b"x-request-id", _bytes(value))
        for name, value in context.trailing_metadata()
        if name == _SERVE_ID
    ]
    return scope


def deadline_of(left_s: float) -> tuple[str, str]:
    """The metadata that tell `scope_of` how long the caller still waits; at least 1 ms."""
    return DEADLINE, f"{max(1, int(min(left_s, 1e6) * 1e3))}m"


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "replace")
