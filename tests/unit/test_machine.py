"""What a container may use, read from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployments.engines import machine


def group(directory: Path, **files: str) -> Path:
    """A control group; in the names `__` stands for a dot."""
    directory.mkdir()
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(content)
    return directory


@pytest.fixture
def in_groups(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def put(*groups: Path) -> None:
        monkeypatch.setattr(machine, "_own_cgroups", lambda controller: iter(groups))

    return put


def test_the_tightest_cpu_quota_counts(tmp_path: Path, in_groups) -> None:  # type: ignore[no-untyped-def]
    inner = group(tmp_path / "inner", cpu__max="max 100000")
    outer = group(tmp_path / "outer", cpu__max="150000 100000\n")
    root = group(tmp_path / "root")
    in_groups(inner, outer, root)
    assert machine.cgroup_cpu_limit() == 1.5
    assert machine.cpu_count() == 1


@pytest.mark.parametrize(
    ("num_cpus", "quota", "threads"),
    [(1, "max", 1), (0.25, "max", 1), (64, "150000", 1), (10_000, "max", None)],
)
def test_threads_are_those_that_ray_gave_but_no_more_than_can_run(  # type: ignore[no-untyped-def]
    tmp_path: Path, in_groups, num_cpus: float, quota: str, threads: int | None
) -> None:
    in_groups(group(tmp_path / "inner", cpu__max=f"{quota} 100000"))
    assert machine.threads_for(num_cpus) == (threads or len(os.sched_getaffinity(0)))


def test_cpu_quotas_of_cgroup_v1(tmp_path: Path, in_groups) -> None:  # type: ignore[no-untyped-def]
    free = group(tmp_path / "free", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    in_groups(free)
    assert machine.cgroup_cpu_limit() is None
    assert machine.cpu_count() == len(os.sched_getaffinity(0))
    in_groups(free, group(tmp_path / "b", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000"))
    assert machine.cgroup_cpu_limit() == 0.5
    assert machine.cpu_count() == 1


def test_the_memory_limit_of_either_cgroup_version(tmp_path: Path, in_groups) -> None:  # type: ignore[no-untyped-def]
    in_groups(group(tmp_path / "a", memory__max="max"))
    assert machine.memory_limit_bytes() is None
    in_groups(group(tmp_path / "b", memory__limit_in_bytes="9223372036854771712"))
    assert machine.memory_limit_bytes() is None
    in_groups(tmp_path / "b", group(tmp_path / "c", memory__max="2000000000\n"))
    assert machine.memory_limit_bytes() == 2_000_000_000
