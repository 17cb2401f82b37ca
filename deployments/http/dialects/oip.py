"""The Open Inference Protocol: POST /v2/models/{name}/infer, tensors in and out.

Read in KServe (docs/predict-api/v2/required_api.md), Triton (src/http_server.cc, docs/protocol)
and MLServer (mlserver/codecs). What is asked and answered is oip_inference's; here it is JSON.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.types import Scope

from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import (
    Body,
    Json,
    Page,
    Question,
    Rendered,
    operation,
)
from deployments.http.dialects.kserve_words import (
    ERROR,
    PAGE_STATUSES,
    READINESS,
    STATUSES,
    kserve_error,
    readiness_of,
)
from deployments.http.dialects.oip_inference import (
    OUTPUTS,
    SERVER,
    VERSION,
    Asked,
    Inference,
    InferRequest,
)
from deployments.http.dialects.oip_tensors import JSON_LENGTH, BinaryData, json_length, tensor_out
from deployments.http.json_body import decoded
from deployments.http.media_types import ACCEPTED, OCTETS
from deployments.http.responses import encode_json, request_id_of
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import NotFound, ServiceError
from deployments.pipeline.types import Answer
from deployments.settings import DialectSettings, LimitSettings

_EXAMPLE = (
    'Send {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["..."]}]}.'
)

_decoder = msgspec.json.Decoder(InferRequest)


class OipDialect:
    """See `Dialect`, `Family` and `ReadsMore`."""

    name = "oip"
    access_scope: AccessScope = "classify"
    prefix = "/v2/"
    media_types = (*ACCEPTED, OCTETS)

    def __init__(self, limits: LimitSettings, settings: DialectSettings, model: str) -> None:
        self._inference = Inference(limits, model)
        here = f"/v2/models/{model}"
        versioned = f"{here}/versions/{VERSION}"
        self.paths: tuple[str, ...] = (f"{here}/infer", f"{versioned}/infer")
        self.pages: Mapping[str, Page] = {
            "/v2": Page(_server, _page("server", "Name, version and extensions", _SERVER)),
            "/v2/health/live": Page(
                _live, _page("live", "Does the process live?", _flag("live")), "always"
            ),
            "/v2/health/ready": Page(
                _ready, _page("ready", "Is the model loaded and warm?", _flag("ready")), "always"
            ),
        }
        for suffix, path in (("", here), ("_versioned", versioned)):
            about = _page(f"model{suffix}", "The model's tensors", _METADATA)
            ready = _page(f"model_ready{suffix}", "Is the model ready?", READINESS)
            self.pages |= {
                path: Page(self._metadata, about),
                f"{path}/ready": Page(readiness_of(model), ready),
            }

    async def _metadata(self, service: ClassifyService) -> Json:
        return self._inference.about(await service.info())

    def stranger(self, rest: str) -> ServiceError:
        kind, _, rest = rest.partition("/")
        name, *more = rest.split("/")
        version = "".join(more[1:2]) if more[:1] == ["versions"] else None
        if kind == "models" and name and (error := self._inference.stranger(name, version)):
            return error
        return NotFound(f"There is nothing at this path. POST {self.paths[0]} classifies.")

    def parse(self, body: Body, scope: Scope) -> Question:
        content = body.content
        end = json_length(scope, len(content))
        request = decoded(content[:end], _decoder, _EXAMPLE)
        return self._inference.question(request, BinaryData(content, end), scope)

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes | Rendered:
        asked: Asked = question.memo
        told = self._inference.told(question, answers)
        made = [tensor_out(output) for output in told.outputs]
        answer: Json = {
            "model_name": self._inference.model,
            "model_version": VERSION,
            "id": request_id_of(scope) if asked.id is None else asked.id,
            "outputs": [tensor for tensor, _ in made],
        }
        if told.parameters:
            answer["parameters"] = told.parameters
        head = encode_json(answer)
        if not any(asked.outputs.values()):
            return head
        whole = b"".join([head, *(raw for _, raw in made)])
        return Rendered(whole, OCTETS.encode(), ((JSON_LENGTH, b"%d" % len(head)),))

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        return kserve_error(error)

    def operation(self, with_keys: bool) -> Json:
        request = {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string"},
                "parameters": {"type": "object"},
                "inputs": {"type": "array", "minItems": 1, "maxItems": 2, "items": _INPUT},
                "outputs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"enum": list(OUTPUTS)}},
                    },
                },
            },
        }
        answer = {
            "type": "object",
            "required": ["model_name", "model_version", "id", "outputs"],
            "properties": {"outputs": {"type": "array", "items": {"type": "object"}}},
        }
        summary = "The Open Inference Protocol, as KServe, Triton and MLServer speak it"
        described = operation("oip_infer", summary, request, answer, STATUSES, ERROR)
        described["responses"]["200"]["content"][OCTETS] = {}
        return described


async def _server(service: ClassifyService) -> Json:
    return SERVER


async def _live(service: ClassifyService) -> Json:
    return {"live": True}


async def _ready(service: ClassifyService) -> Json:
    await service.readiness()
    return {"ready": True}


def _page(name: str, summary: str, answer: Json) -> Json:
    return operation(f"oip_{name}", summary, {}, answer, PAGE_STATUSES, ERROR)


def _flag(name: str) -> Json:
    return {"type": "object", "required": [name], "properties": {name: {"const": True}}}


_SERVER: Json = {
    "type": "object",
    "required": ["name", "version", "extensions"],
    "properties": {"extensions": {"type": "array", "items": {"type": "string"}}},
}
_METADATA: Json = {
    "type": "object",
    "required": ["name", "versions", "platform", "inputs", "outputs"],
    "properties": {
        "inputs": {"type": "array", "items": {"type": "object"}},
        "outputs": {"type": "array", "items": {"type": "object"}},
    },
}
_INPUT: Json = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {"type": "integer", "minimum": 1},
        },
        "datatype": {"const": "BYTES"},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
}
