"""OpenAI's moderations: POST /v1/moderations with `input`, one flag for each category.

Read in openai-python 3.57 (types/moderation*.py). Its categories are those of your model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

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
from deployments.http.dialects.model_list import model_list
from deployments.http.dialects.openai_words import ERROR, STATUSES, openai_error
from deployments.http.inputs import caller_of, sequences_of
from deployments.http.json_body import decoded
from deployments.http.responses import encode_json
from deployments.pipeline.errors import InvalidInput, ServiceError
from deployments.pipeline.types import Answer, Options
from deployments.settings import DialectSettings, LimitSettings

_EXAMPLE = 'Send {"input": "..."} or {"input": ["...", "..."]}.'


class _Request(msgspec.Struct):
    input: str | list[Any]
    truncation: bool = False  # ours: what nobody read must not pass as harmless


_decoder = msgspec.json.Decoder(_Request)


class ModerationsDialect:
    """See `Dialect`."""

    paths: tuple[str, ...] = ("/v1/moderations",)
    name = "openai"
    access_scope: AccessScope = "classify"
    pages: Mapping[str, Page]

    def __init__(self, limits: LimitSettings, settings: DialectSettings, model: str) -> None:
        self._limits = limits
        self._model = model
        self._categories = settings.moderation_categories
        self.pages = model_list("openai", settings, model)

    def parse(self, body: Body, scope: Scope) -> Question:
        request = decoded(body.content, _decoder, _EXAMPLE)
        items = [request.input] if isinstance(request.input, str) else request.input
        # OpenAI answers a list of parts with one result, and a list of strings with one for each.
        in_parts = any(isinstance(item, dict) for item in items)
        texts = [_text_of(item) for item in items] if in_parts else items
        if any(isinstance(text, int | list) for text in texts):
            raise InvalidInput(
                "`input` holds numbers or lists, as of token ids. Send texts instead."
            )
        caller = caller_of(scope, self._limits)
        options = Options(ALL_LABELS, truncation=request.truncation)
        inputs = sequences_of(texts, options, self._limits, caller, "input")
        return Question(inputs, caller.timeout_s, single=False, memo=in_parts)

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes:
        good = answered(answers, "input")
        in_parts: bool = question.memo
        results = [self._result(good)] if in_parts else [self._result([one]) for one in good]
        return encode_json({"id": f"modr-{uuid4().hex}", "model": self._model, "results": results})

    def _result(self, answers: Sequence[Answer]) -> Json:
        """Of a text, or of parts that stand together: the worst of each category."""
        scores: dict[str, float] = {}
        flags: dict[str, bool] = {}
        for answer in answers:
            flagged = self._flagged(answer)
            for label, score in answer["scores"].items():
                category = self._categories.get(label, label)
                scores[category] = max(score, scores.get(category, score))
                flags[category] = flags.get(category, False) or label in flagged
        return {
            "flagged": any(flags.values()),
            "categories": flags,
            "category_scores": scores,
            "category_applied_input_types": {category: ["text"] for category in flags},
        }

    def _flagged(self, answer: Answer) -> Sequence[str]:
        """Labels that flag. Where one always wins, only those that are named: not `neutral`."""
        if "labels" in answer:
            labels: list[str] = answer["labels"]
            return labels
        return [answer["label"]] if answer["label"] in self._categories else []

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        return openai_error(error)

    def operation(self, with_keys: bool) -> Json:
        text = {"type": "string", "minLength": 1}
        part = {
            "type": "object",
            "required": ["type", "text"],
            "properties": {"type": {"const": "text"}, "text": text},
        }
        several = [{"type": "array", "minItems": 1, "items": items} for items in (text, part)]
        request = {
            "type": "object",
            "required": ["input"],
            "properties": {
                "input": {"anyOf": [text, *several]},
                "model": {"type": "string"},
                "truncation": {"type": "boolean"},
            },
        }
        answer = {
            "type": "object",
            "required": ["id", "model", "results"],
            "properties": {"results": {"type": "array", "items": _RESULT}},
        }
        return operation("moderations", "As OpenAI's moderations", request, answer, STATUSES, ERROR)


_RESULT: Json = {
    "type": "object",
    "required": ["flagged", "categories", "category_scores", "category_applied_input_types"],
}


def _text_of(part: object) -> object:
    """Raises InvalidInput: this part of a multi-modal input is no text."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image_url":
        raise InvalidInput("`input` holds an image; this service reads text. Send only text.")
    if not isinstance(part, dict) or kind != "text":
        raise InvalidInput(
            '`input` must be all strings, or all objects as {"type": "text", "text": "..."}.'
        )
    return part.get("text")
