"""DeBERTa in one row beside transformers' own forward, one text at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from deployments.engines.packed import CannotPack, PackedRunner
from deployments.engines.padded import PaddedRunner
from deployments.pipeline.types import Encoded

LENGTHS = [1, 2, 17, 40, 40, 7, 150, 250, 17]
BOTH = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
V3 = {**BOTH, "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm",
      "position_biased_input": False}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "v1, absolute positions only": ("deberta", {}),
    "v1": ("deberta", {**BOTH, "position_biased_input": False}),
    "v1 with token types": ("deberta", {**BOTH, "type_vocab_size": 2}),
    "v1 with talking heads": ("deberta", {**BOTH, "talking_head": True}),
    "v2": ("deberta-v2", BOTH),
    "v2 with a convolution, as xlarge": ("deberta-v2", {**BOTH, "conv_kernel_size": 3}),
    "v2, short reach": ("deberta-v2", {**BOTH, "max_relative_positions": 20}),
    "v3": ("deberta-v2", V3),
}


def model_of(kind: str, changes: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=500, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=300, initializer_range=0.2, num_labels=3,
        pad_token_id=0, **changes,
    )  # fmt: skip
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


def batch_of(types: bool) -> Encoded:
    rng = np.random.default_rng(0)
    ids = rng.integers(10, 500, sum(LENGTHS)).astype(np.int32)
    return Encoded(
        ids, np.asarray(LENGTHS, np.int32), (ids % 2).astype(np.int32) if types else None
    )


@pytest.mark.parametrize("name", KINDS)
def test_logits_are_transformers_own(name: str) -> None:
    kind, changes = KINDS[name]
    model = model_of(kind, changes)
    batch = batch_of("type_vocab_size" in changes)
    expected = PaddedRunner(model, alone=True)(batch)
    # Far enough apart that a text which saw its neighbour would not pass.
    assert np.ptp(expected, axis=0).min() > 0.1
    np.testing.assert_allclose(PackedRunner(model)(batch), expected, atol=2e-5)


def test_a_text_does_not_see_its_neighbours() -> None:
    run = PackedRunner(model_of(*KINDS["v3"]))
    batch = batch_of(False)
    others = Encoded(batch.input_ids.copy(), batch.lengths)
    others.input_ids[sum(LENGTHS[:3]) :] = 11
    np.testing.assert_allclose(run(others)[:3], run(batch)[:3], atol=2e-5)


def test_one_whose_last_layer_runs_several_times_is_not_packed() -> None:
    model = model_of(*KINDS["v2"])
    model.base_model.z_steps = 2
    with pytest.raises(CannotPack, match="several times"):
        PackedRunner(model)
