"""What the questions of Text Embeddings Inference have in common: errors and their statuses."""

from __future__ import annotations

import re

from deployments.http.dialects.base import Json
from deployments.http.responses import encode_json
from deployments.pipeline.errors import (
    DeadlineExceeded,
    EmptyText,
    NotReady,
    Overloaded,
    ServiceError,
)

STATUSES = (400, 401, 403, 408, 413, 415, 422, 424, 429, 503)

ERROR: Json = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {
        "error": {"type": "string"},
        "error_type": {
            "enum": ["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]
        },
    },
}
"""JSON schema of an error. Clients know these types only, so each error gets the nearest."""

_TYPES: tuple[tuple[type[ServiceError], tuple[int, str]], ...] = (
    (EmptyText, (400, "Empty")),
    (Overloaded, (429, "Overloaded")),
    (NotReady, (503, "Unhealthy")),
    (DeadlineExceeded, (408, "Backend")),
)

_TOO_LONG = re.compile(r"text has (\d+) tokens; the limit is (\d+)\..*")


def tei_error(error: ServiceError) -> tuple[int, bytes]:
    """Status and body. What is too large is 413, as TEI documents it; its server sends 422."""
    otherwise = (424, "Backend") if error.status >= 500 else (error.status, "Validation")
    status, name = next((told for kind, told in _TYPES if isinstance(error, kind)), otherwise)
    message = _TOO_LONG.sub(
        r"`inputs` must have less than \2 tokens. Given: \1. Shorten it or send truncate=true.",
        error.message,
    )
    return status, encode_json({"error": message, "error_type": name})
