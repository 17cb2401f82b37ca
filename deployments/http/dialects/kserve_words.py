"""What KServe and the Open Inference Protocol have in common: errors, and what is said of a model.

Read in KServe 0.21 (python/kserve/kserve: errors.py, protocol/rest).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from deployments.http.dialects.base import Json
from deployments.http.responses import encode_json
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import NotFound, NotReady, ServiceError

STATUSES = (400, 401, 403, 404, 408, 429, 500, 503)

PAGE_STATUSES = (401, 403, 429, 500, 503)

ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}
"""JSON schema of an error."""

# A name in a path may be anything, so only what looks like a name is repeated.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def kserve_error(error: ServiceError) -> tuple[int, bytes]:
    """Status and body. What is wrong with a request is always 400 there, whatever it is."""
    status = 400 if error.status in (413, 415, 422) else error.status
    return status, encode_json({"error": error.message})


def quotable(name: str) -> bool:
    """Whether a message may repeat what a caller calls something: it does not look like a text."""
    return _NAME.fullmatch(name) is not None


def no_model(name: str) -> NotFound:
    """Says that there is no model of that name."""
    told = f"name {name}" if quotable(name) else "this name"
    return NotFound(f"Model with {told} does not exist.")


def readiness_of(name: str) -> Callable[[ClassifyService], Awaitable[Json]]:
    """A page that says whether the model is ready; KServe answers 503 where it is not."""

    async def answer(service: ClassifyService) -> Json:
        try:
            await service.readiness()
        except NotReady as exc:
            told = f"Model with name {name} is not ready. {exc.message}"
            raise NotReady(told, exc.retry_after_s) from None
        return {"name": name, "ready": True}

    return answer


READINESS: Json = {
    "type": "object",
    "required": ["name", "ready"],
    "properties": {"name": {"type": "string"}, "ready": {"const": True}},
}
"""JSON schema of what `readiness_of` answers."""
