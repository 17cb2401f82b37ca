"""The Model Context Protocol: POST /mcp, the tools `classify` and `labels` for language models.

Its streamable HTTP transport, without sessions and streams: a message is a POST, its answer JSON.
Read in the specification (modelcontextprotocol.io, basic/transports and server/tools, 2025-11-25)
and in its Python SDK, mcp 2.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from starlette.types import Scope

from deployments import __version__
from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import Body, Json, Page, Question, Rendered, operation
from deployments.http.inputs import caller_of, inputs_of
from deployments.http.json_body import decoded, request_from
from deployments.http.responses import encode_json
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import ServiceError
from deployments.pipeline.types import Answer
from deployments.settings import DialectSettings, LimitSettings

# The oldest with this transport, and those after it. A client that knows later ones asks for these.
_VERSIONS = ("2025-03-26", "2025-06-18", "2025-11-25")

# JSON-RPC 2.0, section 5.1.
_METHOD_NOT_FOUND, _INVALID_PARAMS, _INVALID_REQUEST = -32601, -32602, -32600

_EXAMPLE = 'Send {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}.'

_TEXTS: Json = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
}

_TOOLS: list[Json] = [
    {
        "name": "classify",
        "title": "Classify texts",
        "description": "Labels one text or a list of texts with a BERT model. Each result has "
        "`label`, `score` and the `scores` of all labels, in the order of the texts.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "text": {**_TEXTS, "description": "The text, or a list of texts."},
                "text_pair": {**_TEXTS, "description": "Second halves, for models of pairs."},
                "top_k": {"type": "integer", "minimum": 1, "description": "So many scores."},
            },
            "required": ["text"],
        },
        "outputSchema": {
            "type": "object",
            "properties": {"results": {"type": "array", "items": {"type": "object"}}},
            "required": ["results"],
        },
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    },
    {
        "name": "labels",
        "title": "The labels",
        "description": "Which labels the model gives, and which model it is.",
        "inputSchema": {"type": "object", "properties": {}},
        "outputSchema": {
            "type": "object",
            "properties": {
                "labels": {"type": "array", "items": {"type": "string"}},
                "model": {"type": "string"},
            },
            "required": ["labels", "model"],
        },
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    },
]


class _Call(msgspec.Struct):
    name: str
    arguments: dict[str, Any] | None = None


class _Message(msgspec.Struct):
    method: str
    jsonrpc: str = "2.0"
    id: str | int | msgspec.UnsetType = msgspec.UNSET
    params: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Message)


@dataclass(frozen=True, slots=True)
class _Failed:
    """A JSON-RPC error."""

    code: int
    message: str


class McpDialect:
    """See `Dialect`."""

    paths: tuple[str, ...] = ("/mcp",)
    name = "mcp"
    access_scope: AccessScope = "classify"
    pages: Mapping[str, Page] = {}

    def __init__(self, limits: LimitSettings, settings: DialectSettings, model: str) -> None:
        self._limits = limits

    def parse(self, body: Body, scope: Scope) -> Question:
        message = decoded(body.content, _decoder, _EXAMPLE)
        if message.id is msgspec.UNSET:  # a notification, which is not answered
            return _said(None)
        if message.jsonrpc != "2.0":
            return _said(_Failed(_INVALID_REQUEST, '`jsonrpc` must be "2.0".'), message.id)
        params = message.params or {}
        if message.method == "initialize":
            return _said(_welcome(params), message.id)
        if message.method == "ping":
            return _said({}, message.id)
        if message.method == "tools/list":
            return _said({"tools": _TOOLS}, message.id)
        if message.method == "tools/call":
            return self._called(params, message.id, scope)
        return _said(_Failed(_METHOD_NOT_FOUND, "This server has tools only."), message.id)

    def _called(self, params: dict[str, Any], key: str | int, scope: Scope) -> Question:
        try:
            call = msgspec.convert(params, _Call)
        except msgspec.ValidationError:
            said = 'Send "params": {"name": "classify", "arguments": {"text": "..."}}.'
            return _said(_Failed(_INVALID_PARAMS, said), key)
        if call.name == "labels":
            return Question([], None, single=False, memo=key, ask=_labels)
        if call.name != "classify":
            names = " and ".join(tool["name"] for tool in _TOOLS)
            return _said(_Failed(_INVALID_PARAMS, f"No such tool; there are {names}."), key)
        try:
            request = request_from(call.arguments or {})
            caller = caller_of(scope, self._limits, request.timeout_ms, request.priority)
            inputs = inputs_of(request, self._limits, caller)
        except ServiceError as exc:
            # A result, so that the language model reads what to do better.
            return _said(_wrong(exc), key)
        return Question(inputs, caller.timeout_s, single=False, memo=key)

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes | Rendered:
        if question.memo is None:
            return Rendered(b"", b"application/json", status=202)
        if question.ask is None:
            results = [
                {"error": answer.body()} if isinstance(answer, ServiceError) else answer
                for answer in answers
            ]
            failed = all(isinstance(answer, ServiceError) for answer in answers)
            result: Any = _result({"results": results}, failed)
        else:
            (result,) = cast(list[Any], answers)
        if isinstance(result, _Failed):
            return _rpc(question.memo, error={"code": result.code, "message": result.message})
        return _rpc(question.memo, result=result)

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        # -32000 to -32099 are a server's own: JSON-RPC 2.0, section 5.1.
        told = {"code": -32000, "message": error.message, "data": error.body(request_id)}
        return error.status, _rpc(None, error=told)

    def operation(self, with_keys: bool) -> Json:
        request = {"type": "object", "required": ["jsonrpc", "method"]}
        answer = {"type": "object", "required": ["jsonrpc", "id"]}
        statuses = (400, 401, 403, 408, 413, 415, 422, 429, 503)
        return operation("mcp", "Model Context Protocol", request, answer, statuses, answer)


def _said(answer: object, key: str | int | None = None) -> Question:
    """What needs no model. key: the message's id."""

    async def ask(service: ClassifyService) -> Sequence[Any]:
        return [answer]

    return Question([], None, single=False, memo=key, ask=ask)


async def _labels(service: ClassifyService) -> Sequence[Any]:
    info = await service.info()
    return [_result({"labels": info["labels"], "model": info["model"]})]


def _welcome(params: dict[str, Any]) -> Json:
    wanted = params.get("protocolVersion")
    return {
        "protocolVersion": wanted if wanted in _VERSIONS else _VERSIONS[-1],
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": {"name": "rayclassify", "version": __version__},
    }


def _result(value: Json, failed: bool = False) -> Json:
    """Also as text, for clients that read no structured content."""
    text = encode_json(value).decode()
    content = [{"type": "text", "text": text}]
    return {"content": content, "structuredContent": value, "isError": failed}


def _wrong(error: ServiceError) -> Json:
    return {"content": [{"type": "text", "text": error.message}], "isError": True}


def _rpc(key: str | int | None, **outcome: Any) -> bytes:
    return encode_json({"jsonrpc": "2.0", "id": key, **outcome})
