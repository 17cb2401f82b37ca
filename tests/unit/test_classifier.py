"""The Classifier replica without Ray: whose fault it is when the model fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.classifier import Classifier
from deployments.engines.base import ModelBroken
from deployments.pipeline.errors import PredictionFailed
from deployments.pipeline.types import Encoded, Logits, OtherModel
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
    parts = await classifier.parts()
    assert parts is not None
    ids, lengths = np.asarray(token_ids, np.int32), np.ones(n, np.int32)
    batch = Encoded(ids, lengths, model=parts.version)
    logits = await classifier.predict(batch, np.full(n, 60.0, np.float32))
    assert isinstance(logits, Logits)
    assert logits.model == parts.version
    return logits


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


async def test_ids_for_another_model_are_not_run_but_answered_with_which_model_this_is(
    classifier: Classifier,
) -> None:
    parts = await classifier.parts(known=["another"])
    assert parts is not None
    assert await classifier.parts(known=[parts.version]) is None
    one, left_s = np.ones(1, np.int32), np.full(1, 60.0, np.float32)
    others = Encoded(one, one, model="another")
    assert await classifier.predict(others, left_s) == OtherModel(parts.version)
    both = Encoded(one, one, model="another", also=Encoded(7 * one, one, model=parts.version))
    answer, alone = await classifier.predict(both, left_s), await classify(classifier, 7)
    assert isinstance(answer, Logits)
    np.testing.assert_array_equal(answer.values, alone.values)
