"""The texts that engines are compared on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deployments.model.probe import (
    N_TEXTS,
    calibration_batch,
    calibration_texts,
    probe_batch,
    probe_texts,
)
from deployments.pipeline.types import Encoded
from deployments.settings import ModelSettings


@pytest.mark.parametrize("made", [probe_texts, calibration_texts])
def test_no_two_texts_are_the_same_and_each_has_two_characters(
    made: Callable[[], list[str]],
) -> None:
    texts = made()
    assert len(set(texts)) == len(texts) == N_TEXTS
    assert min(len(text) for text in texts) >= 2


def test_what_judges_an_engine_was_not_there_when_it_was_quantised() -> None:
    probe, calibration = " ".join(probe_texts()), calibration_texts()
    assert not [text for text in calibration if text in probe]
    assert not [text for text in probe_texts() if text in " ".join(calibration)]


@pytest.mark.parametrize("batch", [probe_batch, calibration_batch])
def test_they_have_a_natural_mix_of_lengths(
    batch: Callable[[ModelSettings], Encoded], demo_model: Path
) -> None:
    lengths = batch(ModelSettings(id=str(demo_model))).lengths
    assert len(lengths) == N_TEXTS
    assert 35 <= np.median(lengths) <= 65
    assert lengths.min() < 10
    assert (lengths > 300).sum() >= 3


def test_probe_texts_are_cut_to_what_the_model_reads(make_tiny_model: Callable[..., Path]) -> None:
    lengths = probe_batch(ModelSettings(id=str(make_tiny_model()), max_length=40)).lengths
    assert lengths.max() == 40
