"""Forms → ClassifyRequest. `text` and `text_pair` may repeat; options are written as in JSON."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from deployments.http.fields import FIELDS
from deployments.http.json_body import Kind, request_from
from deployments.http.schemas import ClassifyRequest
from deployments.pipeline.errors import BadRequest, InvalidInput, TooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

Fields = list[tuple[str, str]]

# Bytes that are not UTF-8 become lone surrogates, which the check of each text reports in its
# place: one bad text must not fail the others of its form.
_UNDECODABLE = "surrogateescape"

_REPEATABLE = ("text", "text_pair")


def parse_urlencoded(body: bytes, max_texts: int, kind: Kind = ClassifyRequest) -> ClassifyRequest:
    """Decodes `text=...&text=...&top_k=2`.

    Raises:
        InvalidInput: no fields, or not ours.
        TooLarge: more fields than max_texts can need.
    """
    if b"=" not in body:
        raise InvalidInput(
            "The form has no fields. Send text=..., or JSON with the header "
            "Content-Type: application/json."
        )
    limit = _max_fields(max_texts, kind)
    try:
        fields = parse_qsl(
            body.decode(errors=_UNDECODABLE),
            keep_blank_values=True,
            errors=_UNDECODABLE,
            max_num_fields=limit,
        )
    except ValueError:
        raise _too_many_fields(body.count(b"&") + 1, limit) from None
    return _request(fields, kind)


def parse_multipart(
    body: bytes, content_type: str, max_texts: int, kind: Kind = ClassifyRequest
) -> ClassifyRequest:
    """Decodes multipart/form-data; an uploaded file is read as the text it holds.

    Raises:
        BadRequest: no boundary, or a body that does not keep to it.
        InvalidInput: fields that are not ours.
        TooLarge: more fields than max_texts can need.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BadRequest("The Content-Type multipart/form-data needs a boundary parameter.")
    parts = _Parts(_max_fields(max_texts, kind))
    try:
        MultipartParser(boundary, parts.callbacks()).write(body)
    except FormParserError:
        raise BadRequest("The body is not valid multipart/form-data.") from None
    if not parts.complete:
        raise BadRequest("The multipart/form-data body ends before its last boundary.")
    return _request(parts.fields, kind)


# It warns of each byte that it did not expect, which is one of somebody's text.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class _Parts:
    """Collects the fields of a multipart body from its parser's callbacks."""

    def __init__(self, max_fields: int) -> None:
        self.fields: Fields = []
        self.complete = False
        self._max_fields = max_fields
        self._header = bytearray()
        self._value = bytearray()
        self._name = ""
        self._data = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._name = ""
        self._data.clear()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            options = parse_options_header(self._value.decode("latin-1"))[1]
            self._name = options.get(b"name", b"").decode(errors=_UNDECODABLE)
        self._header.clear()
        self._value.clear()

    def _end_part(self) -> None:
        self.fields.append((self._name, self._data.decode(errors=_UNDECODABLE)))
        if len(self.fields) > self._max_fields:
            raise _too_many_fields(len(self.fields), self._max_fields)

    def _end(self) -> None:
        self.complete = True


def _request(fields: Fields, kind: Kind) -> ClassifyRequest:
    collected: dict[str, list[object]] = {}
    for name, value in fields:
        collected.setdefault(name, []).append(value if name in _REPEATABLE else _option(value))
    values = {name: found[0] if len(found) == 1 else found for name, found in collected.items()}
    return request_from(values, kind)


def _option(value: str) -> object:
    """`3` and `true` mean what they mean in JSON; anything else stays a string."""
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return value


def _max_fields(max_texts: int, kind: Kind) -> int:
    return len(_REPEATABLE) * max_texts + len(FIELDS[kind]) - len(_REPEATABLE)


def _too_many_fields(count: int, limit: int) -> TooLarge:
    return TooLarge(f"The form has at least {count} fields; the limit is {limit}. Send fewer.")
