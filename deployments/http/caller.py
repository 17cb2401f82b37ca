"""Who asks and how urgently, as far as headers say it."""

from __future__ import annotations

from typing import NamedTuple

from starlette.types import Scope

from deployments.http.schemas import MAX_TIMEOUT_MS, ClassifyRequest
from deployments.pipeline.errors import InvalidInput
from deployments.pipeline.types import WEIGHTS, Priority
from deployments.settings import LimitSettings

CLIENT = "rayclassify.client"
"""Key in the ASGI scope under which whoever knows the client better than a header puts its name."""

_MAX_CLIENT_CHARS = 128


class Caller(NamedTuple):
    """client: "" where nobody can tell. timeout_s, priority: None where the request is silent."""

    client: str = ""
    timeout_s: float | None = None
    priority: Priority | None = None


NOBODY = Caller()


def caller_of(scope: Scope, request: ClassifyRequest, limits: LimitSettings) -> Caller:
    """What the body says, else what headers say.

    Raises:
        InvalidInput: a header has no sensible value.
    """
    client: str = scope.get(CLIENT, "")
    timeout_ms, priority = request.timeout_ms, request.priority
    wanted = limits.client_header.encode() if limits.client_header else None
    for name, value in scope["headers"]:
        if name == b"x-timeout-ms" and timeout_ms is None:
            timeout_ms = _timeout_ms(value)
        elif name == b"x-priority" and priority is None:
            priority = _priority(value)
        elif name == wanted and not client:
            # Of several the last was added by the proxy nearest to us, and others by anybody.
            client = value.decode("latin-1").rpartition(",")[2].strip()[:_MAX_CLIENT_CHARS]
    return Caller(client, None if timeout_ms is None else timeout_ms / 1e3, priority)


def _timeout_ms(value: bytes) -> int:
    # The length first: turning a long number into an int is costly.
    sensible = value.isdigit() and len(value) <= len(str(MAX_TIMEOUT_MS))
    if not sensible or not 1 <= int(value) <= MAX_TIMEOUT_MS:
        raise InvalidInput(f"X-Timeout-Ms must be a whole number from 1 to {MAX_TIMEOUT_MS}.")
    return int(value)


def _priority(value: bytes) -> Priority:
    said = value.decode("latin-1").strip().lower()
    for priority in WEIGHTS:
        if said == priority:
            return priority
    raise InvalidInput(f"X-Priority must be {' or '.join(WEIGHTS)}.")
