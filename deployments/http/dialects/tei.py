"""Text Embeddings Inference's dialect: POST /predict and /, all labels with their scores.

Read in TEI 1.9.3 (router/src: lib.rs, main.rs, http/server.rs, http/types.rs;
core/src: infer.rs, tokenization.rs) and in huggingface_hub 2.4.0 (inference: _client.py,
_providers/hf_inference.py), whose text_classification posts `inputs` and `parameters` here. What it
reads is what Hugging Face's own API answers: a list in a list.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec
from starlette.types import Scope

from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import Body, Json, Page, Question, answered, operation
from deployments.http.dialects.tei_words import ERROR, STATUSES, tei_error
from deployments.http.inputs import caller_of, sequences_of
from deployments.http.json_body import decoded
from deployments.http.responses import encode_json
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import EmptyText, InvalidInput, ServiceError
from deployments.pipeline.types import Activation, Answer, Options
from deployments.settings import DialectSettings, LimitSettings

_EXAMPLE = 'Send {"inputs": "..."}, or [["..."], ["...", "..."]] for a text and a pair.'

_SIDES: dict[str, Literal["left", "right"]] = {
    **dict.fromkeys(("Left", "left"), "left"),
    **dict.fromkeys(("Right", "right"), "right"),
}

_ALL = sys.maxsize  # of the labels, whatever the service's own top_k is


class _Parameters(msgspec.Struct):
    """huggingface_hub's."""

    top_k: Annotated[int, msgspec.Meta(ge=1)] | None = None
    function_to_apply: Activation | Literal["none"] | None = None


class _Request(msgspec.Struct):
    inputs: str | list[Any]
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right", "Left", "left"] = "Right"
    raw_scores: bool = False
    parameters: _Parameters | msgspec.UnsetType | None = msgspec.UNSET


_INFO: Json = {
    "type": "object",
    "required": ["model_id", "model_type", "max_input_length", "version"],
    "properties": {
        "model_id": {"type": "string"},
        "model_type": {"type": "object"},
        "max_input_length": {"type": "integer"},
        "version": {"type": "string"},
    },
}

_decoder = msgspec.json.Decoder(_Request)


class TeiDialect:
    """See `Dialect`."""

    paths: tuple[str, ...] = ("/predict", "/")
    name = "tei"
    access_scope: AccessScope = "classify"

    def __init__(self, limits: LimitSettings, settings: DialectSettings, model: str) -> None:
        self._limits = limits
        self._model = model
        described = operation("tei_info", "As Text Embeddings Inference", {}, _INFO, (503,), ERROR)
        info = {"/info": Page(self._info, described)}
        self.pages: Mapping[str, Page] = info if settings.info == "tei" else {}

    def parse(self, body: Body, scope: Scope) -> Question:
        request = decoded(body.content, _decoder, _EXAMPLE)
        by_hub = request.parameters is not msgspec.UNSET
        items, single = _sequences(request.inputs, by_hub)
        caller = caller_of(scope, self._limits)
        inputs = sequences_of(items, _options(request), self._limits, caller, "inputs")
        # The whole request fails with one of them: before the others are classified in vain.
        return Question([*answered(inputs, "inputs")], caller.timeout_s, single, memo=by_hub)

    async def _info(self, service: ClassifyService) -> Json:
        ours = await service.info()
        id2label = {str(i): label for i, label in enumerate(ours["labels"])}
        return {
            "model_id": ours["model"],
            "model_sha": ours["revision"],
            "model_dtype": ours["dtype"],
            "served_model_name": self._model,
            "model_type": {
                "classifier": {
                    "id2label": id2label,
                    "label2id": {label: i for i, label in enumerate(ours["labels"])},
                }
            },
            "max_concurrent_requests": self._limits.max_pending_texts,
            "max_input_length": ours["max_length"],
            "max_batch_tokens": ours["max_batch_tokens"],
            "max_batch_requests": None,
            "max_client_batch_size": self._limits.max_batch_texts,
            "auto_truncate": False,
            "tokenization_workers": 1,
            "version": ours["versions"]["rayclassify"],
            "sha": None,
            "docker_label": None,
        }

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes:
        rows = [
            [{"score": score, "label": label} for label, score in answer["scores"].items()]
            for answer in answered(answers, "inputs")
        ]
        return encode_json(rows[0] if question.single and not question.memo else rows)

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        return tei_error(error)

    def operation(self, with_keys: bool) -> Json:
        text: Json = {"type": "string", "minLength": 1}
        one_or_two: Json = {"type": "array", "minItems": 1, "maxItems": 2, "items": text}
        batch: Json = {"type": "array", "minItems": 1, "items": one_or_two}
        request: Json = {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "inputs": {"anyOf": [text, one_or_two, batch]},
                "truncate": {"type": ["boolean", "null"]},
                "truncation_direction": {"enum": ["Right", "right", "Left", "left"]},
                "raw_scores": {"type": "boolean"},
                "parameters": {
                    "type": ["object", "null"],
                    "properties": {
                        "top_k": {"type": ["integer", "null"], "minimum": 1},
                        "function_to_apply": {"enum": [*get_args(Activation), "none", None]},
                    },
                },
            },
        }
        label: Json = {
            "type": "object",
            "required": ["score", "label"],
            "properties": {"score": {"type": "number"}, "label": {"type": "string"}},
        }
        labels: Json = {"type": "array", "minItems": 1, "items": label}
        answer: Json = {"anyOf": [labels, {"type": "array", "items": labels}]}
        summary = "As Text Embeddings Inference and huggingface_hub"
        return operation("tei_predict", summary, request, answer, STATUSES, ERROR)


def _sequences(inputs: str | list[Any], by_hub: bool) -> tuple[list[Any], bool]:
    """Texts and pairs, and whether it is a single one."""
    if isinstance(inputs, str):
        return [inputs], True
    if not inputs:
        raise EmptyText(f"`inputs` cannot be empty. {_EXAMPLE}")
    if isinstance(inputs[0], str):
        if by_hub and len(inputs) > 1:
            raise InvalidInput(
                "`inputs` is a list of texts beside `parameters`: a pair to one server, several "
                'texts to another. Send [["...", "..."]] for a pair, [["..."], ["..."]] for texts.'
            )
        if len(inputs) > 2 or not isinstance(inputs[-1], str):
            raise InvalidInput(f"`inputs` is neither a text nor a pair of texts. {_EXAMPLE}")
        return [inputs], True
    for i, item in enumerate(inputs):
        if not isinstance(item, list) or not 1 <= len(item) <= 2:
            raise InvalidInput(f"inputs[{i}] must be a list of 1 or 2 texts. {_EXAMPLE}")
    return inputs, False


def _options(request: _Request) -> Options:
    given = request.parameters
    parameters = given if isinstance(given, _Parameters) else _Parameters()
    applied = parameters.function_to_apply
    return Options(
        top_k=parameters.top_k or _ALL,
        raw_scores=request.raw_scores or applied == "none",
        truncation=bool(request.truncate),
        truncation_side=_SIDES[request.truncation_direction] if request.truncate else None,
        activation=None if applied == "none" else applied,
    )
