"""Vertex AI's dialect: POST /vertex/predict with `instances`, and at the path that Vertex names.

Vertex AI tells a custom container its paths by AIP_PREDICT_ROUTE and AIP_HEALTH_ROUTE. What an
instance holds is the container's own choice; ours are texts and pairs, and `content` as in AutoML.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.types import Scope

from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import (
    ALL_LABELS,
    Body,
    Choices,
    Json,
    Page,
    Question,
    operation,
)
from deployments.http.inputs import as_sequence, caller_of, sequences_of
from deployments.http.json_body import decoded
from deployments.http.responses import encode_json
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import ServiceError
from deployments.pipeline.types import Answer
from deployments.settings import DialectSettings, LimitSettings

PREDICT, HEALTH = "/vertex/predict", "/vertex/health"
PREDICT_ROUTE, HEALTH_ROUTE = "AIP_PREDICT_ROUTE", "AIP_HEALTH_ROUTE"

_EXAMPLE = 'Send {"instances": ["...", "..."]}.'
_STATUSES = (400, 401, 403, 429, 500, 503, 504)
_ROUTE = re.compile(r"(/[A-Za-z0-9._~:@-]+)+")

# http/routes.py lists our own, and imports this; a test holds the two together.
OURS = frozenset(
    {
        "/", "/health", "/ready", "/info", "/state", "/docs", "/openapi.json", "/docs/assets/",
        "/classify/stream",
    }
)  # fmt: skip

_CODES = {
    HTTPStatus.REQUEST_TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNPROCESSABLE_ENTITY: HTTPStatus.BAD_REQUEST,
}
"""Google's APIs know fewer statuses."""

_NAMES = {
    HTTPStatus.BAD_REQUEST: "INVALID_ARGUMENT",
    HTTPStatus.UNAUTHORIZED: "UNAUTHENTICATED",
    HTTPStatus.FORBIDDEN: "PERMISSION_DENIED",
    HTTPStatus.NOT_FOUND: "NOT_FOUND",
    HTTPStatus.TOO_MANY_REQUESTS: "RESOURCE_EXHAUSTED",
    HTTPStatus.SERVICE_UNAVAILABLE: "UNAVAILABLE",
    HTTPStatus.GATEWAY_TIMEOUT: "DEADLINE_EXCEEDED",
}

_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["code", "message", "status"]}},
}

logger = logging.getLogger(__name__)


class _Request(msgspec.Struct):
    instances: list[Any]
    parameters: Choices | None = None


_decoder = msgspec.json.Decoder(_Request)


class VertexDialect:
    """See `Dialect`."""

    name = "vertex"
    access_scope: AccessScope = "classify"

    def __init__(
        self,
        limits: LimitSettings,
        settings: DialectSettings,
        model: str,
        taken: Collection[str] = (),
    ) -> None:
        """taken: paths of other dialects, which Vertex AI's names leave alone."""
        self._limits = limits
        taken = {*taken, *OURS, PREDICT, HEALTH}
        self.paths: tuple[str, ...] = (PREDICT, *_named_by(PREDICT_ROUTE, taken))
        probed = (HEALTH, *_named_by(HEALTH_ROUTE, {*taken, *self.paths}))
        # Vertex AI's probes carry no key.
        self.pages: Mapping[str, Page] = {
            path: Page(_health, _described_health(i), "always") for i, path in enumerate(probed)
        }

    def parse(self, body: Body, scope: Scope) -> Question:
        request = decoded(body.content, _decoder, _EXAMPLE)
        options = (request.parameters or Choices()).options
        caller = caller_of(scope, self._limits)
        texts = [as_sequence(item, "text", "content") for item in request.instances]
        inputs = sequences_of(texts, options, self._limits, caller, "instances")
        return Question(inputs, caller.timeout_s, len(inputs) == 1)

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes:
        # Batch prediction wants as many predictions as instances, and one bad one fails no other.
        predictions = [
            {"error": _told(answer)} if isinstance(answer, ServiceError) else answer
            for answer in answers
        ]
        return encode_json({"predictions": predictions})

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        told = _told(error)
        return told["code"], encode_json({"error": told})

    def operation(self, with_keys: bool) -> Json:
        text = {"type": "string", "minLength": 1}
        item: Json = {
            "anyOf": [
                text,
                {
                    "type": "object",
                    "required": ["text"],
                    "properties": {"text": text, "text_pair": text},
                },
                {"type": "object", "required": ["content"], "properties": {"content": text}},
            ]
        }
        parameters = {
            "type": ["object", "null"],
            "properties": {
                "top_k": {"type": ["integer", "null"], "minimum": 1, "maximum": ALL_LABELS},
                "truncation": {"type": "boolean"},
                "raw_scores": {"type": "boolean"},
                "threshold": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            },
        }
        request = {
            "type": "object",
            "required": ["instances"],
            "properties": {
                "instances": {"type": "array", "minItems": 1, "items": item},
                "parameters": parameters,
            },
        }
        answer = {
            "type": "object",
            "required": ["predictions"],
            "properties": {"predictions": {"type": "array", "items": {"type": "object"}}},
        }
        return operation("vertex_predict", "As on Vertex AI", request, answer, _STATUSES, _ERROR)


async def _health(service: ClassifyService) -> Json:
    await service.readiness()
    return {"status": "ready"}


def _described_health(i: int) -> Json:
    answer = {"type": "object", "required": ["status"]}
    name = f"vertex_health_{i + 1}" if i else "vertex_health"
    return operation(name, "Vertex AI's health check", {}, answer, (500, 503), _ERROR)


def _named_by(variable: str, taken: Collection[str]) -> tuple[str, ...]:
    """The path that this environment variable holds, where it can be had.

    Else the log says why: a start must not fail for it.
    """
    path = os.environ.get(variable, "")
    if not path or path in (PREDICT, HEALTH):
        return ()
    if not _ROUTE.fullmatch(path):
        logger.warning("%s is no path that can be served; %s answers", variable, PREDICT)
        return ()
    if path in taken:
        logger.warning(
            "%s is %s, where something else answers. Choose another route for the container, or "
            "take that dialect out of args.dialects.spoken.",
            variable,
            path,
        )
        return ()
    return (path,)


def _told(error: ServiceError) -> Json:
    status = HTTPStatus(error.status)
    code = _CODES.get(status, status)
    name = _NAMES.get(code, "INTERNAL" if code >= 500 else "INVALID_ARGUMENT")
    return {"code": int(code), "message": error.message, "status": name}
