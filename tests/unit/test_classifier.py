"""The Classifier replica without Ray: whose fault it is when the model fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.classifier import Classifier
from deployments.core.errors import PredictionFailed
from deployments.core.health import ModelBroken
from deployments.core.types import Encoded, Logits
from deployments.settings import Settings

pytestmark = pytest.mark.anyio


def settings_for(model: Path) -> Settings:
    engine = {"name": "torch", "device": "cpu", "dtype": "float32", "num_threads": 1}
    return Settings.model_validate({"model": {"id": str(model)}, "engine": engine})


@pytest.fixture
def classifier(make_tiny_model: Callable[..., Path]) -> Classifier:
    return Classifier(settings_for(make_tiny_model()))


def test_a_model_of_no_finite_number_does_not_start(make_tiny_model: Callable[..., Path]) -> None:
    model = make_tiny_model()
    (file,) = model.glob("*.safetensors")
    weights = {name: torch.full_like(w, torch.nan) for name, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelBroken, match="gives no finite number"):
        Classifier(settings_for(model))


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
        for weights in classifier._engine._way.run.model.parameters():  # type: ignore[attr-defined]
            weights.fill_(float("nan"))
    assert list((await classify(classifier, 7, 8)).errors or {}) == [0, 1]
    for _ in range(3):
        with pytest.raises(PredictionFailed):
            await classifier.check_health()
