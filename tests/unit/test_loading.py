"""Weights that the class doesn't read, adapters, quantised weights and other tasks' heads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.engines.loading import load
from deployments.model.source import ModelNotFound
from deployments.settings import ModelSettings


@pytest.fixture
def model(make_tiny_model: Callable[..., Path]) -> Path:
    return make_tiny_model()


def add(directory: Path, *names: str, shape: tuple[int, ...] = (4,)) -> None:
    weights = load_file(directory / "model.safetensors")
    weights.update({name: torch.ones(shape) for name in names})
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def edit(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(directory: Path) -> str:
    with pytest.raises(ModelNotFound) as caught:
        load(ModelSettings(id=str(directory)))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("cls.predictions.transform.dense.weight", "a head of pre-training"),
        ("lm_head.bias", "a head of pre-training"),
        ("bert.embeddings.position_ids", "numbers that the class computes itself"),
        ("loss_fct.weight", "weights of a loss"),
    ],
)
def test_what_classifies_nothing_is_left_out_and_said(model: Path, name: str, what: str) -> None:
    add(model, name)
    remarks = load(ModelSettings(id=str(model))).remarks
    # transformers leaves some of them out without a word.
    assert remarks == () or re.match(
        rf"Left out of the weights: {re.escape(name)}, {what}", *remarks
    )
    assert remarks or name.endswith("position_ids")


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("bert.encoder.layer.0.attention.self.query.weight_scale", "quantisation's"),
        ("bert.pooler.dense.weight_scale", "quantisation's"),
        ("bert.encoder.layer.0.attention.self.distance_embedding.weight", "relative positions"),
        ("bert.encoder.layer.2.output.dense.weight", "num_hidden_layers"),
        ("encoder.layer.7.output.dense.weight", "num_hidden_layers"),
        ("bert.encoder.layer.0.attention.self.query.lora_A.default.weight", "merge_and_unload"),
        ("classifier.0.weight_scale_inv", "quantisation's"),
        ("temperature", "made for another model"),
    ],
)
def test_what_may_be_part_of_the_model_is_refused_by_its_name(
    model: Path, name: str, cure: str
) -> None:
    add(model, name)
    said = refusal(model)
    assert name.removeprefix("encoder.") in said
    assert cure in said


@pytest.mark.parametrize("with_base", [True, False])
def test_an_adapter_is_refused_with_how_to_merge_it(model: Path, with_base: bool) -> None:
    (model / "adapter_config.json").write_text("{}")
    if not with_base:
        (model / "model.safetensors").unlink()
    assert "Merge it first" in refusal(model)


@pytest.mark.parametrize("method", ["modelopt", "bitsandbytes", "gptq", "fp8", None])
def test_quantised_weights_are_refused_whatever_transformers_does_with_them(
    model: Path, method: str | None
) -> None:
    edit(model, quantization_config={"quant_method": method, "bits": 8})
    said = refusal(model)
    assert f"`quantization_config.quant_method` holds {json.dumps(method)}; " in said
    assert "float32, float16 or bfloat16" in said


@pytest.mark.parametrize(
    "architecture",
    ["BertForTokenClassification", "BertForMultipleChoice", "BertForQuestionAnswering"],
)
def test_another_tasks_head_is_refused_though_its_weights_have_the_same_names(
    model: Path, architecture: str
) -> None:
    edit(model, architectures=[architecture])
    assert f"is a {architecture}, by architectures in its config.json" in refusal(model)


def test_an_unknown_class_whose_weights_fit_runs_and_is_said(model: Path) -> None:
    edit(model, architectures=["MyClassifier"])
    (remark,) = load(ModelSettings(id=str(model))).remarks
    assert remark.startswith(
        "config.json names MyClassifier; its weights are exactly those of Bert"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "no_such_type"}, "can't make a text classifier"),
        ({"model_type": "clip"}, "can't make a text classifier"),
        ({"hidden_size": "wide"}, "can't make a text classifier"),
        ({"num_attention_heads": 3}, "can't make a text classifier"),
        ({"hidden_act": "no_such_act"}, "can't make a text classifier"),
        ({"hidden_size": 64}, "made for another config.json"),
    ],
)
def test_what_a_library_raises_is_said_in_our_words(
    model: Path, changes: dict[str, Any], said: str
) -> None:
    edit(model, **changes)
    assert said in refusal(model)


def test_the_form_of_outputs_is_ours(model: Path) -> None:
    edit(model, return_dict=False, output_hidden_states=True, torch_dtype="float16")
    network = load(ModelSettings(id=str(model))).model
    assert network(torch.tensor([[5, 6]])).logits.dtype is torch.float32
