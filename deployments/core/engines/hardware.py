"""Which device and precision to run on: what was asked for, or the best that is here."""

from __future__ import annotations

import time

import torch

# Rounding to 8 bits of mantissa needs a better reason than noise in a measurement.
MIN_SPEEDUP = 1.3


def pick_device(name: str) -> torch.device:
    """`auto`: CUDA (or ROCm, which torch calls cuda too), else MPS, else CPU.

    Raises:
        ValueError: torch does not see the device that was named.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"args.engine.device is {name}; torch sees {torch.cuda.device_count()} GPUs here. "
            "Set device: auto, give the Classifier num_gpus, or install a CUDA build of torch."
        )
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware has it, else float16 on a GPU and float32 on a CPU.

    A CPU must have it *and* be faster with it, which is measured in some milliseconds: AVX512-BF16
    made BERT three times as fast on one machine and half as fast on another.
    """
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and cpu_has_bfloat16() and bfloat16_speedup() >= MIN_SPEEDUP:
        return torch.bfloat16
    return torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX or Arm BF16).

    Without it torch emulates bfloat16, slower than float32.
    """
    capability = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capability.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def bfloat16_speedup() -> float:
    """How many times as fast a matrix product of BERT's shape is in bfloat16 as in float32."""
    return _matmul_s(torch.float32) / _matmul_s(torch.bfloat16)


def _matmul_s(dtype: torch.dtype) -> float:
    tokens = torch.ones(256, 768, dtype=dtype)
    weights = torch.ones(768, 768, dtype=dtype)
    fastest = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        torch.nn.functional.linear(tokens, weights)
        fastest = min(fastest, time.perf_counter() - started)
    return fastest
