"""Fields of requests and answers: as JSON Schemas have them, and as error messages tell them."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from deployments.http.schemas import (
    SCHEMA_REF,
    ClassifyRequest,
    ErrorAnswer,
    ExplainRequest,
    Health,
    Info,
    Prediction,
    Update,
)
from deployments.http.state import State
from deployments.pipeline.explaining import Method
from deployments.pipeline.types import WEIGHTS

_TEXTS = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
    ]
}
_PAIRS = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"type": ["string", "null"], "minLength": 1}},
        {"type": "null"},
    ],
}


def components() -> dict[str, Any]:
    """JSON Schemas of all structs, by name, that refer to each other as OpenAPI wants it."""
    structs = [
        ClassifyRequest,
        ExplainRequest,
        Prediction,
        ErrorAnswer,
        Health,
        Update,
        Info,
        State,
    ]
    schemas = msgspec.json.schema_components(structs, ref_template=SCHEMA_REF)[1]
    # Decoding leaves the items of a list open, for later; callers and generators must know them.
    for name in ("ClassifyRequest", "ExplainRequest"):
        schemas[name]["properties"]["text"] |= _TEXTS
        schemas[name]["properties"]["text_pair"] |= _PAIRS
    return schemas


def _fields(name: str) -> dict[str, str]:
    fields = components()[name]["properties"].items()
    return {field: schema["description"] for field, schema in fields}


FIELDS: dict[type[ClassifyRequest], dict[str, str]] = {
    ClassifyRequest: _fields("ClassifyRequest"),
    ExplainRequest: _fields("ExplainRequest"),
}
"""Kind of request → its fields and what they mean, as error messages repeat it."""

CHOICES: dict[str, tuple[str, ...]] = {
    "long_text": ("truncate", "window", "error"),
    "priority": tuple(WEIGHTS),
    "method": get_args(Method),
}
"""Field → the words that it may hold."""
