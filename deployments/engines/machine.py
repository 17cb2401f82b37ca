"""What this machine has to give. In a container the container's limits count, not the host's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


def available_memory_bytes() -> int:
    """Memory that can still be had without swapping."""
    free = psutil.virtual_memory().available
    return int(min([free, *(_room(group) for group in _own_cgroups("memory"))]))


def shared_memory_bytes() -> int | None:
    """Free space where Ray keeps its objects; None where the system has no such place."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def cpu_count() -> int:
    """CPUs this process may keep busy: its affinity, and its container's quota rounded down."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cpus = os.cpu_count() or 1
    limit = cgroup_cpu_limit()
    return cpus if limit is None else max(1, min(cpus, int(limit)))


def threads_for(num_cpus: float) -> int:
    """Threads for a replica that Ray gave `num_cpus`: never more than may run here at once.

    Ray counts what it was told (`ray start --num-cpus`), be it more than there is.
    """
    return max(1, min(int(num_cpus), cpu_count()))


def cgroup_cpu_limit() -> float | None:
    """CPUs' worth of time that the container's quota allows; None where there is no quota.

    All CPUs stay visible under a quota, so what counts them starts too many threads, which then
    stand still together for the rest of each period.
    """
    return min(filter(None, map(_cpu_quota, _own_cgroups("cpu"))), default=None)


def memory_limit_bytes() -> int | None:
    """What the container may use in all; None where it has no limit."""
    limits = [limit for group in _own_cgroups("memory") for limit in _memory_limits(group)]
    # cgroup v1 says "no limit" with a number near 2**63.
    return min((limit for limit in limits if limit < 2**60), default=None)


def gpu_count() -> int | None:
    """GPUs this process may use; None where they are of a kind we can't count."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in {"", "-1"}])
    if Path("/dev/kfd").exists():  # AMD
        return None
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _own_cgroups(controller: str) -> Iterator[Path]:
    """This process's control groups up to the root: a limit may stand at any of them."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and controllers == "":
            base = CGROUPS
        elif controller in controllers.split(","):
            base = CGROUPS / controller
        else:
            continue
        group = base / path.lstrip("/")
        while group != CGROUPS.parent and group.is_relative_to(base):
            yield group
            group = group.parent


def _cpu_quota(group: Path) -> float | None:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        cpus = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or the word "max"
        return None
    return cpus if cpus > 0 else None  # -1: none, in cgroup v1


def _memory_limits(group: Path) -> Iterator[int]:
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            yield int((group / name).read_text())
        except (OSError, ValueError):  # no such file, or the word "max"
            continue


def _room(group: Path) -> float:
    """Bytes until the group's limit; infinite where it has none."""
    for limit_name, usage_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            limit = int((group / limit_name).read_text())
            used = int((group / usage_name).read_text())
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
        return limit - used + _reclaimable(group)
    return float("inf")


def _reclaimable(group: Path) -> int:
    """File cache counts as used, but the kernel gives it back when asked."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    stats = dict(line.split(maxsplit=1) for line in lines)
    return int(stats.get("inactive_file", stats.get("total_inactive_file", 0)))
