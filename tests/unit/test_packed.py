"""Packed logits against each class's own padded forward, for every architecture that packs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engines import attention, parity
from deployments.engines.disentangled import DisentangledEncoder
from deployments.engines.encoder import HEADS, PostNormEncoder
from deployments.engines.linear import accelerate
from deployments.engines.packed import (
    CannotPack,
    PackedRunner,
    StockEncoder,
    _filled,
    _text_size,
    row_size,
)
from deployments.engines.padded import PaddedRunner
from deployments.pipeline.types import Encoded

MAX_LENGTH = 150
VOCAB_SIZE = 100
_SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 160,
    "initializer_range": 0.2,  # at 0.02 nothing that attention does would reach the logits
}
_MODERNBERT = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
    "num_hidden_layers": 4,
    "local_attention": 24,
}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pad_token_id": 0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "bert, tanh gelu": ("Bert", {"hidden_act": "gelu_new"}),
    "bert, relu": ("Bert", {"hidden_act": "relu"}),
    "roberta": ("Roberta", {"type_vocab_size": 2}),
    "xlm-roberta": ("XLMRoberta", {}),
    "camembert": ("Camembert", {}),
    "distilbert": ("DistilBert", {}),
    "electra": ("Electra", {"embedding_size": 16}),
    "albert": ("Albert", {"embedding_size": 16, "num_hidden_layers": 3}),
    "albert, groups": (
        "Albert",
        {
            "embedding_size": 16,
            "num_hidden_layers": 4,
            "num_hidden_groups": 2,
            "inner_group_num": 2,
        },
    ),
    "mpnet": ("MPNet", {}),
    "deberta": ("Deberta", _RELATIVE),
    "deberta-v2": ("DebertaV2", {**_RELATIVE, "position_buckets": 16, "share_att_key": True}),
    "modernbert": ("ModernBert", _MODERNBERT),
    "modernbert, mean": ("ModernBert", {**_MODERNBERT, "classifier_pooling": "mean"}),
}


@cache
def runners(case: str, problem: str = "single_label_classification") -> tuple[Any, Any]:
    """(packed, padded), of two models with the same random weights."""
    name, extra = CASES[case]
    shape = {**_SHAPE, "num_labels": 1 if problem == "regression" else 3, "problem_type": problem}
    config = getattr(transformers, f"{name}Config")(**{**shape, **extra})
    model_class = getattr(transformers, f"{name}ForSequenceClassification")
    made = []
    for runner in (PackedRunner, PaddedRunner):
        torch.manual_seed(0)
        made.append(runner(model_class(type(config)(**config.to_dict())).eval()))
    return made[0], made[1]


def batch_of(lengths: list[int], token_types: bool = False, seed: int = 0) -> Encoded:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCAB_SIZE, sum(lengths)).astype(np.int32)
    types = rng.integers(0, 2, len(ids)).astype(np.int32) if token_types else None
    return Encoded(ids, np.asarray(lengths, np.int32), types)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=12),
    seed=st.integers(0, 1_000),
)
def test_packed_logits_are_the_padded_ones(case: str, lengths: list[int], seed: int) -> None:
    packed, padded = runners(case)
    batch = batch_of(lengths, seed=seed)
    np.testing.assert_allclose(packed(batch), padded(batch), atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("case", CASES)
def test_fewer_bits_keep_to_the_stated_bounds(case: str, dtype: str) -> None:
    packed, padded = (runners.__wrapped__(case)[0], runners(case)[1])
    batch = batch_of([1, 150, 20, 20, 3, 77])
    if dtype == "bfloat16":
        packed.model.to(torch.bfloat16)
        packed.encoder.to(torch.bfloat16)
    if not accelerate(packed.encoder, dtype):
        pytest.skip(f"no {dtype} products on this machine")
    assert parity.drift(packed(batch), padded(batch)) <= parity.MAX_DRIFT[dtype]


@pytest.mark.parametrize("case", ["bert", "roberta", "electra", "albert"])
def test_token_types_reach_the_model(case: str) -> None:
    packed, padded = runners(case)
    batch = batch_of([5, 150, 5, 33], token_types=True)
    np.testing.assert_allclose(packed(batch), padded(batch), atol=1e-4)
    without = packed(Encoded(batch.input_ids, batch.lengths))
    assert np.abs(packed(batch) - without).max() > 1e-3


@pytest.mark.parametrize("case", ["bert", "modernbert", "modernbert, mean"])
def test_a_text_without_a_finite_answer_leaves_its_neighbours_theirs(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word whose trained vector is NaN; keys of neighbours lie before each other."""
    monkeypatch.setattr(attention, "_KEYS_STEP", 16)
    packed, _ = runners.__wrapped__(case)
    batch = batch_of([30, 20, 9, 5])
    batch.input_ids[batch.input_ids == 7] = 8
    healthy = packed(batch)
    batch.input_ids[30 + 3] = 7
    packed.model.get_input_embeddings().weight.data[7] = torch.nan
    logits = packed(batch)
    assert np.isnan(logits[1]).all()
    others = [0, 2, 3]
    np.testing.assert_allclose(logits[others], healthy[others], atol=1e-4)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
@pytest.mark.parametrize("case", CASES)
def test_other_kinds_of_heads(case: str, problem: str) -> None:
    packed, padded = runners(case, problem)
    batch = batch_of([1, 150, 20, 20, 3])
    np.testing.assert_allclose(packed(batch), padded(batch), atol=1e-4)


def test_every_head_is_tested() -> None:
    assert {runners(case)[0].model.config.model_type for case in CASES} == set(HEADS)


def test_bert_and_its_kin_run_in_the_fast_encoder() -> None:
    kinds = {case: type(runners(case)[0].encoder) for case in CASES}
    stock = {case for case, kind in kinds.items() if kind is StockEncoder}
    assert stock == {"modernbert", "modernbert, mean"}
    relative = {case for case, kind in kinds.items() if kind is DisentangledEncoder}
    assert relative == {"deberta", "deberta-v2"}
    assert set(kinds.values()) == {StockEncoder, PostNormEncoder, DisentangledEncoder}


def test_an_activation_unknown_to_the_fast_encoder_runs_in_the_classs_own() -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(**{**_SHAPE, "hidden_act": "silu"})
    model = transformers.BertForSequenceClassification(config).eval()
    batch = batch_of([3, 70, 70, 9])
    expected = PaddedRunner(model)(batch)
    packed = PackedRunner(model)
    assert isinstance(packed.encoder, StockEncoder)
    np.testing.assert_allclose(packed(batch), expected, atol=1e-4)


def test_a_class_without_a_head_here_is_refused() -> None:
    config = transformers.RoFormerConfig(**_SHAPE)
    model = transformers.RoFormerForSequenceClassification(config).eval()
    with pytest.raises(CannotPack, match=r"RoFormerForSequenceClassification has no head"):
        PackedRunner(model)


def test_a_long_text_takes_memory_by_its_length_not_its_square() -> None:
    """One matrix of 8,192 x 8,192 scores would be 256 MiB for each of 4 heads."""
    config = transformers.ModernBertConfig(
        **{**_SHAPE, **_MODERNBERT, "max_position_embeddings": 8_192, "num_attention_heads": 4}
    )
    runner = PackedRunner(transformers.ModernBertForSequenceClassification(config).eval())
    runner(batch_of([64]))
    before = peak_rss_bytes()
    runner(batch_of([8_192]))
    assert peak_rss_bytes() - before < 150 * 2**20


def peak_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024  # in KiB on Linux


def test_a_row_has_few_sizes_and_is_hardly_longer_for_it() -> None:
    sizes = [row_size(n) for n in range(1, 4_097)]
    assert sizes == sorted(sizes)
    assert all(n <= size < n + max(8, n / 16) for n, size in enumerate(sizes, 1))
    assert len(set(sizes)) == 96
    assert [row_size(n) for n in set(sizes)] == list(set(sizes))


@given(lengths=st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=60))
def test_what_a_row_is_filled_with_is_no_longer_than_its_own_texts(lengths: list[int]) -> None:
    row = batch_of(lengths)
    filled = _filled(row)
    assert filled.lengths[: len(lengths)].tolist() == lengths
    assert filled.lengths.min() >= 1
    assert filled.lengths.max() == max(lengths)
    assert filled.total_tokens == row_size(filled.total_tokens) == filled.lengths.sum()
    assert len(filled) == _text_size(len(filled))
    assert filled.total_tokens <= row_size(row.total_tokens + len(filled) - len(row))


_COMPILING = """
import numpy as np, sys
from deployments.engines.linear import accelerate
from deployments.engines.packed import row_size
from test_packed import batch_of, runners
runner, _ = runners("bert")
runner.row_tokens = 10_000
accelerate(runner.encoder, sys.argv[1])
rng = np.random.default_rng(1)
for size in sorted({row_size(n) for n in range(1, 600)}):  # filling may exceed a row
    n = next(n for n in (1, 2, 4, 8) if size <= 150 * n)
    lengths = [size // n + (i < size % n) for i in range(n)]
    runner(batch_of(lengths))
for n in range(1, 33):
    runner(batch_of([8] * n))
print("warm", flush=True)
runner.row_tokens = 512
for _ in range(1_000):
    runner(batch_of(rng.integers(1, 150, rng.integers(1, 9)).tolist(), seed=int(rng.integers(9))))
"""


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.trials), "int8"])
def test_no_batch_waits_for_a_compilation_once_all_sizes_were_met(dtype: str) -> None:
    """oneDNN's own count, over a thousand batches of mixed lengths."""
    done = subprocess.run(
        [sys.executable, "-c", _COMPILING, dtype],
        env={**os.environ, "ONEDNN_VERBOSE": "profile_create", "OMP_NUM_THREADS": "1",
             "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    before, _, after = done.stdout.partition("warm\n")
    compiled = [line for line in after.splitlines() if "create:cache_miss" in line]
    assert before.count("create:cache_miss") > 100
    assert compiled == []
