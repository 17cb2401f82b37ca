"""What somebody's model directory says is honoured as transformers' pipeline honours it, or refused
in our own words: never another answer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import (
    PAIRS,
    TEXTS,
    assert_same,
    build,
    byte_pairs,
    edit,
    ours,
    theirs,
    wordpiece,
)

from deployments.model.load import load_parts
from deployments.model.reading import auto_tokenizer, read
from deployments.model.source import ModelRefused
from deployments.model.tokenizer_parity import prove_parity
from deployments.settings import ModelSettings

LONG = ("good " * 300, "terrible " * 90 + "why")
ALL_INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
UNKNOWN = 10**30


def refusal(directory: Path, **model: Any) -> str:
    with pytest.raises(ModelRefused) as caught:
        load_parts(ModelSettings(id=str(directory), **model))
    return str(caught.value)


# --- labels


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, r"`id2label` holds the keys 1, 2; .* exactly 0, 1,"),
        ({"id2label": {"0": "a", "2": "b"}}, "holds the keys 0, 2; "),
        ({"id2label": {"00": "a", "01": "b"}}, "holds the keys 00, 01; "),
        ({"id2label": {"-1": "a", "0": "b"}}, "holds the keys -1, 0; "),
        ({"id2label": {"neg": 0, "pos": 1}}, "holds the keys neg, pos; "),
        ({"id2label": ["a", "b"]}, r'holds \["a", "b"\]; .* a name under each number'),
        ({"id2label": {}}, "holds {}; "),
        ({"id2label": {"0": "a", "1": None}}, 'holds null under "1"; '),
        ({"id2label": {"0": "a", "1": ""}}, 'holds "" under "1"; '),
        ({"id2label": {"0": "a", "1": {"name": "b"}}}, "it should hold a name there"),
        ({"id2label": {"0": "a", "1": "a"}}, "one name for several labels"),
        ({"id2label": {"0": "a", "1": "b"}, "num_labels": 3}, "`num_labels` holds 3; .* 2,"),
        ({"num_labels": 0}, "`num_labels` holds 0; "),
        ({"num_labels": "2"}, '`num_labels` holds "2"; '),
        ({"id2label": None, "label2id": {"a": 0, "b": 1}}, "while label2id names labels"),
        (
            {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}},
            "`label2id` holds 1 for 'a', which id2label gives the number 0",
        ),
    ],
)
def test_labels_are_all_there_or_refused_with_what_was_found_and_what_is_needed(
    tmp_path: Path, entries: dict[str, Any], expected: str
) -> None:
    import re

    said = refusal(edit(build(tmp_path), **entries))
    assert said.startswith("config.json: ")
    assert re.search(expected, said)


@pytest.mark.parametrize(
    ("entries", "labels"),
    [
        ({}, ("LABEL_0", "LABEL_1")),
        ({"id2label": None, "label2id": None}, ("LABEL_0", "LABEL_1")),
        ({"id2label": {"1": "b", "0": "a"}, "label2id": None}, ("a", "b")),
        ({"id2label": {"0": 1, "1": 5}, "label2id": None}, ("1", "5")),
        # What an editor of names alone leaves behind contradicts nothing.
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, ("a", "b")),
    ],
)
def test_labels_come_in_the_order_of_their_numbers_and_by_default_where_none_is_named(
    tmp_path: Path, entries: dict[str, Any], labels: tuple[str, ...]
) -> None:
    directory = edit(build(tmp_path), **entries)
    assert read(ModelSettings(id=str(directory))).info.labels == labels


def test_twelve_labels_are_not_sorted_as_words(tmp_path: Path) -> None:
    names = {i: f"l{i}" for i in reversed(range(12))}
    directory = build(tmp_path, id2label=names, label2id={v: k for k, v in names.items()})
    assert_same(ours(directory, TEXTS[:2]), theirs(directory, TEXTS[:2]))


# --- words


@pytest.mark.parametrize("word", ["binary", "multi_class", "", 3, ["regression"]])
def test_an_unknown_problem_type_is_refused(tmp_path: Path, word: Any) -> None:
    said = refusal(edit(build(tmp_path), problem_type=word))
    assert f"`problem_type` holds {json.dumps(word)}; it should hold single_label_" in said


def test_exclusive_labels_need_two(tmp_path: Path) -> None:
    directory = edit(build(tmp_path, num_labels=1), problem_type="single_label_classification")
    assert "there is one label" in refusal(directory)


@pytest.mark.parametrize(
    ("word", "n_labels"),
    [
        (None, 1),
        ("regression", 2),
        ("multi_label_classification", 3),
        ("single_label_classification", 2),
    ],
)
def test_known_problem_types_are_the_pipelines(
    tmp_path: Path, word: str | None, n_labels: int
) -> None:
    directory = build(tmp_path, num_labels=n_labels, problem_type=word)
    assert_same(ours(directory, TEXTS), theirs(directory, TEXTS))


@pytest.mark.parametrize(
    ("quantization", "shown"),
    [
        ({"quant_method": "modelopt"}, '"modelopt"'),
        ({"bits": 8}, "null"),
        ("fp8", '"fp8"'),
    ],
)
def test_quantised_weights_that_would_be_taken_for_plain_ones_are_refused(
    tmp_path: Path, quantization: Any, shown: str
) -> None:
    said = refusal(edit(build(tmp_path), quantization_config=quantization))
    if quantization == "fp8":
        assert "config.json" in said
    else:
        assert f"`quantization_config.quant_method` holds {shown}; " in said


@pytest.mark.parametrize("word", ["relative_key", "relative_key_query"])
def test_positions_that_the_class_no_longer_has_are_refused(tmp_path: Path, word: str) -> None:
    said = refusal(edit(build(tmp_path), position_embedding_type=word))
    assert f'`position_embedding_type` holds "{word}"; it should hold "absolute"' in said


def test_positions_that_the_class_still_has_are_not(tmp_path: Path) -> None:
    edit(build(tmp_path), position_embedding_type="absolute")
    assert read(ModelSettings(id=str(tmp_path))).info.max_length == 64


def test_an_unknown_model_is_refused_with_what_transformers_says(tmp_path: Path) -> None:
    said = refusal(edit(build(tmp_path), model_type="quux"))
    assert said.startswith('config.json: `model_type` holds "quux"; ')
    said = refusal(edit(tmp_path, model_type="clip"))
    assert "a class ForSequenceClassification" in said
    said = refusal(edit(tmp_path, model_type="bert", hidden_size="32"))
    assert "hidden_size" in said


# --- calibration


@pytest.mark.parametrize("temperature", [-1, 0.7, math.nan, "hot"])
def test_temperature_in_config_changes_nothing_and_is_remarked(
    tmp_path: Path, temperature: Any
) -> None:
    directory = edit(build(tmp_path), temperature=temperature)
    parts = read(ModelSettings(id=str(directory)))
    assert parts.info.temperature == 1
    assert any("`temperature` is ignored" in remark for remark in parts.remarks)


def test_calibration_is_read_from_its_own_file_and_the_settings_go_first(tmp_path: Path) -> None:
    (build(tmp_path) / "calibration.json").write_text('{"temperature": 1.7}')
    assert read(ModelSettings(id=str(tmp_path))).info.temperature == 1.7
    assert read(ModelSettings(id=str(tmp_path), temperature=2.5)).info.temperature == 2.5


@pytest.mark.parametrize(
    "content",
    [
        *('{"temperature": NaN}', '{"temperature": 0}', '{"temperature": -2}', "[1]", "{", "{}"),
        *('{"temperature": "1"}', '{"temperature": true}', '{"temperature": 1e-320}'),
        *('{"temperature": 1e400}', '{"temperature": 1, "temprature": 2}'),
    ],
)
def test_a_calibration_that_no_logit_can_be_divided_by_is_refused(
    tmp_path: Path, content: str
) -> None:
    (build(tmp_path) / "calibration.json").write_text(content)
    assert refusal(tmp_path).startswith("calibration.json")


# --- lengths


@pytest.mark.parametrize(
    ("said", "limit"),
    [(20, 20), (512, 64), (512.0, 64), (None, 64), (1e30, 64), (64, 64)],
)
def test_a_text_is_cut_to_the_lower_of_the_models_and_the_tokenizers_limit(
    tmp_path: Path, said: Any, limit: int
) -> None:
    edit(build(tmp_path), "tokenizer_config.json", model_max_length=said)
    (answer,) = ours(tmp_path, LONG[:1])
    assert (answer["tokens"], answer["truncated"]) == (limit, True)
    assert read(ModelSettings(id=str(tmp_path), max_length=50)).info.max_length == 50
    assert "max_length is 65; the model's limit is 64" in refusal(tmp_path, max_length=65)


def test_the_tokenizers_limit_has_an_older_name(tmp_path: Path) -> None:
    edit(build(tmp_path), "tokenizer_config.json", ["model_max_length"], max_len=20)
    assert_same(ours(tmp_path, LONG), theirs(tmp_path, LONG))


@pytest.mark.parametrize("said", [-1, 0, "512", True, [512], 12.5])
def test_a_limit_that_no_text_can_be_cut_to_is_refused(tmp_path: Path, said: Any) -> None:
    edit(build(tmp_path), "tokenizer_config.json", model_max_length=said)
    assert f"`model_max_length` holds {json.dumps(said)}; " in refusal(tmp_path)


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        *(("Roberta", 62), ("XLMRoberta", 62), ("Camembert", 62), ("MPNet", 62), ("IBert", 62)),
        *(("Data2VecText", 62), ("Nystromformer", 64), ("Mra", 64), ("Electra", 64)),
    ],
)
def test_without_a_pad_id_the_classes_own_holds_up_to_the_last_position(
    tmp_path: Path, kind: str, limit: int
) -> None:
    build(tmp_path, kind, byte_pairs(model_max_length=UNKNOWN), pad_token_id=1)
    if kind != "Electra":
        edit(tmp_path, drop=["pad_token_id"])
    texts = ("good", *LONG)
    answers = ours(tmp_path, texts)
    assert answers[1]["tokens"] == limit
    assert_same(answers, theirs(tmp_path, texts, max_length=limit))


XLNET: dict[str, Any] = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}
MPT: dict[str, Any] = {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 700}


def test_where_nothing_bounds_a_text_it_is_a_default_that_may_be_raised(tmp_path: Path) -> None:
    build(tmp_path, "XLNet", wordpiece(model_max_length=UNKNOWN), XLNET)
    parts = read(ModelSettings(id=str(tmp_path)))
    assert parts.info.max_length == 512
    assert any("No file says how long" in remark for remark in parts.remarks)
    raised = read(ModelSettings(id=str(tmp_path), max_length=600))
    assert raised.info.max_length == 600
    assert not raised.remarks


def test_where_the_class_knows_no_limit_it_is_the_tokenizers(tmp_path: Path) -> None:
    build(tmp_path, "XLNet", wordpiece(model_max_length=600), XLNET)
    edit(tmp_path, n_positions=128, seq_length=32)  # leftovers of another class
    assert read(ModelSettings(id=str(tmp_path))).info.max_length == 600


def test_a_class_names_its_limit_as_it_likes(tmp_path: Path) -> None:
    build(tmp_path, "Mpt", byte_pairs(model_max_length=UNKNOWN), MPT)
    assert read(ModelSettings(id=str(tmp_path))).info.max_length == 700


# --- tokenizing


def _distilbert(directory: Path) -> Path:
    shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    tokenizer = wordpiece(model_input_names=ALL_INPUTS)
    return build(directory, "DistilBert", tokenizer, shape | {"max_position_embeddings": 64})


def _gpt2(directory: Path) -> Path:
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    tokenizer = byte_pairs(model_input_names=ALL_INPUTS)
    return build(directory, "GPT2", tokenizer, shape, bos_token_id=0, eos_token_id=2)


TOKENIZERS: dict[str, Callable[[Path], Path]] = {
    "types left out": lambda d: build(
        d, tokenizer=wordpiece(model_input_names=["input_ids", "attention_mask"])
    ),
    "types given": lambda d: build(d, tokenizer=wordpiece(model_input_names=ALL_INPUTS)),
    "one type for all": lambda d: build(
        d, "Roberta", byte_pairs(model_input_names=ALL_INPUTS), type_vocab_size=1
    ),
    "a class that takes no types": _distilbert,
    "types that are words": _gpt2,
    "XLNet": lambda d: build(d, "XLNet", wordpiece(), XLNET),
    "cut on the left": lambda d: edit(
        build(d), "tokenizer_config.json", truncation_side="left", model_max_length=64
    ),
    "marks read as text": lambda d: edit(
        build(d), "tokenizer_config.json", split_special_tokens=True, model_max_length=64
    ),
    "upper case kept": lambda d: edit(
        build(d), "tokenizer_config.json", do_lower_case=False, model_max_length=64
    ),
    "a space in front": lambda d: edit(
        build(d, "Roberta", byte_pairs()),
        "tokenizer_config.json",
        add_prefix_space=True,
        model_max_length=62,
    ),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_texts_and_pairs_are_answered_as_the_pipeline_answers_them(
    tmp_path: Path, case: str
) -> None:
    directory = TOKENIZERS[case](tmp_path)
    texts = (*TEXTS, "GOOD Food [SEP] <s>", *LONG)
    pairs = (*PAIRS, "a [CLS] b", *reversed(LONG))
    limit = load_parts(ModelSettings(id=str(directory))).info.max_length
    assert_same(ours(directory, texts), theirs(directory, texts, max_length=limit))
    assert_same(ours(directory, texts, pairs), theirs(directory, texts, pairs, max_length=limit))


def test_types_that_the_model_has_no_rows_for_are_refused(tmp_path: Path) -> None:
    from tokenizers import processors

    tokenizer = wordpiece(model_input_names=ALL_INPUTS)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:3 [SEP]:3",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    said = refusal(build(tmp_path, "Electra", tokenizer))
    assert "`type_vocab_size` holds 2; it should hold 4 or more" in said


def test_a_tokenizer_that_throws_dice_is_refused(tmp_path: Path) -> None:
    build(tmp_path, "Roberta", byte_pairs())
    model = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    edit(tmp_path, "tokenizer.json", model=model | {"dropout": 0.3})
    assert "`model.dropout` holds 0.3; it should hold null" in refusal(tmp_path)


def test_more_words_than_the_model_has_rows_for_are_remarked(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.add_tokens(["veryrareword"])
    build(tmp_path, tokenizer=tokenizer, vocab_size=len(tokenizer) - 1)
    (remark,) = read(ModelSettings(id=str(tmp_path))).remarks
    assert f"knows {len(tokenizer)} tokens and the model {len(tokenizer) - 1}" in remark


def test_the_proof_finds_ids_types_and_lengths_that_differ(tmp_path: Path) -> None:
    tokenizer = wordpiece(model_input_names=ALL_INPUTS)
    settings = ModelSettings(id=str(build(tmp_path, tokenizer=tokenizer)))
    parts, reference = read(settings), auto_tokenizer(settings)
    assert parts.texts_proven > 150
    assert prove_parity(reference, parts.encoder(), typed=True) == parts.texts_proven

    def differs(change: Callable[[Any], None]) -> str:
        other = auto_tokenizer(settings)
        change(other)
        with pytest.raises(ModelRefused, match="our tokenizing differs from AutoTo") as caught:
            prove_parity(other, parts.encoder(), typed=True)
        return str(caught.value)

    def lower(tokenizer: Any) -> None:
        tokenizer.backend_tokenizer.normalizer = None

    def left(tokenizer: Any) -> None:
        tokenizer.truncation_side = "left"

    def plain(tokenizer: Any) -> None:
        tokenizer.backend_tokenizer.post_processor = None

    def one_type(tokenizer: Any) -> None:
        from tokenizers import processors

        tokenizer.backend_tokenizer.post_processor = processors.BertProcessing(
            ("[SEP]", 3), ("[CLS]", 2)
        )
        tokenizer.model_input_names = ["input_ids", "attention_mask"]

    assert "of a single text with odd characters" in differs(lower)
    assert "token ids of a single text that is too long" in differs(left)
    assert "number of tokens of a single text" in differs(plain)
    assert "token types of a pair of texts" in differs(one_type)


# --- settings


def test_a_revision_beside_a_directory_is_refused(tmp_path: Path) -> None:
    said = refusal(build(tmp_path), revision="main")
    assert "args.model.revision is 'main'" in said
    assert "which has no revisions" in said


def test_an_adapter_beside_its_base_is_refused(tmp_path: Path) -> None:
    (build(tmp_path) / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert "Merge it first" in refusal(tmp_path)
