"""What `rayclassify doctor` finds out about the machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import psutil

from deployments.engines import machine
from deployments.engines.catalog import EXTRAS
from deployments.engines.cpu import FEATURES, cpu_features, cpu_model
from deployments.engines.known_speeds import KNOWN, cpu_kind
from deployments.launch.ingress import choose_ingress

PACKAGES = ("rayclassify", "ray", "torch", "transformers", "tokenizers", "numpy")
EXTRA_PACKAGES = {"openvino": ("openvino", "nncf")}


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    memory: str
    driver: str


def machine_facts() -> dict[str, Any]:
    """Plain values, for JSON and for the tables. None: there is none, or it can't be told."""
    features = cpu_features()
    memory = psutil.virtual_memory()
    return {
        "cpu": {
            "model": cpu_model(),
            "architecture": platform.machine(),
            "features": [FEATURES[name] for name in features],
            "kind": cpu_kind(features),
            "cores": os.cpu_count(),
            "allowed_cores": _affinity(),
            "quota_cpus": machine.cgroup_cpu_limit(),
            "usable_cpus": machine.cpu_count(),
            "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        },
        "memory": {
            "total_bytes": memory.total,
            "limit_bytes": machine.memory_limit_bytes(),
            "available_bytes": machine.available_memory_bytes(),
            "shared_bytes": machine.shared_memory_bytes(),
        },
        "gpus": [
            {"name": gpu.name, "memory": gpu.memory, "driver": gpu.driver} for gpu in find_gpus()
        ],
        "proxy": str(choose_ingress(True)),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "extras": {
            extra: {
                "installed": all(importlib.util.find_spec(module) for module in modules),
                "packages": {name: version(name) for name in EXTRA_PACKAGES[extra]},
            }
            for extra, modules in EXTRAS.items()
        },
    }


def find_gpus() -> list[Gpu]:
    """NVIDIA's, as its own tool lists them; torch is asked only where the engines are measured."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    fields = "--query-gpu=name,memory.total,driver_version"
    try:
        listed = subprocess.run(  # noqa: S603
            [tool, fields, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(", ") for line in listed.stdout.splitlines()]
    return [Gpu(*row) for row in rows if len(row) == 3]


def peaks(num_threads: int) -> dict[str, float | None]:
    """GFLOP/s (int8: 10⁹ operations) by type, on `num_threads` cores and, with a GPU, on that."""
    import torch

    from deployments.engines.gemm import peak_gflops

    found = {
        f"cpu {dtype}": peak_gflops(dtype, num_threads) for dtype in ("float32", "bfloat16", "int8")
    }
    if torch.cuda.is_available():
        for dtype in ("float32", "float16", "bfloat16"):
            found[f"gpu {dtype}"] = peak_gflops(dtype, num_threads, "cuda")
    return found


def advice(facts: dict[str, Any], device: str) -> list[str]:
    """For each extra that is missing: how to get it, and what it brought on such a CPU."""
    missing = [name for name, extra in facts["extras"].items() if not extra["installed"]]
    if device != "cpu":
        return [f"{name} runs on CPUs only: nothing to gain on {device}." for name in missing]
    kind = facts["cpu"]["kind"]
    return [
        f"{name} is not installed: `pip install 'rayclassify[{name}]'`. {_expected(name, kind)}"
        for name in missing
    ]


def _expected(name: str, kind: str) -> str:
    known = KNOWN.get(kind)
    best, torch = (known.best(name), known.best("torch")) if known else (None, None)
    if known is None or best is None or torch is None:
        return (
            f"What it brings on a CPU of this kind ({kind}) is not known. "
            "Install it and run this again: it is measured then."
        )
    ratio = best[1] / torch[1]
    return (
        f"On a CPU of this kind ({kind}) its best, {best[0]}, ran at {ratio:.2g} times the speed "
        f"of the best without it, {torch[0]} ({known.where})."
    )


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
