"""Models that break a faster way of running them get a plainer one, and transformers' answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from deployments.engines import torch_engine
from deployments.engines.base import EngineUnavailable, ModelBroken
from deployments.engines.torch_engine import TorchEngine
from deployments.model.cache import CACHE_DIR_ENV
from deployments.pipeline.types import Encoded
from deployments.settings import EngineSettings, ModelSettings

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "num_labels": 3,
    "initializer_range": 0.3,
}
LLAMA = {**SHAPE, "num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2}
MODELS: dict[str, tuple[str, dict[str, Any], str, int]] = {
    # class, config, how it runs, the shortest text that transformers itself reads with it
    "a decoder without padding": ("Qwen2", LLAMA, "one by one", 1),
    "padding is -1": ("Llama", {**LLAMA, "pad_token_id": -1}, "one length", 1),
    "fails on one token": ("Funnel", {"block_sizes": [1, 1, 1], "d_model": 32, "n_head": 2,
        "d_head": 16, "d_inner": 64, "vocab_size": 300, "initializer_std": 0.3}, "one length", 5),
    "reads causally": ("Bert", {**SHAPE, "is_decoder": True, "pad_token_id": 0}, "padded", 1),
    "has no mask": ("FNet", {**SHAPE, "pad_token_id": 3}, "one length", 1),
    "a length changes it": ("BigBird", {**SHAPE, "max_position_embeddings": 256, "pad_token_id": 0,
        "block_size": 4, "num_random_blocks": 1}, "one length", 1),
    "rotary positions by the longest text": ("Llama", {**LLAMA, "pad_token_id": 0,
        "max_position_embeddings": 32,
        "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
        "one length", 1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test finds what another has proven."""
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(CACHE_DIR_ENV, str(directory))
    return directory


def save(directory: Path, name: str, config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    made = getattr(hf, f"{name}Config")(**config)
    made.id2label = {i: f"L{i}" for i in range(3)}
    model = getattr(hf, f"{name}ForSequenceClassification")(made).eval()
    model.save_pretrained(directory)
    return model


def engine_for(directory: Path, dtype: Any = "float32") -> TorchEngine:
    settings = EngineSettings(device="cpu", dtype=dtype)
    engine = TorchEngine(ModelSettings(id=str(directory)), settings, num_threads=1)
    engine.load()
    return engine


@torch.inference_mode()
def alone(directory: Path, batch: Encoded) -> np.ndarray:
    """transformers' answers to each text, by a model that has met no other."""
    rows = []
    for text in batch.split():
        model = hf.AutoModelForSequenceClassification.from_pretrained(directory).eval()
        rows.append(model(torch.tensor(text.input_ids[None], dtype=torch.long))[0][0].numpy())
    return np.stack(rows)


def batch_of(lengths: list[int]) -> Encoded:
    ids = np.random.default_rng(1).integers(5, 300, sum(lengths)).astype(np.int32)
    return Encoded(ids, np.asarray(lengths, np.int32))


@pytest.mark.parametrize("case", MODELS)
def test_a_model_runs_in_the_fastest_way_that_is_right(case: str, tmp_path: Path) -> None:
    name, config, batching, shortest = MODELS[case]
    save(tmp_path, name, config)
    engine = engine_for(tmp_path)
    assert engine.info().batching == batching
    longest = min(120, config.get("max_position_embeddings", 120) - 4)
    batch = batch_of([9, longest, shortest, 20, 20, longest - 5, 5, longest])
    got = engine.predict(batch).values
    np.testing.assert_allclose(got, alone(tmp_path, batch), atol=2e-4)
    drift = engine.info().drift
    assert drift is not None
    assert 0 <= drift < 1e-4


def test_a_probe_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    """BigBird exchanges its attention for another class when a text is short."""
    name, config, *_ = MODELS["a length changes it"]
    save(tmp_path, name, config)
    engine = engine_for(tmp_path)
    long, short = batch_of([200]), batch_of([5])
    first = engine.predict(long).values
    engine.predict(short)
    np.testing.assert_array_equal(engine.predict(long).values, first)
    assert engine._way is not None
    assert engine._way.run.model.base_model.attention_type == "block_sparse"


def test_outputs_as_tuples_are_read_too(make_tiny_model: Callable[..., Path]) -> None:
    directory = make_tiny_model(initializer_range=0.3)
    expected = engine_for(directory).predict(batch_of([3, 60, 9])).values
    path = directory / "config.json"
    changes = {"return_dict": False, "output_hidden_states": True, "output_attentions": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    engine = engine_for(directory)
    np.testing.assert_allclose(engine.predict(batch_of([3, 60, 9])).values, expected, atol=1e-4)


def test_half_precision_weights_answer_as_they_do_in_float32(
    make_tiny_model: Callable[..., Path],
) -> None:
    directory = make_tiny_model(initializer_range=0.3)
    model = hf.AutoModelForSequenceClassification.from_pretrained(directory)
    model.to(torch.bfloat16).save_pretrained(directory)
    batch = batch_of([3, 60, 9])
    model = hf.AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
    with torch.inference_mode():
        expected = [
            model(torch.tensor(text.input_ids[None], dtype=torch.long)).logits[0].numpy()
            for text in batch.split()
        ]
    np.testing.assert_allclose(engine_for(directory).predict(batch).values, expected, atol=1e-4)


def test_texts_with_another_number_of_end_marks_share_no_pass(tmp_path: Path) -> None:
    """BART reads the last end mark; a pair has more of them than a text."""
    bart = {"vocab_size": 300, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64, "max_position_embeddings": 128, "init_std": 0.3}  # fmt: skip
    save(tmp_path, "Bart", bart)
    batch = batch_of([9, 60, 9, 7])
    for last in (8, 68, 77, 84, 3):  # the first has two
        batch.input_ids[last] = 2
    engine = engine_for(tmp_path)
    assert engine.info().batching == "padded"
    logits = engine.predict(batch)
    np.testing.assert_allclose(logits.values, alone(tmp_path, batch), atol=2e-4)


def test_what_no_way_gives_right_is_refused_with_the_key_to_set(
    make_tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments.engines import parity

    directory = make_tiny_model(initializer_range=0.3)
    monkeypatch.setitem(parity.MAX_DRIFT, "bfloat16", 1e-9)
    with pytest.raises(EngineUnavailable, match=r"off by .* Set args\.engine\.dtype: float32"):
        engine_for(directory, "bfloat16")


def test_weights_that_give_no_numbers_are_refused(make_tiny_model: Callable[..., Path]) -> None:
    directory = make_tiny_model()
    model = hf.AutoModelForSequenceClassification.from_pretrained(directory)
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    model.save_pretrained(directory)
    with pytest.raises(ModelBroken, match="gives no finite number"):
        engine_for(directory)


def test_int8_of_a_class_without_linear_layers_is_refused(tmp_path: Path) -> None:
    """GPT-2's are convolutions: it would run in float32 and call it int8."""
    gpt2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 1, "n_head": 2, "pad_token_id": 0}
    save(tmp_path, "GPT2", gpt2)
    with pytest.raises(
        EngineUnavailable, match="GPT2ForSequenceClassification has no linear layers"
    ):
        engine_for(tmp_path, "int8")


@pytest.mark.parametrize("kind", ["a length changes it", "padding is -1", "reads causally"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_what_an_earlier_start_proved_is_not_proven_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, dtype: str
) -> None:
    name, config, *_ = MODELS[kind]
    save(tmp_path, name, config)
    first = engine_for(tmp_path, dtype)

    def proves_again(*args: Any) -> None:
        raise AssertionError("proven again")

    monkeypatch.setattr(torch_engine, "choose_way", proves_again)
    second = engine_for(tmp_path, dtype)
    assert second.info() == first.info()
    batch = batch_of([3, 20, 7, 20])
    np.testing.assert_array_equal(second.predict(batch).values, first.predict(batch).values)


@pytest.mark.parametrize("change", ["damaged", "weights", "packing"])
def test_what_no_longer_holds_is_proven_anew(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    name, config, *_ = MODELS["reads causally"]
    save(tmp_path, name, config)
    engine_for(tmp_path)
    proven: list[Any] = []
    exact = torch_engine.choose_way
    monkeypatch.setattr(
        torch_engine, "choose_way", lambda *args: proven.append(args) or exact(*args)
    )
    if change == "damaged":
        (kept,) = (own_cache / "proofs").iterdir()
        kept.write_text(kept.read_text().replace('"way"', '"wey"'))
    elif change == "weights":
        save(tmp_path, name, {**config, "initializer_range": 0.2})
    if change == "packing":
        settings = EngineSettings(device="cpu", dtype="float32", packing=False)
        engine = TorchEngine(ModelSettings(id=str(tmp_path)), settings, num_threads=1)
        engine.load()
    else:
        engine_for(tmp_path)
    assert len(proven) == 1
