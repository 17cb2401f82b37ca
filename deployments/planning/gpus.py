"""What GPUs do at most, and how many tokens a second of a model that is likely to give.

Estimates, and named so wherever they are shown: measure with `scripts/gpu_check.py` on the GPU, or
with `rayclassify tune`, and plan with what it says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from deployments.planning.queueing import Device


@dataclass(frozen=True, slots=True)
class Gpu:
    """peak_tflops: dense products in 16 bits, no sparsity. per_node: as clouds sell them mostly."""

    name: str
    peak_tflops: float
    memory_gb: int
    per_node: int
    source: str


GPUS = {
    "t4": Gpu("NVIDIA T4", 65, 16, 1, "NVIDIA T4 datasheet: FP16 tensor cores"),
    "l4": Gpu("NVIDIA L4", 121, 24, 1, "NVIDIA L4 datasheet: 242 with sparsity, half without"),
    "a10": Gpu("NVIDIA A10", 125, 24, 1, "NVIDIA A10 datasheet: FP16 and BF16 tensor cores"),
    "l40s": Gpu("NVIDIA L40S", 362, 48, 4, "NVIDIA L40S datasheet: without sparsity"),
    "a100": Gpu("NVIDIA A100", 312, 80, 8, "NVIDIA A100 datasheet: without sparsity"),
    "h100": Gpu("NVIDIA H100 SXM", 989, 80, 8, "NVIDIA H100 datasheet: 1,979 with sparsity"),
    "h200": Gpu("NVIDIA H200", 989, 141, 8, "NVIDIA H200 datasheet: 1,979 with sparsity"),
    "b200": Gpu("NVIDIA B200", 2_250, 180, 8, "NVIDIA B200 datasheet: 4,500 with sparsity"),
}

UTILISATION = 0.3
"""Of the peak, in full passes. An assumption: on CPUs the packed engine reached 46 to 87 % of what
matrix products alone do (docs/benchmark.md, `share_of_peak`), and products don't reach the peak."""

LAYER_START_S = 0.000_25
"""Of a pass, a layer: some 25 kernels that take 10 µs each to launch. An assumption; CUDA graphs
make it less."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An encoder: what decides how much a token costs."""

    name: str
    layers: int
    hidden: int
    intermediate: int

    def flops_per_token(self, tokens: float) -> float:
        """In texts of so many tokens. A multiplication and an addition count as two."""
        weights = 4 * self.hidden**2 + 2 * self.hidden * self.intermediate
        return self.layers * 2 * (weights + 2 * tokens * self.hidden)


SHAPES = {
    "minilm": Shape("MiniLM (6 × 384)", 6, 384, 1_536),
    "bert-base": Shape("BERT-base (12 × 768)", 12, 768, 3_072),
    "bert-large": Shape("BERT-large (24 × 1,024)", 24, 1_024, 4_096),
}


def shape_of(model: str) -> Shape:
    """Of a name in SHAPES, or of a directory with a config.json.

    Raises:
        ValueError: it is neither.
    """
    if model in SHAPES:
        return SHAPES[model]
    path = Path(model) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        numbers = [
            next(int(config[key]) for key in keys if key in config)
            for keys in (
                ("num_hidden_layers", "n_layers"),
                ("hidden_size", "dim"),
                ("intermediate_size", "hidden_dim"),
            )
        ]
    except (OSError, ValueError, TypeError, StopIteration):
        raise ValueError(
            f"{model}: neither {', '.join(SHAPES)} nor a directory whose config.json has "
            "num_hidden_layers, hidden_size and intermediate_size"
        ) from None
    return Shape(Path(model).name, *numbers)


def estimated(gpu: Gpu, shape: Shape, tokens_mean: float, max_batch_tokens: int) -> Device:
    """The device that this GPU is likely to be; see UTILISATION and LAYER_START_S."""
    flops_per_s = UTILISATION * gpu.peak_tflops * 1e12
    tokens_per_s = flops_per_s / shape.flops_per_token(tokens_mean)
    return Device(shape.layers * LAYER_START_S, tokens_per_s, max_batch_tokens)
