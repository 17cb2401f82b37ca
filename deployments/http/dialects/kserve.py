"""KServe's dialect, version 1: POST /v1/models/{name}:predict with `instances`.

Read in KServe 0.21 (python/kserve/kserve: protocol/rest/v1_endpoints.py, errors.py). Its own
classifiers answer the label's number; this one answers its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.types import Scope

from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import Body, Choices, Json, Page, Question, answered, operation
from deployments.http.dialects.kserve_words import (
    ERROR,
    PAGE_STATUSES,
    READINESS,
    STATUSES,
    kserve_error,
    no_model,
    readiness_of,
)
from deployments.http.dialects.model_list import model_list
from deployments.http.inputs import as_sequence, caller_of, sequences_of
from deployments.http.json_body import decoded
from deployments.http.responses import encode_json
from deployments.pipeline.errors import InvalidInput, NotFound, NotImplementedHere, ServiceError
from deployments.pipeline.types import Answer, Options
from deployments.settings import DialectSettings, LimitSettings

_EXAMPLE = 'Send {"instances": ["...", "..."]}.'


class _Request(msgspec.Struct):
    instances: list[Any]
    parameters: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Request)


class KserveDialect:
    """See `Dialect` and `Family`."""

    name = "kserve"
    access_scope: AccessScope = "classify"
    prefix = "/v1/models/"

    def __init__(self, limits: LimitSettings, settings: DialectSettings, model: str) -> None:
        self._limits = limits
        self._model = model
        self.paths: tuple[str, ...] = (f"/v1/models/{model}:predict",)
        ready = operation(
            "kserve_ready", "Is the model ready?", {}, READINESS, PAGE_STATUSES, ERROR
        )
        self.pages: Mapping[str, Page] = {
            f"/v1/models/{model}": Page(readiness_of(model), ready),
            **model_list("kserve", settings, model),
        }

    def stranger(self, rest: str) -> ServiceError:
        name, _, verb = rest.partition(":")
        if name != self._model:
            return no_model(name)
        if verb == "explain":
            return NotImplementedHere(
                f"Model with name {name} has no explainer here. POST /explain has."
            )
        return NotFound(f"Model with name {name} has nothing at this path. Use :predict.")

    def parse(self, body: Body, scope: Scope) -> Question:
        request = decoded(body.content, _decoder, _EXAMPLE)
        caller = caller_of(scope, self._limits)
        items = [as_sequence(instance, "text") for instance in request.instances]
        options = _options(request.parameters or {})
        inputs = sequences_of(items, options, self._limits, caller, "instances")
        return Question(inputs, caller.timeout_s, single=False)

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes:
        return encode_json({"predictions": answered(answers, "instances")})

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        return kserve_error(error)

    def operation(self, with_keys: bool) -> Json:
        text = {"type": "string", "minLength": 1}
        pair = {"type": "array", "minItems": 1, "maxItems": 2, "items": text}
        named = {
            "type": "object",
            "required": ["text"],
            "properties": {"text": text, "text_pair": {"anyOf": [text, {"type": "null"}]}},
        }
        request = {
            "type": "object",
            "required": ["instances"],
            "properties": {
                "instances": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"anyOf": [text, named, pair]},
                },
                "parameters": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "top_k": {"type": "integer", "minimum": 1},
                        "raw_scores": {"type": "boolean"},
                        "threshold": {"type": "number", "minimum": 0, "maximum": 1},
                        "truncation": {"type": "boolean"},
                    },
                },
            },
        }
        answer = {
            "type": "object",
            "required": ["predictions"],
            "properties": {"predictions": {"type": "array", "items": {"type": "object"}}},
        }
        return operation("kserve_predict", "As KServe, version 1", request, answer, STATUSES, ERROR)


def _options(parameters: dict[str, Any]) -> Options:
    # An option that is misspelt must not be left out in silence.
    if not parameters.keys() <= set(Choices.__struct_fields__):
        known = ", ".join(Choices.__struct_fields__)
        raise InvalidInput(f"`parameters` has a field that is not known here. Known are {known}.")
    try:
        asked = msgspec.convert(parameters, Choices)
    except msgspec.ValidationError as exc:
        raise InvalidInput(f"`parameters`: {exc}.") from None
    except UnicodeEncodeError:  # msgspec's way with half a surrogate pair
        raise InvalidInput("`parameters` has a string that is not valid Unicode.") from None
    return asked.options
