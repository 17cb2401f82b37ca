"""Our own dialect: POST /classify, in JSON, as a form or as plain text."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.types import Scope

from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import SPEAKER, Body, Dialect, Json, Page, Question
from deployments.http.examples import ANSWERS, REQUESTS, error_responses, ref
from deployments.http.forms import parse_multipart, parse_urlencoded
from deployments.http.inputs import caller_of, inputs_of
from deployments.http.json_body import Kind, decode_utf8, parse_json
from deployments.http.media_types import JSON, MULTIPART, PLAIN, URLENCODED
from deployments.http.responses import encode_json, rendered, request_id_of
from deployments.http.schemas import ClassifyRequest
from deployments.pipeline.errors import InvalidInput, ServiceError
from deployments.pipeline.types import Answer
from deployments.settings import LimitSettings


class ClassifyDialect:
    """See `Dialect`."""

    paths: tuple[str, ...] = ("/classify",)
    name = "classify"
    access_scope: AccessScope = "classify"
    pages: Mapping[str, Page] = {}
    kind: Kind = ClassifyRequest

    def __init__(self, limits: LimitSettings, other: Dialect | None = None) -> None:
        """other: shares the path; its bodies have `input` where ours have `text`."""
        self._limits = limits
        self._other = other

    def parse(self, body: Body, scope: Scope) -> Question:
        try:
            request = self._request(body)
        except InvalidInput:
            if self._other is None or not _asks_by_input(body):
                raise
            scope[SPEAKER] = self._other
            return self._other.parse(body, scope)
        caller = caller_of(scope, self._limits, request.timeout_ms, request.priority)
        inputs = inputs_of(request, self._limits, caller)
        single = isinstance(request.text, str)
        return Question(inputs, caller.timeout_s, single, explain=request.how)

    def _request(self, body: Body) -> ClassifyRequest:
        content, max_texts = body.content, self._limits.max_batch_texts
        # A form that starts with `{` is what `curl -d '{...}'` sends without a header.
        if body.media_type == URLENCODED and not content.lstrip().startswith(b"{"):
            return parse_urlencoded(content, max_texts, self.kind)
        if body.media_type == MULTIPART:
            return parse_multipart(content, body.header, max_texts, self.kind)
        if body.media_type == PLAIN:
            return self.kind(text=decode_utf8(content))
        return parse_json(content, self.kind)

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes:
        if question.single:
            return encode_json(answers[0])
        if not any(isinstance(answer, ServiceError) for answer in answers):
            return encode_json(answers)
        request_id = request_id_of(scope)
        return encode_json(
            [
                {"error": answer.body(request_id)} if isinstance(answer, ServiceError) else answer
                for answer in answers
            ]
        )

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        return rendered(error, request_id)

    def operation(self, with_keys: bool) -> Json:
        limits = self._limits
        form = {"schema": ref("ClassifyRequest")}
        prediction = ref("Prediction")
        item = {"anyOf": [prediction, ref("ErrorAnswer")]}
        return {
            "operationId": "classify",
            "tags": ["Classification"],
            "summary": "Classify one text or a list of texts",
            "description": (
                "One text gets one object; a list gets a list in the same order. "
                f"At most {limits.max_batch_texts} texts, {limits.max_text_chars} characters each, "
                f"{limits.max_body_bytes} bytes in all."
            ),
            "parameters": [
                {"$ref": f"#/components/parameters/{name}"}
                for name in ("RequestId", "TimeoutMs", "Priority")
            ],
            "requestBody": {
                "required": True,
                "content": {
                    JSON: {"schema": ref("ClassifyRequest"), "examples": REQUESTS},
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
                                "list": {
                                    "summary": "A list with a bad text",
                                    "value": ANSWERS["list"],
                                },
                            },
                        }
                    },
                },
                **error_responses(limits, with_keys),
            },
        }


class _Keys(msgspec.Struct):
    text: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _asks_by_input(body: Body) -> bool:
    try:
        keys = msgspec.json.decode(body.content, type=_Keys)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return keys.text is msgspec.UNSET and keys.input is not msgspec.UNSET
