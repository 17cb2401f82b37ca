"""Mode `faults`: models that a service must not change to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file

from scripts.bench.machine import ROOT

DEMO = ROOT / "models" / "demo"
OUTLIER = 1e4
READS_HIDDEN_STATES = (
    *(f"self.{part}.weight" for part in ("query", "key", "value")),
    "intermediate.dense.weight",
    "pooler.dense.weight",
)


class Unfit(NamedTuple):
    """A model that can't be served in that dtype, and what the status must say of it."""

    place: Path
    says: str
    dtype: str = "auto"


def unfit_models(folder: Path) -> dict[str, Unfit]:
    """Copies of the demo model, written below `folder`, by what is wrong with them."""
    not_a_number = Path(shutil.copytree(DEMO, folder / "not-a-number"))
    weights = load_file(DEMO / "model.safetensors")
    bad = {name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}
    save_file(bad, not_a_number / "model.safetensors", metadata={"format": "pt"})
    cut_off = Path(shutil.copytree(DEMO, folder / "cut-off"))
    whole = (DEMO / "model.safetensors").read_bytes()
    (cut_off / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    outlying = Path(shutil.copytree(DEMO, folder / "outlying"))
    save_file(with_outlier(weights), outlying / "model.safetensors", metadata={"format": "pt"})
    return {
        "that is not there": Unfit(folder / "nothing", "nothing"),
        "whose weights end in the middle": Unfit(cut_off, "are damaged"),
        "of weights that are no numbers": Unfit(not_a_number, "gives no finite number"),
        "that int8 is too coarse for": Unfit(outlying, "logits are off by", "int8"),
    }


def with_outlier(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same function in float32, and none in int8.

    A huge first value of every hidden state, which nothing reads and which is gone before the next
    norm: int8 scales each state by its largest value, so the others round to 0.
    """
    changed = {name: tensor.clone() for name, tensor in weights.items()}
    for name, tensor in changed.items():
        if name.endswith("LayerNorm.bias"):
            tensor[0] += OUTLIER
        elif name.endswith("output.dense.bias"):
            tensor[0] -= OUTLIER
        elif name.endswith(READS_HIDDEN_STATES):
            tensor[:, 0] = 0.0
    return changed
