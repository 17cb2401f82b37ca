"""Directories that slipped through when the finished work was attacked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TEXTS, assert_same, build, edit, ours, theirs
from tokenizers import Tokenizer, models, normalizers, processors

from deployments.engines.loaded import REFUSALS
from deployments.pipeline.errors import InvalidInput
from deployments.pipeline.tokenize import TextEncoder
from deployments.pipeline.types import TextInput

WEIGHTS = "model.safetensors"


def rewritten(directory: Path, change: Callable[[str, torch.Tensor], Any]) -> Path:
    """Its weights, each under the name and with the values that `change` gives."""
    weights = dict(change(*item) for item in load_file(directory / WEIGHTS).items())
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    return directory


def refusal(directory: Path) -> str:
    with pytest.raises(REFUSALS) as caught:
        ours(directory, TEXTS)
    return str(caught.value)


@pytest.mark.parametrize("content", ["null", "[1.5]", '{"temperature":' + "9" * 400 + "}", "{", ""])
def test_a_calibration_that_is_there_is_never_passed_over(tmp_path: Path, content: str) -> None:
    directory = build(tmp_path)
    (directory / "calibration.json").write_text(content, encoding="utf-8")
    assert "calibration.json" in refusal(directory)


def test_nor_is_one_that_cannot_be_read(tmp_path: Path) -> None:
    directory = build(tmp_path)
    (directory / "calibration.json").symlink_to(tmp_path / "nowhere")
    assert "calibration.json" in refusal(directory)


def test_names_numbered_by_text_contradict_nothing(tmp_path: Path) -> None:
    names = {"0": "a", "1": "b"}
    directory = edit(build(tmp_path), id2label=names, label2id={"a": "0", "b": "1"})
    assert_same(ours(directory, TEXTS), theirs(directory, TEXTS))


def test_a_name_that_is_half_a_character_is_refused_in_words_that_can_be_printed(
    tmp_path: Path,
) -> None:
    directory = edit(build(tmp_path), id2label={"0": "\ud83d", "1": "b"}, label2id=None)
    assert refusal(directory).encode()


@pytest.mark.parametrize("limit", [4, 7])
def test_a_limit_shorter_than_the_probes_is_served(tmp_path: Path, limit: int) -> None:
    directory = build(tmp_path)
    answers = ours(directory, TEXTS, max_length=limit)
    assert_same(answers, theirs(directory, TEXTS, max_length=limit))


def test_a_number_of_names_that_is_not_the_heads_is_named(tmp_path: Path) -> None:
    directory = edit(build(tmp_path), id2label={"0": "a", "1": "b", "2": "c"}, label2id=None)
    said = refusal(directory)
    assert "classifier" in said
    assert "id2label" in said


@pytest.mark.parametrize(
    ("spoil", "cure"),
    [
        (lambda d: edit(d, num_hidden_layers=9), "num_hidden_layers"),
        (lambda d: rewritten(d, lambda k, v: (f"module.{k}", v)), "wrapper"),
        (lambda d: rewritten(d, lambda k, v: (f"_orig_mod.{k}", v)), "wrapper"),
        (
            lambda d: rewritten(d, lambda k, v: (k.replace("query.", "query.base_layer."), v)),
            "merge it first",
        ),
        (
            lambda d: rewritten(d, lambda k, v: (k, v.to(torch.int8) if "dense" in k else v)),
            "without its scale",
        ),
        (lambda d: edit(d, architectures="BertForTokenClassification"), "TokenClassification"),
        (lambda d: edit(d, hidden_act="no such thing"), "no such thing"),
    ],
    ids=["layers", "ddp", "compiled", "lora", "8 bits", "another head", "activation"],
)
def test_weights_that_do_not_fit_are_refused_with_their_own_cure(
    tmp_path: Path, spoil: Callable[[Path], Path], cure: str
) -> None:
    assert cure in refusal(spoil(build(tmp_path)))


def test_an_adapter_without_its_config_is_one(tmp_path: Path) -> None:
    directory = build(tmp_path)
    save_file({"lora": torch.zeros(1)}, directory / "adapter_model.safetensors")
    assert "Merge it first" in refusal(directory)


def test_a_pooler_deep_in_the_encoder_is_not_harmless(tmp_path: Path) -> None:
    directory = build(tmp_path)
    weights = load_file(directory / WEIGHTS)
    prefix = next(name for name in weights if ".layer.0." in name).split(".layer.0.")[0]
    weights[f"{prefix}.layer.0.pooler.dense.weight"] = torch.ones(2, 2)
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    assert "layer.0.pooler" in refusal(directory)


def spaces_in_pairs() -> Tokenizer:
    """As Llama's: a run of spaces is one word, whose tokens depend on where it begins."""
    words = ["<unk>", "<s>", "▁", *"dghiox", "▁▁", "▁▁▁▁"]
    vocabulary = {word: i for i, word in enumerate(words)}
    merges = [("▁", "▁"), ("▁▁", "▁▁")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "pair", [(" " * 901 + "good", "hi"), (" " * 902 + "g", "x"), ("hi", " " * 903 + "good")]
)
def test_a_pair_much_too_long_is_cut_as_the_tokenizer_itself_cuts(
    side: str, pair: tuple[str, str]
) -> None:
    tokenizer, reference = spaces_in_pairs(), spaces_in_pairs()
    tokenizer.enable_truncation(2**31 - 1, direction=side)
    reference.enable_truncation(64, direction=side)
    encoded = TextEncoder(tokenizer, 64).encode([TextInput(*pair)])
    assert encoded.batch.input_ids.tolist() == reference.encode(*pair).ids


def test_a_pair_that_cannot_be_cut_before_is_refused_alone(tmp_path: Path) -> None:
    tokenizer = spaces_in_pairs()
    tokenizer.enable_truncation(2**31 - 1, direction="left")
    pairs = [TextInput(" " * 60_001 + "good", "x"), TextInput("good", "x")]
    encoded = TextEncoder(tokenizer, 64).encode(pairs)
    assert encoded.index == [1]
    assert isinstance(encoded.errors[0], InvalidInput)
    assert "8192" in json.dumps(encoded.errors[0].body())
