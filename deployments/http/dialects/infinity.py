"""infinity's dialect: POST /infinity/classify with `input`, all labels with their scores.

Read in infinity 0.0.78 (infinity_emb/fastapi_schemas: pymodels.py, errors.py). Its server ignores
`raw_scores`; this one does what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
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
from deployments.http.dialects.openai_words import (
    ERROR,
    INPUT,
    STATUSES,
    named,
    openai_error,
    tokens_of,
)
from deployments.http.inputs import caller_of, sequences_of
from deployments.http.json_body import decoded
from deployments.http.responses import encode_json
from deployments.pipeline.errors import ServiceError
from deployments.pipeline.types import Answer, Options
from deployments.settings import DialectSettings, LimitSettings

_EXAMPLE = 'Send {"input": ["...", "..."]}.'


class _Request(msgspec.Struct):
    input: str | list[Any]
    raw_scores: bool = False


_decoder = msgspec.json.Decoder(_Request)


class InfinityDialect:
    """See `Dialect`."""

    paths: tuple[str, ...] = ("/infinity/classify",)
    name = "infinity"
    access_scope: AccessScope = "classify"
    pages: Mapping[str, Page] = {}

    def __init__(self, limits: LimitSettings, settings: DialectSettings, model: str) -> None:
        self._limits = limits
        self._model = model

    def parse(self, body: Body, scope: Scope) -> Question:
        request = decoded(body.content, _decoder, _EXAMPLE)
        texts = [request.input] if isinstance(request.input, str) else request.input
        caller = caller_of(scope, self._limits)
        options = Options(ALL_LABELS, raw_scores=request.raw_scores)
        inputs = sequences_of(texts, options, self._limits, caller, "input")
        return Question(inputs, caller.timeout_s, single=False)

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes:
        good = answered(answers, "input")
        n_tokens = tokens_of(good)
        return encode_json(
            {
                **named("infinity"),
                "object": "classify",
                "data": [
                    [{"score": score, "label": label} for label, score in answer["scores"].items()]
                    for answer in good
                ],
                "model": self._model,
                "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
            }
        )

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        return openai_error(error)

    def operation(self, with_keys: bool) -> Json:
        request = {
            "type": "object",
            "required": ["input"],
            "properties": {
                "input": INPUT,
                "model": {"type": "string"},
                "raw_scores": {"type": "boolean"},
            },
        }
        answer = {
            "type": "object",
            "required": ["object", "data", "model", "usage", "id", "created"],
            "properties": {"data": {"type": "array", "items": {"type": "array"}}},
        }
        return operation("infinity_classify", "As infinity", request, answer, STATUSES, ERROR)
