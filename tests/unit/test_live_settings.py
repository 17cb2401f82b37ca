"""user_config: applied live, and never a reason for a running replica to stop."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from deployments.pipeline.types import Logits, ModelInfo, Options
from deployments.postprocessor import Postprocessor

pytestmark = pytest.mark.anyio

WRONG = [
    ({"top_k": "abc"}, "top_k: Input should be a valid integer; got 'abc'"),
    ({"top_k": 0}, "top_k: Input should be greater than 0; got 0"),
    ({"threshold": 2.0}, "threshold: Input should be less than or equal to 1; got 2.0"),
    ({"treshold": 0.5}, "treshold: unknown key; did you mean threshold?"),
]


@pytest.fixture
def postprocessor() -> Postprocessor:
    return Postprocessor()


INFO = ModelInfo("m", None, ("bad", "good"), "single_label_classification", 512, 1.0)


async def labels_shown(postprocessor: Postprocessor) -> int:
    logits = Logits(np.zeros((1, 2), np.float32), None, "v1")
    answers = await postprocessor.postprocess(logits, [Options()])
    if answers is None:  # it has not been told of this model yet, or its settings have changed
        answers = await postprocessor.postprocess(logits, [Options()], INFO)
    assert answers is not None
    return len(answers[0]["scores"])


@pytest.mark.parametrize(("user_config", "words"), WRONG)
async def test_a_wrong_value_leaves_the_old_one_in_force_and_is_logged(
    postprocessor: Postprocessor,
    user_config: dict[str, Any],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    postprocessor.reconfigure({"top_k": 1})
    with caplog.at_level(logging.ERROR):
        postprocessor.reconfigure(user_config)
    assert await labels_shown(postprocessor) == 1
    (record,) = [r for r in caplog.records if "user_config is refused" in r.getMessage()]
    assert words in record.getMessage()
    postprocessor.reconfigure({"top_k": 2})
    assert await labels_shown(postprocessor) == 2


@pytest.mark.parametrize("user_config", [wrong for wrong, _ in WRONG])
def test_a_replica_does_not_start_on_a_wrong_value(
    postprocessor: Postprocessor, user_config: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        postprocessor.reconfigure(user_config)
