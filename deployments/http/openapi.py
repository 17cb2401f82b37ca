"""GET /openapi.json: OpenAPI 3.1, made of the structs that decode requests."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments import __version__
from deployments.http.dialects import dialects
from deployments.http.dialects.base import Json
from deployments.http.examples import error_response
from deployments.http.fields import components
from deployments.http.responses import JSONAnswer
from deployments.http.routes import Table, table
from deployments.http.schemas import MAX_TIMEOUT_MS
from deployments.pipeline.errors import Unauthorized
from deployments.pipeline.types import WEIGHTS
from deployments.settings import AccessSettings, LimitSettings

_DESCRIPTION = """\
Send one text or a list of texts to `POST /classify`, in any language the model reads.

A bad text in a list gets `{"error": ...}` in its place; the others are answered as if it were not
there. Every error has the same shape: a stable `code`, a `message` that says what to change, and
the `request_id` to quote in a report.
"""

_HEADERS: Json = {
    "RequestId": {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Your name for this request, in the answer's header and in errors; made up "
        "if absent.",
        "schema": {"type": "string", "maxLength": 128},
    },
    "TimeoutMs": {
        "name": "X-Timeout-Ms",
        "in": "header",
        "description": "As `timeout_ms`, which goes first; for bodies without fields.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
    },
    "Priority": {
        "name": "X-Priority",
        "in": "header",
        "description": "As `priority`, which goes first; for bodies without fields.",
        "schema": {"type": "string", "enum": list(WEIGHTS)},
    },
}


def openapi_route(entries: Table, access: AccessSettings) -> Route:
    """The document's route; a path prefix becomes its server."""
    document = _document(entries, access)

    async def openapi(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return JSONAnswer({**document, "servers": [{"url": root}]} if root else document)

    return Route("/openapi.json", openapi)


def openapi_document(limits: LimitSettings, access: AccessSettings | None = None) -> Json:
    """The whole document as JSON-ready values. access: None is open to all."""
    access = access or AccessSettings()
    return _document(table(dialects(limits), access.enabled), access)


def _document(entries: Table, access: AccessSettings) -> Json:
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Text classification",
            "version": __version__,
            "summary": "BERT on Ray Serve.",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [
            {"name": "Classification", "description": "Texts in, labels out."},
            {"name": "Service", "description": "Whether it runs, and what it runs."},
        ],
        "paths": {
            path: shown
            for path, methods in entries.items()
            if (
                shown := {
                    entry.method.lower(): entry.operation
                    for entry in methods
                    if entry.operation is not None
                }
            )
        },
        "components": {
            "schemas": components(),
            "parameters": _HEADERS,
            "headers": {
                "RetryAfter": {
                    "description": "Seconds to wait before trying again.",
                    "schema": {"type": "integer", "minimum": 1},
                }
            },
        },
    }
    if access.enabled:
        _require_keys(document, access, entries)
    return document


def _require_keys(document: Json, access: AccessSettings, entries: Table) -> None:
    """Says how callers show who they are, and which paths ask."""
    bearer: Json = {"type": "http", "scheme": "bearer"}
    bearer["description"] = "An API key" if access.jwt_jwks is None else "An API key or a JWT"
    header = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    document["components"]["securitySchemes"] = {"Bearer": bearer, "Key": header}
    either: list[Json] = [{"Bearer": []}, {"Key": []}]
    anybody: list[Json] = [{}] if access.allow_anonymous else []
    unauthorized = error_response([Unauthorized("This service needs a key.")])
    for path, shown in document["paths"].items():
        for entry in entries[path]:
            operation = shown.get(entry.method.lower())
            if operation is not None and entry.open == "never":
                operation["security"] = [*either, *anybody]
                operation["responses"].setdefault("401", unauthorized)
