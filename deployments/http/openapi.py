"""GET /openapi.json: OpenAPI 3.1, made of the structs that decode requests."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments import __version__
from deployments.http.body import JSON, MULTIPART, PLAIN, URLENCODED
from deployments.http.examples import ANSWERS, REQUESTS, errors_by_status
from deployments.http.responses import JSONAnswer
from deployments.http.schemas import MAX_TIMEOUT_MS, SCHEMA_REF, components
from deployments.pipeline.errors import NotReady, ServiceError, Unauthorized
from deployments.pipeline.types import WEIGHTS
from deployments.settings import AccessSettings, LimitSettings

Json = dict[str, Any]

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


def openapi_route(limits: LimitSettings, access: AccessSettings) -> Route:
    """The document's route; a path prefix becomes its server."""
    document = openapi_document(limits, access)

    async def openapi(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return JSONAnswer({**document, "servers": [{"url": root}]} if root else document)

    return Route("/openapi.json", openapi)


def openapi_document(limits: LimitSettings, access: AccessSettings | None = None) -> Json:
    """The whole document as JSON-ready values. access: None is open to all."""
    with_keys = access is not None and access.enabled
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
            "/classify": {"post": _classify(limits, with_keys)},
            "/health": {"get": _get("health", "Does the process live?", "Health", ANSWERS["ok"])},
            "/ready": {
                "get": _get("ready", "Is the model loaded and warm?", "Health", ANSWERS["ready"])
            },
            "/info": {
                "get": _get("info", "Which model, on which device?", "Info", ANSWERS["info"])
                | {"parameters": [_CERTIFICATE]}
            },
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
    if access is not None and access.enabled:
        _require_keys(document, access)
    return document


def _require_keys(document: Json, access: AccessSettings) -> None:
    """Says how callers show who they are, and which paths ask."""
    bearer: Json = {"type": "http", "scheme": "bearer"}
    bearer["description"] = "An API key" if access.jwt_jwks is None else "An API key or a JWT"
    header = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    document["components"]["securitySchemes"] = {"Bearer": bearer, "Key": header}
    either: list[Json] = [{"Bearer": []}, {"Key": []}]
    anybody: list[Json] = [{}] if access.allow_anonymous else []
    document["paths"]["/classify"]["post"]["security"] = [*either, *anybody]
    info = document["paths"]["/info"]["get"]
    info["security"] = [*either, *anybody]
    unauthorized: list[ServiceError] = [Unauthorized("This service needs a key.")]
    info["responses"]["401"] = _error_response(unauthorized)


_CERTIFICATE: Json = {
    "name": "certificate",
    "in": "query",
    "description": "Present, whatever its value: what was proven of the model when it was loaded.",
    "schema": {"type": "string"},
}


def _classify(limits: LimitSettings, with_keys: bool) -> Json:
    form = {"schema": _ref("ClassifyRequest")}
    prediction = _ref("Prediction")
    item = {"anyOf": [prediction, _ref("ErrorAnswer")]}
    return {
        "operationId": "classify",
        "tags": ["Classification"],
        "summary": "Classify one text or a list of texts",
        "description": (
            "One text gets one object; a list gets a list in the same order. "
            f"At most {limits.max_batch_texts} texts, {limits.max_text_chars} characters each, "
            f"{limits.max_body_bytes} bytes in all."
        ),
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _HEADERS],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": _ref("ClassifyRequest"), "examples": REQUESTS},
                URLENCODED: form,
                MULTIPART: form,
                PLAIN: {"schema": {"type": "string", "minLength": 1}},
            },
        },
        "responses": {
            "200": {
                "description": "What the model says",
                "content": {
                    JSON: {
                        "schema": {"anyOf": [prediction, {"type": "array", "items": item}]},
                        "examples": {
                            "one": {"summary": "One text", "value": ANSWERS["one"]},
                            "list": {"summary": "A list with a bad text", "value": ANSWERS["list"]},
                        },
                    }
                },
            },
            **{
                str(status): _error_response(errors)
                for status, errors in errors_by_status(limits, with_keys).items()
            },
        },
    }


def _get(name: str, summary: str, schema: str, example: object) -> Json:
    responses: Json = {
        "200": {
            "description": "Yes" if summary.startswith(("Does", "Is")) else "The service's answer",
            "content": {JSON: {"schema": _ref(schema), "example": example}},
        }
    }
    if name != "health":
        responses["503"] = _error_response([NotReady("The model is loading. Try again soon.")])
    return {"operationId": name, "tags": ["Service"], "summary": summary, "responses": responses}


def _error_response(errors: list[ServiceError]) -> Json:
    response: Json = {
        "description": " or ".join(f"`{error.code}`" for error in errors),
        "content": {
            JSON: {
                "schema": _ref("ErrorAnswer"),
                "examples": {
                    error.code: {"value": {"error": error.body("6f1c")}} for error in errors
                },
            }
        },
    }
    if any(hasattr(error, "retry_after_s") for error in errors):
        response["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
    return response


def _ref(name: str) -> Json:
    return {"$ref": SCHEMA_REF.format(name=name)}
