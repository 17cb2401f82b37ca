"""JSON → ClassifyRequest. The fast way knows only success, the slow way finds what was wrong."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import NoReturn, TypeVar

import msgspec

from deployments.http.fields import CHOICES, FIELDS
from deployments.http.schemas import ClassifyRequest, ExplainRequest
from deployments.pipeline.errors import BadRequest, InvalidInput

T = TypeVar("T")
Kind = type[ClassifyRequest]
"""ClassifyRequest, or ExplainRequest."""

EXAMPLE = 'Send {"text": "..."}.'

_decoder = msgspec.json.Decoder(ClassifyRequest)
_explain_decoder = msgspec.json.Decoder(ExplainRequest)

_BYTE_ORDER_MARK = "\ufeff"

# A field's name may be quoted in a message; anything longer or stranger may be a text.
_QUOTABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")

# What other services call our fields; spelling alone would not find these.
_OTHER_NAMES = {
    "content": "text",
    "data": "text",
    "document": "text",
    "documents": "text",
    "input": "text",
    "inputs": "text",
    "instances": "text",
    "query": "text",
    "sentence": "text",
    "sentences": "text",
    "sequence": "text",
    "sequences": "text",
    "function_to_apply": "raw_scores",
    "pair": "text_pair",
    "return_all_scores": "top_k",
    "top_n": "top_k",
    "truncate": "truncation",
}


def parse_json(body: bytes, kind: Kind = ClassifyRequest) -> ClassifyRequest:
    """Decodes a JSON body.

    Raises:
        BadRequest: not UTF-8, or not JSON; the message holds the byte offset.
        InvalidInput: JSON of another shape; the message names the field and what it should be.
    """
    decoder = _decoder if kind is ClassifyRequest else _explain_decoder
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return request_from(loaded(body), kind)


def decoded(content: bytes, decoder: msgspec.json.Decoder[T], example: str) -> T:
    """A body of another shape than ours. example: what to send instead, for errors.

    Raises:
        BadRequest: not UTF-8, or not JSON; the message holds the byte offset.
        InvalidInput: JSON of another shape; the message names the field and what it should be.
    """
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = loaded(content, example)
    return converted(value, decoder.type, example)


def converted(value: object, to: type[T], example: str) -> T:
    """Plain values as a struct; `example` as in `decoded`.

    Raises:
        InvalidInput: of another shape; the message names the field and what it should be.
    """
    try:
        return msgspec.convert(value, to)
    except msgspec.ValidationError as exc:
        raise InvalidInput(f"{_without_values(str(exc))} {example}") from None
    except UnicodeEncodeError:
        raise InvalidInput(f"A string is not valid Unicode. {example}") from None


def _without_values(reason: str) -> str:
    """msgspec's reason, without what it quotes of the body."""
    problem, _, path = reason.partition(" - at ")
    if problem.startswith("Invalid enum value"):
        problem = "Not one of the values that are known here"
    place = path.strip("`")
    return (
        f"{problem} at {place}."
        if re.fullmatch(r"[$A-Za-z0-9_.\[\]]{1,64}", place)
        else f"{problem}."
    )


def request_from(value: object, kind: Kind = ClassifyRequest) -> ClassifyRequest:
    """Checks decoded JSON, or a form put into its shape.

    Raises:
        InvalidInput: a field is unknown, missing, or of the wrong type or size.
    """
    if not isinstance(value, dict):
        raise InvalidInput(f"The body must be a JSON object. {EXAMPLE}")
    fields = FIELDS[kind]
    for name in value:
        if name not in fields:
            raise InvalidInput(_unknown_field(name, fields))
    if "text" not in value:
        raise InvalidInput(f"The field `text` is missing. {EXAMPLE}")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise InvalidInput(_wrong_value(str(exc), fields)) from None
    except UnicodeEncodeError:  # msgspec's way with a lone surrogate where it expects no string
        raise InvalidInput(
            "An option is a string that is not valid Unicode. Options are numbers, true or false."
        ) from None


def decode_utf8(body: bytes) -> str:
    """Raises BadRequest with the offset of the first byte that is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise BadRequest(
            f"The body is not valid UTF-8 at byte {exc.start}. Encode it as UTF-8."
        ) from None


def loaded(body: bytes, example: str = EXAMPLE) -> object:
    """The value of a body, by Python's own parser: it says where and why, and accepts what can be
    blamed on one item, such as half a surrogate pair.

    Raises:
        BadRequest: not UTF-8, or not JSON; the message holds the byte offset.
    """
    text = decode_utf8(body)
    if not text.strip():
        raise BadRequest(f"The body is empty. {example}")
    # Windows editors write this mark in front; RFC 8259 lets a parser ignore it.
    document = text.removeprefix(_BYTE_ORDER_MARK)
    try:
        return json.loads(document, parse_constant=_refuse_constant)
    except json.JSONDecodeError as exc:
        offset = len(body) - len(document[exc.pos :].encode())
        raise BadRequest(f"The body is not valid JSON: {exc.msg} (byte {offset}).") from None
    except RecursionError:
        raise BadRequest(f"The body is nested too deeply. {example}") from None
    except ValueError:
        raise BadRequest("The body holds a number with too many digits.") from None


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest(f"The body is not valid JSON: {name} is no JSON number.")


def _unknown_field(name: str, fields: dict[str, str]) -> str:
    known = ", ".join(f"`{field}`" for field in fields)
    if not _QUOTABLE.fullmatch(name):
        return f"The body has an unknown field. Known fields: {known}."
    nearest = _OTHER_NAMES.get(name.lower()) or next(
        iter(get_close_matches(name.lower(), fields, n=1, cutoff=0.6)), None
    )
    if nearest is None:
        return f"Unknown field `{name}`. Known fields: {known}."
    return f"Unknown field `{name}`; the field is `{nearest}`. {fields[nearest]}"


def _wrong_value(reason: str, fields: dict[str, str]) -> str:
    # msgspec writes "Expected `int` >= 1 - at `$.top_k`".
    problem, _, path = reason.partition(" - at `$.")
    field = path.rstrip("`")
    if field not in fields:
        return f"The body has a wrong value. {EXAMPLE}"
    if problem.startswith("Invalid enum value"):  # and quotes it, which may be a text
        problem = f"expected {' or '.join(CHOICES[field])}"
    problem = problem.replace("`", "").replace("Expected", "expected").replace(" | ", " or ")
    return f"`{field}`: {problem}. {fields[field]}"
