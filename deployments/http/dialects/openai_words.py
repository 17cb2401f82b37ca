"""What OpenAI-like servers have in common: the shape of their errors, ids and usage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus
from uuid import uuid4

from deployments.http.dialects.base import Json
from deployments.http.responses import encode_json
from deployments.pipeline.errors import ServiceError
from deployments.pipeline.types import Answer

STATUSES = (400, 401, 403, 404, 408, 429, 500, 503)

ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": {"type": "string"}},
        }
    },
}
"""JSON schema of an error."""

_TEXT: Json = {"type": "string", "minLength": 1}

INPUT: Json = {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT}]}
"""JSON schema of `input`: a text, or a list of them."""

_TYPES = {
    HTTPStatus.BAD_REQUEST: "BadRequestError",
    HTTPStatus.UNAUTHORIZED: "AuthenticationError",
    HTTPStatus.FORBIDDEN: "PermissionDeniedError",
    HTTPStatus.NOT_FOUND: "NotFoundError",
    HTTPStatus.TOO_MANY_REQUESTS: "RateLimitError",
}


def openai_error(error: ServiceError, param: str | None = None) -> tuple[int, bytes]:
    """Status and body. What is wrong with a request is always 400 there, whatever it is.

    As vLLM's ErrorResponse and infinity's OpenAIException have it: `code` is the status.
    """
    status = HTTPStatus.BAD_REQUEST if error.status in (413, 415, 422) else HTTPStatus(error.status)
    told = {
        "message": error.message,
        "type": _TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError"),
        "param": param,
        "code": int(status),
    }
    return status, encode_json({"error": told})


def named(prefix: str) -> Json:
    """A new answer's id, and when it was made."""
    return {"id": f"{prefix}-{uuid4().hex}", "created": int(time.time())}


def tokens_of(answers: Sequence[Answer]) -> int:
    return sum(answer.get("tokens", 0) for answer in answers)
