"""The engine against a plain transformers forward, one text at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deployments.core.engines import hardware
from deployments.core.engines.hardware import pick_device, pick_dtype
from deployments.core.engines.padded import PaddedEngine, group_by_length
from deployments.core.model_source import ModelNotFound
from deployments.core.types import Encoded
from deployments.settings import EngineSettings, ModelSettings


def engine_for(directory: Path, dtype: Any = "float32") -> PaddedEngine:
    engine = PaddedEngine(
        ModelSettings(id=str(directory)), EngineSettings(device="cpu", dtype=dtype), num_threads=1
    )
    engine.load()
    return engine


def random_batch(n: int, max_length: int, token_types: bool = False) -> Encoded:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, max_length + 1, n).astype(np.int32)
    ids = rng.integers(5, 1_000, lengths.sum()).astype(np.int32)
    return Encoded(ids, lengths, (ids % 2).astype(np.int32) if token_types else None)


@torch.inference_mode()
def one_by_one(directory: Path, batch: Encoded) -> np.ndarray:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    rows = []
    for text in batch.split():
        kwargs = {"input_ids": torch.tensor(text.input_ids[None], dtype=torch.long)}
        if text.token_type_ids is not None:
            kwargs["token_type_ids"] = torch.tensor(text.token_type_ids[None], dtype=torch.long)
        rows.append(model(**kwargs).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("token_types", [False, True])
@pytest.mark.parametrize("num_labels", [1, 2, 7])
def test_logits_equal_one_text_at_a_time(
    make_tiny_model: Callable[..., Path], num_labels: int, token_types: bool
) -> None:
    directory = make_tiny_model(num_labels=num_labels)
    batch = random_batch(40, 64, token_types)
    logits = engine_for(directory).predict(batch).values
    assert logits.dtype == np.float32
    assert logits.shape == (40, num_labels)
    np.testing.assert_allclose(logits, one_by_one(directory, batch), atol=1e-5)


def test_bfloat16_stays_near_float32(make_tiny_model: Callable[..., Path]) -> None:
    directory = make_tiny_model()
    batch = random_batch(20, 64)
    engine = engine_for(directory, "bfloat16")
    np.testing.assert_allclose(
        engine.predict(batch).values, one_by_one(directory, batch), atol=0.02
    )
    assert engine.info().dtype == "bfloat16"


def test_info_names_device_dtype_and_versions(make_tiny_model: Callable[..., Path]) -> None:
    info = engine_for(make_tiny_model()).info()
    assert (info.device, info.dtype, info.num_threads) == ("cpu", "float32", 1)
    assert info.versions["torch"] == torch.__version__


def test_missing_weights_are_said_with_the_cure(
    make_tiny_model: Callable[..., Path],
) -> None:
    directory = make_tiny_model()
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match="can't load the weights"):
        engine_for(directory)


def test_a_gpu_that_is_not_there_is_said_with_the_cure() -> None:
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match=r"torch sees \d+ GPUs here"):
        pick_device(missing)


def test_a_named_dtype_is_taken() -> None:
    assert pick_dtype("float16", torch.device("cpu")) is torch.float16


@pytest.mark.parametrize(
    ("has_it", "speedup", "dtype"),
    [(True, 3.0, torch.bfloat16), (True, 0.5, torch.float32), (False, 3.0, torch.float32)],
)
def test_auto_takes_bfloat16_only_where_the_cpu_has_it_and_is_faster_with_it(
    monkeypatch: pytest.MonkeyPatch, has_it: bool, speedup: float, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_it})
    monkeypatch.setattr(hardware, "bfloat16_speedup", lambda: speedup)
    assert pick_dtype("auto", torch.device("cpu")) is dtype


def test_the_speedup_is_measured() -> None:
    assert 0.01 < hardware.bfloat16_speedup() < 100


@given(st.lists(st.integers(1, 512), min_size=1, max_size=60), st.integers(0, 100))
def test_groups_hold_each_text_once_and_little_padding(lengths: list[int], overhead: int) -> None:
    groups = group_by_length(np.asarray(lengths, np.int32), overhead)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        longest = lengths[group[0]]
        assert longest == max(lengths[i] for i in group)
        assert sum(longest - lengths[i] for i in group) <= overhead


def test_a_model_that_was_never_trained_to_classify_is_refused(
    make_tiny_model: Callable[..., Path],
) -> None:
    """transformers loads it with a random head, and it would answer."""
    from transformers import BertForSequenceClassification

    directory = make_tiny_model()
    BertForSequenceClassification.from_pretrained(directory).bert.save_pretrained(directory)
    with pytest.raises(ModelNotFound, match=r"have no classifier\.bias.*answer at random"):
        engine_for(directory)


def test_weights_of_another_number_of_labels_are_refused(
    make_tiny_model: Callable[..., Path],
) -> None:
    directory = make_tiny_model(num_labels=3)
    (directory / "config.json").write_bytes(
        (make_tiny_model(num_labels=2) / "config.json").read_bytes()
    )
    with pytest.raises(ModelNotFound, match=r"made for another config\.json"):
        engine_for(directory)


def test_half_a_file_of_weights_is_refused(make_tiny_model: Callable[..., Path]) -> None:
    directory = make_tiny_model()
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000])
    with pytest.raises(ModelNotFound, match="are damaged"):
        engine_for(directory)
