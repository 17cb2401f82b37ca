"""What our OpenAPI promises, held against the application with requests made from it."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from stand_in import LIMITS, LengthClassifier

from deployments.http.app import create_app
from deployments.settings import LongTextSettings


class Complete(LengthClassifier):
    """With all of `GET /info`."""

    async def info(self, certificate: bool = False) -> dict[str, Any]:
        run = ("engine", "device", "dtype", "batching", "selected_by")
        names = ("model", "fingerprint", "problem_type", *run)
        numbers = {"max_length": 512, "temperature": 1.0, "num_threads": 1}
        return {
            **dict.fromkeys(names, "none"),
            **numbers,
            "max_batch_tokens": 4_096,
            "postprocessing": {"threshold": 0.5, "abstain_below": None},
            "calibration": {"abstain_below": None, "label_set_from": 0.2, "platt": [[1.0, 0.0]]},
            "revision": None,
            "batching_reason": None,
            "labels": ["long", "short"],
            "limits": {"max_text_chars": 100},
            "long_text": LongTextSettings().model_dump(),
            "dialects": ["tei"],
            "versions": {"rayclassify": "0"},
            "update": None,
            "certificate": None,
        }


schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(Complete(), LIMITS)).exclude(
    path="/classify/stream"  # lines, which schemathesis can't make
)


@schema.parametrize()
@settings(
    max_examples=50,  # of each of some thirty operations
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_those_that_are_documented(case: schemathesis.Case) -> None:
    # Not asked here: whether all that breaks the schema is refused. Unknown headers and equal keys
    # are none of its business, and the other tests know what is refused.
    case.call_and_validate(
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ]
    )
