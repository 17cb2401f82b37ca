"""What figures depend on: the machine, its features and the versions."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deployments.engines.machine import cpu_count

PACKAGES = ("rayclassify", "ray", "torch", "transformers", "nanotoken")
# The ones that decide how fast a matrix product is.
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
ROOT = Path(__file__).resolve().parents[2]


def stamp() -> dict[str, Any]:
    """Machine, versions, commit and time of a measurement."""
    info = cpu_info()
    return {
        "cpu": info.get("model name", platform.processor()),
        "cpu_features": sorted(set(FEATURES) & set(info.get("flags", "").split())),
        "cores": cpu_count(),
        "memory_gib": memory_gib(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions(),
        "commit": commit(),
        "measured_at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
    }


def cpu_info() -> dict[str, str]:
    """The first block of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    block = path.read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Of this checkout; with a `+` where files differ from it. None outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def describe(machine: dict[str, Any]) -> str:
    """One line for captions."""
    speedy = [name for name in machine["cpu_features"] if name not in ("avx2", "avx512f")]
    versions = machine["versions"]
    return (
        f"{machine['cores']} cores of {machine['cpu']} ({', '.join(speedy) or 'no VNNI or BF16'}), "
        f"no GPU used; Ray {versions['ray']}, torch {versions['torch']}"
    )
