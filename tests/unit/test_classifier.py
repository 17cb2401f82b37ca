"""The Classifier replica without Ray: whose fault it is when the model fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from deployments.classifier import Classifier
from deployments.core.errors import PredictionFailed
from deployments.core.types import Encoded, Logits
from deployments.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def classifier(make_tiny_model: Callable[..., Path]) -> Classifier:
    return Classifier(
        Settings.model_validate(
            {
                "model": {"id": str(make_tiny_model())},
                "engine": {
                    "name": "torch",
                    "device": "cpu",
                    "dtype": "float32",
                    "num_threads": 1,
                },
            }
        )
    )


async def classify(classifier: Classifier, *token_ids: int) -> Logits:
    """Logits of texts of one token each."""
    n = len(token_ids)
    batch = Encoded(np.asarray(token_ids, np.int32), np.ones(n, np.int32))
    return await classifier.predict(batch, np.full(n, 60.0, np.float32))


async def test_a_text_that_the_model_fails_on_makes_no_replica_ill(classifier: Classifier) -> None:
    for _ in range(3):
        logits = await classify(classifier, 1_000_000)
        assert isinstance((logits.errors or {})[0], PredictionFailed)
    await classifier.check_health()
    assert (await classify(classifier, 7)).errors is None


async def test_a_model_that_fails_on_everything_makes_it_ill(classifier: Classifier) -> None:
    await classifier.check_health()
    with torch.no_grad():  # as on a GPU after its first error
        for weights in classifier._engine._runner.model.parameters():  # type: ignore[attr-defined]
            weights.fill_(float("nan"))
    assert list((await classify(classifier, 7, 8)).errors or {}) == [0, 1]
    for _ in range(3):
        with pytest.raises(PredictionFailed):
            await classifier.check_health()
