"""The engine against a plain transformers forward, one text at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines import linear, packed
from deployments.engines.base import EngineUnavailable, warm_up
from deployments.engines.hardware import pick_device, pick_dtype
from deployments.engines.ids import Ids
from deployments.engines.padded import group_by_length
from deployments.engines.torch_engine import TorchEngine
from deployments.model.cache import CACHE_DIR_ENV
from deployments.model.probe import probe_batch
from deployments.model.source import ModelNotFound
from deployments.pipeline.errors import PredictionFailed
from deployments.pipeline.types import Encoded, Logits
from deployments.settings import EngineSettings, ModelSettings


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test finds what another has proven."""
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(CACHE_DIR_ENV, str(directory))
    return directory


def engine_for(directory: Path, dtype: Any = "float32", packing: bool = True) -> TorchEngine:
    engine = TorchEngine(
        ModelSettings(id=str(directory)),
        EngineSettings(device="cpu", dtype=dtype, packing=packing),
        num_threads=1,
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


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("token_types", [False, True])
@pytest.mark.parametrize("num_labels", [1, 2, 7])
def test_logits_equal_one_text_at_a_time(
    make_tiny_model: Callable[..., Path], num_labels: int, token_types: bool, packing: bool
) -> None:
    directory = make_tiny_model(num_labels=num_labels)
    batch = random_batch(40, 64, token_types)
    logits = engine_for(directory, packing=packing).predict(batch).values
    assert logits.dtype == np.float32
    assert logits.shape == (40, num_labels)
    np.testing.assert_allclose(logits, one_by_one(directory, batch), atol=1e-5)


# Largest difference from float32, where logits are up to 6: what each dtype is stated to keep to.
@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.12), ("float16", 0.02), ("int8", 0.3)])
def test_fewer_bits_stay_near_float32(
    demo_model: Path, real_batch: Encoded, dtype: str, bound: float
) -> None:
    try:
        engine = engine_for(demo_model, dtype)
    except EngineUnavailable:
        pytest.skip(f"no {dtype} on this machine")
    exact = one_by_one(demo_model, real_batch)
    values = engine.predict(real_batch).values
    assert np.abs(values - exact).max() < bound
    assert (values.argmax(1) == exact.argmax(1)).mean() > 0.97
    assert engine.info().dtype == dtype


@pytest.fixture(scope="module")
def real_batch(demo_model: Path) -> Encoded:
    return probe_batch(ModelSettings(id=str(demo_model)))


def test_a_batch_runs_packed_and_says_so(make_tiny_model: Callable[..., Path]) -> None:
    info = engine_for(make_tiny_model()).info()
    assert (info.batching, info.batching_reason) == ("packed", None)


def test_without_packing_a_batch_is_padded_and_says_why(
    make_tiny_model: Callable[..., Path],
) -> None:
    info = engine_for(make_tiny_model(), packing=False).info()
    assert (info.batching, info.batching_reason) == ("padded", "args.engine.packing is false")


def test_the_log_says_how_the_model_runs(
    make_tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="deployments"):
        engine_for(make_tiny_model(), packing=False)
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("model runs")]
    assert said == [
        "model runs padded (args.engine.packing is false) on cpu in float32 with 1 threads"
    ]


def test_a_model_that_packs_wrongly_is_padded_and_says_how_wrong(
    make_tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = packed._position_ids
    monkeypatch.setattr(packed, "_position_ids", lambda *args: wrong(*args)[::-1].copy())
    directory = make_tiny_model(initializer_range=0.2)
    engine = engine_for(directory, "bfloat16")
    assert engine.info().batching == "padded"
    assert re.match(r"packed logits differ .* by \S+", engine.info().batching_reason or "")
    batch = random_batch(8, 64)
    np.testing.assert_allclose(
        engine.predict(batch).values, one_by_one(directory, batch), atol=0.02
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_class_that_does_not_pack_is_padded_and_says_why(tmp_path: Path, dtype: str) -> None:
    """RoFormer turns its queries and keys by their place in the row."""
    torch.manual_seed(0)
    config = transformers.RoFormerConfig(
        vocab_size=1_000,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    transformers.RoFormerForSequenceClassification(config).save_pretrained(tmp_path)
    engine = engine_for(tmp_path, dtype)
    info = engine.info()
    assert info.batching == "padded"
    assert info.batching_reason == "RoFormerForSequenceClassification has no head here"
    batch = random_batch(8, 64)
    np.testing.assert_allclose(engine.predict(batch).values, one_by_one(tmp_path, batch), atol=0.05)


def test_products_that_differ_here_are_left_plain(
    make_tiny_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if reason := linear._disagrees(linear.PrepackedDense, torch.bfloat16):
        pytest.skip(f"no faster bfloat16 layers on this CPU: {reason}")
    exact = linear.PrepackedDense.forward
    monkeypatch.setattr(
        linear.PrepackedDense, "forward", lambda self, x, *rest: exact(self, x, *rest) * 2
    )
    monkeypatch.setattr(linear, "_disagrees", lambda make, dtype: None)
    directory = make_tiny_model(initializer_range=0.2)
    engine = engine_for(directory, "bfloat16")
    assert re.search(r"bfloat16 logits are off by \S+ with faster linear layers", caplog.text)
    assert engine.info().remarks[0].startswith("Linear layers stay plain: bfloat16 logits are off")
    assert engine.info().batching == "packed"
    batch = random_batch(8, 64)
    np.testing.assert_allclose(
        engine.predict(batch).values, one_by_one(directory, batch), atol=0.02
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_ids_and_types_outside_the_embedding_fail_their_own_text_only(
    make_tiny_model: Callable[..., Path], dtype: str
) -> None:
    """On a GPU a look beyond the embedding ends the process."""
    engine = engine_for(make_tiny_model(), dtype)
    good = random_batch(3, 64)
    before = engine.predict(good).values
    bad = [
        Encoded(np.asarray([5, 1_000_000], np.int32), np.asarray([2], np.int32)),
        Encoded(np.asarray([-1, 5], np.int32), np.asarray([2], np.int32)),
        Encoded(np.asarray([5], np.int32), np.asarray([1], np.int32), np.asarray([2], np.int32)),
        Encoded(np.full(99, 7, np.int32), np.asarray([99], np.int32)),  # longer than it reads
    ]
    logits = engine.predict(Encoded.concat([*bad, good]))
    assert sorted(logits.errors or {}) == [0, 1, 2, 3]
    assert {type(error) for error in (logits.errors or {}).values()} == {PredictionFailed}
    assert not re.search("1000000|-1", str(logits.errors))  # an id tells of its text
    np.testing.assert_array_equal(logits.values[4:], before)
    for text in bad:
        assert list(engine.predict(text).errors or {}) == [0]
    np.testing.assert_array_equal(engine.predict(good).values, before)


def test_the_same_text_gets_the_same_logits_in_any_company(
    make_tiny_model: Callable[..., Path],
) -> None:
    engine = engine_for(make_tiny_model())
    batch = random_batch(300, 64)
    alone = np.concatenate([engine.predict(text).values for text in batch.split()])
    np.testing.assert_allclose(engine.predict(batch).values, alone, atol=1e-5)


def test_info_names_device_dtype_and_versions(make_tiny_model: Callable[..., Path]) -> None:
    info = engine_for(make_tiny_model()).info()
    assert (info.device, info.dtype, info.num_threads) == ("cpu", "float32", 1)
    assert info.versions["torch"] == torch.__version__


def test_missing_weights_are_said_with_the_cure(
    make_tiny_model: Callable[..., Path],
) -> None:
    directory = make_tiny_model()
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"has no weights: .* Copy them there"):
        engine_for(directory)


def test_a_gpu_that_is_not_there_is_said_with_the_cure() -> None:
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match=r"torch sees \d+ GPUs here"):
        pick_device(missing)


def test_a_named_dtype_is_taken() -> None:
    assert pick_dtype("float16", torch.device("cpu")) == "float16"
    assert pick_dtype("auto", torch.device("cpu")) == "float32"


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
    with pytest.raises(
        ModelNotFound, match=r"is cut short: it has 5000 of \d+ bytes\. Fetch or copy"
    ):
        engine_for(directory)


SMALL: dict[str, Any] = {"vocab_size": 1_010, "num_labels": 3, "initializer_range": 0.3}
FNET = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
ODD: dict[str, Callable[[], Any]] = {
    # A type, to it, is a word whose embedding is added.
    "gpt2": lambda: transformers.GPT2ForSequenceClassification(
        transformers.GPT2Config(
            **SMALL, n_embd=32, n_layer=1, n_head=2, n_positions=64, pad_token_id=0
        )
    ),
    # It reads the last place of the row.
    "xlnet": lambda: transformers.XLNetForSequenceClassification(
        transformers.XLNetConfig(**SMALL, d_model=32, n_layer=1, n_head=2, d_inner=64)
    ),
    # It has no mask.
    "fnet": lambda: transformers.FNetForSequenceClassification(
        transformers.FNetConfig(**SMALL, **FNET)
    ),
}


@pytest.mark.parametrize("architecture", ODD)
def test_no_text_is_answered_by_what_it_is_padded_with(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ODD[architecture]().save_pretrained(tmp_path)
    batch = random_batch(40, 60)
    logits = engine_for(tmp_path).predict(batch).values
    np.testing.assert_allclose(logits, one_by_one(tmp_path, batch), atol=1e-4)


def test_a_model_that_reads_less_than_its_config_promises_fails_the_start_and_no_text() -> None:
    read: list[int] = []

    def predict(batch: Encoded) -> Logits:
        read.append(batch.total_tokens)
        if batch.total_tokens > 512:
            raise IndexError("a text may be quoted here")
        return Logits(np.zeros((1, 2), np.float32))

    ids = Ids(n_ids=100, n_types=2, max_tokens=514)
    with pytest.raises(EngineUnavailable, match=r"514 tokens \(IndexError\).*max_length lower"):
        warm_up(predict, (8, 128), 514, ids.text)
    warm_up(predict, (8, 128), 512, ids.text)
    warm_up(predict, (8, 128), 64, ids.text)
    assert read == [8, 128, 514, 8, 128, 512, 8, 64]
