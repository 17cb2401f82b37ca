"""Text Embeddings Inference's POST /tokenize and /decode: texts as the model's tokenizer sees them.

Read in TEI 1.9.3 (router/src/http: server.rs, types.rs; core/src/tokenization.rs): a token's place
is counted in bytes of UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

import msgspec
from starlette.types import Scope

from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import Body, Json, Page, Question, answered, operation
from deployments.http.dialects.tei_words import ERROR, STATUSES, tei_error
from deployments.http.inputs import caller_of, sequences_of
from deployments.http.json_body import decoded
from deployments.http.responses import encode_json
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import EmptyText, InvalidInput, ServiceError, TooLarge
from deployments.pipeline.token_views import Token
from deployments.pipeline.types import Options
from deployments.settings import DialectSettings, LimitSettings

_TEXTS = 'Send {"inputs": "..."} or {"inputs": ["...", "..."]}.'
_IDS = 'Send {"ids": [1, 2]} or {"ids": [[1, 2], [3]]}, of ids from 0 to 4294967295.'

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class _Texts(msgspec.Struct):
    inputs: str | list[Any]
    add_special_tokens: bool = True


class _Rows(msgspec.Struct):
    ids: list[_Id | list[_Id]]  # or of the one, or of the other
    skip_special_tokens: bool = True


_texts_decoder = msgspec.json.Decoder(_Texts)
_rows_decoder = msgspec.json.Decoder(_Rows)


class _OfTokens:
    """What both have in common."""

    name = "tei_tokens"
    access_scope: AccessScope = "classify"
    pages: Mapping[str, Page] = {}

    def __init__(self, limits: LimitSettings, settings: DialectSettings, model: str) -> None:
        self._limits = limits

    def render(self, question: Question, answers: list[Any], scope: Scope) -> bytes:
        return encode_json(answers)

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        return tei_error(error)

    def _check_size(self, size: int, field: str, unit: str) -> None:
        # A token takes 70 bytes in an answer: of all that a body can hold it would be too much.
        if size > self._limits.max_text_chars:
            raise TooLarge(
                f"{field} has {size} {unit} in all; the limit is {self._limits.max_text_chars}. "
                "Send several requests."
            )


class TeiTokenize(_OfTokens):
    """POST /tokenize. See `Dialect`."""

    paths: tuple[str, ...] = ("/tokenize",)

    def parse(self, body: Body, scope: Scope) -> Question:
        request = decoded(body.content, _texts_decoder, _TEXTS)
        items = [request.inputs] if isinstance(request.inputs, str) else request.inputs
        if not items:
            raise EmptyText(f"`inputs` cannot be empty. {_TEXTS}")
        caller = caller_of(scope, self._limits)
        found = sequences_of(items, Options(), self._limits, caller, "inputs")
        inputs = answered(found, "inputs")
        if any(item.text_pair is not None for item in inputs):
            raise InvalidInput(f"`inputs` has a pair; its tokens can't be shown. {_TEXTS}")
        texts = [item.text for item in inputs]
        self._check_size(sum(map(len, texts)), "inputs", "characters")

        async def ask(service: ClassifyService) -> list[list[Token]]:
            return await service.tokenize(texts, request.add_special_tokens)

        return Question([*inputs], caller.timeout_s, single=False, ask=ask)

    def operation(self, with_keys: bool) -> Json:
        text: Json = {"type": "string", "minLength": 1}
        request: Json = {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "inputs": {"anyOf": [text, {"type": "array", "minItems": 1, "items": text}]},
                "add_special_tokens": {"type": "boolean"},
            },
        }
        place: Json = {"type": ["integer", "null"]}
        token: Json = {
            "type": "object",
            "required": [field.name for field in fields(Token)],
            "properties": {
                "id": {"type": "integer"},
                "text": {"type": "string"},
                "special": {"type": "boolean"},
                "start": place,
                "stop": place,
            },
        }
        tokens: Json = {"type": "array", "items": {"type": "array", "items": token}}
        summary = "The tokens of texts, as Text Embeddings Inference"
        return operation("tei_tokenize", summary, request, tokens, STATUSES, ERROR)


class TeiDecode(_OfTokens):
    """POST /decode. See `Dialect`."""

    paths: tuple[str, ...] = ("/decode",)

    def parse(self, body: Body, scope: Scope) -> Question:
        request = decoded(body.content, _rows_decoder, _IDS)
        lists = [one for one in request.ids if isinstance(one, list)]
        lone = [one for one in request.ids if isinstance(one, int)]
        if lists and lone:
            raise InvalidInput(f"`ids` has both ids and lists of ids. {_IDS}")
        rows = lists or [lone]
        if not all(rows):
            raise EmptyText(f"`ids` cannot be empty. {_IDS}")
        if len(rows) > self._limits.max_batch_texts:
            raise TooLarge(
                f"ids has {len(rows)} lists; the limit is {self._limits.max_batch_texts}. "
                "Send several requests."
            )
        self._check_size(sum(map(len, rows)), "ids", "ids")

        async def ask(service: ClassifyService) -> list[str]:
            return await service.decode(rows, request.skip_special_tokens)

        caller = caller_of(scope, self._limits)
        return Question([], caller.timeout_s, single=False, ask=ask)

    def operation(self, with_keys: bool) -> Json:
        number: Json = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
        row: Json = {"type": "array", "minItems": 1, "items": number}
        request: Json = {
            "type": "object",
            "required": ["ids"],
            "properties": {
                "ids": {"anyOf": [row, {"type": "array", "minItems": 1, "items": row}]},
                "skip_special_tokens": {"type": "boolean"},
            },
        }
        texts: Json = {"type": "array", "items": {"type": "string"}}
        summary = "The texts of token ids, as Text Embeddings Inference"
        return operation("tei_decode", summary, request, texts, STATUSES, ERROR)
