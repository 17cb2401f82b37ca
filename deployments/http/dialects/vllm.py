"""vLLM's and SGLang's dialect: POST /v1/classify with `input`, probabilities by the label's number.

Read in vLLM (vllm/entrypoints/pooling/classify: protocol.py, serving.py) and SGLang
(docs/supported_models/retrieval_ranking/classify_models.md), both of 2026.
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
from deployments.http.inputs import Caller, caller_of, sequences_of, token_ids_of
from deployments.http.json_body import decoded
from deployments.http.responses import encode_json
from deployments.pipeline.errors import InvalidInput, ServiceError
from deployments.pipeline.types import Answer, Options, TextInput
from deployments.settings import DialectSettings, LimitSettings

_EXAMPLE = 'Send {"input": "..."} or {"input": ["...", "..."]}.'


class _Request(msgspec.Struct):
    """What is read of a request; vLLM's other fields mean nothing to a classifier."""

    input: str | list[Any]
    truncate_prompt_tokens: int | None = None
    truncation: bool = False  # ours: errors about long texts name it as the cure
    use_activation: bool | None = None
    activation: bool | None = None  # its older name
    softmax: bool | None = None  # and the oldest


_IDS: Json = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}

_decoder = msgspec.json.Decoder(_Request)


class VllmDialect:
    """See `Dialect`."""

    paths: tuple[str, ...] = ("/v1/classify", "/vllm/classify")
    name = "vllm"
    access_scope: AccessScope = "classify"
    pages: Mapping[str, Page] = {}

    def __init__(self, limits: LimitSettings, settings: DialectSettings, model: str) -> None:
        self._limits = limits
        self._model = model

    def parse(self, body: Body, scope: Scope) -> Question:
        request = decoded(body.content, _decoder, _EXAMPLE)
        cut = request.truncate_prompt_tokens
        if cut not in (None, -1):
            raise InvalidInput(
                f"`truncate_prompt_tokens` is {cut}; it can be -1, which cuts to what the model "
                "reads, or null, which refuses longer texts."
            )
        raw = False in (request.use_activation, request.activation, request.softmax)
        options = Options(
            ALL_LABELS, raw_scores=raw, truncation=request.truncation or cut == -1, label_ids=True
        )
        caller = caller_of(scope, self._limits)
        inputs = _inputs_of(request.input, options, self._limits, caller)
        return Question(inputs, caller.timeout_s, single=False)

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes:
        good = answered(answers, "input")
        n_tokens = tokens_of(good)
        data = [
            {"index": i, "label": answer["label"], "probs": probs, "num_classes": len(probs)}
            for i, answer in enumerate(good)
            for probs in (_by_number(answer),)
        ]
        usage = {
            "prompt_tokens": n_tokens,
            "total_tokens": n_tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        }
        return encode_json(
            {
                **named("classify"),
                "object": "list",
                "model": self._model,
                "data": data,
                "usage": usage,
            }
        )

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        return openai_error(error)

    def operation(self, with_keys: bool) -> Json:
        request = {
            "type": "object",
            "required": ["input"],
            "properties": {
                "input": {"anyOf": [*INPUT["anyOf"], _IDS, {"type": "array", "items": _IDS}]},
                "model": {"type": "string"},
                "truncate_prompt_tokens": {"enum": [-1, None]},
                "truncation": {"type": "boolean"},
                "use_activation": {"type": ["boolean", "null"]},
            },
        }
        answer = {
            "type": "object",
            "required": ["id", "object", "created", "model", "data", "usage"],
            "properties": {"data": {"type": "array", "items": {"type": "object"}}},
        }
        return operation("vllm_classify", "As vLLM and SGLang", request, answer, STATUSES, ERROR)


def _inputs_of(
    given: str | list[Any], options: Options, limits: LimitSettings, caller: Caller
) -> list[TextInput | ServiceError]:
    """A text, texts, token ids of one, or of several: told apart by the first, as vLLM does."""
    first = given[0] if isinstance(given, list) and given else given
    if isinstance(first, int):
        return token_ids_of([given], options, limits, caller)
    if isinstance(first, list) and given:
        return token_ids_of(given, options, limits, caller)
    return sequences_of(
        [given] if isinstance(given, str) else given, options, limits, caller, "input"
    )


def _by_number(answer: Answer) -> list[float]:
    """The scores in the order of the model's labels."""
    by_number = sorted(zip(answer["label_ids"], answer["scores"].values(), strict=True))
    return [score for _, score in by_number]
