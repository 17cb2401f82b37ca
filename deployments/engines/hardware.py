"""Which device and precision to run on: what was asked for, or the best that is here."""

from __future__ import annotations

import torch


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


def pick_dtype(name: str, device: torch.device) -> str:
    """`auto`: what the model was trained in on a CPU; on a GPU half precision, bfloat16 if it can.

    Which dtype is fastest on a CPU differs from one to the next: `AutoEngine` measures it.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "float32"


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX or Arm BF16).

    Without it torch emulates bfloat16, slower than float32.
    """
    capability = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capability.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
