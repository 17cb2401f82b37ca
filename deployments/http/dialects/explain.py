"""POST /explain: what POST /classify answers, and what each part of the text added to the label."""

from __future__ import annotations

from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import Json
from deployments.http.dialects.classify import ClassifyDialect
from deployments.http.examples import ANSWERS, error_response, error_responses, ref
from deployments.http.json_body import Kind
from deployments.http.media_types import JSON
from deployments.http.schemas import ExplainRequest
from deployments.pipeline.errors import NotImplementedHere
from deployments.pipeline.explaining import OFF

_EXAMPLE = {"text": "质量很好，会再来", "method": "integrated_gradients", "passes": 32}


class ExplainDialect(ClassifyDialect):
    """See `Dialect`."""

    paths: tuple[str, ...] = ("/explain",)
    name = "explain"
    access_scope: AccessScope = "explain"
    kind: Kind = ExplainRequest

    def operation(self, with_keys: bool) -> Json:
        prediction = ref("Prediction")
        item = {"anyOf": [prediction, ref("ErrorAnswer")]}
        return {
            "operationId": "explain",
            "tags": ["Classification"],
            "summary": "Classify one text or a few, and say what each part added to the label",
            "description": (
                "An explanation takes tens of forward passes. It runs beside the service, which "
                "answers others meanwhile; the first may wait for that to start."
            ),
            "parameters": [
                {"$ref": f"#/components/parameters/{name}"} for name in ("RequestId", "TimeoutMs")
            ],
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": ref("ExplainRequest"), "example": _EXAMPLE}},
            },
            "responses": {
                "200": {
                    "description": "What the model says, and why",
                    "content": {
                        JSON: {
                            "schema": {"anyOf": [prediction, {"type": "array", "items": item}]},
                            "example": ANSWERS["explained"],
                        }
                    },
                },
                **error_responses(self._limits, with_keys),
                "501": error_response([NotImplementedHere(OFF)]),
            },
        }
