"""The texts that engines are compared on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from deployments.model.probe import N_TEXTS, probe_batch, probe_texts
from deployments.settings import ModelSettings


def test_no_two_texts_are_the_same_and_each_has_two_characters() -> None:
    texts = probe_texts()
    assert len(set(texts)) == len(texts) == N_TEXTS
    assert min(len(text) for text in texts) >= 2


def test_they_have_a_natural_mix_of_lengths(demo_model: Path) -> None:
    lengths = probe_batch(ModelSettings(id=str(demo_model))).lengths
    assert len(lengths) == N_TEXTS
    assert 35 <= np.median(lengths) <= 65
    assert lengths.min() < 10
    assert (lengths > 300).sum() >= 3


def test_probe_texts_are_cut_to_what_the_model_reads(make_tiny_model: Callable[..., Path]) -> None:
    lengths = probe_batch(ModelSettings(id=str(make_tiny_model()), max_length=40)).lengths
    assert lengths.max() == 40
