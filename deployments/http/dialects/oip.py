"""The Open Inference Protocol: POST /v2/models/{name}/infer, tensors in and out.

Read in KServe (docs/predict-api/v2/required_api.md), Triton (src/http_server.cc, docs/protocol)
and MLServer (mlserver/codecs). Its requests say little of texts: how ours are read is said below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta
from starlette.types import Scope

from deployments import __version__
from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import (
    ALL_LABELS,
    Body,
    Json,
    Page,
    Question,
    Rendered,
    answered,
    operation,
)
from deployments.http.dialects.kserve_words import (
    ERROR,
    PAGE_STATUSES,
    READINESS,
    STATUSES,
    kserve_error,
    no_model,
    quotable,
    readiness_of,
)
from deployments.http.dialects.oip_tensors import (
    JSON_LENGTH,
    BinaryData,
    InputTensor,
    json_length,
    tensor_out,
    texts_of,
)
from deployments.http.inputs import caller_of, sequences_of
from deployments.http.json_body import decoded
from deployments.http.media_types import ACCEPTED, OCTETS
from deployments.http.responses import encode_json, request_id_of
from deployments.http.schemas import MAX_TIMEOUT_MS
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import InvalidInput, NotFound, ServiceError
from deployments.pipeline.types import Answer, Options
from deployments.settings import DialectSettings, LimitSettings

_EXAMPLE = (
    'Send {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["..."]}]}.'
)
_VERSION = "1"
_OUTPUTS = ("label", "score", "scores")


class _Parameters(msgspec.Struct):
    """Of a request. timeout: Triton's, in microseconds; 0 is none.

    Others, as Triton's `priority` or MLServer's `headers`, mean nothing here.
    """

    binary_data_output: bool = False
    timeout: Annotated[int, Meta(ge=0, le=MAX_TIMEOUT_MS * 1_000)] = 0
    raw_scores: bool = False
    truncation: bool = True
    top_k: Any = None
    threshold: Any = None


class _OutputParameters(msgspec.Struct):
    binary_data: bool | None = None
    classification: Any = None


class _Output(msgspec.Struct):
    name: str
    parameters: _OutputParameters | None = None


class _Request(msgspec.Struct):
    inputs: list[InputTensor]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: _Parameters | None = None


_decoder = msgspec.json.Decoder(_Request)


class _Asked(NamedTuple):
    """What `render` needs to know of a request. outputs: name → whether it is binary."""

    id: str | None
    outputs: dict[str, bool]


class OipDialect:
    """See `Dialect`, `Family` and `ReadsMore`."""

    access_scope: AccessScope = "classify"
    prefix = "/v2/"
    media_types = (*ACCEPTED, OCTETS)

    def __init__(self, limits: LimitSettings, settings: DialectSettings, model: str) -> None:
        self._limits = limits
        self._model = model
        here = f"/v2/models/{model}"
        versioned = f"{here}/versions/{_VERSION}"
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
        info = await service.info()
        return {
            "name": self._model,
            "versions": [_VERSION],
            "platform": "rayclassify",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "score", "datatype": "FP32", "shape": [-1]},
                {"name": "scores", "datatype": "FP32", "shape": [-1, len(info["labels"])]},
            ],
        }

    def stranger(self, rest: str) -> ServiceError:
        kind, _, rest = rest.partition("/")
        name, *more = rest.split("/")
        if kind == "models" and name and name != self._model:
            return no_model(name)
        if kind == "models" and more[:1] == ["versions"] and more[1:2] != [_VERSION]:
            return NotFound(f"Model with name {self._model} has no such version. It has 1.")
        return NotFound(f"There is nothing at this path. POST {self.paths[0]} classifies.")

    def parse(self, body: Body, scope: Scope) -> Question:
        content = body.content
        end = json_length(scope, len(content))
        request = decoded(content[:end], _decoder, _EXAMPLE)
        said = request.parameters or _Parameters()
        if said.top_k is not None or said.threshold is not None:
            raise InvalidInput("`scores` holds all labels; leave `top_k` and `threshold` out.")
        items = self._items(request.inputs, BinaryData(content, end))
        asked = _Asked(_id_of(request), _outputs_of(request, said.binary_data_output))
        options = Options(ALL_LABELS, said.raw_scores, None, said.truncation, label_ids=True)
        caller = caller_of(scope, self._limits)
        inputs = sequences_of(items, options, self._limits, caller, "data")
        timeout_s = said.timeout / 1e6 or caller.timeout_s
        return Question(inputs, timeout_s, single=False, memo=asked)

    def _items(self, tensors: list[InputTensor], binary: BinaryData) -> list[list[str]]:
        """Texts and pairs. One tensor has any name: Triton checks it, MLServer takes the first."""
        if not 1 <= len(tensors) <= 2:
            raise InvalidInput(f"`inputs` has {len(tensors)} tensors. Send 1, or 2 for pairs.")
        limit = self._limits.max_batch_texts
        rows = {
            tensor.name: texts_of(tensor, f"inputs[{i}]", binary, limit)
            for i, tensor in enumerate(tensors)
        }
        if left := binary.left():
            raise InvalidInput(f"{left} bytes behind the JSON belong to no tensor.")
        if len(tensors) == 1:
            return rows[tensors[0].name]
        if rows.keys() != {"text", "text_pair"}:
            raise InvalidInput("Two tensors in `inputs` are a pair: call them text and text_pair.")
        texts, pairs = rows["text"], rows["text_pair"]
        if len(texts) != len(pairs) or any(len(row) != 1 for row in (*texts, *pairs)):
            raise InvalidInput("`text` and `text_pair` must have the same shape, [n] or [n, 1].")
        return [[*text, *pair] for text, pair in zip(texts, pairs, strict=True)]

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes | Rendered:
        asked: _Asked = question.memo
        good = answered(answers, "data")
        n = len(good)
        by_number = [
            sorted(zip(one["label_ids"], one["scores"].items(), strict=True)) for one in good
        ]
        labels = [label for _, (label, _) in by_number[0]]
        tensors: dict[str, tuple[list[int], list[Any], Json]] = {
            "label": ([n], [one["label"] for one in good], {}),
            "score": ([n], [one["score"] for one in good], {}),
            "scores": (
                [n, len(labels)],
                [score for row in by_number for _, (_, score) in row],
                {"labels": labels},
            ),
        }
        made = [tensor_out(name, *tensors[name], binary) for name, binary in asked.outputs.items()]
        told: Json = {
            "model_name": self._model,
            "model_version": _VERSION,
            "id": request_id_of(scope) if asked.id is None else asked.id,
            "outputs": [tensor for tensor, _ in made],
        }
        # The protocol's answers have no place for it, and nobody should be cut in silence.
        if n_truncated := sum(one["truncated"] for one in good):
            told["parameters"] = {"truncated": n_truncated}
        head = encode_json(told)
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
                        "properties": {"name": {"enum": list(_OUTPUTS)}},
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


def _outputs_of(request: _Request, binary: bool) -> dict[str, bool]:
    """Name → whether it is binary. binary: where an output says nothing itself."""
    if not request.outputs:
        return dict.fromkeys(_OUTPUTS, binary)
    asked: dict[str, bool] = {}
    for i, output in enumerate(request.outputs):
        if output.name not in _OUTPUTS:
            told = f"is {output.name}" if quotable(output.name) else "is not known"
            raise InvalidInput(f"outputs[{i}] {told}; there are {', '.join(_OUTPUTS)}.")
        said = output.parameters or _OutputParameters()
        if said.classification is not None:
            raise InvalidInput(
                f"outputs[{i}]: `classification` is not supported. Ask for `label` and `scores`."
            )
        asked[output.name] = binary if said.binary_data is None else said.binary_data
    return asked


def _id_of(request: _Request) -> str | None:
    try:
        (request.id or "").encode()
    except UnicodeEncodeError:
        raise InvalidInput("`id` is not valid Unicode: half a surrogate pair.") from None
    return request.id


async def _server(service: ClassifyService) -> Json:
    return {"name": "rayclassify", "version": __version__, "extensions": ["binary_tensor_data"]}


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
