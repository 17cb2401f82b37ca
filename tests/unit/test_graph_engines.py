"""OpenVINO against the model's own forward in torch, one text at a time."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from deployments import installing
from deployments.engines.artefacts import UNUSED_S
from deployments.engines.base import EngineUnavailable
from deployments.engines.graph import GraphEngine, check_conversion
from deployments.engines.openvino import OpenVinoEngine
from deployments.model.source import ModelNotFound
from deployments.pipeline.types import Encoded
from deployments.settings import EngineSettings, ModelSettings

ENGINES = [
    pytest.param(
        engine,
        id=engine.name,
        marks=pytest.mark.skipif(
            not all(importlib.util.find_spec(m) for m in engine.modules + engine.int8_modules),
            reason=installing(engine.name),
        ),
    )
    for engine in (OpenVinoEngine,)
]
VOCAB_SIZE = 300
SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_labels": 3,
    "initializer_range": 0.2,  # logits large enough, so that a wrong one shows
}
DISTILBERT = {
    "vocab_size": VOCAB_SIZE,
    "dim": 32,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": 64,
    "num_labels": 3,
    "initializer_range": 0.2,
    "max_position_embeddings": 64,
}
MODELS: dict[str, Callable[[], Any]] = {
    "bert": lambda: hf.BertForSequenceClassification(
        hf.BertConfig(**SHAPE, max_position_embeddings=64)
    ),
    "roberta": lambda: hf.RobertaForSequenceClassification(
        hf.RobertaConfig(**SHAPE, max_position_embeddings=66)
    ),
    "distilbert": lambda: hf.DistilBertForSequenceClassification(hf.DistilBertConfig(**DISTILBERT)),
    "electra": lambda: hf.ElectraForSequenceClassification(
        hf.ElectraConfig(**SHAPE, embedding_size=16, max_position_embeddings=64)
    ),
    "albert": lambda: hf.AlbertForSequenceClassification(
        hf.AlbertConfig(**SHAPE, embedding_size=16, max_position_embeddings=64)
    ),
    "mpnet": lambda: hf.MPNetForSequenceClassification(
        hf.MPNetConfig(**SHAPE, max_position_embeddings=66)
    ),
    "modernbert": lambda: hf.ModernBertForSequenceClassification(
        hf.ModernBertConfig(
            **SHAPE,
            max_position_embeddings=64,
            local_attention=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
        )
    ),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYCLASSIFY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def engine_for(
    make: type[GraphEngine], directory: Path, dtype: Any = "float32", num_threads: int = 1
) -> GraphEngine:
    settings = EngineSettings(device="cpu", dtype=dtype)
    engine = make(ModelSettings(id=str(directory)), settings, num_threads)
    engine.load()
    return engine


def random_batch(n: int, max_length: int, seed: int = 0) -> Encoded:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, max_length + 1, n).astype(np.int32)
    lengths[:2] = 1, max_length
    ids = rng.integers(5, VOCAB_SIZE, lengths.sum()).astype(np.int32)
    return Encoded(ids, lengths)


@torch.inference_mode()
def one_by_one(model: Any, batch: Encoded) -> np.ndarray:
    rows = []
    for text in batch.split():
        kwargs = {"input_ids": torch.tensor(text.input_ids[None], dtype=torch.long)}
        if text.token_type_ids is not None:
            kwargs["token_type_ids"] = torch.tensor(text.token_type_ids[None], dtype=torch.long)
        rows.append(model(**kwargs).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize("architecture", MODELS)
def test_float32_logits_are_the_models_own(
    make: type[GraphEngine], architecture: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = MODELS[architecture]().eval()
    model.save_pretrained(tmp_path)
    batch = random_batch(24, 64)
    engine = engine_for(make, tmp_path, num_threads=2)
    expected = one_by_one(model, batch)
    assert expected.std() > 0.05
    np.testing.assert_allclose(engine.predict(batch).values, expected, atol=1e-4)
    (alone,) = engine.predict(batch.split()[0]).values
    np.testing.assert_allclose(alone, expected[0], atol=1e-4)


@pytest.mark.parametrize("make", ENGINES)
def test_token_types_reach_the_model(
    make: type[GraphEngine], make_tiny_model: Callable[..., Path]
) -> None:
    directory = make_tiny_model(initializer_range=0.2)
    model = hf.BertForSequenceClassification.from_pretrained(directory).eval()
    batch = random_batch(8, 64)
    typed = Encoded(batch.input_ids, batch.lengths, (batch.input_ids % 2).astype(np.int32))
    logits = engine_for(make, directory).predict(typed).values
    np.testing.assert_allclose(logits, one_by_one(model, typed), atol=1e-4)
    assert np.abs(logits - one_by_one(model, batch)).max() > 1e-2


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        pytest.param(*engine.values, dtype, id=f"{engine.id}-{dtype}", marks=engine.marks)
        for engine in ENGINES
        for dtype in engine.values[0].dtypes
        if dtype != "float32"
    ],
)
def test_lower_precision_stays_near_float32(
    make: type[GraphEngine], dtype: str, demo_model: Path
) -> None:
    from deployments.model.probe import probe_batch

    batch = Encoded.concat(probe_batch(ModelSettings(id=str(demo_model))).split()[:48])
    model = hf.AutoModelForSequenceClassification.from_pretrained(demo_model).eval()
    try:
        engine = engine_for(make, demo_model, dtype)
    except EngineUnavailable as exc:
        assert dtype == "bfloat16"
        pytest.skip(str(exc))
    logits = engine.predict(batch).values
    expected = one_by_one(model, batch)
    assert engine.info().dtype == dtype
    assert np.abs(logits - expected).max() < {"bfloat16": 0.05, "int8": 0.2}[dtype]
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.97


@pytest.mark.parametrize("make", ENGINES)
def test_a_second_start_converts_nothing(
    make: type[GraphEngine],
    make_tiny_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = make_tiny_model()
    batch = random_batch(8, 64)
    first = engine_for(make, directory).predict(batch).values

    def fail(*_: Any) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(make, "convert", fail)
    np.testing.assert_array_equal(engine_for(make, directory).predict(batch).values, first)


@pytest.mark.parametrize("make", ENGINES)
def test_a_damaged_conversion_is_made_again(
    make: type[GraphEngine], make_tiny_model: Callable[..., Path], own_cache: Path
) -> None:
    directory = make_tiny_model()
    batch = random_batch(8, 64)
    first = engine_for(make, directory).predict(batch).values
    (kept,) = (path for path in (own_cache / "converted").iterdir() if path.is_dir())
    largest = max(kept.iterdir(), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[: len(content) // 2])
    np.testing.assert_array_equal(engine_for(make, directory).predict(batch).values, first)
    assert largest.read_bytes() == content


@pytest.mark.parametrize("make", ENGINES)
def test_other_weights_are_converted_anew(
    make: type[GraphEngine], make_tiny_model: Callable[..., Path]
) -> None:
    directory = make_tiny_model(initializer_range=0.2)
    batch = random_batch(8, 64)
    first = engine_for(make, directory).predict(batch).values
    model = hf.BertForSequenceClassification.from_pretrained(directory)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(directory)
    assert np.abs(engine_for(make, directory).predict(batch).values - first).max() > 1e-2


@pytest.mark.parametrize("make", ENGINES)
def test_what_no_start_used_for_long_is_deleted_by_the_next_conversion(
    make: type[GraphEngine], make_tiny_model: Callable[..., Path], own_cache: Path
) -> None:
    used, unused = make_tiny_model(initializer_range=0.1), make_tiny_model(initializer_range=0.2)
    engine_for(make, used)
    engine_for(make, unused)
    kept = {path for path in (own_cache / "converted").iterdir() if path.is_dir()}
    long_ago = time.time() - UNUSED_S - 60
    for path in kept:
        os.utime(path, (long_ago, long_ago))
    engine_for(make, used)  # a use makes it young again
    engine_for(make, make_tiny_model(initializer_range=0.3))
    left = {path for path in (own_cache / "converted").iterdir() if path.is_dir()}
    assert len(left & kept) == 1
    assert len(left) == 2


@pytest.mark.parametrize("make", ENGINES)
def test_nothing_half_converted_is_left_behind(
    make: type[GraphEngine],
    make_tiny_model: Callable[..., Path],
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def half(self: GraphEngine, model: Any, max_length: int, directory: Path) -> None:
        (directory / "model.xml").write_text("<half")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(make, "convert", half)
    with pytest.raises(EngineUnavailable, match=r"can't convert .*\(RuntimeError\)"):
        engine_for(make, make_tiny_model())
    assert not [path for path in (own_cache / "converted").iterdir() if path.is_dir()]


@pytest.mark.parametrize("make", ENGINES)
def test_where_nothing_can_be_kept_it_still_runs(
    make: type[GraphEngine],
    make_tiny_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYCLASSIFY_CACHE_DIR", str(tmp_path / "file"))
    assert engine_for(make, make_tiny_model()).predict(random_batch(3, 9)).values.shape == (3, 2)


@pytest.mark.parametrize("make", ENGINES)
def test_a_model_that_was_never_trained_to_classify_is_refused(
    make: type[GraphEngine], make_tiny_model: Callable[..., Path]
) -> None:
    directory = make_tiny_model()
    hf.BertForSequenceClassification.from_pretrained(directory).bert.save_pretrained(directory)
    with pytest.raises(ModelNotFound, match=r"have no classifier\.bias"):
        engine_for(make, directory)


@pytest.mark.parametrize("make", [OpenVinoEngine])
def test_without_its_package_the_cure_is_said(
    make: type[GraphEngine],
    make_tiny_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(make, "modules", ("no_such_package",))
    with pytest.raises(EngineUnavailable, match=re.escape(installing(make.name))):
        engine_for(make, make_tiny_model())


@pytest.mark.parametrize("make", [OpenVinoEngine])
def test_another_device_or_dtype_is_refused(
    make: type[GraphEngine], make_tiny_model: Callable[..., Path]
) -> None:
    model = ModelSettings(id=str(make_tiny_model()))
    with pytest.raises(EngineUnavailable, match="float16"):
        make(model, EngineSettings(dtype="float16"), 1).load()
    with pytest.raises(EngineUnavailable, match="runs on cpu"):
        make(model, EngineSettings(dtype="float32", device="cuda"), 1).load()


def test_a_conversion_that_answers_otherwise_is_refused(
    make_tiny_model: Callable[..., Path],
) -> None:
    model = hf.BertForSequenceClassification.from_pretrained(make_tiny_model()).eval()

    def all_zero(rows: dict[str, np.ndarray]) -> np.ndarray:
        return np.zeros((len(rows["input_ids"]), 2), np.float32)

    with pytest.raises(EngineUnavailable, match="converts wrongly"):
        check_conversion(model, 64, all_zero)


@pytest.mark.parametrize("make", ENGINES)
def test_info_names_the_runtime_and_its_version(
    make: type[GraphEngine], make_tiny_model: Callable[..., Path]
) -> None:
    info = engine_for(make, make_tiny_model()).info()
    assert (info.engine, info.device, info.batching) == (make.name, "cpu", "padded")
    assert info.versions[make.name][0].isdigit()


def test_openvino_tells_nobody() -> None:
    assert sys.modules.get("openvino_telemetry", 0) is None


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_a_pass_that_failed_fails_no_other(
    make: type[GraphEngine], num_threads: int, tmp_path: Path
) -> None:
    """With several streams OpenVINO fails later runs too, or never ends them."""
    torch.manual_seed(0)
    model = MODELS["bert"]().eval()
    model.save_pretrained(tmp_path)
    engine = engine_for(make, tmp_path, num_threads=num_threads)
    good = random_batch(40, 60)
    expected = one_by_one(model, good)
    too_long = random_batch(3, 200)  # the model reads 64
    for _ in range(5):
        with contextlib.suppress(Exception):  # OpenVINO with one thread reads past the table
            engine._run(too_long)
        logits = engine.predict(good).values
        np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("make", ENGINES)
def test_ids_and_types_outside_the_embedding_fail_their_own_text_only(
    make: type[GraphEngine], make_tiny_model: Callable[..., Path]
) -> None:
    engine = engine_for(make, make_tiny_model(initializer_range=0.2))
    good = random_batch(3, 60)
    ids = np.asarray([7, 1_000_000], np.int32)
    bad = Encoded(ids, np.asarray([2], np.int32))
    typed = Encoded(ids % 50, np.asarray([2], np.int32), np.asarray([0, 2], np.int32))
    logits = engine.predict(Encoded.concat([bad, good, typed, random_batch(2, 99)]))
    assert sorted(logits.errors or {}) == [0, 4, 6]
    np.testing.assert_allclose(logits.values[1:4], engine.predict(good).values, atol=1e-5)


@pytest.mark.parametrize("make", ENGINES)
def test_a_start_without_the_model_still_knows_drift_and_remarks(
    make: type[GraphEngine], make_tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_tiny_model(initializer_range=0.2)
    weights = load_file(directory / "model.safetensors")
    weights["cls.predictions.bias"] = torch.zeros(9)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    first = engine_for(make, directory).info()
    assert first.remarks[0].startswith("Left out of the weights: cls.predictions.bias, a head of")
    monkeypatch.setattr(make, "convert", None)
    again = engine_for(make, directory).info()
    assert again.remarks == first.remarks
    assert again.drift is not None
    assert first.drift == pytest.approx(again.drift, abs=1e-6)
    assert 0 <= again.drift < 1e-4
