"""SageMaker's dialect: POST /invocations with `inputs`, as Hugging Face's containers have it.

Read in aws/sagemaker-huggingface-inference-toolkit (handler_service.py) and in transformers 5.20
(pipelines/text_classification.py), which answers there.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.types import Scope

from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import (
    ALL_LABELS,
    Body,
    Json,
    Page,
    Question,
    answered,
    operation,
)
from deployments.http.inputs import as_sequence, caller_of, sequences_of
from deployments.http.json_body import decode_utf8, decoded
from deployments.http.media_types import JSON, PLAIN
from deployments.http.responses import encode_json
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import InvalidInput, ServiceError, UnsupportedMediaType
from deployments.pipeline.types import Activation, Answer, Options
from deployments.settings import DialectSettings, LimitSettings

_EXAMPLE = 'Send {"inputs": "..."} or {"inputs": ["...", "..."]}.'
_STATUSES = (400, 401, 403, 408, 413, 415, 422, 429, 500, 503)
_FUNCTIONS = ("none", "sigmoid", "softmax")
_ACTIVATIONS: Mapping[str, Activation] = {"sigmoid": "sigmoid", "softmax": "softmax"}
_CUTS = {"longest_first": True, "do_not_truncate": False}
_DIGITS = 8

_TYPES = {
    HTTPStatus.UNAUTHORIZED: "UnauthorizedException",
    HTTPStatus.FORBIDDEN: "AccessDeniedException",
    HTTPStatus.NOT_FOUND: "ResourceNotFoundException",
    HTTPStatus.REQUEST_TIMEOUT: "RequestTimeoutException",
    HTTPStatus.TOO_MANY_REQUESTS: "ThrottlingException",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailableException",
}


class _Parameters(msgspec.Struct):
    """What is read of the pipeline's parameters; others are for tokenizers, and mean nothing."""

    top_k: Annotated[int, Meta(ge=1, le=ALL_LABELS)] | UnsetType | None = UNSET
    function_to_apply: str | None = None
    truncation: bool | str | None = None
    return_all_scores: bool | None = None
    max_length: int | None = None


class _Request(msgspec.Struct):
    inputs: str | dict[str, Any] | list[Any]
    parameters: _Parameters | None = None


class _Asked(NamedTuple):
    """several: labels, not only the best. lone: the JSON type of the one text, or None."""

    several: bool
    lone: type | None


_decoder = msgspec.json.Decoder(_Request)


class SagemakerDialect:
    """See `Dialect`."""

    paths: tuple[str, ...] = ("/invocations",)
    name = "sagemaker"
    access_scope: AccessScope = "classify"

    def __init__(self, limits: LimitSettings, settings: DialectSettings, model: str) -> None:
        self._limits = limits
        answer = {"type": "object", "required": ["status"]}
        described = operation("sagemaker_ping", "As SageMaker", {}, answer, (500, 503), _ERROR)
        # SageMaker's probes carry no key.
        self.pages: Mapping[str, Page] = {"/ping": Page(_ping, described, "always")}

    def parse(self, body: Body, scope: Scope) -> Question:
        request = _request_of(body)
        asked, options = _understood(request.parameters or _Parameters(), type(request.inputs))
        items = request.inputs if isinstance(request.inputs, list) else [request.inputs]
        texts = [as_sequence(item, "text") for item in items]
        caller = caller_of(scope, self._limits)
        inputs = sequences_of(texts, options, self._limits, caller, "inputs")
        return Question(inputs, caller.timeout_s, asked.lone is not None, asked)

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes:
        asked: _Asked = question.memo
        shown = [_shown(answer) for answer in answered(answers, "inputs")]
        if asked.several:
            return encode_json(shown if asked.lone is None else shown[0])
        best = [labels[0] for labels in shown]
        # As the pipeline has it: a lone string is answered by a list, a lone pair by an object.
        return encode_json(best[0] if asked.lone is dict else best)

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        status = HTTPStatus(error.status)
        unnamed = "InternalServerException" if status >= 500 else "BadRequestException"
        kind = _TYPES.get(status, unnamed)
        return status, encode_json({"code": int(status), "type": kind, "message": error.message})

    def operation(self, with_keys: bool) -> Json:
        text = {"type": "string", "minLength": 1}
        pair = {
            "type": "object",
            "required": ["text"],
            "properties": {"text": text, "text_pair": text},
        }
        item: Json = {"anyOf": [text, pair]}
        parameters = {
            "type": ["object", "null"],
            "properties": {
                "top_k": {"type": ["integer", "null"], "minimum": 1, "maximum": ALL_LABELS},
                "function_to_apply": {"enum": [*_FUNCTIONS, None]},
                "truncation": {"enum": [True, False, *_CUTS, None]},
            },
        }
        request = {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "inputs": {"anyOf": [text, pair, {"type": "array", "minItems": 1, "items": item}]},
                "parameters": parameters,
            },
        }
        label = {"type": "object", "required": ["label", "score"]}
        labels = {"type": "array", "items": label}
        answer = {"anyOf": [label, labels, {"type": "array", "items": labels}]}
        described = operation(
            "sagemaker_invocations",
            "As Hugging Face's containers on SageMaker",
            request,
            answer,
            _STATUSES,
            _ERROR,
        )
        described["requestBody"]["content"][PLAIN] = {"schema": text}
        return described


_ERROR: Json = {"type": "object", "required": ["code", "type", "message"]}


async def _ping(service: ClassifyService) -> Json:
    await service.readiness()
    return {"status": "Healthy"}


def _request_of(body: Body) -> _Request:
    if body.media_type == PLAIN:
        return _Request(decode_utf8(body.content))
    # A form that starts with `{` is what `curl -d '{...}'` sends without a header.
    if body.media_type not in (JSON, "") and not body.content.lstrip().startswith(b"{"):
        raise UnsupportedMediaType(
            f"This content type is not accepted here. Send {JSON} or {PLAIN}."
        )
    return decoded(body.content, _decoder, _EXAMPLE)


def _understood(parameters: _Parameters, kind: type) -> tuple[_Asked, Options]:
    """kind: the type of `inputs`."""
    if parameters.return_all_scores:
        raise InvalidInput("`return_all_scores` is gone from transformers. Send `top_k`: null.")
    if parameters.max_length is not None:
        raise InvalidInput(
            "`max_length` is the service's own here. Leave it out; `truncation`: true cuts to it."
        )
    function = parameters.function_to_apply and parameters.function_to_apply.lower()
    if function not in (None, "", "default", *_FUNCTIONS):
        raise InvalidInput(f"`function_to_apply` must be one of {', '.join(_FUNCTIONS)}, or null.")
    cut = parameters.truncation
    cuts = _CUTS.get(cut) if isinstance(cut, str) else bool(cut)
    if cuts is None:
        raise InvalidInput(f"`truncation` must be true, false or one of {', '.join(_CUTS)}.")
    lone = None if kind is list else kind
    top_k = 1 if parameters.top_k is UNSET else parameters.top_k or ALL_LABELS
    options = Options(
        top_k,
        raw_scores=function == "none",
        truncation=cuts,
        activation=_ACTIVATIONS.get(function or ""),
    )
    return _Asked(parameters.top_k is not UNSET, lone), options


def _shown(answer: Answer) -> list[Json]:
    """The labels of one text, best first."""
    return [{"label": label, "score": score} for label, score in answer["scores"].items()]
